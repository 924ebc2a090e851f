//! The plugins of the node: where they are, which versions they speak, and how each verb is put to them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::arguments;
use super::config::{NetworkConfig, PluginConfig};
use super::process::{Request, run};
use super::result::AddResult;
use super::version::{Verb, Version};
use crate::error::{Error, PluginError};

/// How long a plugin may think about STATUS and VERSION, which are asked while somebody waits for readiness.
const QUICK: Duration = Duration::from_secs(10);
const WORLD_WRITABLE: u32 = 0o002;

/// The installed plugins.
#[derive(Debug)]
pub(crate) struct Plugins {
    dirs: Vec<PathBuf>,
    limit: Duration,
    /// What programs answered to VERSION, by what they were then; never held across an await.
    versions: Mutex<HashMap<PathBuf, (Identity, Vec<Version>)>>,
}

/// What a call is about, besides the plugin and its configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject<'a> {
    /// `CNI_CONTAINERID`.
    pub(super) container: &'a str,
    /// `CNI_IFNAME`.
    pub(super) interface: &'a str,
    /// `CNI_NETNS`; empty when the namespace is gone.
    pub(super) netns: OsString,
    /// `CNI_ARGS`.
    pub(super) pairs: &'a [(String, String)],
    /// What goes into `runtimeConfig`, as far as the plugin declares it.
    pub(super) capabilities: Option<&'a Map<String, Value>>,
}

/// A chain in motion: which network in which version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) network: &'a NetworkConfig,
    pub(super) version: Version,
}

/// What tells whether a program is still the one that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// The answer to VERSION.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    supported_versions: Vec<String>,
}

// === impl Plugins ===

impl Plugins {
    pub(crate) fn new(dirs: Vec<PathBuf>, limit: Duration) -> Self {
        Self { dirs, limit, versions: Mutex::default() }
    }

    /// The first directory's program of that name.
    pub(crate) fn find(&self, program: &str) -> Result<PathBuf, PluginError> {
        self.locate(program).map(|(path, _)| path)
    }

    /// The newest version that the network allows and all of its plugins speak. They are only asked when there
    /// is a choice: a network of one version is run with that, and the plugins themselves refuse it.
    pub(super) async fn negotiate(&self, network: &NetworkConfig) -> Result<Version, Error> {
        if let [only] = network.versions[..] {
            return Ok(only);
        }
        let mut left = network.versions.clone();
        for plugin in &network.plugins {
            let failed = |source| failed(plugin, Verb::Version, network, source);
            let supported = self.versions(plugin).await.map_err(failed)?;
            left.retain(|version| supported.contains(version));
            if left.is_empty() {
                return Err(failed(PluginError::Version { supported, wanted: network.versions.clone() }));
            }
        }
        Ok(left.last().copied().unwrap_or_else(|| network.newest()))
    }

    /// Calls ADD, with the result of the plugin before.
    pub(super) async fn add(
        &self,
        run: Run<'_>,
        plugin: &PluginConfig,
        subject: &Subject<'_>,
        before: Option<AddResult>,
    ) -> Result<AddResult, Error> {
        let input = input(run, plugin, subject, before.map(AddResult::into_value));
        let (answer, stderr) = self.call(run, plugin, Verb::Add, (subject, input)).await?;
        let garbage = |reason: String| {
            failed(plugin, Verb::Add, run.network, PluginError::Garbage { reason, stderr: stderr.clone() })
        };
        AddResult::parse(&answer, run.version)
            .and_then(|result| result.convert(run.version))
            .map_err(|error| garbage(error.to_string()))
    }

