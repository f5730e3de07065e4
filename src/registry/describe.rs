//! What a registry's configuration says, for people: every setting with the file it came from, and
//! every remote with where its credentials come from. Secrets are never told.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    Registry, RegistryError, Untrusted, connect::is_set, read_level, unusable::without_user,
};
use crate::{
    dvc::config::{Config, Level, RemoteSettings, Setting, is_secret},
    git::CommitId,
    path::RepoPath,
};

/// What stands in for a secret.
const MASK: &str = "***";

/// A setting of DVC's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DvcSetting {
    /// Its name, such as `remote.NAME.url`.
    pub name: String,
    /// Its value, unless that is a secret.
    pub value: String,
    /// The level it came from.
    pub level: Level,
}

/// A remote as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteDescription {
    /// Its name.
    pub name: String,
    /// Where it is, without what may be secret; or why it cannot be used.
    pub url: Result<String, String>,
    /// Whether it is the one that is used where no other is named.
    pub is_default: bool,
    /// Where its credentials come from.
    pub credentials: CredentialsSource,
    /// What the user would have to agree to first.
    pub untrusted: Vec<Untrusted>,
}

/// Where the credentials for a remote come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsSource {
    /// None are needed: a folder, a public web server, a public bucket.
    Nothing,
    /// Keys or a password in DVC's configuration, at this level.
    Configuration(Level),
    /// An AWS profile that the configuration names, in this file if it is not the usual one.
    Profile(String, Option<PathBuf>),
    /// A credentials file that the configuration names.
    File(PathBuf),
    /// Wherever the AWS tools find some: environment, default profile, roles of the machine.
    AwsChain,
}

impl Registry {
    /// The settings in force at the root of a commit, in the order of their names.
    pub fn dvc_settings(&self, commit: CommitId) -> Result<Vec<DvcSetting>, RegistryError> {
        Ok(describe_settings(&*self.config_of(commit)?))
    }

    /// What could not be used of the configuration at the root of a commit.
    pub fn config_warnings(&self, commit: CommitId) -> Result<Vec<String>, RegistryError> {
        Ok(self.config_of(commit)?.warnings().to_vec())
    }

    /// The names of the remotes that are configured at the root of a commit.
    pub fn remote_names(&self, commit: CommitId) -> Result<Vec<String>, RegistryError> {
        Ok(self.config_of(commit)?.remote_names().map(str::to_owned).collect())
    }

    /// The remotes that are configured at the root of a commit.
    pub fn remotes(&self, commit: CommitId) -> Result<Vec<RemoteDescription>, RegistryError> {
        let config = self.config_of(commit)?;
        let default = self.options.remote.as_ref().map(|name| name.to_lowercase());
        let default = default.or_else(|| Some(config.core_remote()?.value));
        let connector = self.connector(&config);
        let describe = |name: &str| {
            let settings = config.remote(name);
            RemoteDescription {
                name: name.to_owned(),
                url: settings.as_ref().map_or_else(
                    |error| Err(error.to_string()),
                    |settings| Ok(without_user(&settings.url.value)),
                ),
                is_default: default.as_deref() == Some(name),
                credentials: settings
                    .as_ref()
                    .map_or(CredentialsSource::Nothing, |settings| self.credentials(settings)),
                untrusted: settings.map_or_else(|_| Vec::new(), |s| connector.untrusted(&s)),
            }
        };
        // The default one may be named and not there.
        let names = config.remote_names().chain(default.as_deref()).collect::<BTreeSet<_>>();
        Ok(names.into_iter().map(describe).collect())
    }

    /// The file of settings that are neither in git nor the user's for all repositories, if the
    /// repository was opened where it lies.
    pub fn local_config(&self) -> Option<PathBuf> {
        Some(self.folder_of(&RepoPath::root())?.join("config.local"))
    }

    fn credentials(&self, settings: &RemoteSettings) -> CredentialsSource {
        let get = |key: &str| settings.get(key);
        let aws = &self.options.aws;
        let file = |key: &str, is_overridden: bool| {
            get(key).filter(|_| !is_overridden).map(|setting| PathBuf::from(&setting.value))
        };
        if settings.url.value.starts_with("http") {
            let password = get("password").or_else(|| get("user"));
            return password.map_or(CredentialsSource::Nothing, |setting| {
                CredentialsSource::Configuration(setting.level)
            });
        }
        if !settings.url.value.starts_with("s3://")
            || is_set(settings, "allow_anonymous_login", false)
        {
            return CredentialsSource::Nothing;
        }
        let credentials = file("credentialpath", aws.has_credentials_file);
        match (get("access_key_id"), get("secret_access_key"), get("profile")) {
            (Some(_), Some(secret), _) => CredentialsSource::Configuration(secret.level),
            (_, _, Some(profile)) => CredentialsSource::Profile(profile.value.clone(), credentials),
            _ => credentials.map_or(CredentialsSource::AwsChain, CredentialsSource::File),
        }
    }
}

/// The settings of this machine and this user, from these two files, in the order of their names.
pub fn user_settings(system: &Path, global: &Path, home: Option<&Path>) -> Vec<DvcSetting> {
    let levels = [(Level::System, system), (Level::Global, global)];
    let levels = levels.into_iter().filter_map(|(level, path)| read_level(level, path, home));
    describe_settings(&Config::merge(levels))
}

fn describe_settings(config: &Config) -> Vec<DvcSetting> {
    let describe = |(name, setting): (String, &Setting)| {
        let value = match setting.value.as_str() {
            _ if is_secret(&name) => MASK.to_owned(),
            url if url.contains("://") => without_user(url),
            other => other.to_owned(),
        };
        DvcSetting { name, value, level: setting.level }
    };
    config.entries().map(describe).collect()
}
