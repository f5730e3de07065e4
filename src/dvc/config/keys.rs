//! The keys DVC knows, which decide what is worth a warning, and those that name files.

/// Sections that have no bearing on reading data.
const OTHER_SECTIONS: [&str; 11] = [
    "db", "exp", "feature", "hydra", "index", "machine", "parsing", "plots", "state", "studio",
    "datasets",
];

const CORE: &str = "analytics autostage check_update checksum_jobs hardlink_lock interactive \
    machine no_scm remote site_cache_dir";

const CACHE: &str = "azure dir gdrive gs hdfs local protected s3 shared slow_link_warning ssh \
    type verify webhdfs";

/// Of all schemes together: a key of another scheme is harmless.
const REMOTE: &str = "access_key_id account_key account_name acl allow_agent \
    allow_anonymous_login ask_passphrase ask_password auth bearer_token_command cache_regions \
    cert_path checksum_jobs client_id client_secret configpath connect_timeout connection_string \
    connection_timeout credentialpath custom_auth_header data_proxy_target endpointurl \
    exclude_environment_credential exclude_managed_identity_credential \
    exclude_shared_token_cache_credential exclude_visual_studio_code_credential \
    gdrive_acknowledge_abuse gdrive_client_id gdrive_client_secret \
    gdrive_service_account_json_file_path gdrive_service_account_user_email gdrive_trash_only \
    gdrive_use_service_account gdrive_user_credentials_file grant_full_control grant_read \
    grant_read_acp grant_write_acp gss_auth jobs kerb_ticket kerberos kerberos_principal key_path \
    keyfile listobjects max_sessions method no_traverse oss_endpoint oss_key_id oss_key_secret \
    passphrase password port profile projectname protected proxy_to read_timeout region \
    replication sas_token secret_access_key session_token shared slow_link_warning sse \
    sse_customer_algorithm sse_customer_key sse_kms_key_id ssl_verify tenant_id timeout token \
    type url use_https use_ssl user verify version_aware worktree";

const PATHS: &str = "cert_path configpath credentialpath \
    gdrive_service_account_json_file_path gdrive_user_credentials_file key_path keyfile url";

/// What opens a store to whoever reads it.
const SECRETS: &str = "access_key_id account_key bearer_token_command client_secret \
    connection_string gdrive_client_secret oss_key_id oss_key_secret passphrase password sas_token \
    secret_access_key session_token sse_customer_key token";

/// Whether nobody else should see the value of a remote's key.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.split_ascii_whitespace().any(|secret| secret == key)
}

/// What a section is to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Section<'a> {
    /// `core` or `cache`.
    Plain(&'a str),
    /// A remote, by name.
    Remote(&'a str),
    /// DVC's, but nothing we use.
    Other,
    /// Nothing DVC knows.
    Unknown,
}

impl<'a> Section<'a> {
    /// Tells the kind of a section from its name in lower case.
    pub(super) fn new(name: &'a str) -> Self {
        let (kind, quoted) = name.split_once('"').unwrap_or((name, ""));
        match (kind.trim(), quoted.strip_suffix('"')) {
            ("remote", Some(name)) if !name.is_empty() => Self::Remote(name),
            ("machine" | "db", Some(_)) => Self::Other,
            ("core" | "cache", None) => Self::Plain(name),
            (name, None) if OTHER_SECTIONS.contains(&name) => Self::Other,
            _ => Self::Unknown,
        }
    }

    /// Whether DVC knows `key` in this section.
    pub(super) fn knows(&self, key: &str) -> bool {
        let keys = match self {
            Self::Plain("core") => CORE,
            Self::Plain(_) => CACHE,
            Self::Remote(_) => REMOTE,
            Self::Other | Self::Unknown => "",
        };
        keys.split_ascii_whitespace().any(|known| known == key)
    }

    /// Whether the value of `key` is a path, relative to the folder of the file.
    pub(super) fn is_path(&self, key: &str) -> bool {
        match self {
            Self::Plain("cache") => key == "dir",
            Self::Remote(_) => PATHS.split_ascii_whitespace().any(|path| path == key),
            _ => false,
        }
    }

    /// Whether the value of `key` may be a list, none of which we use.
    pub(super) fn is_list(&self, key: &str) -> bool {
        matches!((self, key), (Self::Plain("cache") | Self::Remote(_), "type" | "cache_regions"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_told_by_their_name() {
        assert_eq!(Section::new("remote \"my remote\""), Section::Remote("my remote"));
        assert_eq!(Section::new("core"), Section::Plain("core"));
        assert_eq!(Section::new("machine \"x\""), Section::Other);
        for unknown in ["remote", "remote \"\"", "remote \"x", "core \"x\"", "novel"] {
            assert_eq!(Section::new(unknown), Section::Unknown, "{unknown}");
        }
    }
}
