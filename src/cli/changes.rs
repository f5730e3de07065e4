//! What a writable mount changes: as the mount tells it, and as commands print it.

use std::{fmt::Write, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    control::{Request, Response},
    exit::{Code, Failure, chain},
    mounts::{Record, Records},
    settings::Settings,
    snapshot::Typed,
    umount::resolve,
};
use crate::{
    path::{RepoPath, escape},
    publish::{self, Changes, ChangesError, Happened, Left, Route, Routed},
    tree::Tree,
    vfs::Vfs,
};

/// A large overlay is walked within this time, and a manifest or two fetched.
const DEADLINE: Duration = Duration::from_mins(10);

/// One path, as the mount tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// The path, with marks in the place of what is not UTF-8.
    pub(super) path: String,
    /// Its bytes, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path_bytes: Option<Vec<u8>>,
    /// `added`, `modified`, `deleted` or `renamed`.
    pub(super) change: String,
    /// Where it came from, if it was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    /// The bytes of that, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from_bytes: Option<Vec<u8>>,
    /// The bytes that the overlay has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    /// Where a snapshot records it: `git`, `dvc` or `manifest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) into: Option<String>,
    /// The `.dvc` file concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// Why a snapshot leaves it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
    /// Whether it is left out as it is meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ignored: bool,
    /// What else comes of it that is easily overlooked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// What an overlay changes, with the manifests that it takes to tell.
pub(super) fn find(
    vfs: &Vfs,
    tree: &std::sync::Arc<Tree>,
    runtime: &tokio::runtime::Handle,
) -> Result<Changes, String> {
    let overlay = vfs.overlay().ok_or("the mount is not writable")?;
    loop {
        match publish::changes(overlay, tree) {
            Ok(changes) => {
                for output in changes.to_be_listed(tree) {
                    if let Err(error) = runtime.block_on(vfs.manifest(tree, output)) {
                        tracing::debug!("{}", chain(&error));
                    }
                }
                return Ok(changes);
            }
            Err(ChangesError::Needs(needs)) => {
                let manifest = runtime.block_on(vfs.manifest(tree, needs.0));
                manifest.map_err(|error| {
                    let path = &tree.tracked(needs.0).output.path;
                    let why = chain(&error);
                    format!("{path}, which was moved or replaced, cannot be listed: {why}")
                })?;
            }
            Err(error) => return Err(chain(&error)),
        }
    }
}

/// The mount's answer to the question what it changes.
pub(super) fn answer(vfs: &Vfs, runtime: &tokio::runtime::Handle, typed: &Typed) -> Response {
    let tree = vfs.root_tree().ok_or("the mount shows no single revision")?;
    let overlay = vfs.overlay().ok_or("the mount is not writable")?;
    let changes = find(vfs, &tree, runtime)?;
    let rules = typed.rules()?;
    let ground = (overlay, &*tree, vfs.repository());
    let routed = publish::routed(ground, &changes, &rules, &typed.chosen()?);
    let routed = routed.map_err(|error| chain(&error))?.into_iter();
    let told = routed
        .filter(|routed| !routed.is_source && routed.left != Some(Left::NotChosen))
        .map(|routed| tell(&tree, routed));
    serde_json::to_value(told.collect::<Vec<_>>()).map_err(|error| error.to_string())
}

fn tell(tree: &Tree, Routed { change, route, note, .. }: Routed) -> Told {
    let happened = match change.happened() {
        Happened::Added => "added",
        Happened::Modified => "modified",
        Happened::Deleted => "deleted",
        Happened::Renamed => "renamed",
    };
    let ignored = matches!(route, Route::Ignored(_));
    let declared_in = |output| Some(tree.tracked(output).declared_in.clone());
    let (into, file, refused) = match route {
        Route::Git => (Some("git"), None, None),
        Route::Uncached(output) => (Some("git"), declared_in(output), None),
        Route::Dotfile(output) => (Some("dvc"), declared_in(output), None),
        Route::Manifest(output) => (Some("manifest"), declared_in(output), None),
        Route::NewFile(record) => (Some("dvc"), Some(record), None),
        Route::NewFolder { record, .. } => (Some("manifest"), Some(record), None),
        Route::Ignored(by) => (None, None, Some(by.to_string())),
        Route::Refused(why) => (None, None, Some(why)),
    };
    let (path, path_bytes) = in_json(&change.path);
    let (from, from_bytes) = change.renamed_from.as_ref().map(in_json).unzip();
    Told {
        path,
        path_bytes,
        change: happened.to_owned(),
        from,
        from_bytes: from_bytes.flatten(),
        size: change.size(),
        into: into.map(str::to_owned),
        file: file.map(|file| in_json(&file).0),
        refused,
        ignored,
        note,
    }
}

