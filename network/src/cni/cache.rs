//! What ADD was called with and what came of it, kept for DEL in libcni's format, version `cniCacheV1`.
//!
//! An entry is written before the first plugin runs, without a result, and again with it: so DEL knows the
//! configuration whenever a plugin may have done something, also when the daemon died in between. Entries
//! are replaced by rename and never synced: after a crash of the machine an older one is as good as none,
//! as plugins' own state on the same disk may be just as old.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::arguments::Pairs;
use super::config::NetworkConfig;
use crate::error::Error;

const KIND: &str = "cniCacheV1";
const RESULTS: &str = "results";

/// The directory of results.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// One attachment. The order of fields and what is left out are libcni's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    kind: String,
    /// `CNI_CONTAINERID`.
    pub(super) container_id: String,
    /// The network, in base64.
    config: String,
    /// `CNI_IFNAME`.
    pub(super) if_name: String,
    /// The network's name.
    pub(super) network_name: String,
    /// `CNI_NETNS` of ADD.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) netns: String,
    /// `CNI_ARGS`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) cni_args: Pairs,
    /// What plugins could be told in `runtimeConfig`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) capability_args: Map<String, Value>,
    /// The chain's result; none when ADD did not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<Value>,
}

// === impl Cache ===

impl Cache {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.join(RESULTS) }
    }

    /// Writes an entry in place of an older one.
    pub(super) fn store(&self, entry: &Entry) -> Result<(), Error> {
        let path = self.path(entry);
        let write = || {
            use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            let half = self.half(entry);
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
            io::Write::write_all(&mut file, &serde_json::to_vec(entry)?)?;
            fs::rename(&half, &path)
        };
        write().map_err(failed("write", &path))
    }

    /// All entries of a container's interface, of whatever network.
    pub(super) fn find(&self, container: &str, interface: &str) -> Result<Vec<Entry>, Error> {
        let ending = format!("-{container}-{interface}");
        let files = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("look for", &self.dir))?,
        };
        let mut found = Vec::new();
        for file in files {
            let file = file.map_err(failed("look for", &self.dir))?;
            let name = file.file_name();
            let Some(network) = name.to_str().and_then(|name| name.strip_suffix(&ending)) else { continue };
            if network.is_empty() || network.starts_with('.') {
                continue;
            }
            match fs::read(file.path()) {
                Ok(bytes) => found.push(Entry::read(&bytes, network, container, interface)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("read", &file.path())(error)),
            }
        }
        found.sort_by(|one, other| one.network_name.cmp(&other.network_name));
        Ok(found)
    }

    /// Forgets an entry, and what a daemon that was killed had written of it.
    pub(super) fn remove(&self, entry: &Entry) -> Result<(), Error> {
        for path in [self.half(entry), self.path(entry)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where an entry is written. A reader of the directory must not take it for one: no network's name begins with
    /// a dot.
    fn half(&self, entry: &Entry) -> PathBuf {
        self.dir.join(format!(".{}", file_name(entry)))
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.dir.join(file_name(entry))
    }
}

fn file_name(entry: &Entry) -> String {
    format!("{}-{}-{}", entry.network_name, entry.container_id, entry.if_name)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Cache { operation, path: path.to_owned(), source }
}

// === impl Entry ===

impl Entry {
    /// An attachment that has no result yet.
    pub(super) fn new(container: &str, interface: &str, network: &NetworkConfig) -> Self {
        Self {
            kind: KIND.to_owned(),
            container_id: container.to_owned(),
            config: BASE64_STANDARD.encode(network.bytes()),
            if_name: interface.to_owned(),
            network_name: network.name.clone(),
            netns: String::new(),
            cni_args: Vec::new(),
            capability_args: Map::new(),
            result: None,
        }
    }

    /// The network that the attachment was made with; none when the entry does not tell.
    pub(super) fn network(&self) -> Option<NetworkConfig> {
        NetworkConfig::parse_list(&BASE64_STANDARD.decode(&self.config).ok()?).ok()
    }

    /// Reads an entry. Old versions of libcni kept the bare result, and a file may be damaged: what can be read
    /// still helps DEL.
    fn read(bytes: &[u8], network: &str, container: &str, interface: &str) -> Self {
        let value = serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
        if value.get("kind").and_then(Value::as_str) == Some(KIND)
            && let Ok(entry) = serde_json::from_value::<Self>(value.clone())
        {
            // The file's name is what it is found and removed by.
            return Self {
                container_id: container.to_owned(),
                if_name: interface.to_owned(),
                network_name: network.to_owned(),
                ..entry
            };
        }
        let result = value.as_object().filter(|object| !object.contains_key("kind"));
        Self {
            kind: KIND.to_owned(),
            container_id: container.to_owned(),
            config: String::new(),
            if_name: interface.to_owned(),
            network_name: network.to_owned(),
            netns: String::new(),
            cni_args: Vec::new(),
            capability_args: Map::new(),
            result: result.map(|object| Value::Object(object.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network() -> NetworkConfig {
        NetworkConfig::parse_list(
            br#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]}"#,
        )
        .expect("valid")
    }

    fn entry() -> Entry {
        Entry {
            netns: "/run/netns/cni-1".into(),
            cni_args: vec![("IgnoreUnknown".into(), "1".into())],
            result: Some(json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}]})),
            ..Entry::new("c0ffee", "eth0", &network())
        }
    }

    #[test]
    fn an_entry_in_the_words_of_libcni() {
        let dir = tempfile::tempdir().expect("directory");
        Cache::new(dir.path()).store(&entry()).expect("stored");
        let bytes =
            fs::read(dir.path().join("results/pods-c0ffee-eth0")).expect("the file's name is libcni's");
        let expect = json!({
            "kind": "cniCacheV1",
            "containerId": "c0ffee",
            "config": BASE64_STANDARD.encode(network().bytes()),
            "ifName": "eth0",
            "networkName": "pods",
            "netns": "/run/netns/cni-1",
            "cniArgs": [["IgnoreUnknown", "1"]],
            "result": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}]},
        });
        assert_eq!(serde_json::from_slice::<Value>(&bytes).expect("JSON"), expect);
    }

    #[test]
    fn entries_are_found_whatever_the_network_is_called() {
        let dir = tempfile::tempdir().expect("directory");
        let cache = Cache::new(dir.path());
        assert_eq!(cache.find("c0ffee", "eth0").expect("no directory yet"), []);
        let other = Entry { network_name: "a-b".into(), ..entry() };
        for entry in [entry(), other.clone(), Entry { container_id: "dead".into(), ..entry() }] {
            cache.store(&entry).expect("stored");
        }
        assert_eq!(cache.find("c0ffee", "eth0").expect("readable"), [other, entry()]);
        assert_eq!(cache.find("c0ffee", "eth1").expect("readable"), []);
        assert_eq!(entry().network(), Some(network()));
        for _ in 0..2 {
            cache.remove(&entry()).expect("removed, or gone");
        }
        assert_eq!(cache.find("c0ffee", "eth0").expect("readable").len(), 1);
    }

    #[test]
    fn with_an_entry_goes_what_was_written_of_it_by_halves() {
        let dir = tempfile::tempdir().expect("directory");
        let cache = Cache::new(dir.path());
        cache.store(&entry()).expect("stored");
        fs::write(dir.path().join("results/.pods-c0ffee-eth0"), "{").expect("written");
        assert_eq!(cache.find("c0ffee", "eth0").expect("readable"), [entry()]);
        cache.remove(&entry()).expect("removed");
        assert_eq!(fs::read_dir(dir.path().join("results")).expect("readable").count(), 0);
    }

    #[test]
    fn old_and_damaged_entries_tell_what_they_can() {
        let check = |text: &str, result: Option<Value>| {
            let found = Entry::read(text.as_bytes(), "pods", "c0ffee", "eth0");
            assert_eq!((found.network_name.as_str(), found.result.clone()), ("pods", result), "{text}");
            assert_eq!(found.network(), None, "{text}");
        };
        check("", None);
        check(r#"{"kind": "cniCacheV1", "containerId": 7}"#, None);
        check(r#"{"kind": "cniCacheV9"}"#, None);
        check(r#"{"cniVersion": "0.2.0"}"#, Some(json!({"cniVersion": "0.2.0"})));
    }
}
