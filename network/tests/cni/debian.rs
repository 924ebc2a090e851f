//! Debian's plugins, in a network of the test's own: the thread that the test runs on has left the host's.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::node::pod;
use network::{Attachment, Bandwidth, Config, Network, netns};

const PLUGINS: &str = "/usr/lib/cni";
const BRIDGE: &str = "cortest0";
/// After this long, what was waited for does not come any more.
const LIMIT: Duration = Duration::from_secs(60);
/// The keys that libcni writes for such a pod.
const CACHED: [&str; 9] = [
    "kind",
    "containerId",
    "config",
    "ifName",
    "networkName",
    "netns",
    "cniArgs",
    "capabilityArgs",
    "result",
];

/// Directories, and the mount on the one of namespaces.
struct Place(tempfile::TempDir);

impl Place {
    fn new(ranges: &[&str], further: &[Value]) -> Self {
        let place = Self(tempfile::tempdir().expect("directory"));
        fs::create_dir(place.path("conf")).expect("made");
        let list = list(&place.path("ipam"), ranges, further).to_string();
        fs::write(place.path("conf/10-test.conflist"), list).expect("written");
        place
    }

    fn network(&self) -> Network {
        let config = Config {
            conf_dir: self.path("conf"),
            bin_dirs: vec![PLUGINS.into()],
            netns_dir: self.path("netns"),
            cache_dir: self.path("cache"),
            ..Config::default()
        };
        Network::open(config).expect("opened")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self, dir: &str) -> BTreeSet<String> {
        let Ok(files) = fs::read_dir(self.path(dir)) else { return BTreeSet::new() };
        files.map(|file| file.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let dir = self.path("netns");
        if dir.exists() {
            rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
        }
    }
}

/// A bridge with these ranges of addresses, and further plugins.
fn list(data: &Path, ranges: &[&str], further: &[Value]) -> Value {
    let ranges: Vec<_> = ranges.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let ipam = json!({
        "type": "host-local", "dataDir": data, "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    });
    let bridge = json!({"type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipam": ipam});
    let plugins: Vec<_> = std::iter::once(&bridge).chain(further).collect();
    json!({"cniVersion": "1.0.0", "name": "corten-test", "plugins": plugins})
}

/// Names of the interfaces of the network that the calling thread is in.
fn interfaces() -> BTreeSet<String> {
    // Not /sys, which shows the network of whoever mounted it.
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("readable");
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn rules() -> String {
    let mut text = String::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let saved = Command::new(program).output().expect("runs");
        text.push_str(&String::from_utf8_lossy(&saved.stdout));
    }
    text
}

/// Whether the test can run; it says when not.
fn possible() -> bool {
    let missing = ["bridge", "host-local", "portmap", "bandwidth"].map(|name| Path::new(PLUGINS).join(name));
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return false;
    }
    if let Some(missing) = missing.iter().find(|path| !path.exists()) {
        eprintln!("skipped: needs {}", missing.display());
        return false;
    }
    true
}

/// Runs a test in a network of its own: plugins are started from its thread, and so in its network.
fn run(test: impl Future<Output = ()>) {
    if possible() {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network of our own");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test);
    }
}

#[test]
fn a_pod_with_a_port_and_limits() {
    run(async {
        // Debian's releases of these two cannot CHECK.
        let further = [
            json!({"type": "portmap", "capabilities": {"portMappings": true}}),
            json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
        ];
        let place = Place::new(&["10.253.7.0/24"], &further);
        let network = place.network();
        assert_eq!(network.status(), Ok(()));
        let pin = netns::create(&place.path("netns")).expect("made");
        let bandwidth = Some(Bandwidth { ingress: Some(1_000_000_000), egress: Some(1_000_000_000) });
        let attachment = Attachment { bandwidth, ..pod(Some(&pin)) };

        let attached = network.attach(&attachment).await.expect("attached");
        assert_eq!(attached.ips, ips(&["10.253.7.2"]));
        assert!(rules().contains("--dport 8080"), "{}", rules());
        cached_as_by_libcni(&place, &attached.result);
        let usage = network.usage(&[&pin]).remove(0).expect("counted");
        assert!(usage.iter().any(|interface| interface.name == "eth0"), "{usage:?}");
        network.detach(&attachment).await.expect("detached");
        netns::delete(&pin).expect("deleted");
        nothing_is_left(&place).await;
    });
}

#[test]
fn two_families_and_a_namespace_that_is_gone() {
    run(async {
        let place = Place::new(&["10.253.8.0/24", "fd00:c0de::/64"], &[]);
        let network = place.network();
        let pin = netns::create(&place.path("netns")).expect("made");
        let attachment = pod(Some(&pin));
        let attached = network.attach(&attachment).await.expect("attached");
        assert_eq!(attached.ips, ips(&["10.253.8.2", "fd00:c0de::2"]));
        network.check(&attachment).await.expect("as it was");
        let usage = network.usage(&[&pin]).remove(0).expect("counted");
        assert!(usage[0].tx_packets > 0 && usage[0].tx_bytes > 0, "{usage:?}");

        spoil(&pin);
        network.check(&attachment).await.expect_err("without its addresses the pod is not as it was");

        // As after a reboot, the namespace goes first.
        netns::delete(&pin).expect("deleted");
        for _ in 0..2 {
            network.detach(&attachment).await.expect("detached, or gone");
        }
        nothing_is_left(&place).await;
    });
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|ip| ip.parse().expect("an address")).collect()
}

/// Takes the pod's addresses away behind the plugins' backs.
fn spoil(pin: &Path) {
    std::thread::scope(|scope| {
        let spoil = scope.spawn(|| {
            let namespace = netns::open(pin).expect("there");
            nix::sched::setns(&namespace, CloneFlags::CLONE_NEWNET).expect("entered");
            Command::new("ip").args(["addr", "flush", "dev", "eth0"]).status()
        });
        assert!(spoil.join().expect("joined").expect("runs").success());
    });
}

async fn nothing_is_left(place: &Place) {
    assert_eq!(place.files("cache/results"), BTreeSet::new());
    let is_address = |name: &String| name.replace('_', ":").parse::<IpAddr>().is_ok();
    let leases: Vec<_> = place.files("ipam/corten-test").into_iter().filter(is_address).collect();
    assert_eq!(leases, [""; 0], "addresses are left");
    assert!(!rules().contains("8080"), "{}", rules());
    // The bridge is the plugin's to keep; the rest goes when the kernel has come round to the namespace.
    let expect = ["lo", BRIDGE].map(str::to_owned).into();
    let gone = async {
        while interfaces() != expect {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap_or_else(|_| panic!("left: {:?}", interfaces()));
}

fn cached_as_by_libcni(place: &Place, result: &Value) {
    let name = "corten-test-c0ffee-eth0";
    assert_eq!(place.files("cache/results"), [name.to_owned()].into());
    let bytes = fs::read(place.path("cache/results").join(name)).expect("readable");
    let cached: Value = serde_json::from_slice(&bytes).expect("JSON");
    let keys: BTreeSet<_> = cached.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, CACHED.into());
    assert_eq!((&cached["kind"], &cached["result"]), (&"cniCacheV1".into(), result));
    assert_eq!(cached["cniArgs"][1], json!(["K8S_POD_NAMESPACE", "default"]));
}
