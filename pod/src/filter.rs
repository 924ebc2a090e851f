//! Which pods and containers a list shows: all conditions that are given must hold.

use std::collections::BTreeMap;

use crate::status::{ContainerFilter, ContainerStatus, PodFilter, PodStatus};

impl PodFilter {
    pub(crate) fn matches(&self, pod: &PodStatus) -> bool {
        self.id.as_ref().is_none_or(|id| pod.id.starts_with(id.as_str()))
            && self.state.is_none_or(|state| pod.state == state)
            && has_labels(&pod.config.labels, &self.labels)
    }
}

impl ContainerFilter {
    pub(crate) fn matches(&self, container: &ContainerStatus) -> bool {
        self.id.as_ref().is_none_or(|id| container.id.starts_with(id.as_str()))
            && self.pod_id.as_ref().is_none_or(|id| container.pod_id.starts_with(id.as_str()))
            && self.state.is_none_or(|state| container.state == state)
            && has_labels(&container.config.labels, &self.labels)
    }
}

fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
