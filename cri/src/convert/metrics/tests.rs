//! What is listed and what is sent fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pod::config::ContainerMetadata;
use pod::status::{ContainerState, ContainerStatus, DiskUsage, PodState, User};
use runtime::cgroup::{HugepageUse, Io, MemoryDetails, Pressures, Stats};

use super::*;
use crate::convert::container;

/// A pod with one container of which everything is known.
fn metrics() -> Metrics {
    let request = cri::RunPodSandboxRequest {
        config: Some(cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: "web".into(),
                uid: "u".into(),
                namespace: "default".into(),
                attempt: 0,
            }),
            ..Default::default()
        }),
        runtime_handler: String::new(),
    };
    let pod = PodStatus {
        id: "a".repeat(64),
        config: Arc::new(crate::convert::pod::parse(request).unwrap()),
        state: PodState::Ready,
        created_at_ns: 1,
        ips: Vec::new(),
    };
    let io = DiskIo {
        name: "/dev/sda".into(),
        major: 8,
        minor: 0,
        io: Io { read_bytes: 4096, ..Default::default() },
    };
    let pod = PodMetrics {
        status: Arc::new(pod),
        timestamp_ns: 5_000_000_000,
        cgroup: "/pods/web".into(),
        details: Some(details()),
        io: vec![io.clone()],
        network: Some(vec![InterfaceUsage { name: "eth0".into(), rx_bytes: 7, ..Default::default() }]),
        containers: vec![ContainerMetrics {
            status: Arc::new(container_status()),
            timestamp_ns: 5_000_000_000,
            cgroup: "/pods/web/c".into(),
            details: details(),
            io: vec![io],
            processes: runtime::Processes { count: 1, files: 3, sockets: 1, max_files: Some(1024) },
            writable_layer: Some(DiskUsage {
                mountpoint: "/".into(),
                timestamp_ns: 1,
                used_bytes: 4096,
                inodes_used: 1,
            }),
        }],
    };
    let disk = Disk { device: "/dev/sda".into(), bytes: 1 << 30, inodes: 1000, free_inodes: 10 };
    Metrics { disk: Some(disk), pods: vec![pod] }
}

fn details() -> Details {
    Details {
        stats: Stats { cpu_usage_ns: 2_500_000_000, psi: Some(Pressures::default()), ..Default::default() },
        memory: MemoryDetails { cache: 11, ..Default::default() },
        hugepages: vec![HugepageUse { size: "2MB".into(), usage: 1, max_usage: Some(2) }],
        ..Default::default()
    }
}

fn container_status() -> ContainerStatus {
    let request = cri::CreateContainerRequest {
        pod_sandbox_id: "a".repeat(64),
        config: Some(cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "app".into(), attempt: 0 }),
            image: Some(cri::ImageSpec {
                image: "sha256:1".into(),
                user_specified_image: "nginx:1".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        sandbox_config: None,
    };
    let (pod_id, mut config) = container::parse(request).unwrap();
    config.metadata = ContainerMetadata { name: "app".into(), attempt: 0 };
    config.resources.cpu_quota = Some(20_000);
    config.resources.memory_limit_bytes = Some(64 << 20);
    ContainerStatus {
        id: "c".repeat(64),
        pod_id,
        state: ContainerState::Running,
        created_at_ns: 1,
        started_at_ns: 3_000_000_000,
        finished_at_ns: 0,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image_id: "sha256:1".into(),
        log_path: None,
        resources: config.resources.clone(),
        user: User::default(),
        volume_images: Vec::new(),
        stop_signal: "SIGTERM".into(),
        config: Arc::new(config),
    }
}

#[test]
fn everything_that_is_listed_is_sent_with_as_many_labels() {
    let keys: BTreeMap<String, usize> =
        descriptors().into_iter().map(|one| (one.name, one.label_keys.len())).collect();
    let shown = show(&metrics()).remove(0);
    let sent: Vec<_> =
        shown.metrics.iter().chain(shown.container_metrics.iter().flat_map(|one| &one.metrics)).collect();
    for metric in &sent {
        assert_eq!(metric.label_values.len(), keys[&metric.name], "{}", metric.name);
        assert!(metric.value.is_some() && metric.timestamp > 0);
    }
    let names: BTreeSet<&String> = sent.iter().map(|metric| &metric.name).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), keys.keys().collect::<Vec<_>>());
}

#[test]
fn nothing_is_sent_twice() {
    let shown = show(&metrics()).remove(0);
    let sent = shown.metrics.iter().chain(shown.container_metrics.iter().flat_map(|one| &one.metrics));
    let mut seen = BTreeSet::new();
    for metric in sent {
        assert!(seen.insert((&metric.name, &metric.label_values)), "{metric:?}");
    }
}

#[test]
fn labels_say_whose_it_is() {
    let shown = show(&metrics()).remove(0);
    let pod_id = "a".repeat(64);
    let labels = |metrics: &[cri::Metric], name: &str| {
        metrics.iter().find(|metric| metric.name == name).unwrap().label_values.clone()
    };
    let container = &shown.container_metrics[0];
    assert_eq!(
        labels(&container.metrics, "container_cpu_usage_seconds_total"),
        ["/pods/web/c", &container.container_id, "nginx:1", "app", "web", "default", "total"]
    );
    assert_eq!(
        labels(&shown.metrics, "container_network_receive_bytes_total"),
        ["/pods/web", &pod_id, "", "POD", "web", "default", "eth0"]
    );
    assert_eq!(
        labels(&shown.metrics, "container_cpu_usage_seconds_total"),
        ["/pods/web", "", "", "", "web", "default", "total"]
    );
}

#[test]
fn values_are_in_the_units_of_their_names() {
    let shown = show(&metrics()).remove(0);
    let value = |name: &str| {
        let metric = shown.container_metrics[0].metrics.iter().find(|metric| metric.name == name).unwrap();
        metric.value.unwrap().value
    };
    assert_eq!(value("container_cpu_usage_seconds_total"), 2);
    assert_eq!(value("container_memory_cache"), 11);
    assert_eq!(value("container_spec_cpu_quota"), 20_000);
    assert_eq!(value("container_spec_cpu_period"), DEFAULT_PERIOD);
    assert_eq!(value("container_spec_memory_limit_bytes"), 64 << 20);
    assert_eq!(value("container_start_time_seconds"), 3);
    assert_eq!(value("container_last_seen"), 5);
    assert_eq!(value("container_fs_usage_bytes"), 4096);
}
