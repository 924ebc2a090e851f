//! Directories that come, go and are replaced, and plugins that answer to STATUS.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::Config;

/// After this long, what was waited for does not come any more.
const LIMIT: Duration = Duration::from_secs(20);

/// A node whose directory of configurations is `conf/net.d`, which is not there.
struct Node {
    root: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn conf(&self) -> PathBuf {
        self.path("conf/net.d")
    }

    /// Puts a network of that name into a directory.
    fn put(&self, dir: &Path, name: &str) {
        fs::create_dir_all(dir).expect("made");
        fs::write(dir.join(format!("{name}.conflist")), list("1.0.0", name)).expect("written");
    }

    /// Installs a plugin.
    fn plugin(&self, text: &str) {
        fs::create_dir_all(self.path("bin")).expect("made");
        // In one step: half a plugin must not be run.
        let half = self.path("half");
        fs::write(&half, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(&half, fs::Permissions::from_mode(0o755)).expect("made executable");
        fs::rename(half, self.path("bin/fake")).expect("moved");
    }

    fn open(&self) -> (Watched, Arc<Chain>) {
        let config = Config { bin_dirs: vec![self.path("bin")], ..Config::default() };
        let chain = Arc::new(Chain::new(&config));
        (Watched::open(&self.conf(), &chain).expect("watched"), chain)
    }
}

fn list(version: &str, name: &str) -> String {
    format!(r#"{{"cniVersion": "{version}", "name": "{name}", "plugins": [{{"type": "fake"}}]}}"#)
}

impl Watched {
    /// Waits for a network of that name, or for none.
    #[track_caller]
    fn becomes<'a>(&'a mut self, name: Option<&'a str>) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let wait = async {
                while self.network().ok().as_deref().map(|network| network.name.as_str()) != name {
                    self.current.changed().await.expect("the task lives");
                }
            };
            let came = timeout(LIMIT, wait).await;
            assert!(came.is_ok(), "at {place}: {:?} instead of {name:?}", self.network());
        }
    }
}

#[tokio::test]
async fn a_directory_that_comes_late_goes_and_comes_again() {
    let node = Node::new();
    let (mut watched, chain) = node.open();
    assert_eq!(
        watched.status(chain.plugins()),
        Err(NotReady::NoConfig { dir: node.conf(), problems: Vec::new() })
    );
    for round in ["first", "second"] {
        node.put(&node.conf(), round);
        watched.becomes(Some(round)).await;
        fs::remove_dir_all(node.path("conf")).expect("removed");
        watched.becomes(None).await;
    }
}

#[tokio::test]
async fn files_come_and_go_and_change() {
    let node = Node::new();
    node.put(&node.conf(), "b");
    let (mut watched, _chain) = node.open();
    watched.becomes(Some("b")).await;
    node.put(&node.conf(), "a");
    watched.becomes(Some("a")).await;
    fs::write(node.conf().join("a.conflist"), list("1.0.0", "z")).expect("written");
    watched.becomes(Some("z")).await;
    fs::rename(node.conf().join("a.conflist"), node.conf().join("a.off")).expect("moved");
    watched.becomes(Some("b")).await;
    fs::write(node.conf().join("b.conflist"), "{").expect("written");
    watched.becomes(None).await;
    let problems = match watched.network() {
        Err(NotReady::NoConfig { problems, .. }) => problems,
        other => panic!("{other:?}"),
    };
    assert!(problems[0].contains("b.conflist: not valid JSON"), "{problems:?}");
    fs::remove_file(node.conf().join("b.conflist")).expect("removed");
    fs::write(node.path("c.conflist"), list("1.0.0", "c")).expect("written");
    fs::hard_link(node.path("c.conflist"), node.conf().join("c.conflist")).expect("linked");
    watched.becomes(Some("c")).await;
}

#[tokio::test]
async fn a_directory_that_is_replaced() {
    let node = Node::new();
    node.put(&node.conf(), "old");
    node.put(&node.path("conf/new.d"), "new");
    let (mut watched, _chain) = node.open();
    fs::rename(node.conf(), node.path("conf/old.d")).expect("moved");
    fs::rename(node.path("conf/new.d"), node.conf()).expect("moved");
    watched.becomes(Some("new")).await;
    // What happens in the old directory is of no concern any more, what happens in the new one is.
    node.put(&node.path("conf/old.d"), "a");
    node.put(&node.conf(), "b");
    watched.becomes(Some("b")).await;
    fs::rename(node.path("conf"), node.path("away")).expect("moved");
    watched.becomes(None).await;
    fs::rename(node.path("away"), node.path("conf")).expect("moved");
    watched.becomes(Some("b")).await;
}

