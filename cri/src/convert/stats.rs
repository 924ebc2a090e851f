//! What containers use.

use pod::status::{ContainerStats, DiskUsage};
use runtime::cgroup::{Pressure, PressureLine};

use super::container::show_metadata;
use crate::wire::cri;

/// A container's numbers; without use when it does not run.
pub(crate) fn show(stats: &ContainerStats) -> cri::ContainerStats {
    let config = &stats.status.config;
    let timestamp = stats.timestamp_ns;
    let usage = stats.usage.as_ref();
    let psi = usage.and_then(|usage| usage.psi.as_ref());
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: stats.status.id.clone(),
            metadata: Some(show_metadata(&config.metadata)),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        cpu: usage.map(|usage| cri::CpuUsage {
            timestamp,
            usage_core_nano_seconds: number(usage.cpu_usage_ns),
            usage_nano_cores: stats.usage_nano_cores.and_then(number),
            psi: psi.map(|psi| pressure(&psi.cpu)),
        }),
        memory: usage.map(|usage| cri::MemoryUsage {
            timestamp,
            working_set_bytes: number(usage.memory.working_set),
            available_bytes: usage.memory.available.and_then(number),
            usage_bytes: number(usage.memory.usage),
            rss_bytes: number(usage.memory.rss),
            page_faults: number(usage.memory.page_faults),
            major_page_faults: number(usage.memory.major_page_faults),
            psi: psi.map(|psi| pressure(&psi.memory)),
        }),
        writable_layer: stats.writable_layer.as_ref().map(disk),
        swap: usage.and_then(|usage| usage.swap).map(|swap| cri::SwapUsage {
            timestamp,
            swap_available_bytes: swap.available.and_then(number),
            swap_usage_bytes: number(swap.usage),
        }),
        io: psi.map(|psi| cri::IoUsage { timestamp, psi: Some(pressure(&psi.io)) }),
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

fn disk(usage: &DiskUsage) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: usage.timestamp_ns,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: usage.mountpoint.display().to_string() }),
        used_bytes: number(usage.used_bytes),
        inodes_used: number(usage.inodes_used),
    }
}
