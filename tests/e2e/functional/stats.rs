//! What containers and pods use, as the kubelet's summary needs it.

use anyhow::Context;
use corten_tests::{Kubelet, eventually, newest, on_node, skip};
use k8s_cri::v1 as wire;

#[test]
fn a_running_container_tells_processor_memory_and_writable_layer() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .sh("dd if=/dev/zero of=/written bs=1M count=4 2>/dev/null; while true; do :; done")
            .with(|config| drop(config.labels.insert("label".to_owned(), "value".to_owned())))
            .limits(|limits| limits.memory_limit_in_bytes = 256 << 20)
            .start()
            .await?;
        let stats = eventually("the container has used something", async || {
            let stats = container.stats().await?;
            let used = |value: Option<wire::UInt64Value>, least: u64| value.is_some_and(|v| v.value >= least);
            let cpu = stats.cpu.unwrap_or_default();
            let layer = stats.writable_layer.clone().unwrap_or_default();
            let enough = used(cpu.usage_core_nano_seconds, 1) && used(layer.used_bytes, 4 << 20);
            Ok(enough.then_some(stats))
        })
        .await?;
        let attributes = stats.attributes.context("attributes")?;
        assert_eq!(attributes.id, container.id);
        assert_eq!(attributes.labels.get("label").map(String::as_str), Some("value"));
        assert!(attributes.metadata.is_some());
        let memory = stats.memory.context("memory")?;
        assert!(memory.timestamp > 0);
        let working_set = memory.working_set_bytes.context("the working set")?.value;
        assert!(working_set > 0 && working_set < 256 << 20, "{working_set}");
        let available = memory.available_bytes.context("available bytes")?.value;
        assert!(available > 0 && available <= 256 << 20, "{available}");
        let layer = stats.writable_layer.context("the writable layer")?;
        assert!(std::path::Path::new(&layer.fs_id.context("its file system")?.mountpoint).is_dir());
        assert!(layer.inodes_used.context("inodes")?.value > 0);
        let before = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).unwrap_or_default().value;
        eventually("the processor time grows", async || {
            let cpu = container.stats().await?.cpu.and_then(|cpu| cpu.usage_core_nano_seconds);
            Ok(cpu.filter(|now| now.value > before))
        })
        .await?;
        Ok(())
    });
}

#[test]
fn stats_are_listed_by_pod_id_and_labels() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let labelled = pod.container().with(|config| drop(config.labels.insert("k".into(), "a".into())));
        let labelled = labelled.start().await?;
        let plain = pod.container().start().await?;
        let list = async |filter: wire::ContainerStatsFilter| -> corten_tests::Result<Vec<String>> {
            let request = wire::ListContainerStatsRequest { filter: Some(filter) };
            let stats = kubelet.cri().runtime.list_container_stats(request).await?.into_inner().stats;
            Ok(stats.into_iter().filter_map(|one| Some(one.attributes?.id)).collect())
        };
        let base = || wire::ContainerStatsFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
        assert_eq!(list(base()).await?.len(), 2);
        let by_id = wire::ContainerStatsFilter { id: plain.id.clone(), ..base() };
        assert_eq!(list(by_id).await?, [plain.id.as_str()]);
        let label_selector = [("k".to_owned(), "a".to_owned())].into();
        let by_label = wire::ContainerStatsFilter { label_selector, ..base() };
        assert_eq!(list(by_label).await?, [labelled.id.as_str()]);
        Ok(())
    });
}

#[test]
fn a_container_that_ended_does_not_fail_the_list() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let running = pod.container().start().await?;
        let ended = pod.container().command(["true"]).start().await?;
        ended.exited().await?;
        let request = wire::ListContainerStatsRequest { filter: None };
        let stats = kubelet.cri().runtime.list_container_stats(request).await?.into_inner().stats;
        let ids: Vec<String> = stats.into_iter().filter_map(|one| Some(one.attributes?.id)).collect();
        assert!(ids.contains(&running.id));
        Ok(())
    });
}

#[test]
fn stats_of_an_unknown_container_are_not_found() {
    on_node(async |kubelet| {
        let request = wire::ContainerStatsRequest { container_id: "f00d".repeat(16) };
        let status = kubelet.cri().runtime.container_stats(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
        Ok(())
    });
}

#[test]
fn the_writable_layer_is_known_from_the_first_moment() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let layer = container.stats().await?.writable_layer.context("the writable layer")?;
        assert!(layer.timestamp > 0);
        assert!(layer.inodes_used.context("inodes")?.value > 0);
        Ok(())
    });
}

#[test]
fn a_pod_tells_the_sum_of_it_its_network_and_its_containers() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let busy = pod.container().sh("while true; do :; done").start().await?;
        let idle = pod.container().start().await?;
        let stats = eventually("the pod has used something", async || {
            let stats = pod_stats(kubelet, &pod.id).await?;
            let cpu = stats.linux.as_ref().and_then(|linux| linux.cpu).unwrap_or_default();
            Ok(cpu.usage_core_nano_seconds.is_some_and(|used| used.value > 0).then_some(stats))
        })
        .await?;
        let attributes = stats.attributes.context("attributes")?;
        assert_eq!(attributes.id, pod.id);
        assert_eq!(attributes.metadata, pod.config.metadata);
        let linux = stats.linux.context("the Linux part")?;
        let memory = linux.memory.context("memory")?;
        assert!(memory.working_set_bytes.context("the working set")?.value > 0);
        let processes = linux.process.context("processes")?.process_count.context("their number")?.value;
        assert!(processes >= 2, "{processes}");
        let network = linux.network.context("the network")?;
        assert_eq!(network.default_interface.context("the default interface")?.name, "eth0");
        assert!(network.interfaces.iter().all(|interface| interface.name != "eth0"));
        let mut ids: Vec<_> =
            linux.containers.into_iter().filter_map(|one| Some(one.attributes?.id)).collect();
        ids.sort();
        let mut expected = [busy.id.clone(), idle.id.clone()];
        expected.sort();
        assert_eq!(ids, expected);
        Ok(())
    });
}

