//! The overlay of a writable mount: where it lies, and which commit lies below it.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    args::MountArgs,
    context::{Context, private_folder},
    exit::{Code, Failure, chain},
    mounts::{name_of_both, short_name},
    snapshot::base_ref_of,
    unpushed,
};
use crate::{
    git::{CommitId, is_branch_name},
    overlay::{Base, Overlay, OverlayError},
    path::escape,
    publish::{self, Outbox},
    registry::Registry,
};

/// An overlay that is about to be mounted.
pub(super) struct Chosen {
    pub(super) overlay: Overlay,
    pub(super) base: Base,
    pub(super) commit: CommitId,
}

impl Chosen {
    /// What `status` tells of it.
    pub(super) fn describe(&self) -> serde_json::Value {
        let Base { commit, branch, .. } = &self.base;
        let dir = self.overlay.dir().to_string_lossy();
        json!({ "dir": dir, "base": commit, "branch": branch })
    }
}

/// Opens the overlay that was asked for, if one was, and settles what lies below it: the commit
/// that its changes were made to, or the wanted one where there are none yet.
pub(super) fn open(
    context: &Context,
    args: &MountArgs,
    registry: &Registry,
    (mount_point, commit, branch): (&Path, CommitId, Option<&str>),
) -> Result<Option<Chosen>, Failure> {
    if let Some(name) = args.branch.as_deref().filter(|name| !is_branch_name(name)) {
        let message = format!("mount --branch {}: no name of a branch", escape(name.as_bytes()));
        return Err(Failure::new(Code::Usage, message));
    }
    let Some(wanted_dir) = &args.overlay else { return Ok(None) };
    let dir = if wanted_dir.is_empty() {
        own_dir(context, registry, mount_point)?
    } else {
        absolute(wanted_dir.as_ref())?
    };
    if dir.starts_with(mount_point) {
        let message = format!("the overlay {} lies below the mount itself", shown(&dir));
        return Err(Failure::new(Code::Usage, message).hint("choose a folder elsewhere"));
    }
    let overlay = Overlay::open(&dir)?;
    let repository = registry.repository();
    let is_ours = |noted: &Base| noted.repository == registry.name();
    if overlay.base()?.as_ref().is_some_and(is_ours) {
        end_snapshot(context, &overlay, registry)?;
    }
    let noted = overlay.base()?;
    let name = short_name(&dir);
    let unpushed = unpushed::newest(repository, &name, noted.as_ref().filter(|it| is_ours(it)))?;
    let wanted = Base {
        repository: registry.name(),
        commit: commit.to_string(),
        branch: args.branch.clone().or_else(|| branch.map(Into::into)),
        ..Base::default()
    };
    let builds_on = |commit, below| repository.builds_on(commit, below).unwrap_or(false);
    let has_changes = !overlay.is_empty().map_err(|error| unreadable(&dir, &error))?;
    let is_unpushed = |noted: &Base| {
        let builds = unpushed.zip(unpushed::commit_of(noted));
        noted.since.is_some()
            || is_ours(noted) && builds.is_some_and(|(it, noted)| builds_on(it, noted))
    };
    // Snapshots go on from where they began, and a clone's own branch may be behind what was pushed.
    let goes_on = |noted: &Base| {
        let is_branch = wanted.branch.is_some() && noted.branch == wanted.branch;
        let ahead = unpushed::commit_of(noted).filter(|noted| *noted != commit);
        let began_here = noted.since.as_ref() == Some(&wanted.commit);
        is_ours(noted)
            && ahead.is_some_and(|noted| builds_on(noted, commit))
            && (is_branch || began_here)
    };
    let mut base = match noted {
        Some(noted) if goes_on(&noted) => {
            Base { branch: args.branch.clone().or(noted.branch), ..noted }
        }
        Some(noted) if has_changes || is_unpushed(&noted) => settle(&dir, args, noted, &wanted)?,
        _ => wanted,
    };
    if let Some(newest) = unpushed.filter(|_| base.since.is_none()) {
        // Of an overlay that was removed its commits are left, and a new one goes on from them.
        let goes_on = !has_changes && base.branch.is_some() && is_unpushed(&base);
        if goes_on || Some(newest) == unpushed::commit_of(&base) {
            let since = repository.own_ref(&base_ref_of(&name))?;
            base.since = Some(since.map_or(base.commit, |since| since.to_string()));
            base.commit = newest.to_string();
        }
    }
    unpushed::look(repository, &mut base)?;
    note_base(&overlay, &base)?;
    let commit = unpushed::commit_of(&base).ok_or_else(|| damaged(&dir, &base.commit))?;
    Ok(Some(Chosen { overlay, base, commit }))
}

