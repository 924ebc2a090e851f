//! Registries that fail in the middle: each ends in the right image or a clear error, and nothing is left.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Pulls a big layer from a registry whose answers to requests for it `fault` changes: it gets the number of the
/// request and the proper answer.
async fn pull_through(
    fault: impl Fn(usize, Reply) -> Reply + Send + Sync + 'static,
) -> (Server, Result<(), Error>) {
    let (noise, archive) = (noise(), whole_layer());
    let content = Content::with_image("app", "1", &[&layer("small", b"x"), &archive]);
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let reply = content.reply(request);
        if is_layer(request, &archive) { fault(count.fetch_add(1, Ordering::SeqCst), reply) } else { reply }
    })
    .await;
    let node = Node::new("").await;
    let name = format!("{}/app:1", server.host());
    let outcome = match node.pull(&name).await {
        Ok(id) => {
            let read = node.images.read_file(&id, "noise", 1 << 20).await.unwrap().unwrap();
            assert!(read == noise, "the file is whole");
            Ok(())
        }
        Err(_) => Err(node.fail(&name).await),
    };
    node.clean().await;
    (server, outcome)
}

fn noise() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn whole_layer() -> Vec<u8> {
    layer("noise", &noise())
}

fn body(reply: &Reply) -> Vec<u8> {
    let Reply::Answer { body, .. } = reply else { panic!("{reply:?}") };
    body.to_vec()
}

/// An answer without a length, which ends with the connection.
fn unmeasured(body: &[u8]) -> Reply {
    let mut bytes = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n".to_vec();
    bytes.extend_from_slice(body);
    Reply::Broken(bytes)
}

#[tokio::test]
async fn a_layer_that_breaks_off_goes_on() {
    let (server, outcome) = pull_through(|number, reply| match number {
        0 => reply.cut(300_000),
        1 => Reply::Broken(Vec::new()),
        _ => reply,
    })
    .await;
    outcome.unwrap();
    let ranges: Vec<_> = server.seen().iter().filter_map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["bytes=300000-", "bytes=300000-"]);
}

#[tokio::test]
async fn a_layer_goes_on_without_ranges_and_after_pauses() {
    let (_, outcome) = pull_through(|number, reply| match number {
        0 => reply.cut(700_000),
        1 => Reply::new(503, "later").header("Retry-After", "1"),
        _ => unmeasured(&whole_layer()),
    })
    .await;
    outcome.unwrap();
    let (_, outcome) = pull_through(|number, reply| match number {
        0 => Reply::new(429, "").header("Retry-After", "3600"),
        1 => {
            Reply::Silent(format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", body(&reply).len()).into())
        }
        _ => reply,
    })
    .await;
    outcome.unwrap();
}

#[tokio::test]
async fn a_layer_that_breaks_off_too_often() {
    let (server, outcome) = pull_through(|_, reply| reply.cut(1)).await;
    assert!(matches!(outcome.unwrap_err(), Error::RegistryUnavailable { .. }));
    assert!(server.seen().len() < 20);
    let (_, outcome) = pull_through(|_, _| Reply::new(500, "on fire")).await;
    assert!(outcome.unwrap_err().to_string().contains("on fire"));
}

#[tokio::test]
async fn wrong_content() {
    let (_, outcome) = pull_through(|_, reply| {
        let mut bytes = body(&reply);
        bytes[600_000] ^= 1;
        Reply::new(200, bytes)
    })
    .await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert!(error.to_string().contains(&Digest::sha256(&whole_layer()).to_string()), "{error}");

    // What the unpacking refuses is first of all not what was promised.
    let (_, outcome) = pull_through(|_, reply| Reply::new(200, vec![0xff; body(&reply).len()])).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn wrong_sizes() {
    let (_, outcome) = pull_through(|_, reply| {
        let mut bytes = body(&reply);
        bytes.push(0);
        unmeasured(&bytes)
    })
    .await;
    assert!(matches!(outcome.unwrap_err(), Error::SizeMismatch { .. }));
    let (_, outcome) = pull_through(|_, reply| unmeasured(&body(&reply)[..1000])).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { found: 1000, .. }), "{error}");
    let (_, outcome) = pull_through(|_, reply| Reply::new(200, body(&reply)[..1000].to_vec())).await;
    assert!(matches!(outcome.unwrap_err(), Error::SizeMismatch { found: 1000, .. }));
}

#[tokio::test]
async fn a_layer_that_is_not_there_or_not_given() {
    let (_, outcome) = pull_through(|_, _| Reply::new(404, "")).await;
    assert!(matches!(outcome.unwrap_err(), Error::NotFound { .. }));
    let (_, outcome) = pull_through(|_, _| Reply::new(403, "")).await;
    assert!(matches!(outcome.unwrap_err(), Error::Unauthorized { .. }));
}

#[tokio::test]
async fn a_layer_that_is_what_was_promised_and_still_bad() {
    let damaged = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1, 2, 3];
    let (server, _) = serve(&[&damaged]).await;
    let node = Node::new("").await;
    let error = node.fail(&format!("{}/app:1", server.host())).await;
    assert!(matches!(error, Error::LayerRefused { .. }), "{error}");

    let archive = layer("a", b"1");
    let mut content = Content::default();
    content.image("app", "1", &[&archive], &[Digest::sha256(b"another")]);
    let server = Server::start(move |request| content.reply(request)).await;
    let error = node.fail(&format!("{}/app:1", server.host())).await;
    assert!(
        matches!(&error, Error::DigestMismatch { found, .. } if *found == Digest::sha256(&archive)),
        "{error}"
    );
}

#[tokio::test]
async fn manifests_are_asked_for_again() {
    let content = Content::with_image("app", "1", &[&layer("a", b"1")]);
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(500, ""),
        1 => Reply::Broken(b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\n{".to_vec()),
        _ => content.reply(request),
    })
    .await;
    let node = Node::new("").await;
    node.pull(&format!("{}/app:1", server.host())).await.unwrap();
    let error = node.fail(&format!("{}/app:2", server.host())).await;
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let error = node.fail("127.0.0.1:1/app:1").await;
    assert!(matches!(error, Error::RegistryUnavailable { .. }), "{error}");
    let error = node.fail("not//valid").await;
    assert!(matches!(error, Error::InvalidReference { .. }), "{error}");
}
