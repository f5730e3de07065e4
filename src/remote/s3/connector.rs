//! Lets the SDK send its requests through the crate's own HTTP client.
//!
//! The SDK's client cannot be told to accept any certificate, and panics on a bad bundle.

use std::time::Duration;

use aws_sdk_s3::{config::HttpClient, config::RuntimeComponents, primitives::SdkBody};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};

/// The crate's HTTP client as the SDK wants it.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    client: reqwest::Client,
    /// The longest wait for the head of an answer, connecting included.
    patience: Option<Duration>,
}

impl Connector {
    pub(super) fn new(client: reqwest::Client) -> Self {
        Self { client, patience: None }
    }
}

impl HttpClient for Connector {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let patience = match (settings.connect_timeout(), settings.read_timeout()) {
            (None, None) => None,
            (connect, read) => Some(connect.unwrap_or_default() + read.unwrap_or_default()),
        };
        SharedHttpConnector::new(Self { client: self.client.clone(), patience })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { client, patience } = self.clone();
        HttpConnectorFuture::new(async move {
            let answer = send(&client, request);
            match patience {
                Some(patience) => tokio::time::timeout(patience, answer)
                    .await
                    .map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?,
                None => answer.await,
            }
        })
    }
}

async fn send(
    client: &reqwest::Client,
    request: HttpRequest,
) -> Result<HttpResponse, ConnectorError> {
    let user = |error| ConnectorError::user(error);
    let request = request.try_into_http1x().map_err(|error| user(error.into()))?;
    let request: reqwest::Request = request
        .map(reqwest::Body::wrap)
        .try_into()
        .map_err(|error: reqwest::Error| user(error.into()))?;
    let response = client.execute(request).await.map_err(broken)?;
    let response = reqwest_into_http(response).map(SdkBody::from_body_1_x);
    HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
}

fn reqwest_into_http(response: reqwest::Response) -> http::Response<reqwest::Body> {
    response.into()
}

fn broken(error: reqwest::Error) -> ConnectorError {
    let error = error.without_url();
    if error.is_timeout() {
        ConnectorError::timeout(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}
