//! S3 and what speaks like it.
//!
//! Nothing happens until the first request: only then are environment and profile read, the
//! bucket's region found if nobody names it, and credentials looked for. A bucket that turns out
//! to lie elsewhere is followed there once. Where the server says that credentials have expired,
//! which it knows better than they do themselves, all of that is done anew.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use aws_config::Region;
use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{get_object::GetObjectOutput, head_object::HeadObjectOutput},
    primitives::ByteStream,
};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use parking_lot::RwLock;
use tokio::sync::OnceCell;

use self::{
    client::Clients,
    errors::{Failure, bucket_region, has_expired},
    put::Understood,
    settings::CustomerKey,
};
use super::{
    Body, Cause, Page, Prefix, Put, Remote, RemoteError, RequestLimits, Source, get_action,
    list_action,
    range::{content_range, range_header},
    resume::{self, Answer, Ranged},
    retry::persist,
    size_action,
};
use crate::id::Key;

mod client;
mod connector;
mod errors;
mod list;
mod put;
mod settings;

pub use settings::S3Settings;

/// A remote that is a bucket, or a folder of one.
#[derive(Debug, Clone)]
pub struct S3Remote(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: S3Settings,
    url: String,
    customer_key: Option<CustomerKey>,
    understood: Understood,
    connected: RwLock<Arc<Connected>>,
}

/// What was read and found for the first request.
#[derive(Debug, Default)]
struct Connected {
    clients: OnceCell<Clients>,
    /// For the region that was named or found.
    client: OnceCell<Client>,
    /// For the region where the bucket said it is.
    moved: OnceCell<Client>,
}

impl S3Remote {
    /// Takes the settings; nothing is read or connected yet.
    pub fn new(settings: S3Settings) -> Self {
        let url = match settings.prefix.trim_matches('/') {
            "" => format!("s3://{}", settings.bucket),
            prefix => format!("s3://{}/{prefix}", settings.bucket),
        };
        Self(Arc::new(Shared {
            customer_key: CustomerKey::new(&settings),
            settings,
            url,
            understood: Understood::default(),
            connected: RwLock::default(),
        }))
    }

    fn object_name(&self, key: Key) -> String {
        self.full_name(&key.path())
    }

    fn full_name(&self, path: &str) -> String {
        match self.0.settings.prefix.trim_matches('/') {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        }
    }

