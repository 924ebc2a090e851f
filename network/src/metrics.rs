//! How long the CNI plugins take.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::Error;

/// The operation, and whether it went well.
type Labels = [(&'static str, &'static str); 2];

/// Counted since the daemon was started; clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // 2 ms to 65 s: a plugin may wait for an API server.
        Self { seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.002, 2.0, 16))) }
    }

    /// Names them in a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Time of all CNI plugins of a pod together";
        registry.register("corten_cni_seconds", help, self.seconds.clone());
    }

    pub(crate) fn took<T>(&self, operation: &'static str, time: Duration, result: &Result<T, Error>) {
        let outcome = if result.is_ok() { "ok" } else { "error" };
        let labels = [("operation", operation), ("outcome", outcome)];
        self.seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_by_operation_and_outcome() {
        let (metrics, mut registry) = (Metrics::new(), Registry::default());
        metrics.register(&mut registry);
        metrics.took("ADD", Duration::from_millis(3), &Ok(()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("corten_cni_seconds_count{operation=\"ADD\",outcome=\"ok\"} 1"), "{text}");
    }
}
