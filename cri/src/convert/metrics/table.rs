//! The metrics by name, as cAdvisor has them: what each says, its labels, and whether it only grows.

use crate::wire::cri::MetricType;

/// The labels of all metrics, in this order; a metric's own come after them.
pub(super) const BASE: [&str; 6] = ["id", "name", "image", "container", "pod", "namespace"];

/// One metric.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// Besides the labels of all.
    pub(super) labels: &'static [&'static str],
}

impl Descriptor {
    pub(super) fn kind(&self) -> MetricType {
        let grows = self.name.ends_with("_total") || self.name == "container_memory_failcnt";
        if grows { MetricType::Counter } else { MetricType::Gauge }
    }
}

/// The metric of a name.
pub(super) fn find(name: &str) -> Option<&'static Descriptor> {
    TABLE.binary_search_by_key(&name, |descriptor| descriptor.name).ok().map(|at| &TABLE[at])
}

const fn plain(name: &'static str, help: &'static str) -> Descriptor {
    Descriptor { name, help, labels: &[] }
}

const fn labelled(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Descriptor {
    Descriptor { name, help, labels }
}

const DEVICE: &[&str] = &["device"];
const INTERFACE: &[&str] = &["interface"];
const PAGE_SIZE: &[&str] = &["pagesize"];

/// In the order of the names.
pub(super) const TABLE: [Descriptor; 56] = [
    labelled(
        "container_blkio_device_usage_total",
        "Bytes of block I/O, by device and operation",
        &["device", "major", "minor", "operation"],
    ),
    plain("container_cpu_cfs_periods_total", "Periods of the processor quota that passed"),
    plain("container_cpu_cfs_throttled_periods_total", "Periods in which the processor quota was used up"),
    plain("container_cpu_cfs_throttled_seconds_total", "Seconds spent waiting for the processor quota"),
    plain("container_cpu_system_seconds_total", "Seconds of processor time in the kernel"),
    labelled("container_cpu_usage_seconds_total", "Seconds of processor time", &["cpu"]),
    plain("container_cpu_user_seconds_total", "Seconds of processor time in programs"),
    plain("container_file_descriptors", "Open file descriptors"),
    labelled("container_fs_inodes_free", "Inodes of the file system that are free", DEVICE),
    labelled("container_fs_inodes_total", "Inodes of the file system", DEVICE),
    labelled("container_fs_limit_bytes", "Bytes that the file system has", DEVICE),
    labelled("container_fs_reads_bytes_total", "Bytes read", DEVICE),
    labelled("container_fs_reads_total", "Reads", DEVICE),
    labelled("container_fs_usage_bytes", "Bytes that the writable layer takes", DEVICE),
    labelled("container_fs_writes_bytes_total", "Bytes written", DEVICE),
    labelled("container_fs_writes_total", "Writes", DEVICE),
    labelled("container_hugetlb_max_usage_bytes", "Most bytes of huge pages in use at one time", PAGE_SIZE),
    labelled("container_hugetlb_usage_bytes", "Bytes of huge pages in use", PAGE_SIZE),
    plain("container_last_seen", "When the numbers were read, seconds since 1970"),
    plain("container_memory_cache", "Bytes of page cache"),
    plain("container_memory_failcnt", "How often the memory limit was hit"),
    labelled(
        "container_memory_failures_total",
        "Page faults, by kind and by whether those of cgroups below count",
        &["failure_type", "scope"],
    ),
    plain("container_memory_kernel_usage", "Bytes of the kernel's own memory"),
    plain("container_memory_mapped_file", "Bytes of mapped files"),
    plain("container_memory_max_usage_bytes", "Most bytes of memory in use at one time"),
    plain("container_memory_rss", "Bytes of anonymous memory"),
    plain("container_memory_swap", "Bytes in swap"),
    plain("container_memory_usage_bytes", "Bytes of memory in use, page cache included"),
    plain("container_memory_working_set_bytes", "Bytes of memory in use but for inactive page cache"),
    labelled("container_network_receive_bytes_total", "Bytes received", INTERFACE),
    labelled("container_network_receive_errors_total", "Packets received broken", INTERFACE),
    labelled("container_network_receive_packets_dropped_total", "Packets received and dropped", INTERFACE),
    labelled("container_network_receive_packets_total", "Packets received", INTERFACE),
    labelled("container_network_transmit_bytes_total", "Bytes sent", INTERFACE),
    labelled("container_network_transmit_errors_total", "Packets that could not be sent", INTERFACE),
    labelled("container_network_transmit_packets_dropped_total", "Packets dropped before sending", INTERFACE),
    labelled("container_network_transmit_packets_total", "Packets sent", INTERFACE),
    plain("container_oom_events_total", "Processes that the OOM killer took"),
    plain("container_pressure_cpu_stalled_seconds_total", "Seconds in which all waited for a processor"),
    plain("container_pressure_cpu_waiting_seconds_total", "Seconds in which some waited for a processor"),
    plain("container_pressure_io_stalled_seconds_total", "Seconds in which all waited for I/O"),
    plain("container_pressure_io_waiting_seconds_total", "Seconds in which some waited for I/O"),
    plain("container_pressure_memory_stalled_seconds_total", "Seconds in which all waited for memory"),
    plain("container_pressure_memory_waiting_seconds_total", "Seconds in which some waited for memory"),
    plain("container_processes", "Processes"),
    plain("container_sockets", "Open sockets"),
    plain("container_spec_cpu_period", "Microseconds of a period of the processor quota"),
    plain("container_spec_cpu_quota", "Microseconds of processor time for each period"),
    plain("container_spec_cpu_shares", "Relative weight of the processor"),
    plain("container_spec_memory_limit_bytes", "Most bytes of memory; 0 without a limit"),
    plain("container_spec_memory_reservation_limit_bytes", "Bytes of memory that are kept; 0 when none are"),
    plain("container_spec_memory_swap_limit_bytes", "Most bytes of memory and swap; 0 without a limit"),
    plain("container_start_time_seconds", "When it was started, seconds since 1970"),
    plain("container_threads", "Threads"),
    plain("container_threads_max", "Most threads; 0 without a limit"),
    labelled("container_ulimits_soft", "Soft limits of the first process, by name", &["ulimit"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_found_by_name() {
        assert!(TABLE.is_sorted_by(|one, next| one.name < next.name));
        for descriptor in &TABLE {
            assert!(!descriptor.help.is_empty());
            assert_eq!(find(descriptor.name).map(|found| found.name), Some(descriptor.name));
        }
        assert!(find("container_else").is_none());
    }

    #[test]
    fn what_only_grows_is_a_counter() {
        let kind = |name| find(name).unwrap().kind();
        assert_eq!(kind("container_cpu_usage_seconds_total"), MetricType::Counter);
        assert_eq!(kind("container_memory_failcnt"), MetricType::Counter);
        assert_eq!(kind("container_fs_usage_bytes"), MetricType::Gauge);
    }
}
