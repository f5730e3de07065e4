//! Settings as resolved: flags and their environment variables, then the settings file, then
//! defaults. The only place that reads the environment.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    args::{Common, LogFormat, parse_size},
    exit::{Code, Failure},
    memory,
};
use crate::{blobs::LEAST_MEMORY, registry::AwsFiles};

const DEFAULT_CACHE_SIZE: u64 = 50 << 30;
const DEFAULT_MIN_FREE: u64 = 5 << 30;

/// What every command works with.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) cache_dir: PathBuf,
    pub(super) cache_size: u64,
    pub(super) min_free: u64,
    pub(super) memory_limit: u64,
    pub(super) state_dir: PathBuf,
    pub(super) runtime_dir: PathBuf,
    /// S3 endpoints that any repository may name.
    pub(super) trusted_endpoints: Vec<String>,
    /// DVC's own settings of this machine and this user.
    pub(super) dvc_system_config: PathBuf,
    pub(super) dvc_global_config: PathBuf,
    /// The user's own ssh command, which git is run with.
    pub(super) ssh_command: Option<String>,
    pub(super) home: Option<PathBuf>,
    pub(super) aws: AwsFiles,
    pub(super) verbosity: Verbosity,
    pub(super) log_format: Option<LogFormat>,
    /// What systemd says that stderr leads to.
    pub(super) journal_stream: Option<String>,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
    Everything,
}

/// The settings file; every key is also a flag.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct SettingsFile {
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) cache_size: Option<String>,
    pub(super) min_free: Option<String>,
    pub(super) memory_limit: Option<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) runtime_dir: Option<PathBuf>,
    pub(super) log_format: Option<LogFormat>,
    #[serde(default)]
    pub(super) trusted_endpoints: Vec<String>,
}

/// The environment variables that count, and who is asking.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    variables: BTreeMap<String, PathBuf>,
    is_root: bool,
}

impl Environment {
    /// What this process was started with.
    pub(super) fn current() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, PathBuf::from(value)))
        };
        let variables =
            std::env::vars_os().filter_map(text).filter(|(_, v)| !v.as_os_str().is_empty());
        Self { variables: variables.collect(), is_root: rustix::process::geteuid().is_root() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Path> {
        self.variables.get(name).map(PathBuf::as_path)
    }

    fn home(&self, rest: &str) -> PathBuf {
        self.get("HOME").unwrap_or(Path::new("/")).join(rest)
    }

    /// A folder of the user's (`$variable/dvcfs`), or the system's.
    fn folder(&self, variable: &str, in_home: &str, of_system: &str) -> PathBuf {
        if self.is_root {
            return of_system.into();
        }
        let base = self.get(variable).filter(|path| path.is_absolute());
        base.map_or_else(|| self.home(in_home), Path::to_owned).join("dvcfs")
    }
}

impl Settings {
    /// Resolves flags, settings file and defaults. An unreadable or wrong settings file is an
    /// error; a missing one is not, unless it was named.
    pub(super) fn resolve(args: &Common, environment: &Environment) -> Result<Self, Failure> {
        let file = read_file(args.config.as_deref(), environment)?;
        let size = |flag: Option<u64>, key: &str, text: &Option<String>, default: u64| {
            let wrong =
                |why| Failure::new(Code::Usage, format!("{key} in the settings file: {why}"));
            match (flag, text) {
                (Some(size), _) => Ok(size),
                (None, Some(text)) => parse_size(text).map_err(wrong),
                (None, None) => Ok(default),
            }
        };
        let state_dir = environment.folder("XDG_STATE_HOME", ".local/state", "/var/lib/dvcfs");
        let state_dir = args.state_dir.clone().or(file.state_dir).unwrap_or(state_dir);
        let cache_dir = environment.folder("XDG_CACHE_HOME", ".cache", "/var/cache/dvcfs");
        let runtime_dir = match environment.get("XDG_RUNTIME_DIR") {
            _ if environment.is_root => PathBuf::from("/run/dvcfs"),
            Some(dir) => dir.join("dvcfs"),
            None => state_dir.join("run"),
        };
        let dvc_config = |variable: &str, folder: PathBuf| {
            environment.get(variable).map_or(folder, Path::to_owned).join("config")
        };
        let text =
            |name: &str| environment.get(name).map(|value| value.to_string_lossy().into_owned());
        let global = environment.get("XDG_CONFIG_HOME");
        let global = global.map_or_else(|| environment.home(".config"), Path::to_owned);
        Ok(Self {
            cache_dir: absolute(args.cache_dir.clone().or(file.cache_dir).unwrap_or(cache_dir)),
            cache_size: size(args.cache_size, "cache-size", &file.cache_size, DEFAULT_CACHE_SIZE)?,
            min_free: size(args.min_free, "min-free", &file.min_free, DEFAULT_MIN_FREE)?,
            memory_limit: memory_limit(size(
                args.memory_limit,
                "memory-limit",
                &file.memory_limit,
                memory::default_limit(memory::of_control_group()),
            )?)?,
            state_dir: absolute(state_dir),
            runtime_dir: absolute(
                args.runtime_dir.clone().or(file.runtime_dir).unwrap_or(runtime_dir),
            ),
            trusted_endpoints: file.trusted_endpoints,
            dvc_system_config: dvc_config("DVC_SYSTEM_CONFIG_DIR", "/etc/xdg/dvc".into()),
            dvc_global_config: dvc_config("DVC_GLOBAL_CONFIG_DIR", global.join("dvc")),
            ssh_command: text("GIT_SSH_COMMAND"),
            home: environment.get("HOME").map(Path::to_owned),
            aws: AwsFiles {
                ca_bundle: environment.get("AWS_CA_BUNDLE").map(Path::to_owned),
                has_credentials_file: environment.get("AWS_SHARED_CREDENTIALS_FILE").is_some(),
                has_config_file: environment.get("AWS_CONFIG_FILE").is_some(),
            },
            verbosity: match (args.quiet, args.verbose) {
                (true, _) => Verbosity::Quiet,
                (false, 0) => Verbosity::Normal,
                (false, 1) => Verbosity::Verbose,
                (false, _) => Verbosity::Everything,
            },
            log_format: args.log_format.or(file.log_format),
            journal_stream: text("JOURNAL_STREAM"),
        })
    }
}

