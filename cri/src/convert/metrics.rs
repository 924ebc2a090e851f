//! Metrics of pods and containers under cAdvisor's names, which dashboards know.
//!
//! A container's metrics have its names in their labels. A pod's network has `POD` for a container, as the
//! container that holds the network is called; what a pod's cgroup counts as a whole has none, so that sums
//! over containers leave it out. Times are whole seconds: the contract's numbers have no fractions.

mod table;

use network::InterfaceUsage;
use pod::status::{ContainerMetrics, Disk, DiskIo, Metrics, PodMetrics, PodStatus};
use runtime::cgroup::Details;

use crate::wire::cri;

/// What the kernel takes when nobody says otherwise, microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
const DEFAULT_SHARES: u64 = 1024;
const NANOS: u64 = 1_000_000_000;
const MICROS: u64 = 1_000_000;

/// All metrics with their labels.
pub(crate) fn descriptors() -> Vec<cri::MetricDescriptor> {
    let show = |descriptor: &table::Descriptor| cri::MetricDescriptor {
        name: descriptor.name.to_owned(),
        help: descriptor.help.to_owned(),
        label_keys: table::BASE.iter().chain(descriptor.labels).map(|key| (*key).to_owned()).collect(),
    };
    table::TABLE.iter().map(show).collect()
}

/// The metrics of all pods.
pub(crate) fn show(metrics: &Metrics) -> Vec<cri::PodSandboxMetrics> {
    metrics.pods.iter().map(|pod| show_pod(pod, metrics.disk.as_ref())).collect()
}

fn show_pod(pod: &PodMetrics, disk: Option<&Disk>) -> cri::PodSandboxMetrics {
    let id = &pod.status.id;
    let mut metrics = Vec::new();
    if let Some(details) = &pod.details {
        let mut whole = Samples::new(pod.timestamp_ns, labels(&pod.cgroup, "", "", "", &pod.status));
        whole.cgroup(details);
        whole.io(&pod.io);
        whole.seen();
        metrics.append(&mut whole.metrics);
    }
    if let Some(interfaces) = &pod.network {
        let mut network = Samples::new(pod.timestamp_ns, labels(&pod.cgroup, id, "", "POD", &pod.status));
        interfaces.iter().for_each(|interface| network.interface(interface));
        metrics.append(&mut network.metrics);
    }
    cri::PodSandboxMetrics {
        pod_sandbox_id: id.clone(),
        metrics,
        container_metrics: pod.containers.iter().map(|one| show_container(one, pod, disk)).collect(),
    }
}

fn show_container(
    container: &ContainerMetrics,
    pod: &PodMetrics,
    disk: Option<&Disk>,
) -> cri::ContainerMetrics {
    let status = &container.status;
    let config = &status.config;
    let image = match config.user_specified_image.as_str() {
        "" => &config.image,
        image => image,
    };
    let base = labels(&container.cgroup, &status.id, image, &config.metadata.name, &pod.status);
    let mut samples = Samples::new(container.timestamp_ns, base);
    samples.cgroup(&container.details);
    samples.io(&container.io);
    samples.spec(container);
    samples.processes(container);
    if let Some(disk) = disk {
        samples.disk(disk, container.writable_layer.as_ref().map_or(0, |layer| layer.used_bytes));
    }
    samples.seen();
    cri::ContainerMetrics { container_id: status.id.clone(), metrics: samples.metrics }
}

fn labels(cgroup: &str, name: &str, image: &str, container: &str, pod: &PodStatus) -> [String; 6] {
    let metadata = &pod.config.metadata;
    [cgroup, name, image, container, &metadata.name, &metadata.namespace].map(str::to_owned)
}

/// The metrics of one pod or container, as they are put together.
struct Samples {
    timestamp: i64,
    /// The values of the labels that all have.
    base: [String; 6],
    metrics: Vec<cri::Metric>,
}

impl Samples {
    fn new(timestamp: i64, base: [String; 6]) -> Self {
        Self { timestamp, base, metrics: Vec::new() }
    }

    fn add(&mut self, name: &str, value: u64) {
        self.add_for(name, &[], value);
    }

    /// `labels` are the values of the metric's own.
    fn add_for(&mut self, name: &str, labels: &[&str], value: u64) {
        let Some(descriptor) = table::find(name) else { return };
        let own = labels.iter().map(|value| (*value).to_owned());
        self.metrics.push(cri::Metric {
            name: descriptor.name.to_owned(),
            timestamp: self.timestamp,
            metric_type: descriptor.kind().into(),
            label_values: self.base.iter().cloned().chain(own).collect(),
            value: Some(cri::UInt64Value { value }),
        });
    }

