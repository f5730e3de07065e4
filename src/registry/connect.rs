//! From settings to a remote, and what the repository's own settings may decide.
//!
//! The repository may name remotes (bucket, prefix, folder, public http URL), a region and the name
//! of an AWS profile; Amazon's own endpoints are fine. Any other endpoint, and everything else that
//! decides where credentials go or how a server is checked, counts when the user's own
//! configuration says it, or after a yes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::RwLock;

use super::{
    RegistryOptions, Trusted, Untrusted,
    unusable::{UnusableRemote, without_user},
};
use crate::{
    dvc::config::{Config, Level, RemoteSettings, Setting},
    remote::{
        Cause, HttpAuth, HttpRemote, HttpSettings, LocalRemote, Remote, RequestLimits, S3Remote,
        S3Settings, Strictness, TlsVerify,
    },
};

/// Settings that count only with the user's consent when the repository makes them.
const SENSITIVE: [&str; 7] = [
    "endpointurl",
    "credentialpath",
    "configpath",
    "ssl_verify",
    "use_ssl",
    "custom_auth_header",
    "auth",
];

/// What identifies the user to a web server.
const HTTP_SECRETS: [&str; 3] = ["user", "password", "custom_auth_header"];

/// Makes the remotes that a configuration names.
pub(super) struct Connector<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a RegistryOptions,
    pub(super) agreed: &'a RwLock<std::collections::BTreeSet<String>>,
}

impl Connector<'_> {
    /// The remote of that name, or the default one.
    pub(super) fn remote(&self, pinned: Option<&str>) -> Arc<dyn Remote> {
        let settings = match self.settings(pinned) {
            Ok(settings) => settings,
            Err(unusable) => return Arc::new(unusable),
        };
        if let Some(untrusted) = self.untrusted(&settings).into_iter().next() {
            let reason = format!(
                "the repository's configuration sets {}, and you have not agreed to that",
                untrusted.setting
            );
            let url = without_user(&settings.url.value);
            let hint = Some("dvcfs mount --trust-remote agrees to it".to_owned());
            return Arc::new(UnusableRemote { url, cause: Cause::Untrusted, reason, hint });
        }
        self.connect(&settings)
    }

    /// A remote that nothing can be put into, if it is one; it says so.
    pub(super) fn untakable(&self, pinned: Option<&str>) -> Option<Arc<dyn Remote>> {
        let settings = self.settings(pinned).ok()?;
        let versioned = ["version_aware", "worktree"];
        let reason = if versioned.iter().any(|key| is_set(&settings, key, false)) {
            "it keeps files by version under their own names, where only DVC can put them"
        } else if settings.url.value.starts_with("http") {
            "remotes of this kind are read, not written"
        } else {
            return None;
        };
        let url = without_user(&settings.url.value);
        let (cause, reason) = (Cause::Unsupported, reason.to_owned());
        let hint = Some("push to another remote: --remote NAME".to_owned());
        Some(Arc::new(UnusableRemote { url, cause, reason, hint }))
    }

    /// The URL of the configured default, if there is one and a remote has another URL.
    pub(super) fn default_if_other_than(&self, name: &str) -> Option<String> {
        let url_of = |name: &str| Some(self.config.remote(name).ok()?.url.value);
        let default = url_of(&self.config.core_remote()?.value)?;
        let is_same = url_of(name)
            .is_some_and(|url| url.trim_end_matches('/') == default.trim_end_matches('/'));
        (!is_same).then(|| without_user(&default))
    }

    /// What the default remote would need consent for.
    pub(super) fn untrusted_default(&self) -> Vec<Untrusted> {
        self.settings(None).map_or_else(|_| Vec::new(), |settings| self.untrusted(&settings))
    }

    fn settings(&self, pinned: Option<&str>) -> Result<RemoteSettings, UnusableRemote> {
        let unusable = |url: &str, reason: String, hint: Option<String>| UnusableRemote {
            url: without_user(url),
            cause: Cause::Misconfigured,
            reason,
            hint,
        };
        let configured = || Some(self.config.core_remote()?.value);
        let default = || self.options.remote.clone().or_else(configured);
        let name = pinned.map(str::to_owned).or_else(default).ok_or_else(|| {
            let hint = "name one with --remote, or set core.remote in DVC's configuration";
            unusable("nowhere", "no default remote is configured".to_owned(), Some(hint.into()))
        })?;
        let hint = "`dvc remote list` shows what there is; --remote NAME reads from another";
        self.config
            .remote(&name)
            .map_err(|error| unusable(&name, error.to_string(), Some(hint.into())))
    }

    /// What a remote would need consent for.
    pub(super) fn untrusted(&self, settings: &RemoteSettings) -> Vec<Untrusted> {
        if matches!(self.options.trusted, Trusted::Everything) {
            return Vec::new();
        }
        let agreed = self.agreed.read();
        let sensitive = SENSITIVE.iter().filter_map(|key| Some((*key, settings.get(key)?)));
        let of_repo = sensitive.filter(|(key, setting)| {
            let is_fine = *key == "endpointurl" && is_amazons(&setting.value);
            setting.level == Level::Repo && !is_fine
        });
        let lured = is_luring(settings).then_some(("url", &settings.url));
        let untrusted = of_repo.chain(lured).map(|(key, setting)| Untrusted {
            remote: settings.name.clone(),
            setting: format!("{key} = {}", setting.value),
        });
        let is_open = |untrusted: &Untrusted| {
            let value = untrusted.setting.split_once(" = ").map_or("", |(_, value)| value);
            !agreed.contains(&untrusted.setting) && !agreed.contains(value)
        };
        untrusted.filter(is_open).collect()
    }

    fn connect(&self, settings: &RemoteSettings) -> Arc<dyn Remote> {
        let url = &settings.url.value;
        match url.split_once("://") {
            None => Arc::new(LocalRemote::new(PathBuf::from(url), strictness(&settings.url))),
            Some(("s3", rest)) => Arc::new(S3Remote::new(self.s3(settings, rest))),
            Some(("http" | "https", _)) => Arc::new(HttpRemote::new(self.http(settings))),
            Some((scheme, _)) => {
                let reason = format!("{scheme} remotes cannot be read yet");
                let hint = Some("remotes can be S3, http(s) and folders".to_owned());
                let (url, cause) = (url.clone(), Cause::Misconfigured);
                Arc::new(UnusableRemote { url, cause, reason, hint })
            }
        }
    }

    fn s3(&self, settings: &RemoteSettings, rest: &str) -> S3Settings {
        let rest = rest.split('?').next().unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let text = |key: &str| settings.get(key).map(|setting| setting.value.clone());
        let aws = &self.options.aws;
        let file = |key: &str, is_overridden: bool| {
            text(key).filter(|_| !is_overridden).map(PathBuf::from)
        };
        S3Settings {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            region: text("region"),
            profile: text("profile"),
            endpoint_url: text("endpointurl"),
            access_key_id: text("access_key_id"),
            secret_access_key: text("secret_access_key"),
            session_token: text("session_token"),
            credential_path: file("credentialpath", aws.has_credentials_file),
            config_path: file("configpath", aws.has_config_file),
            allow_anonymous_login: is_set(settings, "allow_anonymous_login", false),
            tls: self.tls(settings),
            use_ssl: is_set(settings, "use_ssl", true),
            sse_customer_algorithm: text("sse_customer_algorithm"),
            sse_customer_key: text("sse_customer_key"),
            limits: limits(settings),
            ..S3Settings::default()
        }
    }

    fn http(&self, settings: &RemoteSettings) -> HttpSettings {
        let text = |key: &str| settings.get(key).map(|setting| setting.value.clone());
        let password = text("password").unwrap_or_default();
        let auth = match (text("auth").as_deref(), text("user"), text("custom_auth_header")) {
            (Some("custom"), _, Some(name)) => HttpAuth::Header { name, value: password },
            (Some("basic") | None, Some(user), _) => HttpAuth::Basic { user, password },
            _ => HttpAuth::None,
        };
        let is_of_repo = settings.url.level == Level::Repo;
        HttpSettings {
            url: settings.url.value.clone(),
            auth,
            tls: self.tls(settings),
            limits: limits(settings),
            refuse_local_addresses: is_of_repo
                && !matches!(self.options.trusted, Trusted::Everything),
        }
    }

    fn tls(&self, settings: &RemoteSettings) -> TlsVerify {
        let verify = settings.get("ssl_verify").map(|setting| setting.value.as_str());
        match verify.map(str::to_ascii_lowercase).as_deref() {
            Some("false") => TlsVerify::Off,
            None | Some("true") => {
                self.options.aws.ca_bundle.clone().map_or(TlsVerify::System, TlsVerify::Bundle)
            }
            Some(_) => TlsVerify::Bundle(PathBuf::from(verify.unwrap_or_default())),
        }
    }
}

