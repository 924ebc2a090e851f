//! The statistics of pods and containers, in one message or in chunks.

use pod::Pods;
use tonic::{Response, Status};

use super::id;
use super::runtime::Answer;
use super::streams::{self, Chunks};
use crate::wire::cri;
use crate::{convert, status};

pub(super) async fn container(
    pods: &Pods,
    request: cri::ContainerStatsRequest,
) -> Answer<cri::ContainerStatsResponse> {
    let id = id("container_id", request.container_id)?;
    let stats = pods.container_stats(&id).await.map_err(status::pod)?;
    Ok(Response::new(cri::ContainerStatsResponse { stats: Some(convert::stats::show(&stats)) }))
}

pub(super) async fn list_containers(
    pods: &Pods,
    request: cri::ListContainerStatsRequest,
) -> Answer<cri::ListContainerStatsResponse> {
    let stats = containers(pods, request.filter).await?;
    Ok(Response::new(cri::ListContainerStatsResponse { stats }))
}

pub(super) async fn stream_containers(
    pods: &Pods,
    request: cri::StreamContainerStatsRequest,
) -> Answer<Chunks<cri::StreamContainerStatsResponse>> {
    let stats = containers(pods, request.filter).await?;
    Ok(streams::chunks(stats, |container_stats| cri::StreamContainerStatsResponse { container_stats }))
}

pub(super) async fn pod(
    pods: &Pods,
    request: cri::PodSandboxStatsRequest,
) -> Answer<cri::PodSandboxStatsResponse> {
    let id = id("pod_sandbox_id", request.pod_sandbox_id)?;
    let stats = pods.pod_stats(&id).await.map_err(status::pod)?;
    Ok(Response::new(cri::PodSandboxStatsResponse { stats: Some(convert::stats::show_pod(&stats)) }))
}

pub(super) async fn list_pods(
    pods: &Pods,
    request: cri::ListPodSandboxStatsRequest,
) -> Answer<cri::ListPodSandboxStatsResponse> {
    let stats = sandboxes(pods, request.filter).await?;
    Ok(Response::new(cri::ListPodSandboxStatsResponse { stats }))
}

pub(super) async fn stream_pods(
    pods: &Pods,
    request: cri::StreamPodSandboxStatsRequest,
) -> Answer<Chunks<cri::StreamPodSandboxStatsResponse>> {
    let stats = sandboxes(pods, request.filter).await?;
    Ok(streams::chunks(stats, |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
}

async fn containers(
    pods: &Pods,
    filter: Option<cri::ContainerStatsFilter>,
) -> Result<Vec<cri::ContainerStats>, Status> {
    let filter = convert::container::stats_filter(filter)?;
    Ok(pods.list_container_stats(filter).await.iter().map(convert::stats::show).collect())
}

async fn sandboxes(
    pods: &Pods,
    filter: Option<cri::PodSandboxStatsFilter>,
) -> Result<Vec<cri::PodSandboxStats>, Status> {
    let filter = convert::stats::pod_filter(filter)?;
    Ok(pods.list_pod_stats(filter).await.iter().map(convert::stats::show_pod).collect())
}
