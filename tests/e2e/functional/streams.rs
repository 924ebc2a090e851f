//! The lists in chunks say what the lists say, and then end.

use std::collections::{BTreeMap, BTreeSet};

use corten_tests::newest::{self, same};
use corten_tests::{Result, on_node, skip};
use k8s_cri::v1 as wire;
use tonic::{Code, Response, Status, Streaming};

/// The items of all chunks.
async fn all<C, T>(
    answer: Result<Response<Streaming<C>>, Status>,
    items: impl Fn(C) -> Vec<T>,
) -> Result<Vec<T>> {
    let mut chunks = match answer {
        Err(status) if status.code() == Code::Unimplemented => return skip("there are no lists in chunks"),
        answer => answer?.into_inner(),
    };
    let mut found = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        found.extend(items(chunk));
    }
    Ok(found)
}

/// Each once, whatever the order.
fn once(ids: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for id in ids {
        assert!(seen.insert(id.clone()), "{id} came twice");
    }
    seen
}

#[test]
fn pods_and_containers_come_in_chunks_as_in_their_lists() {
    on_node(async |kubelet| {
        let (mut pods, mut containers) = (BTreeSet::new(), BTreeSet::new());
        let label = format!("streamed-{}", kubelet.unique());
        for _ in 0..3 {
            let pod = kubelet.pod().with(|config| drop(config.labels.insert("set".into(), label.clone())));
            let pod = pod.run().await?;
            let container =
                pod.container().with(|config| drop(config.labels.insert("set".into(), label.clone())));
            containers.insert(container.start().await?.id.clone());
            pods.insert(pod.id.clone());
        }
        let selector = BTreeMap::from([("set".to_owned(), label)]);
        let mut newest = kubelet.cri().newest;
        let filter = newest::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
        let request = newest::StreamPodSandboxesRequest { filter: Some(filter.clone()) };
        let found = all(newest.stream_pod_sandboxes(request).await, |chunk| chunk.pod_sandboxes).await?;
        let request = wire::ListPodSandboxRequest { filter: Some(same(&filter)?) };
        let listed = kubelet.cri().runtime.list_pod_sandbox(request).await?.into_inner().items;
        let as_listed: Vec<wire::PodSandbox> = found.iter().map(same).collect::<Result<_>>()?;
        assert_eq!(as_listed, listed);
        assert_eq!(once(found.into_iter().map(|pod| pod.id)), pods);

        let filter = newest::ContainerFilter { label_selector: selector, ..Default::default() };
        let request = newest::StreamContainersRequest { filter: Some(filter.clone()) };
        let found = all(newest.stream_containers(request).await, |chunk| chunk.containers).await?;
        let request = wire::ListContainersRequest { filter: Some(same(&filter)?) };
        let listed = kubelet.cri().runtime.list_containers(request).await?.into_inner().containers;
        let as_listed: Vec<wire::Container> = found.iter().map(same).collect::<Result<_>>()?;
        assert_eq!(as_listed, listed);
        assert_eq!(once(found.into_iter().map(|container| container.id)), containers);
        Ok(())
    });
}

#[test]
fn statistics_come_in_chunks_as_in_their_lists() {
    on_node(async |kubelet| {
        let mut newest = kubelet.cri().newest;
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let filter = newest::ContainerStatsFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
        let request = newest::StreamContainerStatsRequest { filter: Some(filter) };
        let found = all(newest.stream_container_stats(request).await, |chunk| chunk.container_stats).await?;
        let ids = found.into_iter().filter_map(|stats| Some(stats.attributes?.id));
        assert_eq!(once(ids), BTreeSet::from([container.id.clone()]));

        let filter = newest::PodSandboxStatsFilter { id: pod.id.clone(), ..Default::default() };
        let request = newest::StreamPodSandboxStatsRequest { filter: Some(filter) };
        let found =
            all(newest.stream_pod_sandbox_stats(request).await, |chunk| chunk.pod_sandbox_stats).await?;
        let ids = found.into_iter().filter_map(|stats| Some(stats.attributes?.id));
        assert_eq!(once(ids), BTreeSet::from([pod.id.clone()]));

        let answer = newest.stream_pod_sandbox_metrics(newest::StreamPodSandboxMetricsRequest {}).await;
        let found = all(answer, |chunk| chunk.pod_sandbox_metrics).await?;
        assert!(once(found.into_iter().map(|metrics| metrics.pod_sandbox_id)).contains(&pod.id));
        Ok(())
    });
}

#[test]
fn images_come_in_chunks_as_in_their_list() {
    on_node(async |kubelet| {
        let id = kubelet.image(corten_tests::registry::BUSYBOX).await?;
        let answer = kubelet.cri().newest_images.stream_images(newest::StreamImagesRequest::default()).await;
        let found = all(answer, |chunk| chunk.images).await?;
        assert!(once(found.into_iter().map(|image| image.id)).contains(&id));
        Ok(())
    });
}

#[test]
fn a_stream_of_nothing_ends_at_once() {
    on_node(async |kubelet| {
        let filter = newest::ContainerFilter { id: "f00d".repeat(16), ..Default::default() };
        let request = newest::StreamContainersRequest { filter: Some(filter) };
        let answer = kubelet.cri().newest.stream_containers(request).await;
        assert!(all(answer, |chunk| chunk.containers).await?.is_empty());
        Ok(())
    });
}
