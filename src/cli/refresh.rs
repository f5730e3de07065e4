//! `dvcfs refresh`: makes a mount look for new commits now.
//!
//! A writable mount gets the newest commit of its branch below its changes. Where commits of its
//! own are not pushed yet, they are merged with upstream's first: the mount makes the tree, and the
//! commit is made here, where the user's name, signing key and terminal are.

use std::{io::IsTerminal, os::unix::ffi::OsStrExt, path::Path, process::ExitCode, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    args::RefreshArgs,
    changes::mounted,
    control::{Request, Response},
    exit::{Code, Failure},
    mounts::Record,
    print,
    settings::{Settings, Verbosity},
    snapshot::{Snapshots, ref_of},
    unpushed,
};
use crate::{
    git::{CommitId, GitId, GitTreeId, Repository, TransportOptions},
    publish::{Conflict, Merged, MergedTree, merge_message},
    steps,
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
    /// It failed.
    Failed(Failure),
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
    let changed = go_on(&record, &Request::Refresh, false)
        .map_err(|failure| failure.context(format!("refresh {}", args.dir.display())))?;
    if settings.verbosity > Verbosity::Quiet {
        print(if changed { "there are new commits\n" } else { "nothing new\n" });
    }
    Ok(ExitCode::SUCCESS)
}

