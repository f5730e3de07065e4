//! Plain HTTP, which is read and never written.
//!
//! Redirects are followed by hand: never from https to http, never with credentials to another
//! origin, and each hop is held against the addresses that are off limits.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use futures_util::StreamExt;
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{self, HeaderName, HeaderValue},
};
use tokio::sync::OnceCell;

use super::{
    Body, Cause, Page, Prefix, Put, Remote, RemoteError, RequestLimits, Source, TlsVerify,
    get_action, list_action, put_action,
    range::range_header,
    resume::{self, Answer, Ranged},
    retry::persist,
    size_action,
    transport::{self, chain, network_hint},
};
use crate::id::Key;

mod address;
mod answer;

/// How many redirects one request may take.
const MAX_REDIRECTS: usize = 5;

/// How requests are authorised.
#[derive(Clone, Default)]
pub enum HttpAuth {
    /// Not at all.
    #[default]
    None,
    /// By name and password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// By a header of the user's choice.
    Header {
        /// The header's name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// Tells the kind and keeps the secrets.
impl std::fmt::Debug for HttpAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
            Self::Header { .. } => "Header",
        })
    }
}

/// Where and how an HTTP remote is reached.
#[derive(Debug, Clone, Default)]
pub struct HttpSettings {
    /// The folder's URL, http or https, without name and password.
    pub url: String,
    /// How requests are authorised.
    pub auth: HttpAuth,
    /// What a TLS server must show.
    pub tls: TlsVerify,
    /// How patient to be.
    pub limits: RequestLimits,
    /// Whether this machine and its link are off limits, under whatever name; for a URL that the
    /// repository names. No proxy is used then, since it would look names up unseen.
    pub refuse_local_addresses: bool,
}

/// A remote that is a folder of a web server.
#[derive(Debug, Clone)]
pub struct HttpRemote(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: HttpSettings,
    url: String,
    client: OnceCell<Client>,
}

impl HttpRemote {
    /// Takes the settings; nothing is checked or connected yet.
    pub fn new(settings: HttpSettings) -> Self {
        let url = display_url(&settings.url);
        Self(Arc::new(Shared { settings, url, client: OnceCell::new() }))
    }

    async fn client(&self, action: &str) -> Result<&Client, RemoteError> {
        let build = || async {
            let settings = &self.0.settings;
            transport::client(&settings.tls, &settings.limits, |builder| {
                let builder = builder.user_agent(concat!("dvcfs/", env!("CARGO_PKG_VERSION")));
                if settings.refuse_local_addresses {
                    builder.no_proxy().dns_resolver(address::PublicOnly)
                } else {
                    builder
                }
            })
        };
        self.0.client.get_or_try_init(build).await.map_err(|reason| {
            self.error(Cause::Misconfigured, action, reason).with_hint("check `ssl_verify`")
        })
    }

    /// Sends a request and follows redirects; the answer may have any status.
    async fn send(
        &self,
        method: &Method,
        key: Key,
        headers: &[(HeaderName, String)],
        action: &str,
    ) -> Result<Response, RemoteError> {
        let origin = self.object_url(key, action)?;
        let client = self.client(action).await?;
        let mut url = origin.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url, action)?;
            let mut request = client.request(method.clone(), url.clone());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            if url.origin() == origin.origin() {
                request = self.authorise(request, action)?;
            }
            let response = request.send().await.map_err(|error| self.broken(action, error))?;
            match self.redirect(&response, &url, action)? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        let reason = format!("more than {MAX_REDIRECTS} redirects");
        Err(self.error(Cause::Misconfigured, action, reason))
    }

    fn object_url(&self, key: Key, action: &str) -> Result<Url, RemoteError> {
        let mut url = Url::parse(&self.0.settings.url).map_err(|error| {
            self.misconfigured_url(action, &error.to_string()).with_source(error)
        })?;
        url.set_path(&format!("{}/{}", url.path().trim_end_matches('/'), key.path()));
        Ok(url)
    }

    /// Holds one hop against what may be asked at all.
    fn check(&self, url: &Url, action: &str) -> Result<(), RemoteError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(self.misconfigured_url(action, "not an http or https URL"));
        }
        if self.0.settings.refuse_local_addresses && address::names_local(url) {
            let reason = format!("{} is an address of this machine or its link", display(url));
            return Err(self.error(Cause::Untrusted, action, reason).with_hint(address::HINT));
        }
        Ok(())
    }

    fn authorise(
        &self,
        request: reqwest::RequestBuilder,
        action: &str,
    ) -> Result<reqwest::RequestBuilder, RemoteError> {
        match &self.0.settings.auth {
            HttpAuth::None => Ok(request),
            HttpAuth::Basic { user, password } => Ok(request.basic_auth(user, Some(password))),
            HttpAuth::Header { name, value } => {
                let unusable = |what| {
                    self.error(Cause::Misconfigured, action, what)
                        .with_hint("check `custom_auth_header` and `password`")
                };
                let name = HeaderName::try_from(name.as_str())
                    .map_err(|error| unusable("not a header name").with_source(error))?;
                let mut value = HeaderValue::try_from(value.as_str())
                    .map_err(|error| unusable("not a header value").with_source(error))?;
                value.set_sensitive(true);
                Ok(request.header(name, value))
            }
        }
    }

    fn redirect(
        &self,
        response: &Response,
        url: &Url,
        action: &str,
    ) -> Result<Option<Url>, RemoteError> {
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(target) = response.headers().get(header::LOCATION).filter(|_| is_redirect) else {
            return Ok(None);
        };
        let target = target.to_str().ok().and_then(|text| url.join(text).ok());
        match target {
            None => Err(self.error(Cause::Misconfigured, action, "a redirect leads nowhere")),
            Some(next) if url.scheme() == "https" && next.scheme() != "https" => {
                let reason = format!("a redirect leads from https to {}", display(&next));
                Err(self.error(Cause::Misconfigured, action, reason))
            }
            next => Ok(next),
        }
    }

    /// The size by a HEAD, or by the first byte where HEAD is not offered.
    async fn ask_size(&self, key: Key) -> Result<u64, RemoteError> {
        let action = size_action(key);
        let identity = [(header::ACCEPT_ENCODING, "identity".into())];
        let response = self.send(&Method::HEAD, key, &identity, &action).await?;
        match (response.status(), answer::content_length(&response)) {
            (StatusCode::OK, Some(size)) => Ok(size),
            (StatusCode::OK | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED, _) => {
                self.request(key, Some(0..1), None).await.map(|answer| answer.size)
            }
            (status, _) => Err(self.refused(&action, status)),
        }
    }

    fn misconfigured_url(&self, action: &str, reason: &str) -> RemoteError {
        self.error(Cause::Misconfigured, action, reason).with_hint("check the remote's `url`")
    }

    fn broken(&self, action: &str, error: reqwest::Error) -> RemoteError {
        let error = error.without_url();
        let reason = chain(&error);
        if reason.contains(address::REFUSED) {
            return self.error(Cause::Untrusted, action, reason).with_hint(address::HINT);
        }
        let hint = network_hint(&reason);
        let cause =
            if transport::is_of_proxy(&reason) { Cause::Denied } else { Cause::Unreachable };
        self.error(cause, action, reason).with_hint(hint).with_source(error)
    }

    /// An answer that is not the object.
    fn refused(&self, action: &str, status: StatusCode) -> RemoteError {
        let reason = format!("the server says {status}");
        let (cause, hint) = match status.as_u16() {
            404 | 410 => return self.error(Cause::Missing, action, reason),
            407 => (Cause::Denied, transport::PROXY_HINT),
            401 | 403 => (Cause::Denied, "check `auth`, `user` and `password`"),
            412 => (Cause::Unreachable, "the object changed while it was read; try again"),
            408 | 425 | 429 | 500.. => (Cause::Unreachable, "the server has trouble; try later"),
            _ => (Cause::Misconfigured, "check the remote's `url`"),
        };
        self.error(cause, action, reason).with_hint(hint)
    }

    fn error(&self, cause: Cause, action: &str, reason: impl Into<String>) -> RemoteError {
        RemoteError::new(cause, action, &self.0.url, reason)
    }
}

