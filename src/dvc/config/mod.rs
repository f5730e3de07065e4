//! DVC's configuration: four files, of which later ones override earlier ones key by key.
//!
//! Nothing here fails: what cannot be used becomes a warning, and all else counts. Every value
//! keeps the level it came from, since what a repository says about where credentials go is
//! trusted less than what the user says.

mod entries;
mod keys;
mod syntax;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;

pub use self::entries::is_secret;
use crate::dvc::place::has_scheme;
use keys::Section;
use syntax::Value;

/// Where a configuration file lies; later ones override earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Of the machine.
    System,
    /// Of the user.
    Global,
    /// `.dvc/config`, in git.
    Repo,
    /// `.dvc/config.local`, on this disk only.
    Local,
}

/// What relative paths in a configuration file start from.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// The folder of the file itself, in the real repository even when the text comes from an
    /// older commit.
    pub file: &'a Path,
    /// The user's home, for `~`.
    pub home: Option<&'a Path>,
}

/// One configuration file, its paths worked out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawConfig {
    core: BTreeMap<String, String>,
    cache: BTreeMap<String, String>,
    remotes: BTreeMap<String, BTreeMap<String, String>>,
    warnings: Vec<String>,
}

impl RawConfig {
    /// Reads a configuration file.
    pub fn parse(bytes: &[u8], folders: Folders<'_>) -> Self {
        let (sections, warnings) = syntax::parse(bytes);
        let mut config = Self { warnings, ..Self::default() };
        for (name, values) in &sections {
            let section = Section::new(name);
            if section == Section::Unknown {
                config.warnings.push(format!("unknown section [{name}], ignored"));
            }
            let usable = config.usable(name, &section, values, folders);
            match section {
                Section::Plain("core") => config.core = usable,
                Section::Plain(_) => config.cache = usable,
                Section::Remote(remote) => config.remotes.extend([(remote.to_owned(), usable)]),
                Section::Other | Section::Unknown => {}
            }
        }
        config
    }

    fn usable(
        &mut self,
        name: &str,
        section: &Section<'_>,
        values: &IndexMap<String, Value>,
        folders: Folders<'_>,
    ) -> BTreeMap<String, String> {
        let mut usable = BTreeMap::new();
        if matches!(section, Section::Other | Section::Unknown) {
            return usable;
        }
        for (key, value) in values {
            let text = match value {
                _ if !section.knows(key) => Err("unknown key"),
                Value::List if section.is_list(key) => continue,
                Value::List => Err("a list where one value is wanted (quote the comma)"),
                Value::Text(text) => interpolate(text, values, &mut REFERENCES_MAX.clone()),
            };
            let text = text.and_then(|text| {
                if section.is_path(key) {
                    resolve(&text, folders).ok_or("a path that is not UTF-8 or has no home")
                } else {
                    Ok(text)
                }
            });
            match text {
                Ok(text) => usable.extend([(key.clone(), text)]),
                Err(reason) => self.warnings.push(format!("[{name}] {key}: {reason}, ignored")),
            }
        }
        usable
    }
}

/// What keeps DVC from reading a configuration file at all, if something does.
pub fn flaw(bytes: &[u8]) -> Option<String> {
    let warning = syntax::parse(bytes).1.into_iter().next()?;
    Some(warning.trim_end_matches(", ignored").to_owned())
}

/// How many `%(key)s` are followed for one value; it also stops those that lead to themselves.
const REFERENCES_MAX: u32 = 100;

/// Puts the values of other keys of the section in the place of `%(key)s`.
fn interpolate(
    text: &str,
    values: &IndexMap<String, Value>,
    left: &mut u32,
) -> Result<String, &'static str> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, name, after)) = reference(rest) {
        let Some(Value::Text(value)) = values.get(&name.to_lowercase()) else {
            return Err("%(name)s of a key that is not there");
        };
        *left = left.checked_sub(1).ok_or("%(name)s without end")?;
        result += before;
        result += &interpolate(value, values, left)?;
        rest = after;
    }
    Ok(result + rest)
}

/// The first `%(name)s` in a text, with what stands before and after it.
fn reference(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices("%(").find_map(|(at, _)| {
        let (name, after) = text[at + 2..].split_once(')')?;
        Some((&text[..at], name, after.strip_prefix('s')?))
    })
}

/// Makes a path absolute; URLs stay as they are.
fn resolve(text: &str, folders: Folders<'_>) -> Option<String> {
    if has_scheme(text) || text.is_empty() {
        return Some(text.to_owned());
    }
    let path = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            folders.home?.join(rest.trim_start_matches('/'))
        }
        _ => folders.file.join(text),
    };
    normalise(&path).into_os_string().into_string().ok()
}

/// Works out `.` and `..` without looking at the disk, as DVC does.
fn normalise(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => _ = normal.pop(),
            Component::ParentDir if normal.has_root() => {}
            component => normal.push(component),
        }
    }
    normal
}

