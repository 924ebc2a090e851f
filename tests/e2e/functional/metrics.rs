//! ListMetricDescriptors and ListPodSandboxMetrics: what `/metrics/cadvisor` is made of.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use corten_tests::{Kubelet, Result, eventually, on_node};
use k8s_cri::v1 as wire;

async fn descriptors(kubelet: &Kubelet) -> Result<BTreeMap<String, wire::MetricDescriptor>> {
    let request = wire::ListMetricDescriptorsRequest {};
    let found = kubelet.cri().runtime.list_metric_descriptors(request).await?.into_inner().descriptors;
    Ok(found.into_iter().map(|one| (one.name.clone(), one)).collect())
}

async fn metrics(kubelet: &Kubelet, pod: &str) -> Result<wire::PodSandboxMetrics> {
    let request = wire::ListPodSandboxMetricsRequest {};
    let all = kubelet.cri().runtime.list_pod_sandbox_metrics(request).await?.into_inner().pod_metrics;
    all.into_iter().find(|metrics| metrics.pod_sandbox_id == pod).context("the pod's metrics")
}

#[test]
fn every_metric_of_a_pod_is_described_with_as_many_labels() {
    on_node(async |kubelet| {
        let known = descriptors(kubelet).await?;
        assert!(known.values().all(|one| !one.help.is_empty() && !one.label_keys.is_empty()));
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let metrics = metrics(kubelet, &pod.id).await?;
        let of_container = &metrics.container_metrics;
        assert_eq!(of_container.iter().map(|one| &one.container_id).collect::<Vec<_>>(), [&container.id]);
        let mut seen = BTreeSet::new();
        for metric in metrics.metrics.iter().chain(&of_container[0].metrics) {
            let descriptor = known.get(&metric.name).with_context(|| metric.name.clone())?;
            assert_eq!(metric.label_values.len(), descriptor.label_keys.len(), "{metric:?}");
            assert!(seen.insert((&metric.name, &metric.label_values)), "{metric:?} is there twice");
        }
        Ok(())
    });
}

#[test]
fn a_containers_metrics_have_its_names_and_limits() {
    on_node(async |kubelet| {
        let known = descriptors(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .limits(|limits| {
                limits.memory_limit_in_bytes = 64 << 20;
                limits.cpu_quota = 20_000;
                limits.cpu_period = 50_000;
            })
            .start()
            .await?;
        let metrics = metrics(kubelet, &pod.id).await?;
        let of_container = metrics.container_metrics.first().context("the container's metrics")?;
        let metric = |name: &str| of_container.metrics.iter().find(|metric| metric.name == name);
        let value = |name: &str| metric(name).and_then(|metric| metric.value).map(|value| value.value);
        assert_eq!(value("container_spec_memory_limit_bytes"), Some(64 << 20));
        assert_eq!(value("container_spec_cpu_period"), Some(50_000));
        assert_eq!(value("container_processes"), Some(1));
        assert!(value("container_file_descriptors").is_some_and(|count| count > 0));
        assert!(value("container_memory_usage_bytes").is_some_and(|bytes| bytes > 0 && bytes < 64 << 20));
        let usage = metric("container_memory_usage_bytes").context("memory")?;
        let keys = &known.get(&usage.name).context("its descriptor")?.label_keys;
        let labels: BTreeMap<&str, &str> =
            keys.iter().map(String::as_str).zip(usage.label_values.iter().map(String::as_str)).collect();
        let config = pod.config.metadata.as_ref().context("metadata")?;
        if labels.contains_key("pod") {
            assert_eq!(labels["pod"], config.name);
            assert_eq!(labels["namespace"], config.namespace);
        }
        assert_eq!(container.status().await?.metadata.context("metadata")?.name, labels["container"]);
        Ok(())
    });
}

#[test]
fn a_pods_network_is_in_its_metrics_and_the_nodes_is_not() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let names = |metrics: &wire::PodSandboxMetrics| -> BTreeSet<String> {
            metrics.metrics.iter().map(|metric| metric.name.clone()).collect()
        };
        eventually("the interface is counted", async || {
            let found = names(&metrics(kubelet, &pod.id).await?);
            Ok(found.contains("container_network_receive_bytes_total").then_some(()))
        })
        .await?;
        let host = kubelet.pod().host_network().run().await?;
        let found = names(&metrics(kubelet, &host.id).await?);
        assert!(found.iter().all(|name| !name.starts_with("container_network_")), "{found:?}");
        Ok(())
    });
}
