//! Pulls at the same time: what they share, how many run, and how they end.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn user(name: &str) -> Option<Credentials> {
    Some(Credentials { username: name.to_owned(), password: "p".into(), ..Credentials::default() })
}

#[tokio::test]
async fn the_same_pull_is_joined() {
    let (server, _) = serve(&[&layer("a", b"1")]).await;
    let node = Node::new("").await;
    let name = format!("{}/app:1", server.host());
    let pulls = (0..5).map(|_| node.images.pull(&name, user("u")));
    let ids = futures_util::future::try_join_all(pulls).await.unwrap();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(server.paths().iter().filter(|path| path.ends_with("manifests/1")).count(), 1);

    let (a, b, c) = tokio::join!(
        node.images.pull(&name, user("v")),
        node.images.pull(&name, user("w")),
        node.pull(&name)
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(server.paths().iter().filter(|path| path.ends_with("manifests/1")).count(), 4);
}

#[tokio::test]
async fn a_failure_is_everybodys() {
    let (server, _) = serve(&[]).await;
    let node = Node::new("").await;
    let name = format!("{}/app:2", server.host());
    let (a, b) = tokio::join!(node.pull(&name), node.pull(&name));
    assert!(matches!((a, b), (Err(Error::NotFound { .. }), Err(Error::NotFound { .. }))));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_pull_ends_with_its_last_waiter() {
    let archive = layer("a", &[7; 100_000]);
    let content = Content::with_image("app", "1", &[&archive]);
    let open = Arc::new(AtomicUsize::new(0));
    let gate = Arc::clone(&open);
    let server = Server::start(move |request| match content.reply(request) {
        Reply::Answer { body, .. } if is_layer(request, &archive) && gate.load(Ordering::SeqCst) == 0 => {
            let mut bytes = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            bytes.extend_from_slice(&body[..50_000]);
            Reply::Silent(bytes)
        }
        reply => reply,
    })
    .await;
    let node = Node::new("").await;
    let name = format!("{}/app:1", server.host());
    let mut progress = node.images.watch(&name);
    let mut first = Box::pin(node.pull(&name));
    let second = node.pull(&name);
    {
        let begun = progress.wait_for(|p| p.layers.first().is_some_and(|layer| layer.done_bytes > 0));
        tokio::select! {
            _ = &mut first => panic!("it hangs"),
            _ = second => panic!("it hangs"),
            begun = begun => drop(begun.unwrap()),
        }
    }
    // One waiter has gone; the pull goes on with the other.
    assert_eq!(node.images.pulls().len(), 1);
    assert_eq!(node.images.pulls()[0].phase, Phase::Fetching);
    drop(first);
    assert!(node.images.pulls().is_empty());
    node.clean().await;
    open.store(1, Ordering::SeqCst);
    node.pull(&name).await.unwrap();
}

#[tokio::test]
async fn layers_come_side_by_side_but_not_all_at_once() {
    let layers: Vec<_> = (0..6_u8).map(|n| layer(&format!("f{n}"), &[n; 5000])).collect();
    let parts: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let content = Content::with_image("app", "1", &parts);
    // No layer ever comes to its end, so that none makes room for another.
    let server = Server::start(move |request| match content.reply(request) {
        Reply::Answer { body, .. } if layers.iter().any(|layer| is_layer(request, layer)) => {
            Reply::Silent(format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes())
        }
        reply => reply,
    })
    .await;
    let node = Node::new("").await;
    let error = node.fail(&format!("{}/app:1", server.host())).await;
    assert!(matches!(error, Error::RegistryUnavailable { .. }), "{error}");
    let mut asked: Vec<_> =
        server.paths().into_iter().filter(|path| path.contains("/blobs/")).skip(1).collect();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), Config::default().max_parallel_layers);
}

#[tokio::test]
async fn pulls_wait_for_their_turn() {
    let hang = Server::start(|_| Reply::Silent(Vec::new())).await;
    let (server, _) = serve(&[&layer("a", b"1")]).await;
    let node = Node::new("").await;
    let turns = Config::default().max_parallel_pulls;
    let hanging: Vec<_> = (0..turns).map(|n| format!("{}/hang{n}:1", hang.host())).collect();
    let mut hanging = Box::pin(futures_util::future::join_all(hanging.iter().map(|name| node.pull(name))));
    let name = format!("{}/app:1", server.host());
    let mut progress = node.images.watch(&name);
    let mut waiting = Box::pin(node.pull(&name));
    let all = async {
        while hang.seen().len() < turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = &mut hanging => panic!("they hang"),
        _ = &mut waiting => panic!("it waits"),
        () = all => {}
    }
    assert_eq!(progress.borrow_and_update().phase, Phase::Waiting);
    assert!(server.seen().is_empty());
    drop(hanging);
    waiting.await.unwrap();
}
