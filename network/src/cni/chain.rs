//! A pod's way through the plugins of a network: ADD forwards, DEL backwards, CHECK, STATUS.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::arguments;
use super::cache::{Cache, Entry};
use super::config::{NetworkConfig, is_name};
use super::plugins::{Plugins, Run, Subject};
use super::result::AddResult;
use super::version::{Verb, Version};
use crate::attachment::{Attached, Attachment, INTERFACE};
use crate::error::Error;
use crate::{Config, netns};

/// What calls chains.
#[derive(Debug)]
pub(crate) struct Chain {
    plugins: Plugins,
    cache: Cache,
}

// === impl Chain ===

impl Chain {
    pub(crate) fn new(config: &Config) -> Self {
        let limit = Duration::from_secs(config.plugin_timeout_seconds);
        Self { plugins: Plugins::new(config.bin_dirs.clone(), limit), cache: Cache::new(&config.cache_dir) }
    }

    /// The plugins.
    pub(crate) fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// The result that a pod's interface was made with, as it is kept for DEL.
    pub(crate) fn result(&self, id: &str) -> Option<serde_json::Value> {
        self.cache.find(id, INTERFACE).ok()?.into_iter().find_map(|entry| entry.result)
    }

    /// Adds a pod. When that fails, DEL takes down what there may be, so that the caller has nothing to do.
    pub(crate) async fn add(
        &self,
        network: &NetworkConfig,
        attachment: &Attachment,
    ) -> Result<Attached, Error> {
        let mut entry = self.entry(network, attachment)?;
        let version = self.plugins.negotiate(network).await?;
        self.cache.store(&entry)?;
        match self.forwards(Run { network, version }, &mut entry).await {
            Ok(attached) => Ok(attached),
            Err(error) => {
                let mut cleanup = self.remove(&entry, Some(network), live(attachment)).await;
                if !cleanup.is_empty() && entry.result.is_some() {
                    // The next DEL is then told as much as this one was.
                    cleanup.extend(self.cache.store(&entry).err());
                }
                Err(Error::Add {
                    id: attachment.id.clone(),
                    network: network.name.clone(),
                    source: Box::new(error),
                    cleanup,
                })
            }
        }
    }

    /// Takes a pod out of all networks that it was added to; when nothing is known of any, out of `current`.
    pub(crate) async fn del(
        &self,
        current: Option<&NetworkConfig>,
        attachment: &Attachment,
    ) -> Result<(), Error> {
        check_id(attachment)?;
        let mut entries = self.cache.find(&attachment.id, INTERFACE)?;
        if entries.is_empty() {
            let Some(network) = current else { return Ok(()) };
            entries.push(self.entry(network, attachment)?);
        }
        let mut failures = Vec::new();
        for entry in entries {
            let errors = self.remove(&entry, current, live(attachment)).await;
            if !errors.is_empty() {
                failures.push(Error::Delete {
                    id: attachment.id.clone(),
                    network: entry.network_name.clone(),
                    errors,
                });
            }
        }
        match failures.len() {
            0 | 1 => failures.pop().map_or(Ok(()), Err),
            _ => {
                Err(Error::Delete { id: attachment.id.clone(), network: "any".to_owned(), errors: failures })
            }
        }
    }

    /// Asks all plugins whether the pod's network is as they left it.
    pub(crate) async fn check(
        &self,
        current: Option<&NetworkConfig>,
        attachment: &Attachment,
    ) -> Result<(), Error> {
        check_id(attachment)?;
        for entry in self.cache.find(&attachment.id, INTERFACE)? {
            let cached = entry.network();
            let Some(network) = cached.as_ref().or(current) else { continue };
            let version = self.plugins.negotiate(network).await?;
            if !version.has(Verb::Check) {
                return Err(Error::CheckUnsupported { network: network.name.clone(), version });
            }
            if network.disable_check {
                continue;
            }
            let run = Run { network, version };
            let result = previous(&entry, version);
            let subject = subject(&entry, live(attachment));
            for plugin in &network.plugins {
                self.plugins.tell(run, plugin, Verb::Check, (&subject, result.as_ref())).await?;
            }
        }
        Ok(())
    }

    /// Asks all plugins whether they can take pods, as far as the network's version lets them say so.
    pub(crate) async fn status(&self, network: &NetworkConfig) -> Result<(), Error> {
        let version = self.plugins.negotiate(network).await?;
        if version.has(Verb::Status) {
            let run = Run { network, version };
            for plugin in &network.plugins {
                self.plugins.tell(run, plugin, Verb::Status, (&Subject::default(), None)).await?;
            }
        }
        Ok(())
    }

