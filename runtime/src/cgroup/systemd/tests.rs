//! systemd on a bus of the tests' own: one that does not answer, one that refuses.

use std::collections::HashMap;

use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{connection, fdo, interface};

use super::*;

/// Of Debian 12.
const OLD: &str = "252.39-1~deb12u1";

/// The part of the bus that a client needs before anything else.
struct Bus;

#[interface(name = "org.freedesktop.DBus")]
impl Bus {
    fn hello(&self) -> String {
        ":1.1".to_owned()
    }

    fn add_match(&self, _rule: &str) {}

    fn remove_match(&self, _rule: &str) {}
}

/// A manager that takes its time, or says no.
struct Manager {
    hangs: bool,
    version: &'static str,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    #[zbus(property)]
    fn version(&self) -> &str {
        self.version
    }

    async fn start_transient_unit(
        &self,
        _name: String,
        _mode: String,
        properties: Vec<(String, OwnedValue)>,
        _others: Vec<(String, Vec<(String, OwnedValue)>)>,
    ) -> fdo::Result<OwnedObjectPath> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if let Some((_, policy)) = properties.iter().find(|(name, _)| name == "OOMPolicy") {
            return Err(fdo::Error::InvalidArgs(format!("OOMPolicy {policy:?}")));
        }
        Err(fdo::Error::InvalidArgs("Slice kubepods.slice is masked.".to_owned()))
    }

    fn stop_unit(&self, name: String, _mode: String) -> fdo::Result<OwnedObjectPath> {
        Err(fdo::Error::Failed(name))
    }
}

fn listen() -> (TempDir, UnixListener, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let address = format!("unix:path={}", path.display());
    (dir, listener, address)
}

/// With all the time that an emulated processor may need.
fn systemd(address: String) -> Systemd {
    Systemd { address: Some(address), ..Systemd::new() }
}

fn hasty(address: String) -> Systemd {
    Systemd { deadline: Duration::from_millis(500), ..systemd(address) }
}

/// Serves whoever connects for as long as the test runs.
async fn serve(listener: UnixListener, hangs: bool, version: &'static str) {
    let mut served = HashMap::new();
    while let Ok((stream, _)) = listener.accept().await {
        served.insert(served.len(), answer(stream, Manager { hangs, version }).await);
    }
}

async fn answer(stream: UnixStream, manager: Manager) -> Connection {
    connection::Builder::unix_stream(stream)
        .server(zbus::Guid::generate())
        .unwrap()
        .p2p()
        .serve_at("/org/freedesktop/DBus", Bus)
        .unwrap()
        .serve_at("/org/freedesktop/systemd1", manager)
        .unwrap()
        .build()
        .await
        .unwrap()
}

/// What starting a scope comes to, and how long that takes.
async fn start(systemd: Systemd) -> (String, Duration) {
    let began = std::time::Instant::now();
    let ask = move || {
        let path = CgroupPath::parse("/kubepods.slice/corten-a.scope").unwrap();
        let unified = [("memory.oom.group".to_owned(), "1".to_owned())].into();
        let limits = Limits { unified, ..Limits::default() };
        let first = std::process::id();
        let scope = Scope { end: End::BeforeTheService, limits: &limits, first };
        systemd.start(&path, &scope).unwrap_err()
    };
    let error = tokio::task::spawn_blocking(ask).await.unwrap();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    (text, began.elapsed())
}

fn check_timeout((error, took): (String, Duration)) {
    let place = "start scope /kubepods.slice/corten-a.scope";
    assert!(error.starts_with(place) && error.contains("does not answer within"), "{error}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_takes_connections_and_says_nothing_has_its_time() {
    let (_dir, _listener, address) = listen();
    check_timeout(start(hasty(address)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_does_not_answer_has_its_time() {
    let (_dir, listener, address) = listen();
    let server = tokio::spawn(serve(listener, true, OLD));
    check_timeout(start(hasty(address)).await);
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_systemd_refuses_is_told_in_its_words() {
    let (_dir, listener, address) = listen();
    let server = tokio::spawn(serve(listener, false, OLD));
    let (error, _) = start(systemd(address)).await;
    assert!(error.contains("Slice kubepods.slice is masked."), "{error}");
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_not_there_is_named() {
    let (error, took) = start(systemd("unix:path=/no/such/bus".to_owned())).await;
    assert!(error.contains("ask systemd over D-Bus"), "{error}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_all_for_want_of_memory_is_told_to_those_who_know_it() {
    for (version, knows) in [(OLD, false), ("253", true), ("260.2-1-arch", true)] {
        let (_dir, listener, address) = listen();
        let server = tokio::spawn(serve(listener, false, version));
        let (error, _) = start(systemd(address)).await;
        assert_eq!(error.contains("OOMPolicy"), knows, "{version}: {error}");
        assert_eq!(error.contains("kill"), knows, "{version}: {error}");
        server.abort();
    }
}
