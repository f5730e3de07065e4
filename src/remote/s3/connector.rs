//! Lets the SDK send its requests through the crate's own HTTP client.
//!
//! The SDK's client cannot be told to accept any certificate, and panics on a bad bundle.

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{config::HttpClient, config::RuntimeComponents, primitives::SdkBody};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// When something of a request moved last. A request that carries it is given up by whoever watches
/// it, and not because it takes long.
#[derive(Debug, Clone)]
pub(super) struct Moves(Arc<Mutex<Instant>>);

impl Moves {
    /// Something moves now.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something moves.
    pub(super) fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Waits for a request as long as something moves; nothing once `patience` has passed without.
    pub(super) async fn watch<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = T>,
    ) -> Option<T> {
        let mut request = std::pin::pin!(request);
        loop {
            let last = *self.0.lock();
            if let Ok(answer) = timeout_at(last + patience, &mut request).await {
                return Some(answer);
            }
            if *self.0.lock() == last {
                return None;
            }
        }
    }

    /// Waits for an answer that takes its time, which counts as moving.
    pub(super) async fn while_waiting<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        loop {
            self.touch();
            tokio::select! {
                answer = &mut answer => return answer,
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
            let request = into_reqwest(request).map_err(ConnectorError::user);
            let (request, is_watched) = request?;
            let answer = send(&client, request);
            match patience.filter(|_| !is_watched) {
                Some(patience) => timeout(patience, answer)
                    .await
                    .map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?,
                None => answer.await,
            }
        })
    }
}

/// The request, and whether somebody watches it.
fn into_reqwest(request: HttpRequest) -> Result<(reqwest::Request, bool), BoxError> {
    let request = request.try_into_http1x()?;
    let is_watched = request.extensions().get::<Moves>().is_some();
    Ok((request.map(reqwest::Body::wrap).try_into()?, is_watched))
}

async fn send(
    client: &reqwest::Client,
    request: reqwest::Request,
) -> Result<HttpResponse, ConnectorError> {
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
