//! Manifests and configurations.

use oci_client::manifest::{IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};

use super::server::Reply;
use super::*;
use crate::Digest;
use crate::registry::manifest::{Descriptor, Document, MAX_BYTES};

async fn manifest(reply: impl Fn() -> Reply + Send + Sync + 'static, name: &str) -> Failure {
    let server = Server::start(move |_| reply()).await;
    host(&format!("{}/app{name}", server.host()), None).await.manifest(&Wanted::Named).await.unwrap_err()
}

#[tokio::test]
async fn a_manifest_is_fetched_by_tag_and_by_digest() {
    let (server, content) = simple().await;
    let by_tag = host(&format!("{}/app:1", server.host()), None).await;
    let fetched = by_tag.manifest(&Wanted::Named).await.unwrap();
    let Document::Image(image) = fetched.document else { panic!("an image") };
    assert_eq!(by_tag.config(&image.config).await.unwrap(), content.blobs[&image.config.digest.to_string()]);

    let by_digest = host(&format!("{}/app:other@{}", server.host(), fetched.digest), None).await;
    assert_eq!(by_digest.manifest(&Wanted::Named).await.unwrap().digest, fetched.digest);
    let paths = server.paths();
    assert_eq!(paths[0], "/app/manifests/1");
    assert_eq!(paths[2], format!("/app/manifests/{}", fetched.digest), "the digest wins");
    assert!(server.seen()[0].header("accept").unwrap().contains("oci.image.index.v1+json"));
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn content_is_what_was_promised() {
    let wanted = Digest::sha256(b"something else");
    let failure = manifest(|| Reply::new(200, "{}"), &format!("@{wanted}")).await;
    let found = Digest::sha256(b"{}").to_string();
    let text = failure.error.to_string();
    assert!(text.contains(&found) && text.contains(&wanted.to_string()), "{text}");
    assert!(matches!(failure.error, Error::DigestMismatch { .. }));

    let announced = wanted.to_string();
    let reply = move || Reply::new(200, "{}").header("Docker-Content-Digest", announced.clone());
    assert!(matches!(manifest(reply, ":1").await.error, Error::DigestMismatch { .. }));

    let reply = || Reply::new(200, "{\"schemaVersion\":2}").header("Content-Type", "text/html");
    assert!(matches!(manifest(reply, ":1").await.error, Error::Unsupported { .. }));
}

#[tokio::test]
async fn what_an_index_lists_must_come() {
    let (server, content) = simple().await;
    let host = host(&format!("{}/app:1", server.host()), None).await;
    let (_, body) = &content.manifests["app/manifests/1"];
    let listed = |media_type: &str, size_bytes| {
        let digest = Digest::sha256(body);
        Wanted::Listed(Descriptor { media_type: media_type.to_owned(), digest, size_bytes })
    };
    let size = body.len() as u64;
    host.manifest(&listed(OCI_IMAGE_MEDIA_TYPE, size)).await.unwrap();
    let failure = host.manifest(&listed(OCI_IMAGE_MEDIA_TYPE, size + 1)).await.unwrap_err();
    assert!(matches!(failure.error, Error::SizeMismatch { .. }));
    let failure = host.manifest(&listed(IMAGE_MANIFEST_MEDIA_TYPE, size)).await.unwrap_err();
    assert!(matches!(failure.error, Error::InvalidImage { .. }));
}

#[tokio::test]
async fn bodies_are_bounded() {
    let huge = usize::try_from(MAX_BYTES).unwrap() + 1;
    let failure = manifest(move || Reply::new(200, vec![b' '; huge]), ":1").await;
    assert!(matches!(failure.error, Error::TooLarge { .. }));
    // Without a length, the body itself is cut.
    let endless = move || {
        let mut bytes = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n".to_vec();
        bytes.resize(bytes.len() + huge, b' ');
        Reply::Broken(bytes)
    };
    assert!(matches!(manifest(endless, ":1").await.error, Error::TooLarge { .. }));
    let error = manifest(move || Reply::new(400, vec![b'x'; huge]), ":1").await.error.to_string();
    assert!(error.len() < 1000, "{}", error.len());
    let heads = || Reply::new(200, "{}").header("X", "x".repeat(2 << 20));
    assert!(matches!(manifest(heads, ":1").await.error, Error::RegistryUnavailable { .. }));
}

#[tokio::test]
async fn configurations_are_bounded_and_checked() {
    let mut content = Content::default();
    content.blob("x", b"{}");
    let server = Server::start(move |request| content.reply(request)).await;
    let host = host(&format!("{}/app:1", server.host()), None).await;
    let config = |size_bytes, digest| {
        let descriptor = Descriptor { media_type: String::new(), digest, size_bytes };
        let host = Arc::clone(&host);
        async move { host.config(&descriptor).await }
    };
    config(2, Digest::sha256(b"{}")).await.unwrap();
    let long = config(3, Digest::sha256(b"{}")).await.unwrap_err().error;
    assert!(matches!(long, Error::SizeMismatch { expected: 3, found: 2, .. }), "{long}");
    let huge = config(9 << 20, Digest::sha256(b"{}")).await.unwrap_err().error;
    assert!(matches!(huge, Error::TooLarge { .. }), "{huge}");
}

#[tokio::test]
async fn statuses_have_their_meaning() {
    let json = |status, code: &str| {
        let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"says so\"}}]}}");
        move || Reply::new(status, body.clone())
    };
    let failure = manifest(json(404, "MANIFEST_UNKNOWN"), ":1").await;
    assert!(matches!(&failure.error, Error::NotFound { reason, .. } if reason == "MANIFEST_UNKNOWN says so"));
    assert_eq!(failure.again, Again::No);
    let failure = manifest(json(503, "X"), ":1").await;
    assert!(matches!(failure.error, Error::RegistryUnavailable { .. }));
    assert_eq!(failure.again, Again::Later(None));
    let failure = manifest(|| Reply::new(429, "").header("Retry-After", "7"), ":1").await;
    assert_eq!(failure.again, Again::Later(Some(Duration::from_secs(7))));
    let failure = manifest(json(403, "DENIED"), ":1").await;
    assert!(matches!(failure.error, Error::Unauthorized { .. }));
    let failure = manifest(json(418, "TEAPOT"), ":1").await;
    assert!(matches!(failure.error, Error::Refused { status: 418, .. }));
    let failure = manifest(|| Reply::new(404, "<html>long page</html>"), ":1").await;
    assert!(matches!(&failure.error, Error::NotFound { reason, .. } if reason == "Not Found"));
}

