//! Credentials: what is sent, and where.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::server::{Reply, Request};
use super::*;
use crate::credentials::Login;

const SECRET: &str = "canary-password";

/// A registry that wants `wanted` in the header, and otherwise gives `challenge`.
async fn guarded(wanted: impl Into<String>, challenge: impl Into<String>) -> Server {
    let (wanted, challenge) = (wanted.into(), challenge.into());
    let content = Content::with_image("team/app", "1", &[b"layer"]);
    Server::start(move |request| {
        if request.header("authorization") == Some(wanted.as_str()) {
            return content.reply(request);
        }
        Reply::new(401, format!("you sent {:?}", request.header("authorization")))
            .header("WWW-Authenticate", challenge.clone())
    })
    .await
}

/// A token server that gives `token` to requests that `check` likes.
async fn tokens(token: &'static str, check: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Server {
    Server::start(move |request| {
        if check(request) {
            Reply::new(200, format!("{{\"token\":\"{token}\",\"expires_in\":60}}"))
        } else {
            Reply::new(401, format!("{{\"details\":\"no: {request:?}\"}}"))
        }
    })
    .await
}

fn bearer(tokens: &Server, scope: &str) -> String {
    format!("Bearer realm=\"http://{}/token\",service=\"reg\"{scope}", tokens.host())
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{SECRET}")))
}

async fn fetch(server: &Server, credentials: Option<&Credentials>) -> Result<(), Error> {
    let host = host(&format!("{}/team/app:1", server.host()), credentials).await;
    host.manifest(&Wanted::Named).await.map(|_| ()).map_err(|failure| failure.error)
}

/// Fails if the secret is in the text of the error, or in its debug form.
fn discreet(error: &Error) {
    let text = format!("{error} {error:?}");
    assert!(!text.contains("canary") && !text.contains(&STANDARD.encode(format!("u:{SECRET}"))), "{text}");
}

#[tokio::test]
async fn basic_credentials_are_sent_when_asked_for() {
    let server = guarded(basic("u"), "Basic realm=\"x\"").await;
    fetch(&server, Some(&password("u", SECRET))).await.unwrap();
    let sent: Vec<_> = server.seen().iter().map(|r| r.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true]);

    let error = fetch(&server, Some(&password("v", SECRET))).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unauthorized { reason, .. } if reason.contains("user name and password of the request"))
    );
    discreet(&error);
    let error = fetch(&server, None).await.unwrap_err();
    assert!(error.to_string().contains("image pull secret"), "{error}");
    let identity = Credentials { identity_token: "canary-token".into(), ..Credentials::default() };
    discreet(&fetch(&server, Some(&identity)).await.unwrap_err());
}

#[tokio::test]
async fn a_token_is_fetched_with_the_password() {
    let tokens = tokens("t1", |request| {
        request.path == "/token?scope=repository%3Ateam%2Fapp%3Apull&service=reg&account=u"
            && request.header("authorization") == Some(&basic("u"))
    })
    .await;
    let server = guarded("Bearer t1", bearer(&tokens, "")).await;
    fetch(&server, Some(&password("u", SECRET))).await.unwrap();
    let error = fetch(&server, Some(&password("v", SECRET))).await.unwrap_err();
    assert!(error.to_string().contains("token server"), "{error}");
    discreet(&error);
}

#[tokio::test]
async fn a_token_is_fetched_for_nobody_and_for_the_scope_that_is_asked_for() {
    let tokens = tokens("t2", |request| {
        request.path == "/token?scope=aws&service=reg" && request.header("authorization").is_none()
    })
    .await;
    let server = guarded("Bearer t2", bearer(&tokens, ",scope=\"aws\"")).await;
    fetch(&server, None).await.unwrap();
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let tokens = tokens("t3", |request| {
        request.method == "POST"
            && request.path == "/token"
            && request.body.contains("grant_type=refresh_token")
            && request.body.contains("service=reg")
            && request.body.contains("refresh_token=canary%2Brefresh")
    })
    .await;
    let server = guarded("Bearer t3", bearer(&tokens, "")).await;
    let credentials = |token: &str| Credentials { identity_token: token.into(), ..Credentials::default() };
    fetch(&server, Some(&credentials("canary+refresh"))).await.unwrap();
    discreet(&fetch(&server, Some(&credentials("canary-wrong"))).await.unwrap_err());
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let server = guarded("Bearer canary-given", "Bearer realm=\"http://127.0.0.1:1/\"").await;
    let credentials = |token: &str| Credentials { registry_token: token.into(), ..Credentials::default() };
    fetch(&server, Some(&credentials("canary-given"))).await.unwrap();
    assert_eq!(server.seen().len(), 1);
    discreet(&fetch(&server, Some(&credentials("canary-wrong"))).await.unwrap_err());
    let error = fetch(&server, Some(&credentials("line\nbreak"))).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }));
}