    /// Calls a verb that has no answer but success, with the result of the whole chain's ADD.
    pub(super) async fn tell(
        &self,
        run: Run<'_>,
        plugin: &PluginConfig,
        verb: Verb,
        (subject, result): (&Subject<'_>, Option<&Value>),
    ) -> Result<(), Error> {
        let input = input(run, plugin, subject, result.cloned());
        self.call(run, plugin, verb, (subject, input)).await.map(|_| ())
    }

    async fn call(
        &self,
        chain: Run<'_>,
        plugin: &PluginConfig,
        verb: Verb,
        (subject, input): (&Subject<'_>, Vec<u8>),
    ) -> Result<(Vec<u8>, String), Error> {
        let failed = |source| failed(plugin, verb, chain.network, source);
        let program = self.find(&plugin.program).map_err(failed)?;
        let limit = if verb == Verb::Status { self.limit.min(QUICK) } else { self.limit };
        let env = self.environment(verb, subject);
        let said = run(Request { program: &program, env, input, limit }).await.map_err(failed)?;
        if !said.1.is_empty() {
            tracing::debug!(plugin = plugin.program, %verb, stderr = said.1, "CNI plugin wrote to standard error");
        }
        Ok(said)
    }

    async fn versions(&self, plugin: &PluginConfig) -> Result<Vec<Version>, PluginError> {
        let (program, metadata) = self.locate(&plugin.program)?;
        let identity = Identity::of(&metadata);
        let known = |versions: &HashMap<PathBuf, (Identity, Vec<Version>)>| {
            versions.get(&program).filter(|(then, _)| *then == identity).map(|(_, versions)| versions.clone())
        };
        if let Some(versions) = known(&self.versions.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(versions);
        }
        let input = json!({"cniVersion": Version::NEWEST.as_str()}).to_string().into_bytes();
        // Plugins of old refuse to say anything without these.
        let dummy = |key| (key, OsString::from("dummy"));
        let env = vec![
            ("CNI_COMMAND", Verb::Version.to_string().into()),
            dummy("CNI_NETNS"),
            dummy("CNI_IFNAME"),
            dummy("CNI_PATH"),
        ];
        let limit = self.limit.min(QUICK);
        let versions = match run(Request { program: &program, env, input, limit }).await {
            Ok((answer, stderr)) => supported(&answer)
                .ok_or_else(|| PluginError::Garbage { reason: "not an answer to VERSION".into(), stderr })?,
            // The verb came with 0.2.0.
            Err(PluginError::Reported { msg, .. }) if msg == "unknown CNI_COMMAND: VERSION" => {
                vec![Version::V010]
            }
            Err(error) => return Err(error),
        };
        let mut cache = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(program, (identity, versions.clone()));
        Ok(versions)
    }

    fn environment(&self, verb: Verb, subject: &Subject<'_>) -> Vec<(&'static str, OsString)> {
        // Directories with a colon in their name cannot be told; there is no way to quote one.
        let path = std::env::join_paths(self.dirs.iter().filter(|dir| !has_colon(dir))).unwrap_or_default();
        vec![
            ("CNI_COMMAND", verb.to_string().into()),
            ("CNI_CONTAINERID", subject.container.into()),
            ("CNI_NETNS", subject.netns.clone()),
            ("CNI_IFNAME", subject.interface.into()),
            ("CNI_ARGS", arguments::join(subject.pairs).into()),
            ("CNI_PATH", path),
        ]
    }

    fn locate(&self, program: &str) -> Result<(PathBuf, Metadata), PluginError> {
        for dir in &self.dirs {
            let path = dir.join(program);
            // A directory that cannot be looked into has nothing to offer.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if !metadata.is_file() {
                continue;
            }
            if metadata.mode() & WORLD_WRITABLE != 0 {
                return Err(PluginError::Unsafe { path });
            }
            return Ok((path, metadata));
        }
        Err(PluginError::NotFound { dirs: self.dirs.clone() })
    }
}

fn has_colon(dir: &Path) -> bool {
    dir.as_os_str().as_encoded_bytes().contains(&b':')
}

/// The plugin's configuration as it is passed to it. What the configuration says itself stays, `capabilities`
/// too: the specification would have it removed, but plugins know it from libcni, which leaves it.
fn input(run: Run<'_>, plugin: &PluginConfig, subject: &Subject<'_>, before: Option<Value>) -> Vec<u8> {
    let mut object = plugin.object.clone();
    object.insert("name".to_owned(), json!(run.network.name));
    object.insert("cniVersion".to_owned(), json!(run.version.as_str()));
    if let Some(result) = before {
        object.insert("prevResult".to_owned(), result);
    }
    let declared = |(key, _): &(&String, &Value)| plugin.capabilities.contains(*key);
    let given = subject.capabilities.into_iter().flatten();
    let told: Map<_, _> = given.filter(declared).map(|(key, value)| (key.clone(), value.clone())).collect();
    if !told.is_empty() {
        object.insert("runtimeConfig".to_owned(), Value::Object(told));
    }
    Value::Object(object).to_string().into_bytes()
}

/// Reads the answer to VERSION; versions unknown here do not count.
fn supported(answer: &[u8]) -> Option<Vec<Version>> {
    let answer: Versions = serde_json::from_slice(answer).ok()?;
    if answer.supported_versions.is_empty() {
        // 0.2.0 did not ask for the list.
        return (answer.cni_version == "0.2.0").then(|| vec![Version::V010, Version::V020]);
    }
    Some(answer.supported_versions.iter().filter_map(|text| Version::parse(text).ok()).collect())
}

pub(super) fn failed(
    plugin: &PluginConfig,
    verb: Verb,
    network: &NetworkConfig,
    source: PluginError,
) -> Error {
    Error::Plugin {
        plugin: plugin.program.clone(),
        verb,
        network: network.name.clone(),
        source: source.into(),
    }
}

// === impl Identity ===

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
