//! `dvcfs cat`: prints a file of a registry, checked.

use std::{
    io::{IsTerminal, Write, stdout},
    process::ExitCode,
};

use super::{
    args::CatArgs,
    context::Context,
    exit::{Code, Failure},
    get::find,
    progress::Progress,
    settings::Verbosity,
};
use crate::vfs::FileKind;

/// How much is read at a time.
const PIECE: usize = 1 << 20;

pub(super) fn run(context: &Context, args: &CatArgs) -> Result<ExitCode, Failure> {
    let vfs = context.tree_at(&args.repo, args.rev.as_deref())?;
    // A bar would run through what is printed.
    let is_shown = !stdout().is_terminal();
    let verbosity = if is_shown { context.settings.verbosity } else { Verbosity::Quiet };
    let print = async {
        let attr = find(&vfs, &args.path).await?;
        if attr.kind == FileKind::Folder {
            return Err(Failure::new(Code::Usage, "is a folder").hint("dvcfs get copies folders"));
        }
        let progress = Progress::new("cat", attr.size, verbosity);
        let reader = vfs.hold(vfs.open(attr.ino).wait().await?);
        let mut offset = 0;
        loop {
            let piece = vfs.read_bytes(attr.ino, reader, offset, PIECE).await?;
            progress.add(piece.len() as u64);
            if piece.is_empty() || stdout().write_all(&piece).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
            offset += piece.len() as u64;
        }
    };
    let printed = context.runtime.block_on(print);
    printed.map_err(|failure| failure.context(format!("print {}", args.path.display())))
}