/// A value and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value; paths are absolute.
    pub value: String,
    /// Where it came from.
    pub level: Level,
}

type Settings = BTreeMap<String, Setting>;

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    core: Settings,
    cache: Settings,
    remotes: BTreeMap<String, Settings>,
    warnings: Vec<String>,
}

/// Why a remote cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// No section names it.
    #[error("remote {0:?} is not configured")]
    Unknown(String),
    /// Its section has no URL.
    #[error("remote {0:?} has no url")]
    NoUrl(String),
    /// Its `remote://` URL leads back to itself.
    #[error("remote {0:?} refers to itself")]
    Cycle(String),
}

impl Config {
    /// Lays configuration files over each other, in the order of their levels.
    pub fn merge(levels: impl IntoIterator<Item = (Level, RawConfig)>) -> Self {
        let mut levels: Vec<_> = levels.into_iter().collect();
        levels.sort_by_key(|(level, _)| *level);
        let mut config = Self::default();
        for (level, raw) in levels {
            overlay(&mut config.core, raw.core, level);
            overlay(&mut config.cache, raw.cache, level);
            for (name, values) in raw.remotes {
                overlay(config.remotes.entry(name).or_default(), values, level);
            }
            let warnings = raw.warnings.into_iter();
            config.warnings.extend(warnings.map(|warning| format!("{level:?} config: {warning}")));
        }
        config
    }

    /// What was ignored, each with the reason.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The name of the default remote; there is none unless it is configured.
    pub fn core_remote(&self) -> Option<Setting> {
        let Setting { value, level } = self.core.get("remote")?;
        Some(Setting { value: value.to_lowercase(), level: *level })
    }

    /// The folder of DVC's own cache, if it is not the usual one.
    pub fn cache_dir(&self) -> Option<&Setting> {
        self.cache.get("dir")
    }

    /// The settings of a remote, whose name counts in any case; `remote://` URLs are worked out.
    pub fn remote(&self, name: &str) -> Result<RemoteSettings, RemoteError> {
        let name = name.to_lowercase();
        let settings = self.resolved(&name, &mut Vec::new())?;
        let url = url(&settings).cloned().ok_or_else(|| RemoteError::NoUrl(name.clone()))?;
        Ok(RemoteSettings { name, url, settings })
    }

    fn resolved(&self, name: &str, seen: &mut Vec<String>) -> Result<Settings, RemoteError> {
        if seen.iter().any(|seen| seen == name) {
            return Err(RemoteError::Cycle(name.to_owned()));
        }
        seen.push(name.to_owned());
        let own = self.remotes.get(name).ok_or_else(|| RemoteError::Unknown(name.to_owned()))?;
        let own_url = url(own).ok_or_else(|| RemoteError::NoUrl(name.to_owned()))?;
        let Some(target) = own_url.value.strip_prefix("remote://") else {
            return Ok(own.clone());
        };
        let (base, sub) = target.split_once('/').unwrap_or((target, ""));
        let mut settings = self.resolved(&base.to_lowercase(), seen)?;
        let joined = url(&settings).map(|base| join(base, own_url, sub));
        settings.extend(own.clone());
        settings.extend(joined.map(|url| ("url".to_owned(), url)));
        Ok(settings)
    }
}

fn overlay(into: &mut Settings, values: BTreeMap<String, String>, level: Level) {
    into.extend(values.into_iter().map(|(key, value)| (key, Setting { value, level })));
}

fn url(settings: &Settings) -> Option<&Setting> {
    settings.get("url").filter(|url| !url.value.is_empty())
}

/// A URL below another remote's. If the repository has a say in it, it counts as its own.
fn join(base: &Setting, own: &Setting, sub: &str) -> Setting {
    let (base_url, sub) = (base.value.trim_end_matches('/'), sub.trim_matches('/'));
    let value = if sub.is_empty() { base.value.clone() } else { format!("{base_url}/{sub}") };
    let is_of_repo = [base.level, own.level].contains(&Level::Repo);
    Setting { value, level: if is_of_repo { Level::Repo } else { own.level } }
}

/// A remote as it is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Its name in lower case.
    pub name: String,
    /// Where it is: a URL, or the absolute path of a folder.
    pub url: Setting,
    settings: Settings,
}

