//! SIGHUP reads the configuration again: what can change while the server runs does, the rest is named.
//!
//! A file that cannot be used changes nothing. `registries.conf` and the CNI directory need no signal: they are read
//! again by themselves.

use std::sync::{Arc, PoisonError, RwLock};

use pod::Pods;
use serde_json::Value;
use tokio::signal::unix::Signal;
use tracing::{info, warn};

use crate::config::Config;
use crate::serve::Serve;
use crate::telemetry::Volume;

/// The configuration in force; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Current(Arc<RwLock<Arc<Config>>>);

/// What it takes to read the configuration again.
#[derive(Debug)]
pub(crate) struct Reload {
    flags: Serve,
    volume: Volume,
    current: Current,
}

impl Current {
    /// The configuration as it is now.
    pub(crate) fn get(&self) -> Arc<Config> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, config: Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

impl Reload {
    pub(crate) fn new(flags: Serve, config: Config, volume: Volume) -> Self {
        Self { flags, volume, current: Current(Arc::new(RwLock::new(Arc::new(config)))) }
    }

    /// The configuration in force, now and later.
    pub(crate) fn current(&self) -> Current {
        self.current.clone()
    }

    /// Reads the configuration at every signal.
    pub(crate) async fn on_hangup(self, mut hangup: Signal, pods: Pods) {
        while hangup.recv().await.is_some() {
            match self.flags.configuration() {
                Ok(wanted) => self.take(wanted, &pods),
                Err(error) => warn!("SIGHUP: the configuration stays as it was: {error:#}"),
            }
        }
    }

    fn take(&self, wanted: Config, pods: &Pods) {
        let next = changed(&self.current.get(), &wanted);
        let waiting = differences(&next, &wanted);
        self.volume.set(next.log.into());
        pods.reconfigure(next.pod());
        pods.images().set_pinned(&next.image.pinned);
        self.current.set(next);
        if waiting.is_empty() {
            info!("SIGHUP: the configuration was read again");
        } else {
            let keys = waiting.join(", ");
            warn!("SIGHUP: the configuration was read again, but a restart has to change {keys}");
        }
    }
}

/// The configuration in force with what can change taken from another.
fn changed(current: &Config, wanted: &Config) -> Config {
    let mut next = current.clone();
    next.log = wanted.log;
    next.pod = wanted.pod.clone();
    next.image.pinned = wanted.image.pinned.clone();
    next
}

/// The keys whose values differ, `cni.conf_dir`.
fn differences(current: &Config, wanted: &Config) -> Vec<String> {
    // A table of the configuration always fits JSON.
    let [current, wanted] = [current, wanted].map(|config| serde_json::to_value(config).unwrap_or_default());
    let mut keys = Vec::new();
    compare("", &current, &wanted, &mut keys);
    keys
}

fn compare(at: &str, current: &Value, wanted: &Value, keys: &mut Vec<String>) {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => {
            let names = current.keys().chain(wanted.keys().filter(|name| !current.contains_key(*name)));
            for name in names {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                let value = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(&at, &value(current), &value(wanted), keys);
            }
        }
        _ if current == wanted => {}
        _ => keys.push(at.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_change_does_and_the_rest_is_named() {
        let current = Config::default();
        let mut wanted = Config::default();
        wanted.pod.log_line_bytes = 7;
        wanted.image.pinned = vec!["a".to_owned()];
        wanted.image.max_parallel_pulls = 9;
        wanted.cni.conf_dir = "/elsewhere".into();
        wanted.root = "/other".into();
        let next = changed(&current, &wanted);
        assert_eq!((next.pod.log_line_bytes, next.image.pinned.len()), (7, 1));
        assert_eq!(next.root, current.root);
        assert_eq!(differences(&next, &wanted), ["cni.conf_dir", "image.max_parallel_pulls", "root"]);
        assert!(differences(&next, &next).is_empty());
    }
}