#[tokio::test]
async fn hosts_that_do_not_answer() {
    let failure = manifest(|| Reply::Silent(Vec::new()), ":1").await;
    assert!(failure.error.to_string().contains("no answer in"), "{}", failure.error);
    assert_eq!(failure.again, Again::Later(None));
    let failure =
        manifest(|| Reply::Silent(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nx".to_vec()), ":1").await;
    assert!(failure.error.to_string().contains("only 1 bytes"), "{}", failure.error);
    let failure = manifest(|| Reply::Broken(Vec::new()), ":1").await;
    assert!(matches!(failure.error, Error::RegistryUnavailable { .. }), "{}", failure.error);
    assert_eq!(failure.again, Again::Later(None));
    let failure = manifest(|| Reply::Broken(b"SSH-2.0-OpenSSH\r\n".to_vec()), ":1").await;
    assert!(matches!(failure.error, Error::RegistryUnavailable { .. }), "{}", failure.error);

    // It has a port and does not listen.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let failure = host(&format!("{}/app:1", deaf.local_addr().unwrap()), None)
        .await
        .manifest(&Wanted::Named)
        .await
        .unwrap_err();
    assert!(failure.error.to_string().contains("onnection refused"), "{}", failure.error);
    assert_eq!(failure.again, Again::Soon);
}