/// Whether the repository names the web server to which the user's own password would go.
fn is_luring(settings: &RemoteSettings) -> bool {
    let is_http = settings.url.value.starts_with("http");
    let is_users = |key| settings.get(key).is_some_and(|own| own.level != Level::Repo);
    is_http && settings.url.level == Level::Repo && HTTP_SECRETS.into_iter().any(is_users)
}

fn strictness(url: &Setting) -> Strictness {
    if url.level == Level::Repo { Strictness::Confined } else { Strictness::Own }
}

/// Whether a setting says yes.
pub(super) fn is_set(settings: &RemoteSettings, key: &str, default: bool) -> bool {
    settings.get(key).map_or(default, |setting| setting.value.eq_ignore_ascii_case("true"))
}

fn limits(settings: &RemoteSettings) -> RequestLimits {
    let defaults = RequestLimits::default();
    let secs = |key| {
        let secs = settings.get(key).and_then(|setting| setting.value.parse().ok());
        secs.filter(|secs| (1..=600).contains(secs)).map(Duration::from_secs)
    };
    RequestLimits {
        connect: secs("connect_timeout").unwrap_or(defaults.connect),
        idle: secs("read_timeout").map_or(defaults.idle, RequestLimits::idle_of),
        ..defaults
    }
}

/// Whether an endpoint is one of Amazon's own, reached so that nobody can listen.
fn is_amazons(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("https://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.strip_suffix(":443").unwrap_or(host);
    let is_plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    let domains = ["amazonaws.com", "amazonaws.com.cn"];
    let service = domains.iter().find_map(|domain| host.strip_suffix(domain)?.strip_suffix('.'));
    // Under other services' names anybody can rent a host.
    is_plain
        && service.is_some_and(|service| {
            let first = service.split('.').next().unwrap_or_default();
            first == "s3" || first.starts_with("s3-")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_amazons_domains_count_as_amazons() {
        for endpoint in ["https://s3.amazonaws.com", "https://s3.eu-west-1.amazonaws.com:443/"] {
            assert!(is_amazons(endpoint), "{endpoint}");
        }
        for endpoint in [
            "http://s3.amazonaws.com",
            "https://amazonaws.com.evil.example",
            "https://evil.example/.amazonaws.com",
            "https://evil.example?.amazonaws.com",
            "https://evil.example\\.amazonaws.com",
            "https://user@evil.example#.amazonaws.com",
            "https://evilamazonaws.com",
            "https://x.execute-api.us-east-1.amazonaws.com",
            "https://s3.evil.example",
        ] {
            assert!(!is_amazons(endpoint), "{endpoint}");
        }
    }
}