    async fn clients<'a>(
        &self,
        connected: &'a Connected,
        action: &str,
    ) -> Result<&'a Clients, RemoteError> {
        if let Some(url) = self.0.settings.endpoint_url.as_deref() {
            errors::check_endpoint(url).map_err(|reason| {
                self.error(Cause::Misconfigured, action, reason).with_hint("check `endpointurl`")
            })?;
        }
        let load = || Clients::load(&self.0.settings);
        connected.clients.get_or_try_init(load).await.map_err(|reason| {
            self.error(Cause::Misconfigured, action, reason)
                .with_hint("check `ssl_verify` and AWS_CA_BUNDLE")
        })
    }

    async fn client(&self, connected: &Connected, action: &str) -> Result<Client, RemoteError> {
        let clients = self.clients(connected, action).await?;
        if let Some(client) = connected.moved.get() {
            return Ok(client.clone());
        }
        let build = || async {
            let region = match clients.region() {
                Some(region) => region,
                None => self.ask_region(clients, action).await?,
            };
            Ok(clients.client(&region))
        };
        connected.client.get_or_try_init(build).await.cloned()
    }

    /// Has later requests look for credentials again, unless another request had that done.
    fn renew(&self, expired: &Arc<Connected>) {
        let mut connected = self.0.connected.write();
        if Arc::ptr_eq(&connected, expired) {
            *connected = Arc::default();
        }
    }

    /// Asks Amazon where the bucket lies, which it tells to strangers too.
    async fn ask_region(&self, clients: &Clients, action: &str) -> Result<Region, RemoteError> {
        let stranger = clients.stranger();
        let (region, failure) =
            match stranger.head_bucket().bucket(&self.0.settings.bucket).send().await {
                Ok(bucket) => (bucket.bucket_region, None),
                Err(error) => (bucket_region(&error), Some(Failure::new(&error))),
            };
        match (region, failure) {
            (Some(region), _) => Ok(Region::new(region)),
            (None, Some(failure)) if failure.status == Some(404) => {
                let reason = format!("there is no bucket {}", self.0.settings.bucket);
                Err(self.error(Cause::Misconfigured, action, reason).with_hint("check `url`"))
            }
            (None, failure) => {
                let why = failure.map_or(String::new(), |failure| failure.reason);
                let reason = format!("no region is set and the bucket's cannot be found: {why}");
                Err(self
                    .error(Cause::Unreachable, action, reason)
                    .with_hint("set `region` for this remote, or AWS_REGION"))
            }
        }
    }

    /// Sends a request; once more where the bucket says it lies, and once more with credentials
    /// that are looked for again where these have expired.
    async fn send<T, E, F>(
        &self,
        action: &str,
        request: impl Fn(Client) -> F,
    ) -> Result<Result<T, SdkError<E>>, RemoteError>
    where
        E: ProvideErrorMetadata,
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let connected = self.0.connected.read().clone();
        match self.send_as(&connected, action, &request).await? {
            Err(error) if has_expired(&error) => {
                self.renew(&connected);
                let renewed = self.0.connected.read().clone();
                self.send_as(&renewed, action, &request).await
            }
            outcome => Ok(outcome),
        }
    }

    async fn send_as<T, E, F>(
        &self,
        connected: &Connected,
        action: &str,
        request: &impl Fn(Client) -> F,
    ) -> Result<Result<T, SdkError<E>>, RemoteError>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let client = self.client(connected, action).await?;
        let error = match request(client.clone()).await {
            Ok(output) => return Ok(Ok(output)),
            Err(error) => error,
        };
        let here = client.config().region().map(ToString::to_string);
        match bucket_region(&error) {
            Some(there) if Some(&there) != here.as_ref() && connected.moved.get().is_none() => {
                let clients = self.clients(connected, action).await?;
                let follow = || async { clients.client(&Region::new(there)) };
                let client = connected.moved.get_or_init(follow).await;
                Ok(request(client.clone()).await)
            }
            _ => Ok(Err(error)),
        }
    }

    async fn get_object(
        &self,
        key: Key,
        range: Option<&Range<u64>>,
        etag: Option<&str>,
        action: &str,
    ) -> Result<Result<GetObjectOutput, Failure>, RemoteError> {
        let (name, customer) = (self.object_name(key), self.0.customer_key.as_ref());
        let output = self.send(action, |client| {
            client
                .get_object()
                .bucket(&self.0.settings.bucket)
                .key(&name)
                .set_range(range.map(range_header))
                .set_if_match(etag.map(Into::into))
                .set_sse_customer_algorithm(customer.map(|customer| customer.algorithm.clone()))
                .set_sse_customer_key(customer.map(|customer| customer.key.clone()))
                .set_sse_customer_key_md5(customer.map(|customer| customer.md5.clone()))
                .send()
        });
        Ok(output.await?.map_err(|error| Failure::new(&error)))
    }

    async fn head_object(
        &self,
        key: Key,
        action: &str,
    ) -> Result<Result<HeadObjectOutput, Failure>, RemoteError> {
        let (name, customer) = (self.object_name(key), self.0.customer_key.as_ref());
        let output = self.send(action, |client| {
            client
                .head_object()
                .bucket(&self.0.settings.bucket)
                .key(&name)
                .set_sse_customer_algorithm(customer.map(|customer| customer.algorithm.clone()))
                .set_sse_customer_key(customer.map(|customer| customer.key.clone()))
                .set_sse_customer_key_md5(customer.map(|customer| customer.md5.clone()))
                .send()
        });
        Ok(output.await?.map_err(|error| Failure::new(&error)))
    }

    /// The size by a HEAD.
    ///
    /// A refused HEAD has no body that says why (no key or no bucket, a wrong key or an old one),
    /// so the first byte is asked for, and that refusal counts.
    async fn ask_size(&self, key: Key) -> Result<u64, RemoteError> {
        let action = size_action(key);
        match self.head_object(key, &action).await? {
            Ok(head) => self.announced(&action, head.content_length),
            Err(failure) if failure.is_unexplained() => {
                match self.get_object(key, Some(&(0..1)), None, &action).await? {
                    Ok(output) => Ok(self.extent(&action, &output)?.0),
                    Err(failure) => Err(self.failed(&action, failure)),
                }
            }
            Err(failure) => Err(self.failed(&action, failure)),
        }
    }

    fn announced(&self, action: &str, length: Option<i64>) -> Result<u64, RemoteError> {
        length.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| {
            self.error(Cause::Misconfigured, action, "the server does not tell the size")
        })
    }

    /// The object's size and which bytes of it an answer brings.
    fn extent(
        &self,
        action: &str,
        output: &GetObjectOutput,
    ) -> Result<(u64, Range<u64>), RemoteError> {
        let length = self.announced(action, output.content_length)?;
        let Some(text) = output.content_range.as_deref() else {
            return Ok((length, 0..length));
        };
        match content_range(text) {
            Some((Some(range), size)) if range.end - range.start == length => Ok((size, range)),
            _ => {
                let reason = format!("{length} bytes came as range {text:?}");
                Err(self.error(Cause::Unreachable, action, reason))
            }
        }
    }

    fn chunks(
        &self,
        action: String,
        body: ByteStream,
    ) -> BoxStream<'static, Result<bytes::Bytes, RemoteError>> {
        let remote = self.clone();
        stream::unfold(body, |mut body| async { body.next().await.map(|chunk| (chunk, body)) })
            .map(move |chunk| {
                chunk.map_err(|error| {
                    let reason = super::transport::chain(&error);
                    remote.error(Cause::Unreachable, &action, reason).with_source(error)
                })
            })
            .boxed()
    }

    fn failed(&self, action: &str, failure: Failure) -> RemoteError {
        let mut error = self.error(failure.cause, action, failure.reason);
        error.hint = failure.hint.map(Into::into);
        error
    }

    fn error(&self, cause: Cause, action: &str, reason: impl Into<String>) -> RemoteError {
        RemoteError::new(cause, action, &self.0.url, reason)
    }
}

