//! Hosts as a `hosts.toml` describes them.

use super::server::Reply;
use super::*;

/// A node whose `hosts.toml` for q.io is `text`.
fn node(text: &str) -> (tempfile::TempDir, Registries) {
    let (dir, mut config) = registries("");
    let hosts = dir.path().join("hosts");
    std::fs::create_dir_all(hosts.join("q.io")).unwrap();
    std::fs::write(hosts.join("q.io/hosts.toml"), text).unwrap();
    config.hosts_dir = Some(hosts);
    (dir, Registries::open(&config, patience()).unwrap())
}

#[tokio::test]
async fn a_host_is_asked_below_its_path_for_the_registry_and_with_its_headers() {
    let other = Server::start(|_| Reply::new(200, "{}")).await;
    let location = format!("http://{}/", other.host());
    let server = Server::start(move |_| Reply::new(307, "").header("Location", location.clone())).await;
    let text = format!(
        "[host.\"http://{}/cache\"]\n[host.\"http://{0}/cache\".header]\nx-key = \"canary\"",
        server.host()
    );
    let (_dir, registries) = node(&text);
    let hosts = registries.hosts(&"q.io/team/app:1".parse().unwrap(), None).await.unwrap();
    assert_eq!(hosts.len(), 2);
    hosts[0].manifest(&Wanted::Named).await.unwrap_err();
    assert_eq!(server.seen()[0].path, "/cache/v2/team/app/manifests/1?ns=q.io");
    assert_eq!(server.seen()[0].header("x-key"), Some("canary"));
    assert_eq!(other.seen()[0].header("x-key"), None, "headers stay with the host");
}

#[tokio::test]
async fn headers_may_be_credentials_and_are_not_said_back() {
    let server =
        Server::start(|request| Reply::new(418, format!("{:?}", request.header("authorization")))).await;
    let text = format!("server = \"http://{}\"\n[header]\nauthorization = \"Basic canary\"", server.host());
    let (_dir, registries) = node(&text);
    let hosts = registries.hosts(&"q.io/app:1".parse().unwrap(), None).await.unwrap();
    let error = hosts[0].manifest(&Wanted::Named).await.unwrap_err().error;
    assert_eq!(server.seen()[0].header("authorization"), Some("Basic canary"));
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[tokio::test]
async fn hosts_do_what_they_are_capable_of() {
    let text = "server = \"https://q.io\"\n[host.\"https://blobs.io\"]\ncapabilities = [\"pull\"]\n\
        [host.\"https://names.io\"]\ncapabilities = [\"resolve\"]";
    let (_dir, registries) = node(text);
    let abilities = async |name: &str| -> Vec<(bool, bool)> {
        let hosts = registries.hosts(&name.parse().unwrap(), None).await.unwrap();
        hosts.iter().map(|host| (host.resolves(), host.pulls())).collect()
    };
    assert_eq!(abilities("q.io/x:1").await, [(false, true), (false, false), (true, true)]);
    let by_digest = format!("q.io/x@sha256:{}", "0".repeat(64));
    assert_eq!(abilities(&by_digest).await, [(true, true), (false, false), (true, true)]);
}

#[tokio::test]
async fn everything_is_explained() {
    let (dir, mut config) = registries(
        "unqualified-search-registries = [\"q.io\"]\n[[registry]]\nlocation = \"b.io\"\nblocked = true",
    );
    let hosts = dir.path().join("hosts");
    std::fs::create_dir_all(hosts.join("q.io")).unwrap();
    let text = "server = \"https://q.io\"\n[host.\"http://m.io\"]\ncapabilities = [\"pull\"]";
    std::fs::write(hosts.join("q.io/hosts.toml"), text).unwrap();
    config.hosts_dir = Some(hosts);
    let auths = r#"{"auths": {"m.io": {"auth": "Y2FuYXJ5OmNhbmFyeQ=="}}, "credsStore": "pass"}"#;
    std::fs::write(config.auth_file.as_ref().unwrap(), auths).unwrap();
    let explained = explain::explain(&config, "app:1", None).unwrap();
    assert!(explained.why.starts_with("unqualified-search-registries in "), "{}", explained.why);
    let routes = &explained.names[0].routes;
    assert_eq!(routes[0].address, "http://m.io/v2/app");
    assert_eq!((routes[0].role.as_str(), routes[0].security.as_str()), ("layers only", "plain http"));
    assert!(routes[0].credentials.contains("auth.json (\"m.io\")"), "{}", routes[0].credentials);
    assert!(routes[1].credentials.contains("docker-credential-pass for q.io"), "{}", routes[1].credentials);
    assert!(!format!("{explained:?}").contains("canary"));
    let blocked = explain::explain(&config, "b.io/x", None).unwrap();
    assert!(blocked.names[0].refused.as_ref().unwrap().contains("blocked by [[registry]] \"b.io\" in"));
}