    async fn forwards(&self, run: Run<'_>, entry: &mut Entry) -> Result<Attached, Error> {
        let mut result: Option<AddResult> = None;
        for plugin in &run.network.plugins {
            let subject = subject(entry, Some(Path::new(&entry.netns)));
            let added = self.plugins.add(run, plugin, &subject, result).await?;
            // Should a later plugin fail, DEL of the earlier ones is told what they made.
            entry.result = Some(added.clone().into_value());
            result = Some(added);
        }
        self.cache.store(entry)?;
        let ips = result.as_ref().map_or(Ok(Vec::new()), |result| result.ips(INTERFACE)).unwrap_or_default();
        if ips.is_empty() {
            return Err(Error::NoAddress { network: run.network.name.clone() });
        }
        Ok(Attached {
            network: run.network.name.clone(),
            ips,
            result: result.map_or(Value::Null, AddResult::into_value),
        })
    }

    /// Calls DEL of the whole chain, going on past failures; only an entry that is done with is forgotten.
    async fn remove(
        &self,
        entry: &Entry,
        current: Option<&NetworkConfig>,
        netns: Option<&Path>,
    ) -> Vec<Error> {
        let cached = entry.network();
        let named = current.filter(|network| network.name == entry.network_name);
        let mut errors = Vec::new();
        if let Some(network) = cached.as_ref().or(named) {
            let version = self.version_for_del(network, entry).await;
            let result = previous(entry, version).filter(|_| version >= Version::V040);
            let subject = subject(entry, netns);
            for plugin in network.plugins.iter().rev() {
                let call = (&subject, result.as_ref());
                let run = Run { network, version };
                if let Err(error) = self.plugins.tell(run, plugin, Verb::Del, call).await {
                    errors.push(error);
                }
            }
        } else {
            tracing::warn!(
                network = entry.network_name,
                pod = entry.container_id,
                "no configuration is left to remove the pod from its network with"
            );
        }
        if errors.is_empty() {
            errors.extend(self.cache.remove(entry).err());
        }
        errors
    }

    /// A plugin that cannot be asked for its versions is told to remove in the version that it added with.
    async fn version_for_del(&self, network: &NetworkConfig, entry: &Entry) -> Version {
        match self.plugins.negotiate(network).await {
            Ok(version) => version,
            Err(_) => {
                let result = entry.result.as_ref().and_then(|result| result.get("cniVersion")?.as_str());
                result.and_then(|text| Version::parse(text).ok()).unwrap_or_else(|| network.newest())
            }
        }
    }

    fn entry(&self, network: &NetworkConfig, attachment: &Attachment) -> Result<Entry, Error> {
        check_id(attachment)?;
        let netns = attachment.netns.as_deref().unwrap_or_else(|| Path::new(""));
        let netns = netns.to_str().ok_or_else(|| Error::Argument {
            field: "network namespace",
            value: netns.to_string_lossy().into_owned(),
        })?;
        let mut entry = Entry::new(&attachment.id, INTERFACE, network);
        netns.clone_into(&mut entry.netns);
        entry.cni_args = arguments::pairs(attachment)?;
        entry.capability_args = arguments::capabilities(attachment);
        Ok(entry)
    }
}

fn check_id(attachment: &Attachment) -> Result<(), Error> {
    if is_name(&attachment.id) {
        Ok(())
    } else {
        Err(Error::Argument { field: "id", value: attachment.id.clone() })
    }
}

/// The namespace, unless it is gone: a file that is none any more, as after a reboot, only confuses plugins.
fn live(attachment: &Attachment) -> Option<&Path> {
    attachment.netns.as_deref().filter(|path| netns::open(path).is_ok())
}

fn subject<'a>(entry: &'a Entry, netns: Option<&Path>) -> Subject<'a> {
    Subject {
        container: &entry.container_id,
        interface: &entry.if_name,
        netns: netns.map(Into::into).unwrap_or_default(),
        pairs: &entry.cni_args,
        capabilities: Some(&entry.capability_args),
    }
}

/// The cached result in the format of `version`; none when it cannot be had in it.
fn previous(entry: &Entry, version: Version) -> Option<Value> {
    let result = AddResult::from_value(entry.result.clone()?, version).ok()?;
    result.convert(version).ok().map(AddResult::into_value)
}
