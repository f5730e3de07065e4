//! What S3 needs to know, under DVC's names.

use std::path::PathBuf;

use aws_smithy_types::base64;
use md5::{Digest, Md5};

use crate::remote::{RequestLimits, TlsVerify};

/// Where and how a bucket is reached; the names are those of DVC's settings.
#[derive(Clone)]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// What keys begin with, without slash at either end; may be empty.
    pub prefix: String,
    /// The bucket's region; otherwise the environment, the profile or the bucket itself tells.
    pub region: Option<String>,
    /// The AWS profile to use.
    pub profile: Option<String>,
    /// The URL of another service than Amazon's, http or https.
    pub endpoint_url: Option<String>,
    /// The access key, which counts only together with the secret one.
    pub access_key_id: Option<String>,
    /// The secret key.
    pub secret_access_key: Option<String>,
    /// The session token that goes with temporary keys.
    pub session_token: Option<String>,
    /// A credentials file in place of the SDK's. DVC prefers `AWS_SHARED_CREDENTIALS_FILE`, so
    /// callers leave this out where that is set.
    pub credential_path: Option<PathBuf>,
    /// A configuration file in place of the SDK's; as above with `AWS_CONFIG_FILE`.
    pub config_path: Option<PathBuf>,
    /// Whether requests go unsigned.
    pub allow_anonymous_login: bool,
    /// Whether the metadata service of a cloud machine may be asked for credentials.
    pub instance_metadata: bool,
    /// What a TLS server must show.
    pub tls: TlsVerify,
    /// Whether Amazon's own endpoints are reached by https; another endpoint says so itself.
    pub use_ssl: bool,
    /// How objects are encrypted by a key of the customer's, if they are; AES256 when only the key
    /// is given.
    pub sse_customer_algorithm: Option<String>,
    /// That key, in base64.
    pub sse_customer_key: Option<String>,
    /// How patient to be.
    pub limits: RequestLimits,
    /// How many requests the caller has under way at most: so many idle connections are kept.
    pub max_concurrency: usize,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            prefix: String::new(),
            region: None,
            profile: None,
            endpoint_url: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            credential_path: None,
            config_path: None,
            allow_anonymous_login: false,
            instance_metadata: true,
            tls: TlsVerify::System,
            use_ssl: true,
            sse_customer_algorithm: None,
            sse_customer_key: None,
            limits: RequestLimits::default(),
            max_concurrency: 64,
        }
    }
}

/// Shows the place and keeps the secrets.
impl std::fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Settings")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("region", &self.region)
            .field("profile", &self.profile)
            .field("endpoint_url", &self.endpoint_url)
            .finish_non_exhaustive()
    }
}

/// A key of the customer's, as the headers want it.
#[derive(Clone)]
pub(super) struct CustomerKey {
    pub(super) algorithm: String,
    pub(super) key: String,
    pub(super) md5: String,
}

impl std::fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CustomerKey")
    }
}

impl CustomerKey {
    /// A key that is no base64 is sent as it is, for the server to refuse.
    pub(super) fn new(settings: &S3Settings) -> Option<Self> {
        let key = settings.sse_customer_key.clone()?;
        let algorithm = settings.sse_customer_algorithm.clone().unwrap_or_else(|| "AES256".into());
        let md5 = base64::encode(Md5::digest(base64::decode(&key).unwrap_or_default()));
        Some(Self { algorithm, key, md5 })
    }
}
