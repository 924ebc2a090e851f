//! Blobs as streams.

use super::server::Reply;
use super::*;
use crate::Digest;
use crate::registry::manifest::Descriptor;

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: String::new(), digest: Digest::sha256(bytes), size_bytes: bytes.len() as u64 }
}

async fn read(blob: &mut crate::registry::body::Blob) -> (Vec<u8>, Option<Failure>) {
    let mut bytes = Vec::new();
    loop {
        match blob.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, None),
            Err(failure) => return (bytes, Some(failure)),
        }
    }
}

#[tokio::test]
async fn a_blob_goes_on_where_it_broke() {
    let bytes = vec![7; 100_000];
    let mut content = Content::default();
    content.blob("x", &bytes);
    let server = Server::start(move |request| match request.header("range") {
        None => content.reply(request).cut(60_000),
        Some(_) => content.reply(request),
    })
    .await;
    let host = host(&format!("{}/app:1", server.host()), None).await;
    let (mut got, failure) = read(&mut host.blob(&descriptor(&bytes), 0).await.unwrap()).await;
    assert_eq!(got.len(), 60_000);
    assert_eq!(failure.unwrap().again, Again::Later(None));
    let (rest, failure) = read(&mut host.blob(&descriptor(&bytes), 60_000).await.unwrap()).await;
    assert!(failure.is_none());
    got.extend(rest);
    assert_eq!(got, bytes);
    assert_eq!(server.seen()[1].header("range"), Some("bytes=60000-"));
}

#[tokio::test]
async fn a_host_without_ranges_is_read_past() {
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let body = bytes.clone();
    let server = Server::start(move |_| Reply::new(200, body.clone())).await;
    let host = host(&format!("{}/app:1", server.host()), None).await;
    let (rest, failure) = read(&mut host.blob(&descriptor(&bytes), 123_457).await.unwrap()).await;
    assert!(failure.is_none());
    assert_eq!(rest, bytes[123_457..]);
}

#[tokio::test]
async fn a_wrong_range_is_refused() {
    for range in ["bytes 4-9/10", "bytes */10", "x"] {
        let server =
            Server::start(move |_| Reply::new(206, "12345").header("Content-Range", range.to_owned())).await;
        let host = host(&format!("{}/app:1", server.host()), None).await;
        let failure = host.blob(&descriptor(b"0123456789"), 5).await.unwrap_err();
        assert!(failure.error.to_string().contains("sends the range"), "{}", failure.error);
    }
}

#[tokio::test]
async fn a_wrong_length_is_known_at_once() {
    let server = Server::start(|_| Reply::new(200, "12345")).await;
    let host = host(&format!("{}/app:1", server.host()), None).await;
    let failure = host.blob(&descriptor(b"123456"), 0).await.unwrap_err();
    assert!(matches!(failure.error, Error::SizeMismatch { expected: 6, found: 5, .. }), "{}", failure.error);
}

#[tokio::test]
async fn a_trickle_is_a_stall_but_a_slow_reader_is_not() {
    let mut bytes = b"HTTP/1.1 200 X\r\nContent-Length: 5000\r\n\r\n".to_vec();
    bytes.resize(bytes.len() + 4000, b'x');
    let server = Server::start(move |_| Reply::Silent(bytes.clone())).await;
    let host = host(&format!("{}/app:1", server.host()), None).await;
    let mut blob = host.blob(&descriptor(&[b'x'; 5000]), 0).await.unwrap();
    assert!(blob.chunk().await.unwrap().is_some());
    let (_, failure) = read(&mut blob).await;
    assert!(failure.unwrap().error.to_string().contains("came in"));
}