#[tokio::test]
async fn a_token_that_expires_is_renewed_once_for_all() {
    use std::sync::atomic::{AtomicU64, Ordering};
    // The token server counts; the registry takes only the count that it wants.
    let (given, wanted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)));
    let counter = Arc::clone(&given);
    let tokens = Server::start(move |_| {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::new(200, format!("{{\"access_token\":\"n{number}\"}}"))
    })
    .await;
    let content = Content::with_image("app", "1", &[b"layer"]);
    let (challenge, current) = (bearer(&tokens, ""), Arc::clone(&wanted));
    let server = Server::start(move |request| {
        let token = format!("Bearer n{}", current.load(Ordering::SeqCst));
        if request.header("authorization") == Some(token.as_str()) {
            return content.reply(request);
        }
        Reply::new(401, "").header("WWW-Authenticate", challenge.clone())
    })
    .await;
    let host = host(&format!("{}/app:1", server.host()), None).await;
    host.manifest(&Wanted::Named).await.unwrap();
    wanted.store(2, Ordering::SeqCst);
    let many = (0..8).map(|_| {
        let host = Arc::clone(&host);
        tokio::spawn(async move { host.manifest(&Wanted::Named).await.unwrap() })
    });
    for task in many.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(given.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_realm_must_be_where_a_registry_may_send_us() {
    for realm in [
        "http://169.254.169.254/latest/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0:1/token",
        "http://2852039166/token",
        "http://metadata.invalid/token",
        "ftp://127.0.0.1/token",
        "file:///etc/passwd",
        "token",
        "//token",
        "http://",
    ] {
        let server = guarded("never", format!("Bearer realm=\"{realm}\"")).await;
        let error = fetch(&server, Some(&password("u", SECRET))).await.unwrap_err();
        assert!(matches!(error, Error::RegistryUnavailable { .. }), "{realm}: {error}");
        discreet(&error);
    }
}

#[tokio::test]
async fn a_token_server_that_answers_nonsense() {
    for body in ["", "{}", "{\"token\":\"\"}", "[1]", "{\"token\":\"a\\nb\"}"] {
        let tokens = Server::start(move |_| Reply::new(200, body)).await;
        let server = guarded("never", bearer(&tokens, "")).await;
        fetch(&server, None).await.unwrap_err();
    }
    let tokens = Server::start(|_| Reply::new(503, "")).await;
    let server = guarded("never", bearer(&tokens, "")).await;
    assert!(matches!(fetch(&server, None).await.unwrap_err(), Error::RegistryUnavailable { .. }));
}

#[tokio::test]
async fn credentials_go_to_the_registry_they_are_for() {
    let text = r#"
        [[registry]]
        prefix = "q.io"
        location = "moved.io/q"
        [[registry.mirror]]
        location = "mirror.io"
    "#;
    let (_dir, config) = registries(text);
    let auths = r#"{"auths": {"mirror.io": {"auth": "bWlycm9yOjE="}}}"#;
    std::fs::write(config.auth_file.as_ref().unwrap(), auths).unwrap();
    let open = Registries::open(&config, patience()).unwrap();
    let check = async |name: &str, server_address: &str, expected: &[&str]| {
        let credentials = Credentials { server_address: server_address.to_owned(), ..password("u", "p") };
        let hosts = open.hosts(&name.parse().unwrap(), Some(&credentials)).await.unwrap();
        let user = |host: &Arc<Host>| match host.login() {
            Login::Password { user, .. } => user.clone(),
            other => other.describe().to_owned(),
        };
        let users: Vec<_> = hosts.iter().map(user).collect();
        assert_eq!(users, expected, "{name} with credentials for {server_address:?}");
    };
    check("q.io/x", "", &["mirror", "u"]).await;
    check("q.io/x", "https://mirror.io/v2/", &["u", "no credentials"]).await;
    check("q.io/x", "moved.io", &["mirror", "u"]).await;
    // Nobody asks q.io itself.
    check("q.io/x", "q.io", &["mirror", "no credentials"]).await;
    check("other.io/x", "q.io", &["no credentials"]).await;
    check("busybox", "https://index.docker.io/v1/", &["u"]).await;
}

#[tokio::test]
async fn a_token_is_kept_for_the_next_pull_of_the_same_user() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let given = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&given);
    let tokens = Server::start(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Reply::new(200, "{\"token\":\"kept\",\"expires_in\":300}")
    })
    .await;
    let server = guarded("Bearer kept", bearer(&tokens, "")).await;
    let (_dir, config) = registries("");
    let open = Registries::open(&config, patience()).unwrap();
    let reference = format!("{}/team/app:1", server.host()).parse().unwrap();
    let pull = async |user: &str| {
        let credentials = password(user, SECRET);
        let hosts = open.hosts(&reference, Some(&credentials)).await.unwrap();
        hosts[0].manifest(&Wanted::Named).await.unwrap();
        given.load(Ordering::SeqCst)
    };
    assert_eq!(pull("u").await, 1);
    assert_eq!(pull("u").await, 1);
    assert_eq!(server.seen().len(), 3, "the second pull is not sent away first");
    assert_eq!(pull("v").await, 2, "another user has a token of its own");
}

#[tokio::test]
async fn a_helper_that_fails_is_named_when_credentials_are_missing() {
    let server = guarded("never", "Basic realm=\"x\"").await;
    let (_dir, config) = registries("credential-helpers = [\"nonexistent-of-a-test\"]");
    let open = Registries::open(&config, patience()).unwrap();
    let reference = format!("{}/team/app:1", server.host()).parse().unwrap();
    let hosts = open.hosts(&reference, None).await.unwrap();
    let error = hosts[0].manifest(&Wanted::Named).await.unwrap_err().error;
    assert!(error.to_string().contains("docker-credential-nonexistent-of-a-test"), "{error}");
}
