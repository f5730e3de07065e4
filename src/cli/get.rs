//! `dvcfs get`: copies a file or folder out of a registry, checked and in parallel.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    args::GetArgs,
    context::Context,
    counted,
    exit::{Code, Failure},
    print,
    progress::{Progress, Waiting},
    settings::Verbosity,
};
use crate::{
    path::{RepoPath, escape},
    vfs::{Attr, FileKind, Lookup, ROOT_INO, Vfs, VfsError},
};

/// How much is copied at a time.
const PIECE: usize = 1 << 20;

pub(super) fn run(context: &Context, args: &GetArgs) -> Result<ExitCode, Failure> {
    let out = target(args)?;
    let vfs = context.tree_at(&args.repo, args.rev.as_deref())?;
    let verbosity = context.settings.verbosity;
    let copied = context.runtime.block_on(copy(&vfs, args, &out, verbosity));
    let report =
        copied.map_err(|failure| failure.context(format!("get {}", args.path.display())))?;
    if verbosity > Verbosity::Quiet {
        print(&format!("{report} -> {}\n", out.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Where to copy to; what is there already is not touched without `--force`.
fn target(args: &GetArgs) -> Result<PathBuf, Failure> {
    let name = Path::new(&args.path).file_name();
    let out = match (&args.out, name) {
        (Some(out), Some(name)) if out.is_dir() => out.join(name),
        (Some(out), _) => out.clone(),
        (None, Some(name)) => PathBuf::from(name),
        (None, None) => {
            let message = format!("get {}: this path has no name to copy to", args.path.display());
            return Err(Failure::new(Code::Usage, message).hint("name one with -o OUT"));
        }
    };
    if out.symlink_metadata().is_ok() && !args.force {
        let message = format!("get {}: {} exists", args.path.display(), out.display());
        return Err(Failure::new(Code::Conflict, message).hint("--force replaces it"));
    }
    let folder = folder_of(&out);
    if !folder.is_dir() {
        let folder = escape(folder.as_os_str().as_bytes());
        let message = format!("get {}: no such folder: {folder}", args.path.display());
        let failure = Failure::new(Code::Usage, message);
        return Err(failure.hint(format!("make it first: mkdir -p {folder}")));
    }
    Ok(out)
}

/// One thing to be copied.
struct Job {
    attr: Attr,
    to: PathBuf,
}

async fn copy(
    vfs: &Arc<Vfs>,
    args: &GetArgs,
    out: &Path,
    verbosity: Verbosity,
) -> Result<String, Failure> {
    let waiting = Waiting::new("looking", verbosity);
    let attr = find(vfs, &args.path).await?;
    let jobs = collect(vfs, Job { attr, to: out.to_owned() }).await?;
    drop(waiting);
    let bytes = jobs.iter().fold(0_u64, |sum, job| sum.saturating_add(job.attr.size));
    let progress = Progress::new("get", bytes, verbosity);
    let (all, done) = (jobs.len(), AtomicUsize::new(0));
    progress.files(0, all);
    let copies = stream::iter(jobs).map(|job| async {
        copy_one(vfs, job, args.force, &progress).await?;
        progress.files(done.fetch_add(1, Ordering::Relaxed) + 1, all);
        Ok::<_, Failure>(())
    });
    copies.buffer_unordered(args.jobs.clamp(1, 256)).try_collect::<()>().await?;
    Ok(format!("{}, {}", counted(all as u64, "file"), progress.finish()))
}

/// The node at a path of the tree.
pub(super) async fn find(vfs: &Vfs, path: &OsStr) -> Result<Attr, Failure> {
    let missing =
        || Failure::new(Code::Failed, format!("no such file or folder: {}", path.display()));
    let path =
        RepoPath::root().resolve(path.as_bytes()).map_err(|error| missing().context(error))?;
    let mut at = vfs.getattr(ROOT_INO).wait().await?.0;
    for name in path.components() {
        match vfs.lookup(at.ino, name).wait().await {
            Ok(Lookup::Found { attr, .. }) => at = attr,
            Ok(Lookup::Absent(_)) | Err(VfsError::NotAFolder) => return Err(missing()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(at)
}

/// Everything at and below a node but folders, which are made on the way.
async fn collect(vfs: &Vfs, top: Job) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    let mut open = vec![top];
    while let Some(job) = open.pop() {
        if job.attr.kind != FileKind::Folder {
            jobs.push(job);
            continue;
        }
        make_folder(&job.to)?;
        children(vfs, &job, &mut open).await?;
    }
    Ok(jobs)
}

/// Everything that lies directly in a folder. A listing that breaks off is taken up once it can
/// be; one that does not come any further has failed.
async fn children(vfs: &Vfs, folder: &Job, found: &mut Vec<Job>) -> Result<(), Failure> {
    let mut position = 0;
    loop {
        let listed = vfs.list(folder.attr.ino, position).wait().await?;
        let start = position;
        let walked = vfs.walk(&listed, start, |entry| {
            if let Some((attr, _)) = vfs.enter_listed(&listed, &entry) {
                let name = OsStr::from_bytes(entry.name);
                found.push(Job { attr, to: folder.to.join(name) });
            }
            position = entry.next;
            true
        });
        match walked {
            Err(_) if position > start => {}
            result => return Ok(result?),
        }
    }
}

fn make_folder(dir: &Path) -> Result<(), Failure> {
    match fs::create_dir(dir) {
        // A link to a folder is no folder: what is copied stays below the target.
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists
                && dir.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) =>
        {
            Ok(())
        }
        made => made.map_err(|error| disk(dir, &error)),
    }
}

async fn copy_one(vfs: &Vfs, job: Job, force: bool, progress: &Progress) -> Result<(), Failure> {
    let named = |failure: Failure| failure.context(escape(job.to.as_os_str().as_bytes()));
    if job.attr.kind == FileKind::Link {
        let target = vfs.readlink(job.attr.ino).map_err(|error| named(error.into()))?;
        return copy_link(&target, &job.to, force).map_err(|error| disk(&job.to, &error));
    }
    copy_bytes(vfs, &job, force, progress).await.map_err(named)
}

/// Makes a link; one that replaces something is made beside it first.
fn copy_link(target: &[u8], to: &Path, force: bool) -> io::Result<()> {
    let target = OsStr::from_bytes(target);
    if !force {
        return std::os::unix::fs::symlink(target, to);
    }
    let folder = tempfile::Builder::new().prefix(".dvcfs-").tempdir_in(folder_of(to))?;
    let made = folder.path().join("link");
    std::os::unix::fs::symlink(target, &made)?;
    fs::rename(made, to)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Copies into a temporary file beside the target, which then takes its name.
async fn copy_bytes(vfs: &Vfs, job: &Job, force: bool, progress: &Progress) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Code::Failed, format!("write: {error}"));
    let temporary = tempfile::Builder::new()
        .prefix(".dvcfs-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder_of(&job.to))
        .map_err(failed)?;
    let reader = vfs.hold(vfs.open(job.attr.ino).wait().await?);
    let mut file: &File = temporary.as_file();
    let mut offset = 0;
    loop {
        let piece = vfs.read_bytes(job.attr.ino, reader, offset, PIECE).await?;
        if piece.is_empty() {
            break;
        }
        file.write_all(&piece).map_err(failed)?;
        offset += piece.len() as u64;
        progress.add(piece.len() as u64);
    }
    vfs.release(reader);
    if job.attr.mode & 0o111 != 0 {
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        let readable = (mode & 0o444) >> 2;
        file.set_permissions(fs::Permissions::from_mode(mode | readable)).map_err(failed)?;
    }
    let named =
        if force { temporary.persist(&job.to) } else { temporary.persist_noclobber(&job.to) };
    named.map_err(|error| failed(error.error))?;
    Ok(())
}

fn disk(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Failed, format!("write {}: {error}", escape(path.as_os_str().as_bytes())))
}
