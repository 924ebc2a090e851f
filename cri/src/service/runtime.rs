//! RuntimeService.

use pod::Pods;
use pod::status::HandlerStatus;
use runtime::cgroup::Driver;
use tonic::{Request, Response, Status, async_trait};

use super::streaming::Streaming;
use super::streams::{self, Chunks};
use super::{events, id, numbers, verbose};
use crate::reload::Current;
use crate::stream::Urls;
use crate::wire::cri;
use crate::{convert, status, telemetry};

pub(super) type Answer<T> = Result<Response<T>, Status>;

/// RuntimeService over the pod crate.
#[derive(Debug)]
pub(super) struct RuntimeService {
    pods: Pods,
    config: Current,
    streaming: Streaming,
}

impl RuntimeService {
    pub(super) fn new(pods: Pods, config: Current, urls: Urls) -> Self {
        Self { streaming: Streaming::new(pods.clone(), urls), pods, config }
    }

    fn listed_pods(&self, filter: Option<cri::PodSandboxFilter>) -> Result<Vec<cri::PodSandbox>, Status> {
        let filter = convert::pod::filter(filter)?;
        Ok(self.pods.list(&filter).iter().map(|pod| convert::pod::listed(pod)).collect())
    }

    fn listed_containers(&self, filter: Option<cri::ContainerFilter>) -> Result<Vec<cri::Container>, Status> {
        let filter = convert::container::filter(filter)?;
        let found = self.pods.list_containers(&filter);
        Ok(found.iter().map(|container| convert::container::listed(container)).collect())
    }

