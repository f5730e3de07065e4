//! `dvcfs refresh`: makes a mount look for new commits now.
//!
//! A writable mount gets the newest commit of its branch below its changes. Where commits of its
//! own are not pushed yet, they are merged with upstream's first: the mount makes the tree, and the
//! commit is made here, where the user's name, signing key and terminal are.

use std::{io::IsTerminal, os::unix::ffi::OsStrExt, path::Path, process::ExitCode, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    args::RefreshArgs,
    changes::mounted,
    control::{Request, Response, ask},
    exit::{Code, Failure, chain},
    mounts::Record,
    print,
    settings::{Settings, Verbosity},
    snapshot::{Snapshots, ref_of},
};
use crate::{
    git::{CommitId, GitId, GitTreeId, Repository, TransportOptions},
    publish::{Conflict, Merged, MergedTree, merge_message},
};

/// Longer than the time limit of a fetch.
const DEADLINE: Duration = Duration::from_mins(15);

/// What came of a refresh.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Refreshed {
    /// Whether anything is new, and it is shown.
    Done { changed: bool },
    /// A commit has to be made of what was merged.
    Merge(Waits),
    /// Here and upstream different things were done to these paths; each with what.
    Conflicts {
        paths: Vec<(String, String)>,
        /// The ref of the commit that cannot be merged, and where it is; nothing if it is about
        /// changes that are not committed.
        commit: Option<[String; 2]>,
    },
    /// Upstream has the commits that are not let go of yet.
    HasIt,
    /// Something is in use.
    Busy(String),
}

/// A merge that waits for its commit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Waits {
    tree: String,
    parents: [String; 2],
    message: String,
    git_dir: Vec<u8>,
}

pub(super) fn run(settings: &Settings, args: &RefreshArgs) -> Result<ExitCode, Failure> {
    let record = mounted(settings, &args.dir, "refresh")?;
    let changed = go_on(&record, &Request::Refresh)
        .map_err(|failure| failure.context(format!("refresh {}", args.dir.display())))?;
    if settings.verbosity > Verbosity::Quiet {
        print(if changed { "there are new commits\n" } else { "nothing new\n" });
    }
    Ok(ExitCode::SUCCESS)
}

/// Has a mount go on from commits of upstream; tells whether there were any. Conflicts are printed.
pub(super) fn go_on(record: &Record, request: &Request) -> Result<bool, Failure> {
    let mut refreshed = step(record, request)?;
    if let Refreshed::Merge(waits) = &refreshed {
        let commit = commit(waits)?.to_string();
        refreshed = step(record, &Request::Move { commit })?;
    }
    let dir = record.mount_point.display();
    match refreshed {
        Refreshed::Done { changed } => Ok(changed),
        Refreshed::Merge(_) => Err(Failure::new(Code::Failed, "upstream moved on; run it again")),
        Refreshed::Conflicts { paths, commit } => {
            print(&describe(&paths));
            let hint = match commit {
                Some([name, git_dir]) => format!(
                    "nothing was changed; merge by hand in a clone: git fetch {git_dir} {name} && git merge FETCH_HEAD"
                ),
                None => format!(
                    "nothing was changed; keep your version elsewhere, drop it here with dvcfs discard {dir} PATH, and run this again"
                ),
            };
            let message = "both sides changed the same paths";
            Err(Failure::new(Code::Conflict, message).hint(hint))
        }
        Refreshed::HasIt => {
            let message = "upstream has the snapshot, and its data may be here alone";
            Err(Failure::new(Code::Failed, message).hint(format!(
                "dvcfs push {dir} brings the remotes what they lack, and goes on from upstream"
            )))
        }
        Refreshed::Busy(why) => {
            Err(Failure::new(Code::Busy, why).hint("close what writes there and run it again"))
        }
    }
}

/// Conflicts as commands print them, one line each.
pub(super) fn describe(paths: &[(String, String)]) -> String {
    paths.iter().flat_map(|(path, why)| ["conflict: ", path, ": ", why, "\n"]).collect()
}

fn step(record: &Record, request: &Request) -> Result<Refreshed, Failure> {
    let failed = |code, why: String| Failure::new(code, why);
    let answer = ask(&record.socket, request, DEADLINE)
        .map_err(|error| failed(Code::Failed, error.to_string()))?
        .map_err(|why| failed(Code::Network, why))?;
    serde_json::from_value(answer).map_err(|error| failed(Code::Failed, error.to_string()))
}

