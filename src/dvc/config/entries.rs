//! The configuration as a list, for people.

use super::{Config, Setting, keys};

impl Config {
    /// Every setting by its name, such as `core.remote`, `cache.dir` or `remote.NAME.url`.
    pub fn entries(&self) -> impl Iterator<Item = (String, &Setting)> {
        let plain = [("core", &self.core), ("cache", &self.cache)];
        let plain = plain.map(|(section, settings)| (section.to_owned(), settings));
        let remotes =
            self.remotes.iter().map(|(name, settings)| (format!("remote.{name}"), settings));
        plain.into_iter().chain(remotes).flat_map(|(section, settings)| {
            settings.iter().map(move |(key, setting)| (format!("{section}.{key}"), setting))
        })
    }

    /// The names of the remotes that are configured, sorted.
    pub fn remote_names(&self) -> impl Iterator<Item = &str> {
        self.remotes.keys().map(String::as_str)
    }
}

/// Whether the value of a setting, by its name in [`Config::entries`], is nobody else's business.
pub fn is_secret(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(keys::is_secret)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dvc::config::{Folders, Level, RawConfig};

    #[test]
    fn settings_are_listed_by_section_and_key() {
        let text = "['remote \"s3.team\"']\nurl = s3://b\npassword = x\n[core]\nremote = s3.team\n\
                    [cache]\ndir = /c\n";
        let folders = Folders { file: Path::new("/repo/.dvc"), home: None };
        let config = Config::merge([(Level::Global, RawConfig::parse(text.as_bytes(), folders))]);
        let names: Vec<_> = config.entries().map(|(name, _)| name).collect();
        let expected =
            ["core.remote", "cache.dir", "remote.s3.team.password", "remote.s3.team.url"];
        assert_eq!(names, expected);
        assert!(config.entries().all(|(_, setting)| setting.level == Level::Global));
        assert_eq!(config.remote_names().collect::<Vec<_>>(), ["s3.team"]);
    }

    #[test]
    fn secrets_are_known_by_their_key() {
        for name in ["remote.r.password", "remote.r.secret_access_key", "remote.r.sas_token"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["remote.password.url", "core.remote", "remote.r.profile", "remote.r.user"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