#[tokio::test]
async fn symbolic_links_on_the_way() {
    let node = Node::new();
    node.put(&node.path("one/net.d"), "one");
    node.put(&node.path("two/net.d"), "two");
    symlink("one", node.path("link")).expect("linked");
    symlink(node.path("link"), node.path("conf")).expect("linked");
    let (mut watched, _chain) = node.open();
    watched.becomes(Some("one")).await;
    symlink("two", node.path("next")).expect("linked");
    fs::rename(node.path("next"), node.path("link")).expect("moved");
    watched.becomes(Some("two")).await;
    fs::remove_dir_all(node.path("two")).expect("removed");
    watched.becomes(None).await;
    node.put(&node.path("two/net.d"), "three");
    watched.becomes(Some("three")).await;
    fs::remove_file(node.path("link")).expect("removed");
    symlink("link", node.path("link")).expect("linked");
    watched.becomes(None).await;
    fs::remove_file(node.path("link")).expect("removed");
    symlink("one", node.path("link")).expect("linked");
    watched.becomes(Some("one")).await;
}

#[tokio::test]
async fn plugins_beside_a_list_are_followed() {
    let node = Node::new();
    node.put(&node.conf(), "pods");
    let (mut watched, _chain) = node.open();
    let beside = node.conf().join("pods");
    for (file, count) in [("1.conf", 2), ("2.conf", 3)] {
        fs::create_dir_all(&beside).expect("made");
        fs::write(beside.join(file), r#"{"type": "fake"}"#).expect("written");
        let wait = async {
            while watched.network().expect("a network").plugins.len() != count {
                watched.current.changed().await.expect("the task lives");
            }
        };
        timeout(LIMIT, wait).await.expect("seen");
    }
}

#[tokio::test]
async fn a_file_that_says_the_same_again_is_no_news() {
    let node = Node::new();
    node.put(&node.conf(), "b");
    let (mut watched, _chain) = node.open();
    let before = watched.network().expect("a network");
    node.put(&node.conf(), "b");
    // Told after the above, so that it has been seen as well.
    node.put(&node.conf(), "a");
    watched.becomes(Some("a")).await;
    fs::remove_file(node.conf().join("a.conflist")).expect("removed");
    watched.becomes(Some("b")).await;
    assert_eq!(watched.network().expect("a network"), before);
}

#[tokio::test]
async fn a_plugin_that_is_not_installed() {
    let node = Node::new();
    node.put(&node.conf(), "pods");
    let (watched, chain) = node.open();
    let status = watched.status(chain.plugins());
    let dirs = vec![node.path("bin")];
    assert_eq!(status, Err(NotReady::NoPlugin { network: "pods".into(), plugin: "fake".into(), dirs }));
    node.plugin("exit 0");
    assert_eq!(watched.status(chain.plugins()), Ok(()));
    fs::set_permissions(node.path("bin/fake"), fs::Permissions::from_mode(0o777)).expect("made unsafe");
    let status = watched.status(chain.plugins()).expect_err("unsafe").to_string();
    assert!(status.ends_with("bin/fake is writable by everyone"), "{status}");
}

#[tokio::test]
async fn plugins_of_version_1_1_are_asked_for_their_status() {
    let node = Node::new();
    fs::create_dir_all(node.conf()).expect("made");
    let fifo = node.path("asked");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("made");
    // Each question waits until the test has heard of it.
    let answer = |code: &str| {
        let gate = fifo.display();
        node.plugin(&format!(
            "test $CNI_COMMAND = STATUS || exit 9\necho asked > {gate}\n\
             test {code} = 0 || echo '{{\"code\": {code}, \"msg\": \"not now\"}}'\nexit {code}"
        ));
    };
    answer("50");
    fs::write(node.conf().join("1.conflist"), list("1.1.0", "first")).expect("written");
    let (mut watched, chain) = node.open();
    assert_eq!(watched.status(chain.plugins()), Err(NotReady::Pending { network: "first".into() }));
    let heard = |path: PathBuf| tokio::task::spawn_blocking(move || fs::read_to_string(path).expect("read"));
    timeout(LIMIT, heard(fifo.clone())).await.expect("asked").expect("joined");
    let settled = async |watched: &Watched, network: &str| {
        while watched.status(chain.plugins()) == Err(NotReady::Pending { network: network.into() }) {
            tokio::task::yield_now().await;
        }
        watched.status(chain.plugins())
    };
    let status = timeout(LIMIT, settled(&watched, "first")).await.expect("answered");
    let reason = "CNI plugin fake, STATUS in network first: not now (code 50)".to_owned();
    assert_eq!(status, Err(NotReady::Status { network: "first".into(), reason }));
    // A new network is asked at once, whatever the last answer's age.
    answer("0");
    fs::write(node.conf().join("1.conflist"), list("1.1.0", "second")).expect("written");
    watched.becomes(Some("second")).await;
    timeout(LIMIT, heard(fifo.clone())).await.expect("asked").expect("joined");
    assert_eq!(timeout(LIMIT, settled(&watched, "second")).await.expect("answered"), Ok(()));
}