#[async_trait]
impl Remote for S3Remote {
    async fn get(&self, key: Key, range: Option<Range<u64>>) -> Result<Body, RemoteError> {
        resume::get(Arc::new(self.clone()), key, range).await
    }

    async fn size(&self, key: Key) -> Result<u64, RemoteError> {
        let stalled = || {
            self.error(Cause::Unreachable, &size_action(key), "no answer in time")
                .with_hint(errors::NETWORK_HINT)
        };
        persist(self.limits(), stalled, || Box::pin(self.ask_size(key))).await
    }

    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Page, RemoteError> {
        let stalled = || {
            self.error(Cause::Unreachable, &list_action(prefix), "no answer in time")
                .with_hint(errors::NETWORK_HINT)
        };
        persist(self.limits(), stalled, || Box::pin(self.ask_page(prefix, after))).await
    }

    async fn put(&self, key: Key, source: &Source) -> Result<Put, RemoteError> {
        self.put_source(key, source).await
    }

    fn lists_cheaply(&self) -> bool {
        true
    }

    fn url(&self) -> &str {
        &self.0.url
    }
}

#[async_trait]
impl Ranged for S3Remote {
    async fn request(
        &self,
        key: Key,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> Result<Answer, RemoteError> {
        let action = get_action(key);
        let output = match self.get_object(key, range.as_ref(), etag, &action).await? {
            Ok(output) => output,
            Err(failure) if failure.status == Some(416) => {
                let size = Box::pin(self.ask_size(key)).await?;
                let chunks = stream::empty().boxed();
                return Ok(Answer { size, range: size..size, etag: None, chunks });
            }
            Err(failure) => return Err(self.failed(&action, failure)),
        };
        let is_page = output.content_type().is_some_and(|kind| kind.starts_with("text/html"));
        if is_page && output.e_tag.is_none() {
            let reason = "a web page came instead of the object";
            let error = self.error(Cause::Unreachable, &action, reason);
            return Err(error.with_hint("a proxy or a login page may lie in between"));
        }
        let (size, range) = self.extent(&action, &output)?;
        let chunks = self.chunks(action, output.body);
        Ok(Answer { size, range, etag: output.e_tag, chunks })
    }

    fn limits(&self) -> &RequestLimits {
        &self.0.settings.limits
    }
}
