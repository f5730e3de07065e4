//! `dvcfs config`: the settings in force, and who says so.

use std::{path::Path, process::ExitCode};

use clap::{ArgMatches, parser::ValueSource};
use serde::Serialize;

use super::{
    args::{Common, ConfigCommand, ConfigListArgs, LogFormat, RepoArgs},
    context::{Context, resolve},
    exit::{Code, Failure},
    print,
    settings::{Environment, Settings, read_file, settings_path},
};
use crate::{
    dvc::config::Level,
    path::escape,
    registry::{DvcSetting, user_settings},
};

/// The command line and its surroundings, as far as they decide settings.
pub(super) struct Given<'a> {
    pub(super) common: &'a Common,
    pub(super) matches: &'a ArgMatches,
    pub(super) environment: &'a Environment,
}

/// Every setting in force.
#[derive(Serialize)]
struct Listing {
    dvcfs: Vec<Line>,
    dvc: Vec<Line>,
}

/// A setting, its value, and who says so.
#[derive(Serialize)]
struct Line {
    name: String,
    value: String,
    origin: &'static str,
    /// The flag, the variable or the file.
    from: Option<String>,
}

pub(super) fn run(
    settings: Settings,
    given: &Given<'_>,
    command: &ConfigCommand,
) -> Result<ExitCode, Failure> {
    let ConfigCommand::List(args) = command;
    let listing = Listing { dvcfs: own(&settings, given)?, dvc: of_dvc(settings, args)? };
    if args.json {
        let text = serde_json::to_string_pretty(&listing);
        let text = text.map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
        print(&(text + "\n"));
    } else {
        let lines = listing.dvcfs.iter().chain(&listing.dvc);
        print(&lines.map(|line| line.text(args.origin)).collect::<String>());
    }
    Ok(ExitCode::SUCCESS)
}

impl Line {
    /// As `dvc config --list --show-origin` prints it.
    fn text(&self, with_origin: bool) -> String {
        let setting = format!("{}={}", self.name, self.value);
        let origin = match &self.from {
            _ if !with_origin => String::new(),
            Some(from) => format!("{} {}\t", self.origin, escape(from.as_bytes())),
            None => format!("{}\t", self.origin),
        };
        format!("{origin}{}\n", escape(setting.as_bytes()))
    }
}

/// The settings of dvcfs itself.
fn own(settings: &Settings, given: &Given<'_>) -> Result<Vec<Line>, Failure> {
    let named = given.common.config.as_deref();
    let file = read_file(named, given.environment)?;
    let file_path = settings_path(named, given.environment);
    let path = |path: &Path| path.display().to_string();
    let log_format = settings.log_format.map_or("auto", LogFormat::name);
    let endpoints = settings.trusted_endpoints.join(",");
    let rows = [
        ("cache-dir", path(&settings.cache_dir), file.cache_dir.is_some()),
        ("cache-size", size_text(settings.cache_size), file.cache_size.is_some()),
        ("min-free", size_text(settings.min_free), file.min_free.is_some()),
        ("memory-limit", size_text(settings.memory_limit), file.memory_limit.is_some()),
        ("state-dir", path(&settings.state_dir), file.state_dir.is_some()),
        ("runtime-dir", path(&settings.runtime_dir), file.runtime_dir.is_some()),
        ("log-format", log_format.into(), file.log_format.is_some()),
        ("trusted-endpoints", endpoints, !file.trusted_endpoints.is_empty()),
    ];
    let line = |(name, value, is_in_file): (&str, String, bool)| {
        let (origin, from) = match given.source(name) {
            Some(ValueSource::CommandLine) => ("flag", Some(format!("--{name}"))),
            Some(ValueSource::EnvVariable) => ("environment", Some(super::args::variable(name))),
            _ if is_in_file => ("file", Some(path(&file_path))),
            _ => ("default", None),
        };
        Line { name: name.to_owned(), value, origin, from }
    };
    Ok(rows.map(line).into())
}

impl Given<'_> {
    /// Whether a flag or its variable is given; not every setting has one.
    fn source(&self, name: &str) -> Option<ValueSource> {
        let id = name.replace('-', "_");
        self.matches.try_contains_id(&id).ok()?.then(|| self.matches.value_source(&id)).flatten()
    }
}

/// The settings of DVC: those of the machine and the user, and of a registry if one is named.
fn of_dvc(settings: Settings, args: &ConfigListArgs) -> Result<Vec<Line>, Failure> {
    let files = [settings.dvc_system_config.clone(), settings.dvc_global_config.clone()];
    let Some(repo) = &args.repo else {
        let found = user_settings(&files[0], &files[1], settings.home.as_deref());
        return Ok(found.into_iter().map(|found| dvc_line(found, &files, None)).collect());
    };
    let context = Context::new(settings)?;
    let repo = RepoArgs { repo: repo.clone(), trust_remote: false, remote: None };
    let registry = context.registry(&repo, &[args.rev.as_deref()])?;
    let (commit, _) = resolve(&registry, args.rev.as_deref())?;
    let local = registry.local_config();
    let lines = registry.dvc_settings(commit)?.into_iter();
    Ok(lines.map(|found| dvc_line(found, &files, local.as_deref())).collect())
}

fn dvc_line(
    found: DvcSetting,
    [system, global]: &[std::path::PathBuf; 2],
    local: Option<&Path>,
) -> Line {
    let (origin, from) = match found.level {
        Level::System => ("system", Some(system.as_path())),
        Level::Global => ("global", Some(global.as_path())),
        Level::Repo => ("repo", Some(Path::new(".dvc/config"))),
        Level::Local => ("local", local),
    };
    let from = from.map(|path| path.display().to_string());
    Line { name: found.name, value: found.value, origin, from }
}

/// A size as it can be typed.
fn size_text(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let fitting = units.iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    fitting.map_or(bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::parse_size;

    #[test]
    fn sizes_are_printed_as_they_can_be_typed() {
        for bytes in [0, 1, 1023, 1024, 1536, 5 << 30, (5 << 30) + 1, 3 << 40] {
            assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
        assert_eq!(size_text(50 << 30), "50G");
    }
}
