//! What a container uses, as the kubelet's summary needs it.

use anyhow::Context;
use corten_tests::{eventually, on_node};
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
