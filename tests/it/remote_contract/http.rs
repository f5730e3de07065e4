//! HTTP: the contract over a small file server, and the rules for redirects and addresses.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use dvcfs::remote::{Cause, HttpAuth, HttpRemote, HttpSettings, Remote};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{cause, holds, objects::Objects, read, s3::settings as s3_settings};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Answer = Response<Body>;

/// Serves on a free port for as long as the test's runtime lives.
async fn serve(answer: impl Fn(&Request<Incoming>) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                std::future::ready(Ok::<_, std::convert::Infallible>(answer(&request)))
            });
            drop(tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            ));
        }
    }));
    url
}

fn plain(status: u16, content: impl Into<Bytes>) -> Answer {
    let body = Full::new(content.into()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

fn redirect(target: &str) -> Answer {
    let mut answer = plain(302, "");
    answer.headers_mut().insert("location", target.parse().unwrap());
    answer
}

/// What a file server says, ranges included.
fn file(objects: &Objects, request: &Request<Incoming>) -> Answer {
    let path = request.uri().path().trim_start_matches("/dvc/");
    let Some((_, content)) = objects.all().iter().find(|(key, _)| key.path() == path) else {
        return plain(404, "");
    };
    let size = content.len();
    let range = request.headers().get("range").map(|text| {
        let (first, last) = text.to_str().unwrap()["bytes=".len()..].split_once('-').unwrap();
        let last = last.parse().map_or(size, |last: usize| size.min(last + 1));
        first.parse().unwrap()..last
    });
    match range {
        None => plain(200, content.clone()),
        Some(range) if range.start >= size => {
            let mut answer = plain(416, "");
            let text = format!("bytes */{size}").parse().unwrap();
            answer.headers_mut().insert("content-range", text);
            answer
        }
        Some(range) => {
            let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let mut answer = plain(206, content[range].to_vec());
            answer.headers_mut().insert("content-range", text.parse().unwrap());
            answer
        }
    }
}

fn settings(url: &str) -> HttpSettings {
    let limits = s3_settings(url).limits;
    HttpSettings { url: format!("{url}/dvc"), limits, ..Default::default() }
}

#[tokio::test]
async fn http_holds_the_contract() {
    let objects = Objects::new();
    let url = serve(move |request| file(&objects, request)).await;
    holds(Arc::new(HttpRemote::new(settings(&url)))).await;
}

#[tokio::test]
async fn http_without_ranges_holds_the_contract_by_reading_through() {
    let objects = Objects::new();
    let url = serve(move |request| {
        let path = request.uri().path().trim_start_matches("/dvc/");
        let found = objects.all().iter().find(|(key, _)| key.path() == path);
        found.map_or_else(|| plain(404, ""), |(_, content)| plain(200, content.clone()))
    })
    .await;
    holds(Arc::new(HttpRemote::new(settings(&url)))).await;
}

#[tokio::test]
async fn a_broken_body_is_resumed() {
    let objects = Objects::new();
    let (key, content) = objects.big();
    let (first, served) = (Mutex::new(Some(content.to_vec())), Objects::new());
    let url = serve(move |request| match first.lock().unwrap().take() {
        None => file(&served, request),
        Some(content) => {
            let head = Ok(Frame::data(Bytes::from(content[..100_000].to_vec())));
            let cut = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            let body = StreamBody::new(stream::iter([head]).chain(cut)).boxed_unsync();
            Response::builder().header("content-length", content.len()).body(body).unwrap()
        }
    })
    .await;
    assert!(read(&HttpRemote::new(settings(&url)), key, None).await.unwrap() == content);
}

#[tokio::test]
async fn statuses_say_whose_move_is_next() {
    for (status, expected) in [
        (404, Cause::Missing),
        (410, Cause::Missing),
        (401, Cause::Denied),
        (403, Cause::Denied),
        (400, Cause::Misconfigured),
        (503, Cause::Unreachable),
    ] {
        let url = serve(move |_| plain(status, "")).await;
        let remote = HttpRemote::new(settings(&url));
        let key = Objects::new().small().0;
        assert_eq!(cause(&remote, key).await, expected, "{status}");
        assert_eq!(remote.size(key).await.unwrap_err().cause, expected, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_credentials() {
    let objects = Objects::new();
    let (key, content) = objects.small();
    let (content, served) = (content.to_vec(), Objects::new());
    let target = serve(move |request| match request.headers().get("authorization") {
        None => file(&served, request),
        Some(_) => plain(400, ""),
    })
    .await;
    let url = serve(move |request| match request.headers().get("authorization") {
        Some(_) => redirect(&format!("{target}{}", request.uri().path())),
        None => plain(401, ""),
    })
    .await;
    let auth = HttpAuth::Basic { user: "me".into(), password: "secret".into() };
    let remote = HttpRemote::new(HttpSettings { auth, ..settings(&url) });
    assert_eq!(read(&remote, key, None).await.unwrap(), content);
    let anonymous = HttpRemote::new(settings(&url));
    assert_eq!(cause(&anonymous, key).await, Cause::Denied);
}

#[tokio::test]
async fn redirects_in_a_circle_and_to_other_schemes_end() {
    let key = Objects::new().small().0;
    let circle = serve(|request| redirect(request.uri().path())).await;
    assert_eq!(cause(&HttpRemote::new(settings(&circle)), key).await, Cause::Misconfigured);
    let away = serve(|_| redirect("file:///etc/passwd")).await;
    assert_eq!(cause(&HttpRemote::new(settings(&away)), key).await, Cause::Misconfigured);
}

#[tokio::test]
async fn a_remote_of_the_repository_does_not_reach_this_machine() {
    let objects = Objects::new();
    let key = objects.small().0;
    let url = serve(move |request| file(&objects, request)).await;
    for url in [url.clone(), url.replace("127.0.0.1", "localhost")] {
        let settings = HttpSettings { refuse_local_addresses: true, ..settings(&url) };
        let error = HttpRemote::new(settings).get(key, None).await.unwrap_err();
        assert_eq!(error.cause, Cause::Untrusted, "{error}");
        assert!(error.hint.is_some());
    }
}

#[tokio::test]
async fn what_is_no_http_url_is_misconfigured() {
    let key = Objects::new().small().0;
    for url in ["ftp://host", "no url", "http://"] {
        let settings = HttpSettings { url: url.into(), ..Default::default() };
        assert_eq!(cause(&HttpRemote::new(settings), key).await, Cause::Misconfigured, "{url}");
    }
}
