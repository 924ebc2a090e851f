//! A node of its own directories, with plugins that are small scripts and write down how they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use network::{Attachment, Config, Network, PortMapping, Protocol};
use serde_json::Value;
use tempfile::TempDir;

/// What every plugin does before it behaves: it writes down its name, verb and namespace in order, and its input
/// and environment by its name and verb.
const RECORD: &str = r#"#!/bin/sh
me=$(basename "$0") dir=$(dirname "$0")
input=$(cat)
printf %s "$input" > "$dir/$me.$CNI_COMMAND.json"
env | sort > "$dir/$me.$CNI_COMMAND.env"
echo "$me $CNI_COMMAND $CNI_NETNS" | sed 's/ $//' >> "$dir/log"
"#;

/// A node.
pub(crate) struct Node {
    root: TempDir,
    /// Its network.
    pub(crate) network: Network,
}

impl Node {
    /// A node with one configuration; to be called within a runtime.
    pub(crate) fn new(list: &str) -> Self {
        Self::with_limit(list, 60)
    }

    /// The same with another time for each plugin, in seconds.
    pub(crate) fn with_limit(list: &str, limit: u64) -> Self {
        let root = tempfile::tempdir().expect("directory");
        for dir in ["conf", "bin"] {
            fs::create_dir(root.path().join(dir)).expect("made");
        }
        fs::write(root.path().join("conf/1.conflist"), list).expect("written");
        let network = Network::open(Config {
            conf_dir: root.path().join("conf"),
            bin_dirs: vec![root.path().join("none"), root.path().join("bin")],
            netns_dir: root.path().join("netns"),
            cache_dir: root.path().join("cache"),
            plugin_timeout_seconds: limit,
        });
        Self { root, network: network.expect("opened") }
    }

    /// Something of the node's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Installs a plugin, or another in its place.
    pub(crate) fn plugin(&self, name: &str, text: &str) {
        let half = self.path("half");
        fs::write(&half, format!("{RECORD}{text}\n")).expect("written");
        fs::set_permissions(&half, fs::Permissions::from_mode(0o755)).expect("made executable");
        fs::rename(half, self.path("bin").join(name)).expect("moved");
    }

    /// How plugins were called since the last time that this was asked.
    pub(crate) fn log(&self) -> Vec<String> {
        let log = self.path("bin/log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(&log, "").expect("written");
        text.lines().map(str::to_owned).collect()
    }

    /// What a plugin last got on its standard input.
    pub(crate) fn input(&self, plugin: &str, verb: &str) -> Value {
        let bytes = fs::read(self.path(&format!("bin/{plugin}.{verb}.json"))).expect("called");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// The environment that a plugin last had.
    pub(crate) fn environment(&self, plugin: &str, verb: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(&format!("bin/{plugin}.{verb}.env"))).expect("called");
        // The shell adds these.
        let own = |line: &&str| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own));
        text.lines().filter(own).map(str::to_owned).collect()
    }

    /// The cached results.
    pub(crate) fn cached(&self) -> Vec<Value> {
        let Ok(files) = fs::read_dir(self.path("cache/results")) else { return Vec::new() };
        files.map(|file| read_json(&file.expect("readable").path())).collect()
    }
}

/// A pod that asks for a port.
pub(crate) fn pod(netns: Option<&Path>) -> Attachment {
    Attachment {
        id: "c0ffee".into(),
        name: "web".into(),
        namespace: "default".into(),
        uid: "u-1".into(),
        netns: netns.map(Into::into),
        ports: vec![PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: None,
        }],
        ..Attachment::default()
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
}
