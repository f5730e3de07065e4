//! What a failed S3 request means for the user.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::remote::{Cause, transport};

/// What to do when the network may be at fault.
pub(super) const NETWORK_HINT: &str = "check the network, the proxy settings and `endpointurl`";

const CREDENTIALS_HINT: &str = "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
     run `aws configure` or `aws sso login`, or set `allow_anonymous_login` for a public bucket";

/// A failed request, as far as it can be understood.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whose move is next.
    pub(super) cause: Cause,
    /// The status of the answer, if there was one.
    pub(super) status: Option<u16>,
    /// S3's word for it, absent from answers without a body.
    pub(super) code: Option<String>,
    /// Why, in one line.
    pub(super) reason: String,
    /// What to do.
    pub(super) hint: Option<&'static str>,
}

impl Failure {
    /// Understands an error of the SDK.
    pub(super) fn new<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Some(response) = error.raw_response() else {
            return Self::unanswered(error);
        };
        let status = response.status().as_u16();
        let meta = error.as_service_error().map(ProvideErrorMetadata::meta);
        // Without a body the SDK makes `NotFound` of the bare status.
        let code = meta.and_then(|meta| meta.code()).filter(|code| *code != "NotFound");
        let message = meta.and_then(|meta| meta.message()).unwrap_or_default();
        let (cause, hint) = code.and_then(judge_code).unwrap_or_else(|| judge_status(status));
        let reason = match code {
            Some(code) => format!("{code}: {message}"),
            None if error.as_service_error().is_none() => {
                format!("status {status}, and {}", transport::chain(error))
            }
            None => format!("the server says {status}"),
        };
        let reason = reason.trim_end_matches([':', ' ']).replace(['\n', '\r'], " ");
        Self { cause, status: Some(status), code: code.map(Into::into), reason, hint: Some(hint) }
    }

    /// Whether a refusal came without words, as all refusals of HEAD do.
    pub(super) fn is_unexplained(&self) -> bool {
        self.code.is_none() && self.status.is_some_and(|status| (300..500).contains(&status))
    }

    /// Whether the server took the request, and its answer was not understood.
    pub(super) fn is_good(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the server does not understand everything that it was asked.
    pub(super) fn is_too_much(&self) -> bool {
        const WORDS: [&str; 4] =
            ["NotImplemented", "InvalidRequest", "InvalidArgument", "UnsupportedOperation"];
        match &self.code {
            Some(code) => WORDS.contains(&code.as_str()),
            None => matches!(self.status, Some(400 | 501)),
        }
    }

    /// Whether the server does not know an upload in parts, or not all of its parts.
    pub(super) fn is_of_lost_upload(&self) -> bool {
        const WORDS: [&str; 3] = ["NoSuchUpload", "InvalidPart", "InvalidPartOrder"];
        self.code.as_ref().is_some_and(|code| WORDS.contains(&code.as_str()))
    }

    /// A request that got no answer, or was never sent.
    fn unanswered<E: Error + 'static>(error: &SdkError<E>) -> Self {
        // The SDK's own words around a broken connection tell nothing.
        let mut reason = match find::<reqwest::Error>(error) {
            Some(broken) => transport::chain(broken),
            None => transport::chain(error),
        };
        let (cause, hint) = match (find::<CredentialsError>(error), error) {
            (Some(CredentialsError::CredentialsNotLoaded(_)), _) => {
                tracing::debug!("{reason}");
                reason = String::from("no AWS credentials were found");
                (Cause::Denied, CREDENTIALS_HINT)
            }
            (Some(CredentialsError::InvalidConfiguration(_)), _) => {
                (Cause::Misconfigured, "check the AWS profile and its files")
            }
            (Some(failed), _) => {
                // Its own words say no more than that it failed.
                let (all, own) = (transport::chain(failed), format!("{failed}: "));
                let why = all.strip_prefix(&own).unwrap_or(&all);
                reason = format!("AWS credentials cannot be had: {why}");
                (Cause::Denied, CREDENTIALS_HINT)
            }
            (None, SdkError::ConstructionFailure(_)) => {
                (Cause::Misconfigured, "check `url`, `endpointurl` and `region`")
            }
            (None, SdkError::TimeoutError(_)) => (Cause::Unreachable, NETWORK_HINT),
            (None, _) if transport::is_of_proxy(&reason) => (Cause::Denied, transport::PROXY_HINT),
            (None, _) => (Cause::Unreachable, transport::network_hint(&reason)),
        };
        Self { cause, status: None, code: None, reason, hint: Some(hint) }
    }
}