    fn conditions(&self) -> Vec<cri::RuntimeCondition> {
        let condition = |kind: &str, problem: Option<(&str, String)>| {
            let status = problem.is_none();
            let (reason, message) = problem.unwrap_or_default();
            cri::RuntimeCondition { r#type: kind.to_owned(), status, reason: reason.to_owned(), message }
        };
        let network = self.pods.network().status().err();
        vec![
            condition("RuntimeReady", None),
            condition("NetworkReady", network.map(|problem| ("NetworkPluginNotReady", pod::chain(&problem)))),
        ]
    }
}

#[async_trait]
impl cri::runtime_service_server::RuntimeService for RuntimeService {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        Ok(Response::new(cri::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "corten".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let info = match request.into_inner().verbose {
            true => verbose::node(&self.pods, &self.config.get()),
            false => Default::default(),
        };
        let handler = |handler: HandlerStatus| cri::RuntimeHandler {
            name: handler.name,
            features: Some(cri::RuntimeHandlerFeatures {
                recursive_read_only_mounts: handler.recursive_read_only,
                user_namespaces: handler.user_namespaces,
            }),
        };
        Ok(Response::new(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions: self.conditions() }),
            info,
            runtime_handlers: self.pods.handlers().into_iter().map(handler).collect(),
            features: Some(cri::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: self.pods.runtime().host().user_namespaces,
            }),
        }))
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        let cgroup_driver = match self.pods.runtime().cgroups().driver() {
            Driver::Cgroupfs => cri::CgroupDriver::Cgroupfs,
            Driver::Systemd => cri::CgroupDriver::Systemd,
        };
        let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: cgroup_driver.into() };
        Ok(Response::new(cri::RuntimeConfigResponse { linux: Some(linux) }))
    }

    /// The one setting there is, the range of pod addresses, is CNI's to know: there is nothing to do.
    async fn update_runtime_config(
        &self,
        _: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let config = convert::pod::parse(request.into_inner())?;
        telemetry::about(&format!("{}/{}", config.metadata.namespace, config.metadata.name));
        let pod_sandbox_id = self.pods.run(config).await.map_err(status::pod)?;
        Ok(Response::new(cri::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let id = id("pod_sandbox_id", request.into_inner().pod_sandbox_id)?;
        self.pods.stop(&id).await.map_err(status::pod)?;
        Ok(Response::new(cri::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let id = id("pod_sandbox_id", request.into_inner().pod_sandbox_id)?;
        self.pods.remove(&id).await.map_err(status::pod)?;
        Ok(Response::new(cri::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let id = id("pod_sandbox_id", request.pod_sandbox_id)?;
        let found = self.pods.snapshot(&id).map_err(status::pod)?;
        let info = match request.verbose {
            true => verbose::pod(self.pods.inspect_pod(&id).await.map_err(status::pod)?, &found.pod.config),
            false => Default::default(),
        };
        Ok(Response::new(cri::PodSandboxStatusResponse {
            status: Some(convert::pod::status(&found.pod)),
            info,
            // The time promises that the statuses are filled: the kubelet compares it with that of events.
            containers_statuses: events::statuses(&found.containers, self.pods.images()),
            timestamp: found.at_ns,
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let items = self.listed_pods(request.into_inner().filter)?;
        Ok(Response::new(cri::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let (pod, config) = convert::container::parse(request.into_inner())?;
        telemetry::about(&format!("{pod}/{}", config.metadata.name));
        let container_id = self.pods.create(&pod, config).await.map_err(status::pod)?;
        Ok(Response::new(cri::CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let id = id("container_id", request.into_inner().container_id)?;
        self.pods.start(&id).await.map_err(status::pod)?;
        Ok(Response::new(cri::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let request = request.into_inner();
        let id = id("container_id", request.container_id)?;
        let grace = convert::stop_timeout(request.timeout)?;
        self.pods.stop_container(&id, grace).await.map_err(status::pod)?;
        Ok(Response::new(cri::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        let id = id("container_id", request.into_inner().container_id)?;
        self.pods.remove_container(&id).await.map_err(status::pod)?;
        Ok(Response::new(cri::RemoveContainerResponse {}))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        let id = id("container_id", request.container_id)?;
        let found = self.pods.container_status(&id).map_err(status::pod)?;
        let info = match request.verbose {
            true => verbose::container(
                self.pods.inspect_container(&id).await.map_err(status::pod)?,
                &found.config,
            ),
            false => Default::default(),
        };
        let image = self.pods.images().find(&found.image_id);
        let status = Some(convert::container::status(&found, image.as_deref()));
        Ok(Response::new(cri::ContainerStatusResponse { status, info }))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let containers = self.listed_containers(request.into_inner().filter)?;
        Ok(Response::new(cri::ListContainersResponse { containers }))
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let (id, resources) = convert::container::parse_update(request.into_inner())?;
        telemetry::about(&id);
        self.pods.update(&id, resources).await.map_err(status::pod)?;
        Ok(Response::new(cri::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        let id = id("container_id", request.into_inner().container_id)?;
        self.pods.reopen_log(&id).await.map_err(status::pod)?;
        Ok(Response::new(cri::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let request = request.into_inner();
        let id = id("container_id", request.container_id)?;
        let command = convert::container::parse_command(request.cmd)?;
        let limit = convert::exec_timeout(request.timeout)?;
        let output = self.pods.exec_sync(&id, command, limit).await.map_err(status::pod)?;
        Ok(Response::new(cri::ExecSyncResponse {
            stdout: output.stdout,
            stderr: output.stderr,
            exit_code: output.exit_code,
        }))
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        numbers::container(&self.pods, request.into_inner()).await
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        numbers::list_containers(&self.pods, request.into_inner()).await
    }

    /// Not made, on purpose: nine vulnerabilities of other runtimes were in restoring these.
    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        Err(status::unimplemented("CheckpointContainer"))
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        self.streaming.exec(request.into_inner()).map(Response::new)
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        self.streaming.attach(request.into_inner()).map(Response::new)
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        self.streaming.port_forward(request.into_inner()).map(Response::new)
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        let (id, told) = convert::pod::parse_resize(request.into_inner())?;
        telemetry::about(&id);
        self.pods.resize(&id, told).await.map_err(status::pod)?;
        Ok(Response::new(cri::UpdatePodSandboxResourcesResponse {}))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        numbers::pod(&self.pods, request.into_inner()).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        numbers::list_pods(&self.pods, request.into_inner()).await
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        let descriptors = convert::metrics::descriptors();
        Ok(Response::new(cri::ListMetricDescriptorsResponse { descriptors }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        let pod_metrics = convert::metrics::show(&self.pods.list_metrics().await);
        Ok(Response::new(cri::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    type GetContainerEventsStream = events::Events;

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        events::get(&self.pods)
    }

    type StreamPodSandboxesStream = Chunks<cri::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let items = self.listed_pods(request.into_inner().filter)?;
        Ok(streams::chunks(items, |pod_sandboxes| cri::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    type StreamContainersStream = Chunks<cri::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<cri::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let items = self.listed_containers(request.into_inner().filter)?;
        Ok(streams::chunks(items, |containers| cri::StreamContainersResponse { containers }))
    }

    type StreamContainerStatsStream = Chunks<cri::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        numbers::stream_containers(&self.pods, request.into_inner()).await
    }

    type StreamPodSandboxStatsStream = Chunks<cri::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        numbers::stream_pods(&self.pods, request.into_inner()).await
    }

    type StreamPodSandboxMetricsStream = Chunks<cri::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let metrics = convert::metrics::show(&self.pods.list_metrics().await);
        let wrap = |pod_sandbox_metrics| cri::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        Ok(streams::chunks(metrics, wrap))
    }
}
