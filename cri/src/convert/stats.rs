//! What containers and pods use.

use network::InterfaceUsage;
use pod::status::{ContainerStats, DiskUsage, PodFilter, PodStats};
use runtime::cgroup::{Pressure, PressureLine, Stats};

use super::container::show_metadata;
use super::{Invalid, field};
use crate::wire::cri;

/// A container's numbers; without use when it does not run.
pub(crate) fn show(stats: &ContainerStats) -> cri::ContainerStats {
    let config = &stats.status.config;
    let timestamp = stats.timestamp_ns;
    let usage = stats.usage.as_ref();
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: stats.status.id.clone(),
            metadata: Some(show_metadata(&config.metadata)),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        cpu: usage.map(|usage| processor(timestamp, usage, stats.usage_nano_cores)),
        memory: usage.map(|usage| memory(timestamp, usage)),
        writable_layer: stats.writable_layer.as_ref().map(disk),
        swap: usage.and_then(|usage| usage.swap).map(|swap| cri::SwapUsage {
            timestamp,
            swap_available_bytes: swap.available.and_then(number),
            swap_usage_bytes: number(swap.usage),
        }),
        io: usage.and_then(|usage| io(timestamp, usage)),
    }
}

/// A pod's numbers, its containers' too; without use when it is not ready.
pub(crate) fn show_pod(stats: &PodStats) -> cri::PodSandboxStats {
    let config = &stats.status.config;
    let timestamp = stats.timestamp_ns;
    let usage = stats.usage.as_ref();
    let linux = cri::LinuxPodSandboxStats {
        cpu: usage.map(|usage| processor(timestamp, usage, stats.usage_nano_cores)),
        memory: usage.map(|usage| memory(timestamp, usage)),
        network: stats.network.as_ref().map(|interfaces| network(timestamp, interfaces)),
        process: usage
            .and_then(|usage| usage.pids)
            .map(|pids| cri::ProcessUsage { timestamp, process_count: number(pids) }),
        containers: stats.containers.iter().map(show).collect(),
        io: usage.and_then(|usage| io(timestamp, usage)),
    };
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: stats.status.id.clone(),
            metadata: Some(super::pod::show_metadata(&config.metadata)),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    }
}

/// Parses ListPodSandboxStats' filter; one that is not there lets everything through.
pub(crate) fn pod_filter(filter: Option<cri::PodSandboxStatsFilter>) -> Result<PodFilter, Invalid> {
    let filter = filter.unwrap_or_default();
    Ok(PodFilter {
        id: field::id_filter("filter.id", filter.id)?,
        state: None,
        labels: filter.label_selector,
    })
}

fn processor(timestamp: i64, usage: &Stats, nano_cores: Option<u64>) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp,
        usage_core_nano_seconds: number(usage.cpu_usage_ns),
        usage_nano_cores: nano_cores.and_then(number),
        psi: usage.psi.as_ref().map(|psi| pressure(&psi.cpu)),
    }
}

fn memory(timestamp: i64, usage: &Stats) -> cri::MemoryUsage {
    let memory = &usage.memory;
    cri::MemoryUsage {
        timestamp,
        working_set_bytes: number(memory.working_set),
        available_bytes: memory.available.and_then(number),
        usage_bytes: number(memory.usage),
        rss_bytes: number(memory.rss),
        page_faults: number(memory.page_faults),
        major_page_faults: number(memory.major_page_faults),
        psi: usage.psi.as_ref().map(|psi| pressure(&psi.memory)),
    }
}

fn io(timestamp: i64, usage: &Stats) -> Option<cri::IoUsage> {
    let psi = usage.psi.as_ref()?;
    Some(cri::IoUsage { timestamp, psi: Some(pressure(&psi.io)) })
}

/// The default interface is not among the others.
fn network(timestamp: i64, interfaces: &[InterfaceUsage]) -> cri::NetworkUsage {
    let (default, others): (Vec<_>, Vec<_>) =
        interfaces.iter().partition(|interface| interface.name == network::INTERFACE);
    cri::NetworkUsage {
        timestamp,
        default_interface: default.first().map(|usage| interface(usage)),
        interfaces: others.into_iter().map(interface).collect(),
    }
}

fn interface(usage: &InterfaceUsage) -> cri::NetworkInterfaceUsage {
    cri::NetworkInterfaceUsage {
        name: usage.name.clone(),
        rx_bytes: number(usage.rx_bytes),
        rx_errors: number(usage.rx_errors),
        tx_bytes: number(usage.tx_bytes),
        tx_errors: number(usage.tx_errors),
    }
}

fn number(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

fn pressure(pressure: &Pressure) -> cri::PsiStats {
    cri::PsiStats { full: Some(line(&pressure.full)), some: Some(line(&pressure.some)) }
}

/// The kernel counts microseconds, the contract nanoseconds.
fn line(line: &PressureLine) -> cri::PsiData {
    cri::PsiData {
        total: line.total_us.saturating_mul(1000),
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    }
}

/// What writable layers take.
pub(crate) fn disk(usage: &DiskUsage) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: usage.timestamp_ns,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: usage.mountpoint.display().to_string() }),
        used_bytes: number(usage.used_bytes),
        inodes_used: number(usage.inodes_used),
    }
}
