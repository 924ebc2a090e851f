//! Pods and containers in memory: found by id, by the beginning of one, and by name.
//!
//! One mutex guards the maps and is held for look-ups only; each object guards its own state. Nothing
//! here does I/O, so lists never wait for a disk, a plugin or a container.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{ContainerMetadata, PodMetadata};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::sandbox::Sandbox;

/// All that exist, the hidden half-made ones included.
#[derive(Debug, Default)]
pub(crate) struct Table {
    maps: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    // Ordered, so that a prefix is a range.
    pods: BTreeMap<String, Arc<Sandbox>>,
    containers: BTreeMap<String, Arc<Container>>,
    pod_names: HashMap<PodMetadata, String>,
    container_names: HashMap<(String, ContainerMetadata), String>,
}

impl Table {
    /// Adds a pod, unless another has its name.
    pub(crate) fn insert_pod(&self, pod: Arc<Sandbox>) -> Result<()> {
        let mut maps = self.lock();
        let metadata = &pod.config.metadata;
        if let Some(holder) = maps.pod_names.get(metadata) {
            let name = format!(
                "{}/{} (uid {}, attempt {})",
                metadata.namespace, metadata.name, metadata.uid, metadata.attempt
            );
            return Err(Error::NameTaken { kind: "pod", name, id: holder.clone() });
        }
        maps.pod_names.insert(metadata.clone(), pod.id.clone());
        maps.pods.insert(pod.id.clone(), pod);
        Ok(())
    }

    /// Adds a container, unless another of the pod has its name.
    pub(crate) fn insert_container(&self, container: Arc<Container>) -> Result<()> {
        let mut maps = self.lock();
        let metadata = &container.config.metadata;
        let key = (container.pod.id.clone(), metadata.clone());
        if let Some(holder) = maps.container_names.get(&key) {
            let name = format!("{} (attempt {})", metadata.name, metadata.attempt);
            return Err(Error::NameTaken { kind: "container", name, id: holder.clone() });
        }
        maps.container_names.insert(key, container.id.clone());
        maps.containers.insert(container.id.clone(), container);
        Ok(())
    }

    pub(crate) fn remove_pod(&self, pod: &Sandbox) {
        let mut maps = self.lock();
        maps.pods.remove(&pod.id);
        maps.pod_names.remove(&pod.config.metadata);
    }

    pub(crate) fn remove_container(&self, container: &Container) {
        let mut maps = self.lock();
        maps.containers.remove(&container.id);
        maps.container_names.remove(&(container.pod.id.clone(), container.config.metadata.clone()));
    }

    /// The pod with this id, or the only one whose id begins so.
    pub(crate) fn pod(&self, id: &str) -> Result<Arc<Sandbox>> {
        only(&self.lock().pods, id).ok_or_else(|| Error::pod_not_found(id))
    }

    /// The container with this id, or the only one whose id begins so.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        only(&self.lock().containers, id).ok_or_else(|| Error::container_not_found(id))
    }

    pub(crate) fn pods(&self) -> Vec<Arc<Sandbox>> {
        self.lock().pods.values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.lock().containers.values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, pod_id: &str) -> Vec<Arc<Container>> {
        let maps = self.lock();
        maps.containers.values().filter(|container| container.pod.id == pod_id).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn only<T>(map: &BTreeMap<String, Arc<T>>, prefix: &str) -> Option<Arc<T>> {
    if prefix.is_empty() {
        return None;
    }
    let mut matches = map.range(prefix.to_owned()..).take_while(|(id, _)| id.starts_with(prefix));
    let (id, first) = matches.next()?;
    (id == prefix || matches.next().is_none()).then(|| first.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ids: &[&str]) -> BTreeMap<String, Arc<String>> {
        ids.iter().map(|id| ((*id).to_owned(), Arc::new((*id).to_owned()))).collect()
    }

    #[test]
    fn a_prefix_finds_the_only_one_that_begins_so() {
        let check = |prefix: &str, expected: Option<&str>| {
            let found = only(&map(&["abc", "abd", "b", "bc"]), prefix);
            assert_eq!(found.as_deref().map(String::as_str), expected, "{prefix:?}");
        };
        check("abc", Some("abc"));
        check("ab", None);
        check("b", Some("b"));
        check("bc", Some("bc"));
        check("", None);
        check("zzz", None);
    }
}
