//! list
use std::process::ExitCode;
use super::{args::ListArgs, context::Context, exit::Failure};
pub(super) fn run(_context: &Context, _args: &ListArgs) -> Result<ExitCode, Failure> { todo!() }
