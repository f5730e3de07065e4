//! From settings to an SDK client: endpoint, region, credentials.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, ConfigLoader, Region, SdkConfig,
    ecs::EcsCredentialsProvider,
    environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider},
    imds::{self, credentials::ImdsCredentialsProvider},
    meta::{credentials::CredentialsProviderChain, region::RegionProviderChain},
    profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider},
    provider_config::ProviderConfig,
    retry::RetryConfig,
    timeout::TimeoutConfig,
    web_identity_token::WebIdentityTokenCredentialsProvider,
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::{
    Client,
    config::{
        Builder, Credentials, IdentityCache, RequestChecksumCalculation,
        ResponseChecksumValidation, SharedCredentialsProvider, StalledStreamProtectionConfig,
    },
};
use aws_types::service_config::ServiceConfigKey;

use super::{S3Settings, connector::Connector};
use crate::remote::transport;

/// Where buckets of unknown region are looked for, and what other vendors go by.
const DEFAULT_REGION: Region = Region::from_static("us-east-1");

/// The longest search for credentials: single sign-on and external programs take their time.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the metadata service of a cloud machine, which elsewhere is absent, may stay silent.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes clients for any region from what settings, environment and profile say.
#[derive(Debug)]
pub(super) struct Clients {
    config: SdkConfig,
    /// The user's endpoint, from the settings, the environment or the profile.
    endpoint: Option<String>,
    use_ssl: bool,
}

impl Clients {
    /// Reads environment and profile; asks no network.
    ///
    /// The error is one line: a certificate bundle that cannot be read.
    pub(super) async fn load(settings: &S3Settings) -> Result<Self, String> {
        let http = transport::client(&settings.tls, &settings.limits, |builder| {
            builder.http1_only().pool_max_idle_per_host(settings.max_concurrency)
        })?;
        let connector = Connector::new(http);
        let region = region(settings).await;
        let mut loader = loader(settings).http_client(connector.clone()).region(region.clone());
        loader = if settings.allow_anonymous_login {
            loader.no_credentials()
        } else {
            loader.credentials_provider(credentials(settings, region, connector))
        };
        let config = loader.load().await;
        let endpoint = settings.endpoint_url.clone().or_else(|| configured_endpoint(&config));
        Ok(Self { config, endpoint, use_ssl: settings.use_ssl })
    }

    /// The region that somebody named, or that an endpoint of another vendor goes by.
    pub(super) fn region(&self) -> Option<Region> {
        let fallback = self.endpoint.as_ref().map(|_| DEFAULT_REGION);
        self.config.region().cloned().or(fallback)
    }

    /// A client for a region.
    pub(super) fn client(&self, region: &Region) -> Client {
        Client::from_conf(self.builder(region).build())
    }

    /// A client that signs nothing, to ask in which region a bucket lies.
    pub(super) fn stranger(&self) -> Client {
        let mut config = self.config.to_builder();
        config.set_credentials_provider(None);
        let config = config.build();
        let clients = Self { config, endpoint: None, use_ssl: self.use_ssl };
        clients.client(&DEFAULT_REGION)
    }

    fn builder(&self, region: &Region) -> Builder {
        let builder = aws_sdk_s3::config::Builder::from(&self.config).region(region.clone());
        match &self.endpoint {
            Some(endpoint) => builder.endpoint_url(endpoint).force_path_style(true),
            None if self.use_ssl => builder,
            None => builder.endpoint_url(format!("http://s3.{region}.amazonaws.com")),
        }
    }
}

fn loader(settings: &S3Settings) -> ConfigLoader {
    let limits = &settings.limits;
    // One quick second try here, which also mends a clock that is wrong; more come from above.
    let retry = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(limits.first_delay)
        .with_max_backoff(limits.per_request());
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(limits.connect)
        .read_timeout(limits.per_request())
        .build();
    let cache = IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(retry)
        .timeout_config(timeouts)
        .identity_cache(cache)
        // Bodies are watched by the code that reads them.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .profile_files(profile_files(settings));
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    loader
}

fn profile_files(settings: &S3Settings) -> EnvConfigFiles {
    let mut files = EnvConfigFiles::builder();
    files = match &settings.config_path {
        Some(path) => files.with_file(EnvConfigFileKind::Config, path),
        None => files.include_default_config_file(true),
    };
    files = match &settings.credential_path {
        Some(path) => files.with_file(EnvConfigFileKind::Credentials, path),
        None => files.include_default_credentials_file(true),
    };
    files.build()
}

/// The region of the settings, the environment or the profile.
///
/// The metadata service is not asked: where a bucket lies, the bucket knows better.
async fn region(settings: &S3Settings) -> Option<Region> {
    let mut profile = ProfileFileRegionProvider::builder().profile_files(profile_files(settings));
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    RegionProviderChain::first_try(settings.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build())
        .region()
        .await
}

/// The keys of the settings, or else the SDK's usual chain over the right files.
fn credentials(
    settings: &S3Settings,
    region: Option<Region>,
    connector: Connector,
) -> SharedCredentialsProvider {
    if let (Some(id), Some(secret)) = (&settings.access_key_id, &settings.secret_access_key) {
        let token = settings.session_token.clone();
        let keys = Credentials::new(id, secret, token, None, "dvcfs settings");
        return SharedCredentialsProvider::new(keys);
    }
    let config = ProviderConfig::without_region().with_http_client(connector).with_region(region);
    let mut profile = ProfileFileCredentialsProvider::builder()
        .configure(&config)
        .profile_files(profile_files(settings));
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
    let mut chain = CredentialsProviderChain::first_try("profile", profile.build())
        .or_else("web identity", web_identity)
        .or_else("container", EcsCredentialsProvider::builder().configure(&config).build());
    // A profile that is named goes before keys that happen to lie in the environment.
    if settings.profile.is_none() {
        let environment = EnvironmentVariableCredentialsProvider::new();
        chain = CredentialsProviderChain::first_try("environment", environment)
            .or_else("others", chain);
    }
    if settings.instance_metadata {
        chain = chain.or_else("instance metadata", instance_role(&config));
    }
    SharedCredentialsProvider::new(chain)
}

fn instance_role(config: &ProviderConfig) -> ImdsCredentialsProvider {
    let client = imds::Client::builder()
        .configure(config)
        .connect_timeout(METADATA_TIMEOUT)
        .read_timeout(METADATA_TIMEOUT)
        .max_attempts(2)
        .build();
    ImdsCredentialsProvider::builder().configure(config).imds_client(client).build()
}

/// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or the profile's, by the SDK's own rules.
fn configured_endpoint(config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config.service_config()?.load_config(key)
}
