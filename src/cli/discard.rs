//! `dvcfs discard`: drops what was changed in a writable mount.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use serde_json::json;

use super::{
    args::DiscardArgs,
    changes,
    control::{Request, Response, ask},
    counted,
    exit::{Code, Failure, chain},
    print,
    settings::{Settings, Verbosity},
    snapshot::Snapshots,
};
use crate::{
    overlay::{Kind, Overlay, Shows, is_lack_of_room},
    path::RepoPath,
    vfs::Rebased,
};

/// Large files take their time to be removed.
const DEADLINE: Duration = Duration::from_mins(10);

pub(super) fn run(settings: &Settings, args: &DiscardArgs) -> Result<ExitCode, Failure> {
    let record = changes::mounted(settings, &args.dir, "discard")?;
    let paths = args.paths.iter().map(|path| inside("discard", &record.mount_point, path));
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    if paths.is_empty() && !args.yes {
        confirm(&changes::summary(&changes::of_mount(&record)?))?;
    }
    let not_done =
        |code, why: &str| Failure::new(code, format!("discard {}: {why}", args.dir.display()));
    let failed = |why: String| not_done(Code::Failed, &why);
    let answer = ask(&record.socket, &Request::Discard { paths }, DEADLINE);
    let answer = answer.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
    if let Some(why) = answer["busy"].as_str() {
        return Err(not_done(Code::Busy, why));
    }
    if settings.verbosity > Verbosity::Quiet {
        print(&format!("dropped: {}\n", answer["dropped"].as_str().unwrap_or_default()));
    }
    Ok(ExitCode::SUCCESS)
}

/// A path from the root of the mount, however it was typed.
pub(super) fn inside(command: &str, mount_point: &Path, path: &Path) -> Result<Vec<u8>, Failure> {
    let relative = path.strip_prefix(mount_point).unwrap_or(path);
    let found = RepoPath::root().resolve(relative.as_os_str().as_bytes());
    match found {
        Ok(path) if !path.is_root() => Ok(path.as_bytes().to_vec()),
        Ok(_) => {
            Err(Failure::new(Code::Usage, format!("{command}: the mount itself is no path in it"))
                .hint("name no path for everything in it"))
        }
        Err(error) => {
            Err(Failure::new(Code::Usage, format!("{command} {}: {error}", path.display())))
        }
    }
}

fn confirm(what: &str) -> Result<(), Failure> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let message = "discard: everything that was changed would be lost";
        return Err(Failure::new(Code::Usage, message).hint("say so with --yes, or name paths"));
    }
    let failed = |error: io::Error| Failure::new(Code::Failed, format!("ask: {error}"));
    let mut terminal = io::stderr();
    let question = format!("Drop all changes for good: {what}? [y/N] ");
    terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, "discard: nothing was dropped"))
}

/// Drops changes of this mount.
pub(super) fn answer(snapshots: &Snapshots, paths: &[Vec<u8>]) -> Response {
    let Snapshots { vfs, runtime, .. } = snapshots;
    let commit = vfs.commit().ok_or("the mount shows no single revision")?;
    let paths = paths.iter().map(|path| RepoPath::new(path));
    let paths = paths.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let dropped = match paths.len() {
        0 => "everything".to_owned(),
        count => counted(count as u64, "path"),
    };
    if let Some(why) = snapshots.mapped() {
        return Ok(json!({ "busy": why }));
    }
    let rebased =
        runtime.block_on(vfs.rebase(commit, None, move |overlay, _| drop_from(overlay, &paths)));
    match rebased.map_err(|error| chain(&error))? {
        Rebased::Done(done) => done.map(|()| json!({ "dropped": dropped })),
        Rebased::Open(open) => Ok(json!({ "busy": still_open(&open) })),
        Rebased::Written => Ok(json!({ "busy": "files were written meanwhile" })),
    }
}

/// Says which files are open.
pub(super) fn still_open(open: &[impl ToString]) -> String {
    const SHOWN: usize = 10;
    let names: Vec<_> = open.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if open.len() > SHOWN { ", ..." } else { "" };
    format!("files are open for writing: {}{more}", names.join(", "))
}

fn drop_from(overlay: &Overlay, paths: &[RepoPath]) -> Result<(), String> {
    let failed = |error: io::Error| format!("the overlay: {error}");
    let mut dropped = paths.to_vec();
    for path in paths {
        // What was moved here goes back to where it was.
        if let Kind::File { origin: Some(from) } | Kind::Folder(Shows::Of(from)) =
            check(overlay, path)?
            && overlay.find(&from).map_err(failed)?.is_some_and(|at| at.kind == Kind::Whiteout)
        {
            dropped.push(from);
        }
    }
    overlay.take_out_together(&dropped).map_err(|error| {
        let advice = if dropped.len() > 1 && is_lack_of_room(&error) {
            "; to make room, discard one new file or folder by itself"
        } else {
            ""
        };
        failed(error) + advice
    })
}

/// Checks that a path can go back to what the base has there; gives what is there now.
fn check(overlay: &Overlay, path: &RepoPath) -> Result<Kind, String> {
    let find = |path: &RepoPath| {
        let found = overlay.find(path);
        found.map(|entry| entry.map(|entry| entry.kind)).map_err(|error| format!("{path}: {error}"))
    };
    let mut folder = path.parent();
    while let Some(above) = folder.filter(|above| !above.is_root()) {
        if let Some(Kind::Folder(Shows::Of(_) | Shows::Nothing) | Kind::Whiteout) = find(&above)? {
            return Err(format!(
                "{path}: the folder {above} was moved, replaced or removed; discard that one"
            ));
        }
        folder = above.parent();
    }
    find(path)?.ok_or_else(|| format!("{path}: nothing was changed there"))
}