/// Makes the commit of a merge, by the user's own git.
fn commit(waits: &Waits) -> Result<CommitId, Failure> {
    let repository = Repository::open(Path::new(std::ffi::OsStr::from_bytes(&waits.git_dir)))?;
    let id = |text: &str| {
        let odd = || Failure::new(Code::Failed, "the mount gave no commits to merge");
        GitId::parse(text).ok_or_else(odd)
    };
    let parents = [CommitId(id(&waits.parents[0])?), CommitId(id(&waits.parents[1])?)];
    let interactive = std::io::stdin().is_terminal();
    let options = TransportOptions { interactive, ..TransportOptions::default() };
    let tree = GitTreeId(id(&waits.tree)?);
    Ok(repository.create_commit(tree, &parents, &waits.message, &options)?)
}

/// Has a mount look for new commits, and its changes lie above the newest one.
pub(super) fn answer(snapshots: &Snapshots) -> Response {
    let Snapshots { vfs, runtime, registry, .. } = snapshots;
    let refreshed = runtime.block_on(vfs.refresh()).map_err(|error| chain(&error))?;
    let Some(overlay) = vfs.overlay() else {
        return encode(&Refreshed::Done { changed: refreshed.is_changed });
    };
    let branch = overlay.base().map_err(|error| chain(&error))?.and_then(|base| base.branch);
    let branch =
        branch.ok_or("its changes are meant for no branch: mount it with --branch NAME")?;
    let repository = registry.repository();
    let refs = repository.refs().map_err(|error| chain(&error))?;
    let theirs = *refs.branches.get(&branch).ok_or("upstream has no such branch any more")?;
    merge_with(snapshots, theirs)
}

/// Has the changes and commits of a mount go on from a commit of upstream.
pub(super) fn merge_with(snapshots: &Snapshots, theirs: CommitId) -> Response {
    let Snapshots { vfs, registry, .. } = snapshots;
    let overlay = vfs.overlay().ok_or("the mount is not writable")?;
    let branch = overlay.base().map_err(|error| chain(&error))?.and_then(|base| base.branch);
    let branch = branch.unwrap_or_default();
    let repository = registry.repository();
    let shown = vfs.commit().ok_or("the mount shows no single revision")?;
    let Some(ours) = snapshots.unpushed() else {
        let common = repository.merge_base(shown, theirs).map_err(|error| chain(&error))?;
        return encode(&if common == Some(theirs) {
            Refreshed::Done { changed: false }
        } else {
            snapshots.move_to(theirs, None)?
        });
    };
    match snapshots.merge(ours, theirs)? {
        Merged::Ours if ours == shown => encode(&Refreshed::Done { changed: false }),
        // A refresh that was cut off has merged it already.
        Merged::Ours => encode(&snapshots.move_to(ours, Some(ours))?),
        // Only a push knows that the remotes have what it needs.
        Merged::Theirs => encode(&Refreshed::HasIt),
        Merged::Conflicts(conflicts) => {
            let git_dir = repository.git_dir().display().to_string();
            let commit = Some([ref_of(overlay.dir()), git_dir]);
            encode(&Refreshed::Conflicts { paths: told(&conflicts), commit })
        }
        Merged::Tree(MergedTree { tree, .. }) => {
            snapshots.expect_merge(tree);
            let upstream =
                repository.upstream_of(&branch).and_then(|remote| repository.url_of(&remote));
            let upstream = upstream.unwrap_or_else(|_| registry.name());
            encode(&Refreshed::Merge(Waits {
                tree: tree.to_string(),
                parents: [ours, theirs].map(|commit| commit.to_string()),
                message: merge_message(&branch, &upstream),
                git_dir: repository.git_dir().as_os_str().as_bytes().to_vec(),
            }))
        }
    }
}

/// Takes over the commit that was made of a merge.
pub(super) fn take_over(snapshots: &Snapshots, commit: &str) -> Response {
    let commit = GitId::parse(commit).map(CommitId).ok_or("no commit was made")?;
    let made = snapshots.registry.repository().commit(commit).map_err(|error| chain(&error))?;
    if !snapshots.is_expected_merge(made.tree) {
        return Err("the commit is not of what was merged".to_owned());
    }
    encode(&snapshots.move_to(commit, made.parents.first().copied())?)
}

/// Conflicts, safe to print.
pub(super) fn told(conflicts: &[Conflict]) -> Vec<(String, String)> {
    conflicts.iter().map(|it| (it.path.to_string(), it.why.to_string())).collect()
}

fn encode(refreshed: &Refreshed) -> Response {
    serde_json::to_value(refreshed).map_err(|error| error.to_string())
}
