//! Snapshots that wait for a push while no mount has their overlay, as `status` tells of them.

use std::path::Path;

use serde_json::{Value, json};

use super::{exit::chain, snapshot::ref_of_name, status::line, unpushed};
use crate::{
    git::{CommitId, GitError, Repository},
    overlay::Base,
    publish::{Holder, Outbox},
};

/// What there is to tell of each overlay with such snapshots, but for those that mounts tell of.
pub(super) fn list(state_dir: &Path, mounted: &[&str]) -> Vec<Value> {
    match Outbox::holders(state_dir) {
        Err(error) => vec![failed(&format!("look into the outbox: {error}"))],
        Ok(holders) => {
            let told = holders.into_iter().filter_map(|(note, holder)| match holder {
                Err(error) => Some(failed(&format!("read {}: {error}", note.display()))),
                Ok(holder) => tell(&note.file_name()?.to_string_lossy(), &holder, mounted),
            });
            told.collect()
        }
    }
}

fn failed(why: &str) -> Value {
    json!({ "mount_point": null, "error": why })
}

/// Nothing is told of an overlay without commits.
fn tell(name: &str, holder: &Holder, mounted: &[&str]) -> Option<Value> {
    let dir = Path::new(&holder.overlay);
    let shown = dir.to_string_lossy();
    if mounted.contains(&&*shown) {
        return None;
    }
    let noted = Base::of(dir);
    let is_gone = matches!(noted, Ok(None));
    // The branch may be another one since the snapshot.
    let noted = noted.ok().flatten().filter(|base| base.repository == holder.base.repository);
    let base = noted.as_ref().unwrap_or(&holder.base);
    let git_dir = Path::new(&holder.git_dir);
    let mut told = json!({
        "mount_point": null,
        "repository": base.repository,
        "overlay": {
            "dir": shown,
            "is_gone": is_gone,
            "base": base.commit,
            "branch": base.branch,
            "ref": ref_of_name(name),
            "git_dir": git_dir.to_string_lossy(),
        },
    });
    match commits(git_dir, name, noted.as_ref()) {
        Err(error) => told["error"] = json!(chain(&error)),
        Ok(commits) => {
            let commits: Vec<_> = commits.iter().map(ToString::to_string).collect();
            told["overlay"]["snapshot"] = json!(commits.first()?);
            told["overlay"]["snapshots"] = json!(commits);
        }
    }
    Some(told)
}

fn commits(git_dir: &Path, name: &str, base: Option<&Base>) -> Result<Vec<CommitId>, GitError> {
    let repository = Repository::open(git_dir)?;
    if repository.git_dir() != git_dir {
        // It lay in the folder of another one.
        return Err(GitError::NotARepository { location: git_dir.display().to_string() });
    }
    unpushed::all(&repository, name, base)
}

/// The same as people read it.
pub(super) fn describe(told: &Value) -> String {
    let mut text = "not mounted\n".to_owned();
    let mut line = |name: &str, value: &str| text += &line(name, value);
    let overlay = &told["overlay"];
    let word = |key: &str| overlay[key].as_str().unwrap_or_default();
    if let Some(repository) = told["repository"].as_str() {
        line("repository", repository);
        let branch = overlay["branch"].as_str().unwrap_or("no branch");
        let gone = if overlay["is_gone"] == true { "; the folder is gone" } else { "" };
        line("overlay", &format!("{} (for {branch}{gone})", word("dir")));
    }
    if let Some(error) = told["error"].as_str() {
        line("error", error);
        return text;
    }
    for commit in overlay["snapshots"].as_array().into_iter().flatten() {
        line("snapshot", &format!("{} (not pushed)", commit.as_str().unwrap_or_default()));
    }
    line("kept as", &format!("{} in {}", word("ref"), word("git_dir")));
    line("to push", &format!("mount it with --overlay={}, then dvcfs push", word("dir")));
    text
}