/// A path as JSON has it: a text, and the bytes if no text can stand for them.
pub(super) fn in_json(path: &RepoPath) -> (String, Option<Vec<u8>>) {
    let bytes = path.as_bytes();
    let text = String::from_utf8_lossy(bytes).into_owned();
    let is_exact = text.as_bytes() == bytes;
    (text, (!is_exact).then(|| bytes.to_vec()))
}

/// A path that came in JSON, safe to print.
pub(super) fn shown(text: &str, bytes: Option<&[u8]>) -> String {
    escape(bytes.unwrap_or(text.as_bytes()))
}

/// The record of the mount on a folder.
pub(super) fn mounted(settings: &Settings, dir: &Path, what: &str) -> Result<Record, Failure> {
    let place = resolve(dir).ok();
    let record = place.and_then(|dir| Records::new(&settings.runtime_dir).find(&dir));
    record.ok_or_else(|| {
        let message = format!("{what} {}: no dvcfs is mounted there", dir.display());
        Failure::new(Code::Usage, message).hint("dvcfs status lists your mounts")
    })
}

/// Asks a mount what it changes.
pub(super) fn of_mount(record: &Record) -> Result<Vec<Told>, Failure> {
    of_mount_by(record, Typed::default())
}

/// Asks a mount what it changes, where new things go by what the user says.
pub(super) fn of_mount_by(record: &Record, rules: Typed) -> Result<Vec<Told>, Failure> {
    let shown = escape(record.mount_point.as_os_str().as_encoded_bytes());
    let failed = |why: String| Failure::new(Code::Failed, format!("changes of {shown}: {why}"));
    let answer = record.ask(&Request::Changes { rules }, DEADLINE);
    let answer = answer.map_err(|failure| failure.context(format!("changes of {shown}")))?;
    serde_json::from_value(answer).map_err(|error| failed(error.to_string()))
}

/// The changes as `status` prints them, path by path with what a snapshot does.
pub(super) fn describe(changes: &[Told]) -> String {
    let (refused, recorded): (Vec<_>, Vec<_>) =
        changes.iter().partition(|told| told.refused.is_some());
    let mut text: String = recorded.into_iter().map(line).collect();
    if !refused.is_empty() {
        text.push_str("  cannot be recorded:\n");
        text.extend(refused.into_iter().map(line));
    }
    text
}

impl Told {
    /// Whether it is about something at or below a path, there or where it came from.
    pub(super) fn is_at(&self, path: &RepoPath) -> bool {
        let own = self.path_bytes.as_deref().unwrap_or(self.path.as_bytes());
        let from = self.from_bytes.as_deref().or(self.from.as_deref().map(str::as_bytes));
        let places = [Some(own), from].into_iter().flatten();
        let mut places = places.filter_map(|place| RepoPath::new(place).ok());
        places.any(|place| place.strip_prefix(path).is_some())
    }

    /// The path, or both if it was renamed, safe to print.
    fn shown(&self) -> String {
        let path = shown(&self.path, self.path_bytes.as_deref());
        match &self.from {
            Some(from) => format!("{} -> {path}", shown(from, self.from_bytes.as_deref())),
            None => path,
        }
    }
}

fn line(told: &Told) -> String {
    let bytes = |bytes| format!(" ({})", indicatif::HumanBytes(bytes));
    let size = told.size.map_or(String::new(), bytes);
    let goes = match (&told.refused, told.file.as_ref().or(told.into.as_ref())) {
        (Some(why), _) => format!(": {why}"),
        (None, Some(place)) => format!("  [{}]", escape(place.as_bytes())),
        (None, None) => String::new(),
    };
    let note = told.note.as_ref().map_or(String::new(), |note| format!(": {note}"));
    format!("    {:<10}{}{size}{goes}{note}\n", told.change, told.shown())
}

/// How many paths there are of each kind, and the bytes of the overlay's own.
pub(super) fn summary(changes: &[Told]) -> String {
    let kinds = ["added", "modified", "deleted", "renamed"];
    let counts =
        kinds.map(|kind| (kind, changes.iter().filter(|told| told.change == kind).count()));
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(kind, count)| format!("{count} {kind}")).collect();
    if counts.is_empty() {
        return "none".to_owned();
    }
    let bytes: u64 = changes.iter().filter_map(|told| told.size).sum();
    format!("{} ({})", counts.join(", "), indicatif::HumanBytes(bytes))
}

/// The changes as `dvc diff` prints those of a work tree.
pub(super) fn as_diff(changes: &[Told]) -> String {
    let mut text = String::new();
    for (kind, heading) in [
        ("added", "Added"),
        ("deleted", "Deleted"),
        ("renamed", "Renamed"),
        ("modified", "Modified"),
    ] {
        let of_kind: Vec<_> = changes.iter().filter(|told| told.change == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        _ = writeln!(text, "{heading}:");
        for told in of_kind {
            _ = writeln!(text, "    {}", told.shown());
        }
        text.push('\n');
    }
    if !changes.is_empty() {
        _ = writeln!(text, "files summary: {}", summary(changes));
    }
    text
}
