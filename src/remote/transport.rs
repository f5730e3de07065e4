//! The HTTP client under the S3 and the HTTP remote: certificates, proxies, time limits.
//!
//! Proxies come from `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as the HTTP library reads them.

use std::{error::Error, fs, path::PathBuf};

use reqwest::{Certificate, ClientBuilder, redirect::Policy};

use super::retry::RequestLimits;

/// What a TLS server must show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TlsVerify {
    /// A certificate of an authority that the system trusts.
    #[default]
    System,
    /// A certificate of an authority in this PEM file, and of no other.
    Bundle(PathBuf),
    /// Anything. Whoever sits in between can read and change everything.
    Off,
}

/// Builds a client that follows no redirects; `adjust` may change more.
///
/// The error is one line without secrets: a bundle that cannot be read.
pub(super) fn client(
    tls: &TlsVerify,
    limits: &RequestLimits,
    adjust: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<reqwest::Client, String> {
    let base = || {
        let builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(limits.connect);
        adjust(builder)
    };
    let built = match tls {
        // Without any authority on the system the first fails; plain HTTP must still work.
        TlsVerify::System => base().build().or_else(|_| base().tls_certs_only([]).build()),
        TlsVerify::Bundle(path) => base().tls_certs_only(bundle(path)?).build(),
        TlsVerify::Off => base().tls_danger_accept_invalid_certs(true).build(),
    };
    built.map_err(|error| chain(&error))
}

fn bundle(path: &PathBuf) -> Result<Vec<Certificate>, String> {
    let refuse = |why: String| format!("CA bundle {}: {why}", path.display());
    let pem = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| refuse(chain(&error)))?;
    if certificates.is_empty() {
        return Err(refuse("no certificate in it".into()));
    }
    Ok(certificates)
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        next = error.source();
    }
    line.replace(['\n', '\r'], " ")
}

/// Whether a proxy has refused to lead on, judged by the text of the causes.
pub(super) fn is_of_proxy(reason: &str) -> bool {
    reason.contains("proxy authorization required")
}

/// What to do about a proxy that lets nobody in whom it does not know.
pub(super) const PROXY_HINT: &str = "the proxy wants to know who you are: say so in HTTP_PROXY or \
     HTTPS_PROXY, as in http://user:password@host:port";

/// What to do about a failed connection, judged by the text of its causes.
pub(super) fn network_hint(reason: &str) -> &'static str {
    if is_of_proxy(reason) {
        PROXY_HINT
    } else if reason.contains("certificate") {
        "for a private certificate authority set `ssl_verify` to its bundle, or AWS_CA_BUNDLE for S3"
    } else if reason.contains("dns error") || reason.contains("lookup") {
        "check the host name in the remote's settings, and the network"
    } else {
        "check the network, the proxy settings and the remote's URL"
    }
}