impl RemoteSettings {
    /// The value of a key, such as `endpointurl`.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawConfig {
        let folders = Folders { file: Path::new("/repo/.dvc"), home: Some(Path::new("/home/u")) };
        RawConfig::parse(text.as_bytes(), folders)
    }

    fn config(text: &str) -> Config {
        Config::merge([(Level::Repo, raw(text))])
    }

    #[test]
    fn relative_paths_start_from_the_folder_of_the_file() {
        for (url, resolved) in [
            ("../../store", "/store"),
            ("../store/./x", "/repo/store/x"),
            ("/abs//store/", "/abs/store"),
            ("~/store", "/home/u/store"),
            ("~other/store", "/repo/.dvc/~other/store"),
            ("../../../../../store", "/store"),
            ("s3://bucket/../x", "s3://bucket/../x"),
        ] {
            let config = config(&format!("['remote \"r\"']\nurl = {url}\n"));
            assert_eq!(config.remote("R").unwrap().url.value, resolved, "{url}");
        }
        let config = config("[cache]\ndir = ../../shared\ntype = reflink,copy\n");
        assert_eq!(config.cache_dir().unwrap().value, "/shared");
        assert_eq!(config.warnings(), [""; 0]);
    }

    #[test]
    fn later_levels_override_key_by_key_and_each_value_keeps_its_level() {
        let local = raw("['remote \"st\"']\nprofile = mine\n[core]\nremote = Other\n");
        let repo = raw("[core]\nremote = st\n['remote \"ST\"']\nurl = s3://b\nprofile = theirs\n");
        let config = Config::merge([(Level::Local, local), (Level::Repo, repo)]);
        let remote = config.remote("st").unwrap();
        assert_eq!((remote.url.value.as_str(), remote.url.level), ("s3://b", Level::Repo));
        let profile = remote.get("profile").unwrap();
        assert_eq!((profile.value.as_str(), profile.level), ("mine", Level::Local));
        assert_eq!(config.core_remote().unwrap().value, "other");
    }

    #[test]
    fn remote_urls_build_on_each_other() {
        let config = config(
            "[remote \"base\"]\nurl = s3://b/pre/\nprofile = p\nregion = x\n\
             [remote \"chain\"]\nurl = remote://BASE/inner/\nregion = y\n\
             [remote \"last\"]\nurl = remote://chain\n",
        );
        let last = config.remote("last").unwrap();
        assert_eq!(last.url.value, "s3://b/pre/inner");
        assert_eq!(last.get("profile").unwrap().value, "p");
        assert_eq!(last.get("region").unwrap().value, "y");
    }

    #[test]
    fn a_url_that_the_repository_has_a_say_in_is_the_repositorys() {
        let user = raw("[remote \"base\"]\nurl = s3://mine\n");
        let repo = raw("[remote \"r\"]\nurl = remote://base/x\n");
        let config = Config::merge([(Level::Global, user), (Level::Repo, repo)]);
        assert_eq!(config.remote("r").unwrap().url.level, Level::Repo);
        let user = raw("[remote \"r\"]\nurl = remote://base/x\n");
        let repo = raw("[remote \"base\"]\nurl = s3://theirs\n");
        let config = Config::merge([(Level::Global, user), (Level::Repo, repo)]);
        assert_eq!(config.remote("r").unwrap().url.level, Level::Repo);
    }

    #[test]
    fn remotes_that_cannot_be_used_say_why() {
        let config = config(
            "[remote \"a\"]\nurl = remote://b\n[remote \"b\"]\nurl = remote://a/x\n\
             [remote \"none\"]\nprofile = p\n[remote \"lost\"]\nurl = remote://nosuch\n",
        );
        assert_eq!(config.remote("a"), Err(RemoteError::Cycle("a".to_owned())));
        assert_eq!(config.remote("none"), Err(RemoteError::NoUrl("none".to_owned())));
        assert_eq!(config.remote("lost"), Err(RemoteError::Unknown("nosuch".to_owned())));
        // Whoever uses none of them need not hear of that.
        assert_eq!(config.warnings(), [""; 0]);
    }

    #[test]
    fn what_is_unknown_or_a_list_is_ignored_with_a_warning() {
        let config = config(
            "[core]\nnovel = 1\nremote = r\n[novel]\nx = 1\n[index]\nx = 1\n\
             [remote \"r\"]\nurl = s3://b\nprofile = a,b\n",
        );
        assert_eq!(config.warnings().len(), 3);
        let remote = config.remote(&config.core_remote().unwrap().value).unwrap();
        assert_eq!(remote.get("profile"), None);
    }

    #[test]
    fn values_may_refer_to_each_other() {
        let config = config(
            "[remote \"r\"]\nurl = s3://%(User)s/%(profile)s 50%\nuser = %(region)s\nregion = u\nprofile = p\n\
             password = %(nope)s\ntoken = %(token)s\n",
        );
        let remote = config.remote("r").unwrap();
        assert_eq!(remote.url.value, "s3://u/p 50%");
        assert_eq!((remote.get("password"), remote.get("token")), (None, None));
        assert_eq!(config.warnings().len(), 2);
    }

    #[test]
    fn values_that_grow_without_end_are_stopped() {
        let mut text = "[remote \"r\"]\nuser = xxxxxxxxxxxxxxxx\n".to_owned();
        let keys = ["user", "password", "token", "profile", "region", "acl", "sse", "timeout"];
        for pair in keys.windows(2) {
            let references = format!("%({})s", pair[0]).repeat(20);
            text = format!("{text}{} = {references}\n", pair[1]);
        }
        assert!(!config(&text).warnings().is_empty());
    }
}
