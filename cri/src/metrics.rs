//! The daemon's own metrics for Prometheus: calls, pulls, pods, monitors, CNI, and the process itself.
//!
//! What is counted is counted where it happens, in each crate; this puts it under names. What is a state (pods,
//! memory) is asked when somebody looks. Metrics of containers are not here: those are the CRI's.

mod endpoint;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pod::Pods;
use pod::status::{ContainerFilter, ContainerState, PodFilter, PodState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tonic::Code;

pub(crate) use endpoint::Endpoint;

/// All calls that there are: what clients make up is no label.
const METHODS: &[&str] = &include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// The method of a call and its code.
type CallLabels = [(&'static str, String); 2];

/// The calls that came; clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    seconds: Family<CallLabels, Histogram, fn() -> Histogram>,
    errors: Family<CallLabels, Counter>,
}

/// What lives, asked when somebody looks.
#[derive(Debug)]
struct Census {
    pods: Pods,
}

impl Default for Calls {
    fn default() -> Self {
        // 0.1 ms to 200 s: a list, and a pull.
        let seconds = || Histogram::new(exponential_buckets(0.000_1, 4.0, 12));
        Self { seconds: Family::new_with_constructor(seconds), errors: Family::default() }
    }
}

impl Calls {
    /// A call was answered, or its client has left.
    pub(crate) fn ended(&self, method: &str, code: Code, took: Duration) {
        let method = METHODS.iter().find(|known| **known == method).map_or("unknown", |known| known);
        let labels = [("method", method.to_owned()), ("code", format!("{code:?}"))];
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if code != Code::Ok {
            self.errors.get_or_create(&labels).inc();
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("corten_rpc_seconds", "Time until calls were answered", self.seconds.clone());
        registry.register("corten_rpc_errors", "Calls that failed", self.errors.clone());
    }
}

/// Everything that is counted, under its name.
pub(crate) fn registry(pods: &Pods, calls: &Calls) -> Arc<Registry> {
    let mut registry = Registry::default();
    calls.register(&mut registry);
    pods.images().register(&mut registry);
    pods.network().register(&mut registry);
    registry.register_collector(Box::new(Census { pods: pods.clone() }));
    registry.register_collector(Box::new(process::Process));
    Arc::new(registry)
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = |name, help, label, counts: BTreeMap<String, u64>| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (value, count) in counts {
                ConstGauge::new(count).encode(metric.encode_family(&[(label, value)])?)?;
            }
            Ok::<_, fmt::Error>(())
        };
        let pods = self.pods.list(&PodFilter::default());
        let states = pods.iter().map(|pod| match pod.state {
            PodState::Ready => "ready",
            PodState::NotReady => "not_ready",
        });
        family("corten_pods", "Pods by state", "state", count(["ready", "not_ready"], states))?;
        let containers = self.pods.list_containers(&ContainerFilter::default());
        let states = containers.iter().map(|container| match container.state {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Exited => "exited",
            ContainerState::Unknown => "unknown",
        });
        let counted = count(["created", "running", "exited"], states);
        family("corten_containers", "Containers by state", "state", counted)?;
        let versions = self.pods.monitors().into_iter().map(|version| version.to_string());
        let help = "Monitors by the version of their protocol";
        family("corten_monitors", help, "version", count([], versions))
    }
}

/// How many there are of each; of those that are named at least none.
fn count<const N: usize>(
    named: [&str; N],
    all: impl Iterator<Item = impl Into<String>>,
) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = named.map(|name| (name.to_owned(), 0)).into();
    for one in all {
        *counts.entry(one.into()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(calls: &Calls) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        calls.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn calls_are_told_by_method_and_code() {
        let calls = Calls::default();
        calls.ended("Version", Code::Ok, Duration::from_millis(1));
        calls.ended("PullImage", Code::Unknown, Duration::from_secs(1));
        calls.ended("../../etc", Code::Unimplemented, Duration::ZERO);
        let text = text(&calls);
        for line in [
            "corten_rpc_seconds_count{method=\"Version\",code=\"Ok\"} 1",
            "corten_rpc_errors_total{method=\"PullImage\",code=\"Unknown\"} 1",
            "corten_rpc_errors_total{method=\"unknown\",code=\"Unimplemented\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("corten_rpc_errors_total{method=\"Version\""));
    }

    #[test]
    fn what_is_named_is_counted_also_when_there_is_none() {
        let counts = count(["a", "b"], ["b", "b", "c"].into_iter());
        assert_eq!(counts, [("a", 0), ("b", 2), ("c", 1)].map(|(name, n)| (name.to_owned(), n)).into());
    }
}
