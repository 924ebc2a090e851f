//! Redirects: what goes along, and where they may lead.

use super::server::Reply;
use super::*;
use crate::Digest;
use crate::registry::manifest::Descriptor;

fn layer() -> Descriptor {
    Descriptor { media_type: String::new(), digest: Digest::sha256(b"layer"), size_bytes: 5 }
}

fn to(location: impl Into<String>) -> Reply {
    Reply::new(307, "").header("Location", location)
}

async fn fetch(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (Server, Result<(), Error>) {
    let server = Server::start(move |request| match request.header("authorization") {
        Some(_) => reply(&request.path),
        None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let host = host(&format!("{}/app:1", server.host()), Some(&password("u", "canary"))).await;
    let fetched = host.blob(&layer(), 0).await;
    (server, fetched.map(|_| ()).map_err(|failure| failure.error))
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let storage = Server::start(|_| Reply::new(200, "layer")).await;
    let location = format!("http://{}/blob?signature=canary-signature", storage.host());
    let (server, fetched) = fetch(move |path| match path {
        "/here" => to(location.clone()),
        _ => to("/here"),
    })
    .await;
    fetched.unwrap();
    let sent: Vec<_> = server.seen().iter().map(|r| r.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true], "to the same origin they go along");
    assert_eq!(storage.seen()[0].path, "/blob?signature=canary-signature");
    assert_eq!(storage.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn credentials_do_not_come_back_by_a_detour() {
    let (back, way) = (Arc::new(std::sync::OnceLock::<String>::new()), Arc::new(std::sync::OnceLock::new()));
    let home = Arc::clone(&back);
    let other = Server::start(move |_| to(home.get().unwrap().clone())).await;
    way.set(format!("http://{}/", other.host())).unwrap();
    let server = Server::start(move |request| match request.path.as_str() {
        "/end" => Reply::new(200, "layer"),
        _ => to(way.get().unwrap().clone()),
    })
    .await;
    back.set(format!("http://{}/end", server.host())).unwrap();
    let credentials = Credentials { registry_token: "canary".into(), ..Credentials::default() };
    let host = host(&format!("{}/app:1", server.host()), Some(&credentials)).await;
    host.blob(&layer(), 0).await.unwrap();
    assert!(server.seen()[0].header("authorization").is_some());
    assert_eq!(server.seen()[1].header("authorization"), None);
}

#[tokio::test]
async fn bad_redirects_are_refused() {
    for location in [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://",
    ] {
        let (_server, fetched) = fetch(move |_| to(location)).await;
        let error = fetched.unwrap_err();
        assert!(
            matches!(error, Error::RegistryUnavailable { .. } | Error::Refused { .. }),
            "{location}: {error}"
        );
        assert!(!error.to_string().contains("canary"));
    }
    let (_server, fetched) = fetch(|_| Reply::new(302, "")).await;
    assert!(matches!(fetched.unwrap_err(), Error::Refused { status: 302, .. }));
}

#[tokio::test]
async fn loops_end() {
    let (server, fetched) = fetch(|_| to("/again")).await;
    assert!(fetched.unwrap_err().to_string().contains("too many redirects"));
    assert_eq!(server.seen().len(), 1 + 6);
}

#[tokio::test]
async fn credentials_in_a_location_are_not_used() {
    let storage = Server::start(|_| Reply::new(200, "layer")).await;
    let location = format!("http://user:pass@{}/", storage.host());
    let (_server, fetched) = fetch(move |_| to(location.clone())).await;
    fetched.unwrap();
    assert_eq!(storage.seen()[0].header("authorization"), None);
}
