//! The daemon's process under the names that all Prometheus clients use, from `/proc/self`.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Read when somebody looks.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name, help, value: u64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        if let Some([size, resident]) = memory() {
            gauge("process_virtual_memory_bytes", "Bytes of address space", size)?;
            gauge("process_resident_memory_bytes", "Bytes of memory", resident)?;
        }
        gauge("process_open_fds", "Open file descriptors", open_files())?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        gauge("process_max_fds", "Most file descriptors", limit.unwrap_or(u64::MAX))?;
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        let help = "Seconds of processor time";
        let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(seconds).encode(metric)
    }
}

/// Address space and memory in bytes: `/proc/self/statm` counts pages.
fn memory() -> Option<[u64; 2]> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').map_while(|pages| pages.trim().parse::<u64>().ok());
    let page = rustix::param::page_size() as u64;
    Some([pages.next()? * page, pages.next()? * page])
}

/// The directory itself is open while it is counted.
fn open_files() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |files| (files.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_itself() {
        let [size, resident] = memory().unwrap();
        assert!(size >= resident && resident > 1 << 20, "{size} {resident}");
        let before = open_files();
        let _open = fs::File::open("/dev/null").unwrap();
        assert!(open_files() > 0 && before > 0);
    }
}
