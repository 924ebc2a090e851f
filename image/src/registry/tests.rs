//! The registry client against a scripted registry.

mod auth;
mod blobs;
mod hosts;
mod manifests;
mod redirects;
pub(crate) mod server;
mod tls;

use super::*;
use server::{Content, Server};

/// Patience for tests: everything ends soon.
pub(crate) fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(2),
        stall: Duration::from_secs(2),
        stall_bytes: 1 << 10,
        pauses: [1, 1].map(Duration::from_millis).to_vec(),
        longest_pause: Duration::from_millis(20),
        helper: Duration::from_secs(2),
    }
}

/// Registries as `registries_conf` says, with nothing of this machine's.
pub(crate) fn registries(registries_conf: &str) -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        registries_conf: dir.path().join("registries.conf"),
        certs_dir: dir.path().join("certs.d"),
        auth_file: Some(dir.path().join("auth.json")),
        ..Config::default()
    };
    std::fs::write(&config.registries_conf, registries_conf).unwrap();
    (dir, config)
}

/// The only host of a reference, without any configuration.
async fn host(reference: &str, credentials: Option<&Credentials>) -> Arc<Host> {
    let (_dir, config) = registries("");
    let registries = Registries::open(&config, patience()).unwrap();
    registries.hosts(&reference.parse().unwrap(), credentials).await.unwrap().remove(0)
}

fn password(user: &str, password: &str) -> Credentials {
    Credentials { username: user.to_owned(), password: password.into(), ..Credentials::default() }
}

/// A registry with one image, `app:1`.
async fn simple() -> (Server, Arc<Content>) {
    let content = Arc::new(Content::with_image("app", "1", &[b"layer"]));
    let shared = Arc::clone(&content);
    (Server::start(move |request| shared.reply(request)).await, content)
}