/// The region that a refusal says the bucket lies in.
pub(super) fn bucket_region<E>(error: &SdkError<E>) -> Option<String> {
    let response = error.raw_response()?;
    if let Some(region) = response.headers().get("x-amz-bucket-region") {
        return Some(region.to_owned());
    }
    // Other vendors say it in the body of a refused signature.
    let body = std::str::from_utf8(response.body().bytes()?).ok()?;
    let (_, rest) = body.split_once("<Region>")?;
    let (region, _) = rest.split_once("</Region>")?;
    Some(region.trim().to_owned()).filter(|region| !region.is_empty())
}

/// Whether newer credentials may succeed.
pub(super) fn has_expired<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.as_service_error().and_then(|error| error.code()).is_some_and(is_of_expiry)
}

fn is_of_expiry(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired"
    )
}

/// The name of an upload in an answer that the SDK does not understand: some servers wrap it
/// otherwise than Amazon does.
pub(super) fn upload_id<E>(error: &SdkError<E>) -> Option<String> {
    let response = error.raw_response().filter(|response| response.status().is_success())?;
    let body = std::str::from_utf8(response.body().bytes()?).ok()?;
    let (_, rest) = body.split_once("<UploadId>")?;
    let (id, _) = rest.split_once("</UploadId>")?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Checks what the SDK would take for a path or panic on.
pub(super) fn check_endpoint(url: &str) -> Result<(), String> {
    let is_usable = reqwest::Url::parse(url)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    is_usable.then_some(()).ok_or_else(|| "the endpoint is not an http or https URL".into())
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn judge_code(code: &str) -> Option<(Cause, &'static str)> {
    Some(match code {
        "NoSuchKey" => (Cause::Missing, "push it again from where it was added"),
        "NoSuchBucket" | "InvalidBucketName" => {
            (Cause::Misconfigured, "check the bucket in `url`, and `endpointurl`")
        }
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            (Cause::Misconfigured, "set `region` to the bucket's region")
        }
        expired if is_of_expiry(expired) => {
            (Cause::Denied, "get new credentials, for example by `aws sso login`")
        }
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "InvalidToken" | "NotSignedUp" => {
            (Cause::Denied, "these credentials are not of this service: check the AWS profile")
        }
        "SignatureDoesNotMatch" => (Cause::Denied, "the secret key is not right"),
        "RequestTimeTooSkewed" => (Cause::Denied, "set this machine's clock"),
        "AccessDenied" | "AccessDeniedException" | "AllAccessDisabled" => (Cause::Denied, ALLOW),
        "NotImplemented" => (Cause::Unsupported, "another server may offer it"),
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientStorage"
        | "StorageQuotaExceeded" => (Cause::Full, FULL),
        "BadDigest" | "XAmzContentChecksumMismatch" | "IncompleteBody" => {
            (Cause::Unreachable, "the bytes that arrived are not those that were sent; try again")
        }
        "OperationAborted" | "ConditionalRequestConflict" => {
            (Cause::Unreachable, "somebody else writes the same object; try again")
        }
        "InvalidObjectState" => (Cause::Unreachable, "the object is archived: restore it first"),
        "PreconditionFailed" => {
            (Cause::Unreachable, "the object changed while it was read; try again")
        }
        "InvalidRequest" | "InvalidArgument" => {
            (Cause::Misconfigured, "check `sse_customer_key` and the other settings of the remote")
        }
        "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable" => {
            (Cause::Unreachable, TROUBLE)
        }
        _ => return None,
    })
}

/// What to do where reading is refused.
pub(super) const ALLOW: &str = "check the AWS profile; these credentials need s3:GetObject here, and without \
     s3:ListBucket an object that is absent is refused too";
const FULL: &str = "make room in the bucket, or raise its quota";
const TROUBLE: &str = "the server has trouble; try later";

fn judge_status(status: u16) -> (Cause, &'static str) {
    match status {
        404 => (Cause::Missing, "push it again from where it was added"),
        407 => (Cause::Denied, transport::PROXY_HINT),
        507 => (Cause::Full, FULL),
        401 | 403 => (Cause::Denied, ALLOW),
        300..=399 => (Cause::Misconfigured, "check `region` and `endpointurl`"),
        408 | 412 | 425 | 429 | 500.. => (Cause::Unreachable, TROUBLE),
        _ => (Cause::Misconfigured, "check the settings of the remote"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_absent_key_is_missing() {
        assert_eq!(judge_code("NoSuchKey").unwrap().0, Cause::Missing);
        assert_eq!(judge_code("NoSuchBucket").unwrap().0, Cause::Misconfigured);
        assert_eq!(judge_status(403).0, Cause::Denied);
        assert_eq!(judge_status(503).0, Cause::Unreachable);
    }

    #[test]
    fn an_endpoint_must_be_an_http_url() {
        assert!(check_endpoint("http://127.0.0.1:9000").is_ok());
        for bad in ["", "minio:9000", "/path", "ftp://host", "http://"] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }
}
