//! ListMetricDescriptors and ListPodSandboxMetrics: what `/metrics/cadvisor` is made of; and the daemon's own page.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use anyhow::Context;
use corten_tests::{Kubelet, Result, Setup, eventually, host, on_node, on_own_node};
use k8s_cri::v1 as wire;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

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

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[test]
fn the_daemon_counts_calls_pulls_pods_monitors_and_plugins_for_prometheus() {
    let address = format!("127.0.0.1:{}", host::free_port().unwrap());
    let config = format!("[metrics]\nlisten = \"{address}\"\n");
    on_own_node(&Setup { config }, async |kubelet| {
        let pod = kubelet.pod().run().await?;
        pod.container().start().await?;
        let unknown = wire::ContainerStatusRequest { container_id: "f00d".repeat(16), verbose: false };
        kubelet.cri().runtime.container_status(unknown).await.unwrap_err();
        let page = get(TcpStream::connect(&address).await?, "/metrics").await?;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        for line in [
            "corten_rpc_seconds_count{method=\"RunPodSandbox\",code=\"Ok\"} 1",
            "corten_rpc_errors_total{method=\"ContainerStatus\",code=\"NotFound\"} 1",
            "corten_pulls_total{outcome=\"ok\"} 1",
            "corten_pull_bytes_total ",
            "corten_pull_layers_total{source=\"registry\"} ",
            "corten_pulls_running 0",
            "corten_pods{state=\"ready\"} 1",
            "corten_pods{state=\"not_ready\"} 0",
            "corten_containers{state=\"running\"} 1",
            "corten_monitors{version=",
            "corten_cni_seconds_count{operation=\"ADD\",outcome=\"ok\"} 1",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_cpu_seconds_total ",
        ] {
            assert!(page.contains(&format!("\n{line}")), "{line} is not in {page}");
        }
        let elsewhere = get(TcpStream::connect(&address).await?, "/debug").await?;
        assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
        Ok(())
    });
}

#[test]
fn the_metrics_of_the_daemon_come_by_a_unix_socket_too_and_by_default_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.sock");
    let config = format!("[metrics]\nlisten = \"unix://{}\"\n", path.display());
    on_own_node(&Setup { config }, async |kubelet| {
        let page = get(UnixStream::connect(&path).await?, "/metrics").await?;
        assert!(page.contains("corten_pods{state=\"ready\"} 0"), "{page}");
        assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o660);
        kubelet.stop_daemon().await?;
        assert!(!path.exists(), "its socket goes with the daemon");
        kubelet.node().start_daemon()?;
        Ok(())
    });
}