    fn cgroup(&mut self, details: &Details) {
        let cpu = &details.cpu;
        self.add("container_cpu_cfs_periods_total", cpu.periods);
        self.add("container_cpu_cfs_throttled_periods_total", cpu.throttled_periods);
        self.add("container_cpu_cfs_throttled_seconds_total", cpu.throttled_ns / NANOS);
        self.add("container_cpu_system_seconds_total", cpu.system_ns / NANOS);
        self.add_for("container_cpu_usage_seconds_total", &["total"], details.stats.cpu_usage_ns / NANOS);
        self.add("container_cpu_user_seconds_total", cpu.user_ns / NANOS);
        self.memory(details);
        for pages in &details.hugepages {
            self.add_for("container_hugetlb_usage_bytes", &[&pages.size], pages.usage);
            if let Some(max) = pages.max_usage {
                self.add_for("container_hugetlb_max_usage_bytes", &[&pages.size], max);
            }
        }
        if let Some(psi) = &details.stats.psi {
            for (resource, pressure) in [("cpu", psi.cpu), ("io", psi.io), ("memory", psi.memory)] {
                let name = |what| format!("container_pressure_{resource}_{what}_seconds_total");
                self.add(&name("stalled"), pressure.full.total_us / MICROS);
                self.add(&name("waiting"), pressure.some.total_us / MICROS);
            }
        }
        self.add("container_threads", details.stats.pids.unwrap_or(0));
        self.add("container_threads_max", details.pids_max.unwrap_or(0));
    }

    fn memory(&mut self, details: &Details) {
        let (stats, memory) = (&details.stats.memory, &details.memory);
        self.add("container_memory_cache", memory.cache);
        self.add("container_memory_failcnt", memory.limit_hits);
        for (kind, scope, faults) in [
            ("pgfault", "container", memory.own_page_faults),
            ("pgmajfault", "container", memory.own_major_page_faults),
            ("pgfault", "hierarchy", stats.page_faults),
            ("pgmajfault", "hierarchy", stats.major_page_faults),
        ] {
            self.add_for("container_memory_failures_total", &[kind, scope], faults);
        }
        self.add("container_memory_kernel_usage", memory.kernel);
        self.add("container_memory_mapped_file", memory.mapped_file);
        self.add("container_memory_max_usage_bytes", memory.max_usage);
        self.add("container_memory_rss", stats.rss);
        self.add("container_memory_swap", details.stats.swap.map_or(0, |swap| swap.usage));
        self.add("container_memory_usage_bytes", stats.usage);
        self.add("container_memory_working_set_bytes", stats.working_set);
        self.add("container_oom_events_total", memory.oom_kills);
    }

    fn io(&mut self, devices: &[DiskIo]) {
        for DiskIo { name, major, minor, io } in devices {
            let numbers = (major.to_string(), minor.to_string());
            for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.write_bytes)] {
                let labels = [name, &numbers.0, &numbers.1, operation];
                self.add_for("container_blkio_device_usage_total", &labels, bytes);
            }
            self.add_for("container_fs_reads_bytes_total", &[name], io.read_bytes);
            self.add_for("container_fs_reads_total", &[name], io.reads);
            self.add_for("container_fs_writes_bytes_total", &[name], io.write_bytes);
            self.add_for("container_fs_writes_total", &[name], io.writes);
        }
    }

    fn interface(&mut self, usage: &InterfaceUsage) {
        let name: &[&str] = &[&usage.name];
        self.add_for("container_network_receive_bytes_total", name, usage.rx_bytes);
        self.add_for("container_network_receive_errors_total", name, usage.rx_errors);
        self.add_for("container_network_receive_packets_dropped_total", name, usage.rx_dropped);
        self.add_for("container_network_receive_packets_total", name, usage.rx_packets);
        self.add_for("container_network_transmit_bytes_total", name, usage.tx_bytes);
        self.add_for("container_network_transmit_errors_total", name, usage.tx_errors);
        self.add_for("container_network_transmit_packets_dropped_total", name, usage.tx_dropped);
        self.add_for("container_network_transmit_packets_total", name, usage.tx_packets);
    }

    fn spec(&mut self, container: &ContainerMetrics) {
        let limits = &container.status.resources;
        let bytes = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0);
        self.add("container_spec_cpu_period", limits.cpu_period.unwrap_or(DEFAULT_PERIOD));
        if let Some(quota) = limits.cpu_quota.and_then(|quota| u64::try_from(quota).ok()) {
            self.add("container_spec_cpu_quota", quota);
        }
        self.add("container_spec_cpu_shares", limits.cpu_shares.unwrap_or(DEFAULT_SHARES));
        self.add("container_spec_memory_limit_bytes", bytes(limits.memory_limit_bytes));
        let kept = limits.unified.get("memory.low").and_then(|low| low.parse().ok());
        self.add("container_spec_memory_reservation_limit_bytes", kept.unwrap_or(0));
        self.add("container_spec_memory_swap_limit_bytes", bytes(limits.memory_swap_limit_bytes));
        let started = u64::try_from(container.status.started_at_ns).unwrap_or(0);
        self.add("container_start_time_seconds", started / NANOS);
    }

    fn processes(&mut self, container: &ContainerMetrics) {
        let processes = &container.processes;
        self.add("container_processes", processes.count);
        self.add("container_file_descriptors", processes.files);
        self.add("container_sockets", processes.sockets);
        if let Some(max) = processes.max_files {
            self.add_for("container_ulimits_soft", &["max_open_files"], max);
        }
    }

    fn disk(&mut self, disk: &Disk, used_bytes: u64) {
        let device: &[&str] = &[&disk.device];
        self.add_for("container_fs_inodes_free", device, disk.free_inodes);
        self.add_for("container_fs_inodes_total", device, disk.inodes);
        self.add_for("container_fs_limit_bytes", device, disk.bytes);
        self.add_for("container_fs_usage_bytes", device, used_bytes);
    }

    fn seen(&mut self) {
        self.add("container_last_seen", u64::try_from(self.timestamp).unwrap_or(0) / NANOS);
    }
}

#[cfg(test)]
mod tests;
