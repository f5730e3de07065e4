//! The `dvcfs` program: hands its arguments to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    dvcfs::cli::run(std::env::args_os())
}