/// Less would not do.
fn memory_limit(bytes: u64) -> Result<u64, Failure> {
    if bytes < LEAST_MEMORY {
        let message = format!("memory-limit: {bytes} bytes are too few");
        return Err(Failure::new(Code::Usage, message).hint("the least is 16M"));
    }
    Ok(bytes)
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The settings file: the one that was named, or the usual one.
pub(super) fn settings_path(named: Option<&Path>, environment: &Environment) -> PathBuf {
    match named {
        Some(path) => path.to_owned(),
        None if environment.is_root => PathBuf::from("/etc/dvcfs/config.toml"),
        None => environment.folder("XDG_CONFIG_HOME", ".config", "").join("config.toml"),
    }
}

/// Reads the settings file; the usual one need not be there.
pub(super) fn read_file(
    named: Option<&Path>,
    environment: &Environment,
) -> Result<SettingsFile, Failure> {
    let path = &settings_path(named, environment);
    let failed = |why: String| {
        Failure::new(Code::Usage, format!("read the settings file {}: {why}", path.display()))
    };
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            failed(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
            Ok(SettingsFile::default())
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)], is_root: bool) -> Environment {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Environment { variables: variables.collect(), is_root }
    }

    fn no_flags() -> Common {
        Common {
            quiet: false,
            verbose: 0,
            config: None,
            cache_dir: None,
            cache_size: None,
            min_free: None,
            memory_limit: None,
            state_dir: None,
            runtime_dir: None,
            log_format: None,
        }
    }

    #[test]
    fn users_have_their_own_folders_and_root_has_the_systems() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().to_str().unwrap();
        let user = environment(&[("HOME", home), ("XDG_RUNTIME_DIR", "/run/user/7")], false);
        let settings = Settings::resolve(&no_flags(), &user).unwrap();
        assert_eq!(settings.cache_dir, Path::new(home).join(".cache/dvcfs"));
        assert_eq!(settings.runtime_dir, Path::new("/run/user/7/dvcfs"));
        assert_eq!(settings.dvc_global_config, Path::new(home).join(".config/dvc/config"));

        let settings =
            Settings::resolve(&no_flags(), &environment(&[("HOME", home)], true)).unwrap();
        assert_eq!(settings.cache_dir, Path::new("/var/cache/dvcfs"));
        assert_eq!(settings.state_dir, Path::new("/var/lib/dvcfs"));
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("settings.toml");
        fs::write(&file, "cache-size = '10G'\nmin-free = '1G'\n").unwrap();
        let flags = Common { config: Some(file), cache_size: Some(7), ..no_flags() };
        let settings = Settings::resolve(&flags, &Environment::default()).unwrap();
        assert_eq!((settings.cache_size, settings.min_free), (7, 1 << 30));
    }

    #[test]
    fn too_little_memory_is_refused() {
        let flags = Common { memory_limit: Some(1 << 20), ..no_flags() };
        let failure = Settings::resolve(&flags, &Environment::default()).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("settings.toml");
        fs::write(&file, "cache-sice = '10G'\n").unwrap();
        let flags = Common { config: Some(file), ..no_flags() };
        let failure = Settings::resolve(&flags, &Environment::default()).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.message.contains("cache-sice"), "{}", failure.message);
    }
}