/// Notes what lies below, where that is news. What was seen upstream can wait for room on the disk.
fn note_base(overlay: &Overlay, base: &Base) -> Result<(), OverlayError> {
    let noted = overlay.base()?;
    if noted.as_ref() == Some(base) {
        return Ok(());
    }
    let is_below = noted.is_some_and(|noted| Base { seen: base.seen.clone(), ..noted } == *base);
    match overlay.set_base(base) {
        Err(error) if is_below && error.lacks_room() => {
            tracing::warn!("what was seen upstream is not noted: {}", chain(&error));
            Ok(())
        }
        other => other,
    }
}

/// Does what a snapshot that was cut off left to do.
fn end_snapshot(context: &Context, overlay: &Overlay, registry: &Registry) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Code::Failed, why).context("end a snapshot");
    let outbox = Outbox::open(&context.settings.state_dir);
    let outbox = outbox.map_err(|error| failed(error.to_string()))?;
    let resumed = publish::resume(overlay, &outbox, registry.repository());
    resumed.map(drop).map_err(|error| failed(chain(&error)))
}

/// What lies below an overlay that has changes already.
fn settle(dir: &Path, args: &MountArgs, noted: Base, wanted: &Base) -> Result<Base, Failure> {
    let refuse = |what: String| {
        let message = format!("the overlay {} has changes to {what}", shown(dir));
        Failure::new(Code::Conflict, message)
    };
    if noted.repository != wanted.repository {
        let failure = refuse(noted.repository);
        return Err(failure.hint("choose another overlay: --overlay=DIR"));
    }
    let has_moved = wanted.branch.is_some() && noted.branch == wanted.branch;
    if noted.commit != wanted.commit && !has_moved {
        let (old, new) = (&noted.commit, &wanted.commit);
        let failure = refuse(format!("commit {old}, and {} is {new}", rev(args)));
        return Err(failure.hint(format!("mount --rev {old}, or choose another --overlay=DIR")));
    }
    if noted.commit != wanted.commit {
        tracing::warn!("{} has moved on; the overlay stays at {}", rev(args), noted.commit);
    }
    let branch = args.branch.clone().or(noted.branch);
    Ok(Base { branch, ..noted })
}

fn rev(args: &MountArgs) -> String {
    escape(args.rev.as_deref().unwrap_or("HEAD").as_bytes())
}

fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(dir).map_err(|error| unreadable(dir, &error))
}

/// The overlay of a mount point and repository for which no folder was named.
fn own_dir(context: &Context, registry: &Registry, mount_point: &Path) -> Result<PathBuf, Failure> {
    let folder = context.settings.state_dir.join("overlays");
    private_folder(&folder)?;
    Ok(folder.join(name_of_both(mount_point, &registry.name())))
}

fn shown(dir: &Path) -> String {
    escape(dir.as_os_str().as_encoded_bytes())
}

fn unreadable(dir: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Failed, format!("look into the overlay {}: {error}", shown(dir)))
}

fn damaged(dir: &Path, commit: &str) -> Failure {
    let reason = format!("{} is no commit", escape(commit.as_bytes()));
    OverlayError::Damaged { dir: dir.to_owned(), reason }.into()
}

impl From<OverlayError> for Failure {
    fn from(error: OverlayError) -> Self {
        let failure = |code| Self::new(code, chain(&error));
        match &error {
            OverlayError::Busy { .. } => {
                failure(Code::Busy).hint("dvcfs status shows what is mounted")
            }
            OverlayError::Inside { .. } => failure(Code::Usage).hint("choose a folder elsewhere"),
            OverlayError::Damaged { .. } => failure(Code::Failed)
                .hint("what was changed is in its folder upper; copy it, and take a new overlay"),
            OverlayError::Unusable { source, .. } => failure(Code::Failed).hint(match source.kind() {
                _ if error.lacks_room() => {
                    "make room on its disk, or take a folder on another: --overlay=DIR"
                }
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    "take a folder that you can write to: --overlay=DIR"
                }
                _ => "an overlay needs a local disk that has extended attributes, such as ext4, xfs or btrfs",
            }),
        }
    }
}
