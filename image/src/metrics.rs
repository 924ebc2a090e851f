//! What pulls did, and what those under way have left to do.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::pull::Puller;
use crate::{Error, ImageId, Phase};

/// How a pull or a layer ended.
type Outcome = [(&'static str, &'static str); 1];

/// Counted since the daemon was started; clones share the counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    pulls: Family<Outcome, Counter>,
    layers: Family<Outcome, Counter>,
    bytes: Counter,
}

/// The pulls under way, asked when somebody looks.
#[derive(Debug)]
struct UnderWay {
    puller: Arc<Puller>,
}

impl Metrics {
    /// Names them in a registry.
    pub(crate) fn register(&self, puller: &Arc<Puller>, registry: &mut Registry) {
        registry.register("corten_pulls", "Pulls that ended, by outcome", self.pulls.clone());
        let help = "Layers that were downloaded, or were there before";
        registry.register("corten_pull_layers", help, self.layers.clone());
        registry.register("corten_pull_bytes", "Bytes of layers that were downloaded", self.bytes.clone());
        registry.register_collector(Box::new(UnderWay { puller: Arc::clone(puller) }));
    }

    pub(crate) fn pulled(&self, result: &Result<ImageId, Error>) {
        let outcome = if result.is_ok() { "ok" } else { "error" };
        self.pulls.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Nobody waited for it any more.
    pub(crate) fn cancelled(&self) {
        self.pulls.get_or_create(&[("outcome", "cancelled")]).inc();
    }

    pub(crate) fn layer(&self, source: &'static str) {
        self.layers.get_or_create(&[("source", source)]).inc();
    }

    pub(crate) fn downloaded(&self, bytes: u64) {
        self.bytes.inc_by(bytes);
    }
}

impl Collector for UnderWay {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pulls = self.puller.pulls();
        let waiting = pulls.iter().filter(|pull| pull.phase == Phase::Waiting).count();
        let layers = || pulls.iter().flat_map(|pull| &pull.layers);
        let mut gauge = |name, help, value: u64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge("corten_pulls_running", "Pulls under way, waiting ones included", pulls.len() as u64)?;
        gauge("corten_pulls_waiting", "Pulls that wait for their turn", waiting as u64)?;
        let total = layers().map(|layer| layer.total_bytes).sum();
        gauge("corten_pulls_running_bytes", "Compressed size of the layers of pulls under way", total)?;
        let done = layers().map(|layer| layer.done_bytes).sum();
        gauge("corten_pulls_running_done_bytes", "How much of it is here", done)?;
        let count = layers().count() as u64;
        gauge("corten_pulls_running_layers", "Layers of pulls under way", count)?;
        let unpacked = layers().filter(|layer| layer.done).count() as u64;
        gauge("corten_pulls_running_done_layers", "How many of them are unpacked", unpacked)
    }
}