/// Has a mount go on from commits of upstream; tells whether there were any. Conflicts are printed.
pub(super) fn go_on(
    record: &Record,
    request: &Request,
    prints_json: bool,
) -> Result<bool, Failure> {
    let mut refreshed = step(record, request)?;
    if let Refreshed::Merge(waits) = &refreshed {
        let commit = commit(waits)?.to_string();
        steps::reached("merge committed");
        refreshed = step(record, &Request::Move { commit })?;
    }
    let dir = record.mount_point.display();
    match refreshed {
        Refreshed::Done { changed } => Ok(changed),
        Refreshed::Merge(_) => Err(Failure::new(Code::Failed, "upstream moved on; run it again")),
        Refreshed::Conflicts { paths, commit } => {
            print(&if prints_json { in_json(&paths) } else { describe(&paths) });
            // A push has sent the data before it comes here.
            let first = match request {
                Request::Refresh => {
                    format!("dvcfs push {dir} sends the data and stops here as well; then ")
                }
                _ => String::new(),
            };
            let hint = match commit {
                Some([name, git_dir]) => format!(
                    "nothing was changed; {first}merge by hand in a clone: git fetch {git_dir} {name} && git merge FETCH_HEAD"
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
        Refreshed::Failed(failure) => Err(failure),
        Refreshed::Busy(why) => {
            Err(Failure::new(Code::Busy, why).hint("close what writes there and run it again"))
        }
    }
}

/// Conflicts as commands print them, one line each.
pub(super) fn describe(paths: &[(String, String)]) -> String {
    paths.iter().flat_map(|(path, why)| ["conflict: ", path, ": ", why, "\n"]).collect()
}

/// The same as JSON.
fn in_json(paths: &[(String, String)]) -> String {
    let conflicts = paths.iter().map(|(path, why)| json!({ "path": path, "why": why }));
    let told = json!({ "conflicts": conflicts.collect::<Vec<_>>(), "is_done": false });
    serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"
}

fn step(record: &Record, request: &Request) -> Result<Refreshed, Failure> {
    let answer = record.ask(request, DEADLINE)?;
    serde_json::from_value(answer).map_err(|error| failed(error.to_string()))
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

fn failed(why: impl Into<String>) -> Failure {
    Failure::new(Code::Failed, why)
}

/// Has a mount look for new commits, and its changes lie above the newest one.
pub(super) fn answer(snapshots: &Snapshots) -> Response {
    encode(refresh(snapshots))
}

fn refresh(snapshots: &Snapshots) -> Result<Refreshed, Failure> {
    let Snapshots { vfs, runtime, registry, .. } = snapshots;
    let refreshed = runtime.block_on(vfs.refresh())?;
    let Some(overlay) = vfs.overlay() else {
        return Ok(Refreshed::Done { changed: refreshed.is_changed });
    };
    let base = overlay.base()?.unwrap_or_default();
    let branch = base.branch.as_ref().ok_or_else(|| {
        let failure = Failure::new(Code::Usage, "its changes are meant for no branch");
        failure.hint("dvcfs umount, then mount with --branch NAME as well")
    })?;
    let repository = registry.repository();
    let gone = || {
        let message = format!("upstream has no branch {branch} any more");
        let elsewhere = unpushed::elsewhere(&base);
        Failure::new(Code::Conflict, message).hint(format!("nothing is lost; {elsewhere}"))
    };
    let theirs = *repository.refs()?.branches.get(branch).ok_or_else(gone)?;
    go_on_from(snapshots, (&repository.branch_ref(branch), theirs))
}

/// Has the changes and commits of a mount go on from a commit of upstream, whose branch is known by
/// a ref.
pub(super) fn merge_with(snapshots: &Snapshots, upstream: (&str, CommitId)) -> Response {
    encode(go_on_from(snapshots, upstream))
}

fn go_on_from(
    snapshots: &Snapshots,
    (reference, theirs): (&str, CommitId),
) -> Result<Refreshed, Failure> {
    let Snapshots { vfs, registry, .. } = snapshots;
    let overlay = vfs.overlay().ok_or_else(|| failed("the mount is not writable"))?;
    let ours = snapshots.unpushed().map_err(failed)?;
    let base = overlay.base()?.ok_or_else(|| failed("the overlay notes no base"))?;
    let shown = vfs.commit().ok_or_else(|| failed("the mount shows no single revision"))?;
    let repository = registry.repository();
    let dropped = unpushed::dropped(repository, &base, (reference, theirs))?;
    let Some(ours) = ours else {
        let is_there = dropped.is_none() && repository.builds_on(shown, theirs)?;
        return if is_there {
            Ok(Refreshed::Done { changed: false })
        } else {
            snapshots.move_to(theirs)
        };
    };
    let branch = base.branch.as_deref().unwrap_or_default();
    let upstream = repository.upstream_of(branch).and_then(|remote| repository.url_of(&remote));
    let upstream = upstream.unwrap_or_else(|_| registry.name());
    if let Some(dropped) = dropped {
        return Err(unpushed::rewritten(&base, dropped, &upstream));
    }
    match snapshots.merge(ours, theirs)? {
        Merged::Ours if ours == shown => Ok(Refreshed::Done { changed: false }),
        Merged::Ours => snapshots.move_to(ours),
        // Only a push knows that the remotes have what it needs.
        Merged::Theirs => Ok(Refreshed::HasIt),
        Merged::Conflicts(conflicts) => {
            let git_dir = repository.git_dir().display().to_string();
            let commit = Some([ref_of(overlay.dir()), git_dir]);
            Ok(Refreshed::Conflicts { paths: told(&conflicts), commit })
        }
        Merged::Tree(MergedTree { tree, .. }) => {
            snapshots.expect_merge(tree);
            Ok(Refreshed::Merge(Waits {
                tree: tree.to_string(),
                parents: [ours, theirs].map(|commit| commit.to_string()),
                message: merge_message(branch, &upstream),
                git_dir: repository.git_dir().as_os_str().as_bytes().to_vec(),
            }))
        }
    }
}

/// Takes over the commit that was made of a merge.
pub(super) fn take_over(snapshots: &Snapshots, commit: &str) -> Response {
    let take_over = || {
        let commit = CommitId::parse(commit).ok_or_else(|| failed("no commit was made"))?;
        let made = snapshots.registry.repository().commit(commit)?;
        if !snapshots.is_expected_merge(made.tree) {
            return Err(failed("the commit is not of what was merged"));
        }
        snapshots.move_to(commit)
    };
    encode(take_over())
}

/// Conflicts, safe to print.
pub(super) fn told(conflicts: &[Conflict]) -> Vec<(String, String)> {
    conflicts.iter().map(|it| (it.path.to_string(), it.why.to_string())).collect()
}

fn encode(refreshed: Result<Refreshed, Failure>) -> Response {
    let refreshed = refreshed.unwrap_or_else(Refreshed::Failed);
    serde_json::to_value(refreshed).map_err(|error| error.to_string())
}
