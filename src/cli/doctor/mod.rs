//! `dvcfs doctor`: what keeps mounts from working on this machine, or with a registry, and what to
//! do about it. Nothing is changed.
//!
//! | file | checks |
//! |---|---|
//! | `machine` | kernel, FUSE, privileges, limits, programs |
//! | `folders` | settings, cache, state, sockets, mounts |
//! | `registry` | repository, configuration, trust, remotes |

mod folders;
mod machine;
mod registry;

use std::{path::PathBuf, process::ExitCode};

use serde::Serialize;

use super::{
    args::{Common, DoctorArgs},
    context::Context,
    exit::{Code, Failure},
    print,
    settings::{Environment, Settings, Verbosity, settings_path},
};
use crate::path::escape;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// It works, but not as well as it could.
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    status: Status,
    what: String,
    detail: String,
    /// What to do about it.
    hint: Option<String>,
}

impl Check {
    fn new(status: Status, what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { status, what: what.into(), detail: detail.into(), hint: None }
    }

    fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Status::Ok, what, detail)
    }

    fn warn(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Status::Warn, what, detail)
    }

    fn fail(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Status::Fail, what, detail)
    }

    /// A failure of something that was tried.
    fn failed(what: impl Into<String>, failure: Failure) -> Self {
        Self { hint: failure.hint, ..Self::fail(what, failure.message) }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The line for people, and another for the hint.
    fn text(&self) -> String {
        let status = match self.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "fail",
        };
        let line = escape(format!("{}: {}", self.what, self.detail).as_bytes());
        let hint = self.hint.iter().map(|hint| format!("     hint: {}\n", escape(hint.as_bytes())));
        format!("{status} {line}\n{}", hint.collect::<String>())
    }
}

/// All of them.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    checks: &'a [Check],
}

pub(super) fn run(
    common: &Common,
    environment: &Environment,
    args: &DoctorArgs,
) -> Result<ExitCode, Failure> {
    let mut checks = machine::checks();
    let (settings, check) = settings(common, environment)?;
    checks.push(check);
    checks.extend(folders::checks(&settings));
    let verbosity = settings.verbosity;
    match &args.repo {
        None => checks.push(folders::dvc_config(&settings)),
        Some(repo) => {
            let context = Context::for_diagnosis(settings)?;
            checks.extend(registry::checks(&context, repo, args, environment));
        }
    }
    if args.json {
        let report = Report { version: env!("CARGO_PKG_VERSION"), checks: &checks };
        let text = serde_json::to_string_pretty(&report);
        print(&(text.map_err(|error| Failure::new(Code::Failed, error.to_string()))? + "\n"));
    } else {
        let is_shown = |check: &&Check| check.status != Status::Ok || verbosity > Verbosity::Quiet;
        print(&checks.iter().filter(is_shown).map(Check::text).collect::<String>());
    }
    let has_failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(if has_failed { Code::Failed.into() } else { ExitCode::SUCCESS })
}

/// The settings; where their file makes no sense, those that would hold without it.
fn settings(common: &Common, environment: &Environment) -> Result<(Settings, Check), Failure> {
    let path = settings_path(common.config.as_deref(), environment);
    match Settings::resolve(common, environment) {
        Ok(settings) => {
            let note = if path.exists() { "" } else { " (not there, which is fine)" };
            Ok((settings, Check::ok("settings", format!("{}{note}", path.display()))))
        }
        Err(failure) => {
            let nothing = Some(PathBuf::from("/dev/null"));
            let without = Common { config: nothing, ..common.clone() };
            Ok((Settings::resolve(&without, environment)?, Check::failed("settings", failure)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_and_its_hint_another() {
        let check = Check::warn("kernel", "Linux\n1").hint("get a newer one");
        assert_eq!(check.text(), "warn kernel: Linux\\n1\n     hint: get a newer one\n");
        assert_eq!(Check::ok("git", "2").text(), "ok   git: 2\n");
    }
}
