//! Mirrors, and the names that stay.

use std::time::Duration;

use super::*;

/// A registry and a mirror of it, which `fault` changes.
async fn mirrored(
    fault: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> (Server, Server, Result<(), Error>) {
    let content = Arc::new(Content::with_image("app", "1", &[&layer("a", b"1")]));
    let shared = Arc::clone(&content);
    let primary = Server::start(move |request| shared.reply(request)).await;
    let mirror = Server::start(move |request| fault(request, content.reply(request))).await;
    let node = mirror_of(&primary, &mirror).await;
    let outcome = node.pull("q.io/team/app:1").await;
    if outcome.is_ok() {
        let image = node.images.find("q.io/team/app:1").unwrap();
        assert_eq!(image.repo_tags, ["q.io/team/app:1"]);
        assert!(image.repo_digests[0].starts_with("q.io/team/app@sha256:"), "{:?}", image.repo_digests);
    }
    node.clean().await;
    (primary, mirror, outcome.map(|_| ()))
}

/// A node that knows the two as q.io/team.
async fn mirror_of(primary: &Server, mirror: &Server) -> Node {
    Node::new(&format!(
        "[[registry]]\nprefix = \"q.io/team\"\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"",
        primary.host(),
        mirror.host()
    ))
    .await
}

#[tokio::test]
async fn a_mirror_is_enough() {
    let (primary, mirror, outcome) = mirrored(|_, reply| reply).await;
    outcome.unwrap();
    assert!(primary.seen().is_empty());
    assert_eq!(mirror.paths()[0], "/app/manifests/1");
}

#[tokio::test]
async fn a_mirror_that_has_it_not() {
    let (primary, mirror, outcome) = mirrored(|_, _| Reply::new(404, "")).await;
    outcome.unwrap();
    assert_eq!(mirror.seen().len(), 1);
    assert!(!primary.seen().is_empty());
}

#[tokio::test]
async fn a_mirror_that_does_not_answer() {
    let (_, _, outcome) = mirrored(|_, _| Reply::Broken(Vec::new())).await;
    outcome.unwrap();
}

#[tokio::test]
async fn a_mirror_without_the_layer_or_with_a_wrong_one() {
    let archive = layer("a", b"1");
    let missing = archive.clone();
    let (primary, _, outcome) =
        mirrored(move |request, reply| if is_layer(request, &missing) { Reply::new(404, "") } else { reply })
            .await;
    outcome.unwrap();
    assert_eq!(primary.seen().len(), 1, "only the layer");
    let (_, _, outcome) =
        mirrored(
            move |request, reply| {
                if is_layer(request, &archive) { Reply::new(200, vec![0; archive.len()]) } else { reply }
            },
        )
        .await;
    outcome.unwrap();
}

#[tokio::test]
async fn every_host_that_failed_is_named() {
    let node = Node::new(
        "[[registry]]\nprefix = \"q.io\"\nlocation = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"127.0.0.2:1\"",
    )
    .await;
    let error = node.fail("q.io/app:1").await;
    assert!(matches!(&error, Error::RegistryUnavailable { host, .. } if host == "127.0.0.1:1"), "{error}");
    assert!(error.to_string().contains("127.0.0.2:1"), "{error}");
}

#[tokio::test]
async fn short_names_are_searched() {
    let (server, _) = serve(&[&layer("a", b"1")]).await;
    let node =
        Node::new(&format!("unqualified-search-registries = [\"127.0.0.1:1\", \"{}\"]", server.host())).await;
    let id = node.pull("app:1").await.unwrap();
    assert_eq!(node.images.find("app:1").unwrap().id, id);
    assert_eq!(node.images.find(&format!("{}/app:1", server.host())).unwrap().id, id);
    assert!(node.images.find("docker.io/library/app:1").is_none());
    node.images.remove("app:1").await.unwrap();
    assert!(node.images.list().is_empty());
}

#[tokio::test]
async fn a_blocked_registry_is_not_asked() {
    let (server, _) = serve(&[]).await;
    let node = Node::new(&format!("[[registry]]\nlocation = \"{}\"\nblocked = true", server.host())).await;
    let error = node.fail(&format!("{}/app:1", server.host())).await;
    assert!(matches!(error, Error::Blocked { .. }), "{error}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_layer_goes_on_from_the_next_host() {
    let archive = layer("a", &[7; 100_000]);
    let content = Arc::new(Content::with_image("app", "1", &[&archive]));
    let (shared, broken) = (Arc::clone(&content), archive.clone());
    let primary = Server::start(move |request| shared.reply(request)).await;
    let mirror = Server::start(move |request| match content.reply(request) {
        reply if is_layer(request, &broken) && request.header("range").is_none() => reply.cut(60_000),
        _ if is_layer(request, &broken) => Reply::new(404, ""),
        reply => reply,
    })
    .await;
    let node = mirror_of(&primary, &mirror).await;
    node.pull("q.io/team/app:1").await.unwrap();
    assert_eq!(primary.seen().len(), 1, "only the rest of the layer");
    assert_eq!(primary.seen()[0].header("range"), Some("bytes=60000-"));
    node.clean().await;
}

#[tokio::test]
async fn what_two_hosts_sent_may_be_wrong_and_one_of_them_right() {
    let archive = layer("a", &[7; 100_000]);
    let content = Arc::new(Content::with_image("app", "1", &[&archive]));
    let (shared, forged) = (Arc::clone(&content), archive.clone());
    let primary = Server::start(move |request| shared.reply(request)).await;
    let mirror = Server::start(move |request| match content.reply(request) {
        _ if is_layer(request, &forged) && request.header("range").is_none() => {
            let mut bytes = forged.clone();
            bytes[50_000] ^= 1;
            Reply::new(200, bytes).cut(60_000)
        }
        _ if is_layer(request, &forged) => Reply::new(404, ""),
        reply => reply,
    })
    .await;
    let node = mirror_of(&primary, &mirror).await;
    node.pull("q.io/team/app:1").await.unwrap();
    let ranges: Vec<_> = primary.seen().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [Some("bytes=60000-".to_owned()), None]);
    node.clean().await;
}

/// It is asked twice, as other failures are asked thrice and more.
#[tokio::test]
async fn a_host_that_is_not_there_is_known_soon() {
    let pauses = vec![Duration::from_millis(1), Duration::from_secs(24 * 3600)];
    let node = Node::with_patience(Patience { pauses, ..patience() }, "", |_, _| {}).await;
    let failure = tokio::time::timeout(Duration::from_secs(60), node.fail("127.0.0.1:1/app:1")).await;
    assert!(matches!(failure, Ok(Error::RegistryUnavailable { .. })), "{failure:?}");
}
