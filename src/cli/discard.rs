//! `dvcfs discard`: drops what was changed in a writable mount.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    control::{Request, Response},
    counted,
    exit::{Code, Failure, chain},
    print,
    settings::{Settings, Verbosity},
    snapshot::Snapshots,
};
use crate::{
    overlay::{Kind, Overlay, Shows, is_lack_of_room},
    path::{Name, RepoPath},
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
    let answer = record.ask(&Request::Discard { paths }, DEADLINE);
    let answer =
        answer.map_err(|failure| failure.context(format!("discard {}", args.dir.display())))?;
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
    paths.iter().try_for_each(|path| check(overlay, path))?;
    let dropped = if paths.is_empty() { BTreeSet::new() } else { Dropping::of(overlay, paths)? };
    let dropped: Vec<_> = dropped.into_iter().collect();
    overlay.take_out_together(&dropped).map_err(|error| {
        let advice = if dropped.len() > 1 && is_lack_of_room(&error) {
            "; to make room, discard one new file or folder by itself"
        } else {
            ""
        };
        failed(&error) + advice
    })
}

fn failed(error: &io::Error) -> String {
    format!("the overlay: {error}")
}

/// Checks that a path was changed and can go back to what the base has there.
fn check(overlay: &Overlay, path: &RepoPath) -> Result<(), String> {
    let find = |path: &RepoPath| {
        let found = overlay.find(path);
        found.map(|entry| entry.map(|entry| entry.kind)).map_err(|error| format!("{path}: {error}"))
    };
    for above in path.folders().filter(|above| !above.is_root()) {
        let became = match find(&above)? {
            None | Some(Kind::Folder(Shows::Same)) => continue,
            Some(Kind::Folder(Shows::Of(_) | Shows::Nothing)) => "moved or replaced",
            Some(Kind::Whiteout) => "removed",
            Some(Kind::File { .. } | Kind::Link | Kind::Pipe) => "replaced",
        };
        return Err(format!("{path}: the folder {above} was {became}; discard that one"));
    }
    find(path)?.map(drop).ok_or_else(|| format!("{path}: nothing was changed there"))
}

/// What is taken out of an overlay. What was moved there goes back to where it was.
struct Dropping<'a> {
    overlay: &'a Overlay,
    paths: BTreeSet<RepoPath>,
    /// Where everything else is that was moved, by its path in the base.
    left: BTreeMap<RepoPath, RepoPath>,
}

/// Why something of the base is not shown.
enum Hidden {
    /// An entry is in the way of it, or of a folder that it is in.
    By {
        /// What the entry hides, by its path in the base.
        origin: RepoPath,
        /// Where the entry is.
        path: RepoPath,
        kind: Kind,
    },
    Unknown(io::Error),
}

impl From<io::Error> for Hidden {
    fn from(error: io::Error) -> Self {
        Self::Unknown(error)
    }
}

impl<'a> Dropping<'a> {
    /// Everything that has to go so that these paths do and nothing of the base is lost or there
    /// twice.
    fn of(overlay: &'a Overlay, paths: &[RepoPath]) -> Result<BTreeSet<RepoPath>, String> {
        let paths = paths.iter().cloned().collect();
        let mut dropping = Self { overlay, paths, left: BTreeMap::new() };
        // In this order, folders come before what is in them.
        let mut lost = BTreeMap::new();
        for (place, origin) in overlay.moved().map_err(|error| failed(&error))? {
            let which = if dropping.has(&place) { &mut lost } else { &mut dropping.left };
            which.insert(origin, place);
        }
        lost.iter().try_for_each(|(origin, place)| dropping.bring_back(origin, place))?;
        for (origin, place) in &dropping.left {
            let own = dropping.own_place(origin);
            if own.is_ok_and(|own| own != *place && dropping.has(&own)) {
                return Err(format!("{origin}: was moved to {place}; discard that one, too"));
            }
        }
        Ok(dropping.paths)
    }

    fn has(&self, path: &RepoPath) -> bool {
        self.paths.contains(path) || path.folders().any(|folder| self.paths.contains(&folder))
    }

    /// Sees to it that something of the base is shown once it is dropped from a place.
    fn bring_back(&mut self, origin: &RepoPath, place: &RepoPath) -> Result<(), String> {
        let (hidden, path, kind) = match self.shown_at(origin) {
            Ok(_) => return Ok(()),
            Err(Hidden::Unknown(error)) => return Err(failed(&error)),
            Err(Hidden::By { origin, path, kind }) => (origin, path, kind),
        };
        let is_itself = hidden == *origin;
        if is_itself && kind == Kind::Whiteout {
            self.paths.insert(path);
            return Ok(());
        }
        let here = self.overlay.find(place).map_err(|error| failed(&error))?;
        let is_folder = |kind: &Kind| matches!(kind, Kind::Folder(_));
        if is_itself && !is_folder(&kind) && !here.is_some_and(|here| is_folder(&here.kind)) {
            // A file with other content is modified, whatever became of the old one.
            return Ok(());
        }
        let became = if kind == Kind::Whiteout { "removed" } else { "replaced" };
        Err(format!("{place}: was moved from {origin}, and {path} was {became}; discard that, too"))
    }

    /// Where something of the base is shown once all is dropped.
    fn shown_at(&self, origin: &RepoPath) -> Result<RepoPath, Hidden> {
        let path = self.own_place(origin)?;
        if self.has(&path) {
            return Ok(path);
        }
        match self.overlay.find(&path)?.map(|entry| entry.kind) {
            None | Some(Kind::Folder(Shows::Same)) => Ok(path),
            Some(Kind::Folder(Shows::Of(from)) | Kind::File { origin: Some(from) })
                if from == *origin =>
            {
                Ok(path)
            }
            Some(kind) => match self.left.get(origin) {
                Some(place) => Ok(place.clone()),
                None => Err(Hidden::By { origin: origin.clone(), path, kind }),
            },
        }
    }

    /// The place that something has in its folder, wherever that is shown.
    fn own_place(&self, origin: &RepoPath) -> Result<RepoPath, Hidden> {
        let name = origin.file_name().and_then(|name| Name::new(name).ok());
        match origin.parent().zip(name) {
            Some((folder, name)) => Ok(self.shown_at(&folder)?.join(&name)),
            None => Ok(RepoPath::root()),
        }
    }
}
