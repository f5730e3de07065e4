//! Connections and requests: from a socket to the store and back.

use std::{
    io,
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::{
    Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, RANGE},
};
use http_body_util::{BodyDataStream, BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use s3s::{
    S3Result,
    access::{S3Access, S3AccessContext},
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use super::{
    ACCESS_KEY, Fault, Options, Request, SECRET_KEY, State, Telling,
    backend::{Folder, WholeObject},
    faults::error_xml,
    lock,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Chunk = Result<Bytes, BoxError>;
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

pub(super) fn body_of(chunks: impl Stream<Item = Chunk> + Send + 'static) -> Body {
    StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
}

pub(super) fn chunks_of(body: Body) -> impl Stream<Item = Chunk> + Send + 'static {
    BodyDataStream::new(body)
}

/// A certificate for 127.0.0.1 in PEM form, and what serves with it.
pub(super) fn tls() -> (Option<String>, Option<TlsAcceptor>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".into(), "localhost".into()])
        .expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("its own key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    (Some(made.cert.pem()), Some(TlsAcceptor::from(Arc::new(config))))
}

/// Serves until `stopped`, on a runtime of its own.
pub(super) fn run(
    listener: TcpListener,
    acceptor: Option<&TlsAcceptor>,
    service: &Service,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let serve = async {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, acceptor) = (service.clone(), acceptor.cloned());
                // Nothing is done about clients that go away.
                drop(tokio::spawn(async move {
                    drop(stream.set_nodelay(true));
                    match acceptor {
                        None => connection(stream, service).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                connection(stream, service).await;
                            }
                        }
                    }
                }));
            }
        };
        tokio::select! {
            () = serve => {}
            _ = stopped => {}
        }
    });
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Service,
) {
    let answer = hyper::service::service_fn(move |request| {
        let service = service.clone();
        async move { service.answer(request).await }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // A broken connection is what some faults are about.
    drop(connection.await);
}

/// The store with everything in front of it.
#[derive(Clone)]
pub(super) struct Service {
    store: S3Service,
    region: Option<String>,
    telling: Telling,
    state: Arc<State>,
}

impl Service {
    pub(super) fn new(root: PathBuf, options: Options, state: Arc<State>) -> Self {
        let mut store = S3ServiceBuilder::new(Folder::new(root));
        store.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        store.set_access(Access { anonymous: options.anonymous });
        let Options { region, telling, .. } = options;
        Self { store: store.build(), region, telling, state }
    }

    async fn answer(
        &self,
        mut request: http::Request<Incoming>,
    ) -> Result<Response<Body>, io::Error> {
        let seen = seen(&request);
        let is_head = seen.method == "HEAD";
        let rule = lock(&self.state.rule).clone();
        let fault = rule.and_then(|rule| rule(&seen));
        lock(&self.state.log).push(seen);
        if let Some(fault) = &fault {
            fault.wait().await;
            if let Some(response) = fault.answer(is_head) {
                // Whoever still sends when it ends would not hear of it.
                receive(request.into_body(), u64::MAX).await;
                return Ok(self.counted(response));
            }
            if let Fault::CutUpload(after) = fault {
                receive(request.into_body(), *after).await;
                return Err(io::Error::other("cut on purpose"));
            }
            if matches!(fault, Fault::IgnoreRange) {
                request.extensions_mut().get_or_insert(WholeObject);
            }
        }
        if let Some(response) = self.elsewhere(&request, is_head) {
            return Ok(response);
        }
        let request = match fault {
            Some(Fault::FlipUpload(at)) => {
                let (head, body) = request.into_parts();
                let mut bytes =
                    Vec::from(body.collect().await.map_err(io::Error::other)?.to_bytes());
                bytes[at] ^= 1;
                http::Request::from_parts(head, bytes.into())
            }
            _ => request.map(s3s::Body::from),
        };
        let response = self.store.call(request).await;
        let response = response.map_err(|error| io::Error::other(format!("{error:?}")))?;
        let response = response.map(|body| body_of(BodyDataStream::new(body)));
        let response = match fault {
            Some(fault) => fault.damage(response),
            None => response,
        };
        Ok(self.counted(response))
    }

    fn counted(&self, response: Response<Body>) -> Response<Body> {
        let state = self.state.clone();
        response.map(|body| {
            body_of(chunks_of(body).inspect_ok(move |chunk| {
                state.bytes_sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }))
        })
    }

    /// Refuses signatures that name another region, as Amazon does.
    fn elsewhere(
        &self,
        request: &http::Request<Incoming>,
        is_head: bool,
    ) -> Option<Response<Body>> {
        let region = self.region.as_deref()?;
        let signature = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        if signature.contains(&format!("/{region}/s3/")) {
            return None;
        }
        let (status, code) = match self.telling {
            Telling::Moved => (StatusCode::MOVED_PERMANENTLY, "PermanentRedirect"),
            Telling::Malformed | Telling::InBody => {
                (StatusCode::BAD_REQUEST, "AuthorizationHeaderMalformed")
            }
        };
        let mut text = error_xml(code);
        let mut builder = Response::builder().status(status);
        if let Telling::InBody = self.telling {
            text = text.replace("</Error>", &format!("<Region>{region}</Region></Error>"));
        } else {
            builder = builder.header("x-amz-bucket-region", region);
        }
        builder = builder.header(CONTENT_LENGTH, text.len());
        let text = if is_head { String::new() } else { text };
        builder.body(body_of(futures_util::stream::iter([Ok(text.into())]))).ok()
    }
}

/// Reads the first bytes that a client sends.
async fn receive(body: Incoming, bytes: u64) {
    let (mut body, mut received) = (BodyDataStream::new(body), 0);
    while received < bytes
        && let Ok(Some(chunk)) = body.try_next().await
    {
        received += chunk.len() as u64;
    }
}

fn seen(request: &http::Request<Incoming>) -> Request {
    let path = request.uri().path().trim_start_matches('/');
    Request {
        method: request.method().to_string(),
        path: percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        range: request.headers().get(RANGE).and_then(|text| text.to_str().ok()).map(Into::into),
        headers: request.headers().keys().map(ToString::to_string).collect(),
    }
}

/// Says who may come in; who signs must sign rightly in any case.
struct Access {
    anonymous: bool,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if self.anonymous || context.credentials().is_some() {
            return Ok(());
        }
        Err(s3s::s3_error!(AccessDenied, "signature required"))
    }
}
