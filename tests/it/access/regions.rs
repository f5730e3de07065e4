//! The region of a bucket that lies elsewhere than anybody said.

use super::{assert_is_read, configure, read, served};
use crate::{
    bad_input::refused,
    s3server::{Options, Telling},
    support::{Proxy, WebAnswer, WebServer, noise},
};

#[test]
fn a_bucket_that_lies_elsewhere_is_followed_however_it_says_so() {
    for telling in [Telling::Malformed, Telling::Moved, Telling::InBody] {
        let (sandbox, registry, server) =
            served(Options { region: Some("eu-north-1".into()), telling, ..Options::default() });
        configure(&sandbox, &server.endpoint(), "    region = us-west-2\n");
        assert_is_read(&mut read(&sandbox, &registry));
        // One request finds out, all others go the right way.
        let refused = server.log().len() - server.requests("GET").min(1);
        assert!(refused <= 2, "{telling:?}: {:?}", server.log());
    }
}

/// What Amazon's own servers would say: the bucket lies in Stockholm.
fn amazon(request: &crate::support::WebRequest) -> WebAnswer {
    const HERE: &str = "eu-north-1";
    let is_signed_for_here = request
        .header("authorization")
        .is_some_and(|signature| signature.contains(&format!("/{HERE}/s3/")));
    match request.method.as_str() {
        "HEAD" if request.target.ends_with(".com/") => {
            assert!(request.header("authorization").is_none(), "{request:?}");
            WebAnswer::status(301).with("x-amz-bucket-region", HERE)
        }
        "GET" if is_signed_for_here => WebAnswer::ok(noise(1, super::SIZE)).with("etag", "\"1\""),
        _ => WebAnswer::status(400),
    }
}

#[test]
fn where_nobody_names_a_region_the_bucket_is_asked() {
    let (sandbox, registry, _server) = served(Options::default());
    // Amazon's servers, as far as this machine can see.
    let server = WebServer::start(amazon);
    let proxy = Proxy::to(server.address());
    sandbox.user_config("['remote \"s3\"']\n    use_ssl = false\n");
    let mut command = read(&sandbox, &registry);
    command.env_remove("AWS_REGION").env("HTTP_PROXY", proxy.url(""));
    assert_is_read(&mut command);
    let asked: Vec<_> = server
        .log()
        .into_iter()
        .map(|asked| format!("{} {}", asked.method, asked.target))
        .collect();
    assert!(asked[0].starts_with("HEAD http://bucket.s3"), "{asked:?}");
    assert!(asked[1].starts_with("GET http://bucket.s3.eu-north-1.amazonaws.com/"), "{asked:?}");
    assert_eq!(asked.len(), 2, "{asked:?}");
}

#[test]
fn a_bucket_that_amazon_does_not_know() {
    let (sandbox, registry, _server) = served(Options::default());
    let server = WebServer::start(|_| WebAnswer::status(404));
    let proxy = Proxy::to(server.address());
    sandbox.user_config("['remote \"s3\"']\n    use_ssl = false\n");
    let mut command = read(&sandbox, &registry);
    command.env_remove("AWS_REGION").env("HTTP_PROXY", proxy.url(""));
    insta::assert_snapshot!(refused(&sandbox, &mut command), @r"
    exit 1
    error: print small: read files/md5/d1/6f0543fc95679be086be82ba3386a9 from s3://bucket/registry: there is no bucket bucket
    hint: check `url`
    ");
}