#[async_trait]
impl Remote for HttpRemote {
    async fn get(&self, key: Key, range: Option<Range<u64>>) -> Result<Body, RemoteError> {
        resume::get(Arc::new(self.clone()), key, range).await
    }

    async fn size(&self, key: Key) -> Result<u64, RemoteError> {
        let stalled = || {
            self.error(Cause::Unreachable, &size_action(key), "no answer in time")
                .with_hint(network_hint(""))
        };
        persist(self.limits(), stalled, || self.ask_size(key)).await
    }

    async fn list(&self, prefix: Prefix, _after: Option<&str>) -> Result<Page, RemoteError> {
        let reason = "HTTP has no listings";
        Err(self.error(Cause::Unsupported, &list_action(prefix), reason))
    }

    async fn put(&self, key: Key, _source: &Source) -> Result<Put, RemoteError> {
        let reason = "remotes of this kind are read, not written";
        Err(self
            .error(Cause::Unsupported, &put_action(key), reason)
            .with_hint("name a remote that is S3 or a folder"))
    }

    fn lists_cheaply(&self) -> bool {
        false
    }

    fn url(&self) -> &str {
        &self.0.url
    }
}

#[async_trait]
impl Ranged for HttpRemote {
    async fn request(
        &self,
        key: Key,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> Result<Answer, RemoteError> {
        let action = get_action(key);
        let mut headers = vec![(header::ACCEPT_ENCODING, "identity".into())];
        headers.extend(range.as_ref().map(|range| (header::RANGE, range_header(range))));
        headers.extend(etag.map(|etag| (header::IF_MATCH, etag.into())));
        let response = self.send(&Method::GET, key, &headers, &action).await?;
        let Some((size, range)) = answer::extent(&response) else {
            return match response.status() {
                status if status.is_success() => {
                    let reason = "the answer does not say which bytes it brings";
                    Err(self.error(Cause::Misconfigured, &action, reason))
                }
                status => Err(self.refused(&action, status)),
            };
        };
        let etag = answer::strong_etag(&response);
        let remote = self.clone();
        let chunks = response
            .bytes_stream()
            .map(move |chunk| chunk.map_err(|error| remote.broken(&action, error)));
        Ok(Answer { size, range, etag, chunks: chunks.boxed() })
    }

    fn limits(&self) -> &RequestLimits {
        &self.0.settings.limits
    }
}

/// A URL that can be shown: without name, password and query.
fn display(url: &Url) -> String {
    let mut url = url.clone();
    // Only URLs without host refuse, and they hold no name either.
    _ = url.set_username("");
    _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn display_url(text: &str) -> String {
    let shown = Url::parse(text).map(|url| display(&url));
    shown.unwrap_or_else(|_| "(not a URL)".into()).trim_end_matches('/').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_url_are_not_shown() {
        assert_eq!(display_url("https://me:secret@host/dvc/?token=x"), "https://host/dvc");
        assert_eq!(display_url("secret"), "(not a URL)");
        let auth = HttpAuth::Basic { user: "me".into(), password: "secret".into() };
        assert_eq!(format!("{auth:?}"), "Basic");
    }
}