#[test]
fn a_pods_network_counts_what_comes_and_goes() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let received = async || -> corten_tests::Result<u64> {
            let network = pod_stats(kubelet, &pod.id).await?.linux.context("the Linux part")?.network;
            let interface = network.and_then(|network| network.default_interface).context("an interface")?;
            Ok(interface.tx_bytes.context("bytes sent")?.value)
        };
        let before = received().await?;
        // Nobody answers there; what counts is that it was sent.
        container
            .exec(["sh", "-c", "ping -c 1 -W 1 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')"])
            .await?;
        eventually("what was sent is counted", async || {
            let now = received().await?;
            Ok((now > before).then_some(()))
        })
        .await
    });
}

#[test]
fn a_pod_in_the_nodes_network_tells_of_none() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().host_network().run().await?;
        pod.container().start().await?;
        let linux = pod_stats(kubelet, &pod.id).await?.linux.context("the Linux part")?;
        assert_eq!(linux.network, None);
        assert_eq!(linux.containers.len(), 1);
        Ok(())
    });
}

#[test]
fn pods_that_share_a_cgroup_are_the_sums_of_their_containers() {
    on_node(async |kubelet| {
        let one = kubelet.pod().run().await?;
        let parent = one.config.linux.as_ref().context("the Linux part")?.cgroup_parent.clone();
        if parent.is_empty() {
            return skip("the pods' cgroups are not the test's to name");
        }
        let other = kubelet.pod().with(|config| config.linux.get_or_insert_default().cgroup_parent = parent);
        let other = other.run().await?;
        one.container().start().await?;
        other.container().start().await?;
        for pod in [&one, &other] {
            let linux = pod_stats(kubelet, &pod.id).await?.linux.context("the Linux part")?;
            let processes =
                linux.process.and_then(|process| process.process_count).context("processes")?.value;
            assert_eq!(processes, 1, "the neighbour's are its own");
        }
        Ok(())
    });
}

#[test]
fn pressure_is_told_of_containers_and_pods() {
    on_node(async |kubelet| {
        if !std::path::Path::new("/proc/pressure").exists() {
            return skip("the kernel keeps no account of pressure");
        }
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let mut newest = kubelet.cri().newest;
        let request = newest::ContainerStatsRequest { container_id: container.id.clone() };
        let stats = newest.container_stats(request).await?.into_inner().stats.context("statistics")?;
        let request = newest::PodSandboxStatsRequest { pod_sandbox_id: pod.id.clone() };
        let pod =
            newest.pod_sandbox_stats(request).await?.into_inner().stats.context("the pod's statistics")?;
        let pod = pod.linux.context("the Linux part")?;
        for (what, cpu, memory, io) in
            [("container", stats.cpu, stats.memory, stats.io), ("pod", pod.cpu, pod.memory, pod.io)]
        {
            let all =
                [cpu.and_then(|cpu| cpu.psi), memory.and_then(|memory| memory.psi), io.and_then(|io| io.psi)];
            for psi in all {
                let psi = psi.with_context(|| format!("pressure of the {what}"))?;
                assert!(psi.some.is_some() && psi.full.is_some(), "{what}: {psi:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn pod_stats_are_listed_by_id_and_labels_while_the_pod_is_ready() {
    on_node(async |kubelet| {
        let label = format!("label-{}", kubelet.unique());
        let labelled = kubelet.pod().with(|config| drop(config.labels.insert("k".into(), label.clone())));
        let labelled = labelled.run().await?;
        let plain = kubelet.pod().run().await?;
        let list = async |filter: wire::PodSandboxStatsFilter| -> corten_tests::Result<Vec<String>> {
            let request = wire::ListPodSandboxStatsRequest { filter: Some(filter) };
            let stats = kubelet.cri().runtime.list_pod_sandbox_stats(request).await?.into_inner().stats;
            Ok(stats.into_iter().filter_map(|one| Some(one.attributes?.id)).collect())
        };
        let by_id = wire::PodSandboxStatsFilter { id: plain.id.clone(), ..Default::default() };
        assert_eq!(list(by_id.clone()).await?, [plain.id.as_str()]);
        let label_selector = [("k".to_owned(), label)].into();
        let by_label = wire::PodSandboxStatsFilter { label_selector, ..Default::default() };
        assert_eq!(list(by_label).await?, [labelled.id.as_str()]);
        plain.stop().await?;
        assert_eq!(list(by_id).await?, [] as [&str; 0]);
        Ok(())
    });
}

#[test]
fn stats_of_an_unknown_pod_are_not_found() {
    on_node(async |kubelet| {
        let request = wire::PodSandboxStatsRequest { pod_sandbox_id: "f00d".repeat(16) };
        let status = kubelet.cri().runtime.pod_sandbox_stats(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
        Ok(())
    });
}

async fn pod_stats(kubelet: &Kubelet, id: &str) -> corten_tests::Result<wire::PodSandboxStats> {
    let request = wire::PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
    let answer = kubelet.cri().runtime.pod_sandbox_stats(request).await?;
    answer.into_inner().stats.context("statistics")
}
