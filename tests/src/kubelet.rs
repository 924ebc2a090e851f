//! The part of the kubelet: one connection, the images it has pulled, the pods it has made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use k8s_cri::v1 as wire;

use crate::cri::Cri;
use crate::pod::PodBuilder;
use crate::{Node, Result};

/// Makes names unique within one run of the test program.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A client that acts for one test.
#[derive(Debug)]
pub struct Kubelet {
    node: Arc<Node>,
    /// The connection, and the start of the daemon that it belongs to.
    cri: RefCell<(u32, Cri)>,
    pods: RefCell<Vec<String>>,
    /// Image ids by the reference that was pulled.
    images: RefCell<HashMap<String, String>>,
}

impl Kubelet {
    /// A client of the node's socket.
    pub fn new(node: Arc<Node>) -> Result<Self> {
        let cri = RefCell::new((node.starts(), Cri::lazy(node.socket())?));
        Ok(Self { node, cri, pods: RefCell::default(), images: RefCell::default() })
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// A number that this run has not used yet.
    pub fn unique(&self) -> u32 {
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// The connection, for calls as they are.
    pub fn cri(&self) -> Cri {
        let mut cri = self.cri.borrow_mut();
        if cri.0 != self.node.starts() {
            // The path was good once, so that only the channel is new.
            if let Ok(fresh) = Cri::lazy(self.node.socket()) {
                *cri = (self.node.starts(), fresh);
            }
        }
        cri.1.clone()
    }

    /// Asks the daemon to end, and goes on hearing what it says meanwhile.
    pub async fn stop_daemon(&self) -> Result {
        let node = self.node.clone();
        tokio::task::spawn_blocking(move || node.stop_daemon()).await?
    }

    /// A pod, not yet run.
    pub fn pod(&self) -> PodBuilder<'_> {
        PodBuilder::new(self)
    }

    /// Pulls an image unless this test has it, and returns its id.
    pub async fn image(&self, reference: &str) -> Result<String> {
        let known = self.images.borrow().get(reference).cloned();
        if let Some(id) = known {
            return Ok(id);
        }
        let status = wire::ImageStatusRequest { image: Some(spec(reference)), verbose: false };
        let present = self.cri().images.image_status(status).await?.into_inner().image;
        let id = match present {
            Some(image) => image.id,
            None => self.pull(reference).await.with_context(|| format!("pull {reference}"))?,
        };
        self.images.borrow_mut().insert(reference.to_owned(), id.clone());
        Ok(id)
    }

    /// Pulls an image in any case.
    pub async fn pull(&self, reference: &str) -> Result<String, tonic::Status> {
        let request =
            wire::PullImageRequest { image: Some(spec(reference)), auth: None, sandbox_config: None };
        Ok(self.cri().images.pull_image(request).await?.into_inner().image_ref)
    }

    /// The image that a reference leads to, if there is one.
    pub async fn image_status(&self, reference: &str) -> Result<Option<wire::Image>, tonic::Status> {
        let request = wire::ImageStatusRequest { image: Some(spec(reference)), verbose: false };
        Ok(self.cri().images.image_status(request).await?.into_inner().image)
    }

    /// Removes an image.
    pub async fn remove_image(&self, reference: &str) -> Result<(), tonic::Status> {
        let request = wire::RemoveImageRequest { image: Some(spec(reference)) };
        self.cri().images.remove_image(request).await?;
        self.images.borrow_mut().clear();
        Ok(())
    }

    /// All containers that match a filter.
    pub async fn containers(
        &self,
        filter: wire::ContainerFilter,
    ) -> Result<Vec<wire::Container>, tonic::Status> {
        let request = wire::ListContainersRequest { filter: Some(filter) };
        Ok(self.cri().runtime.list_containers(request).await?.into_inner().containers)
    }

    /// All pods that match a filter.
    pub async fn pods(&self, filter: wire::PodSandboxFilter) -> Result<Vec<wire::PodSandbox>, tonic::Status> {
        let request = wire::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.cri().runtime.list_pod_sandbox(request).await?.into_inner().items)
    }

    /// Stops and removes a pod.
    pub async fn remove_pod(&self, id: &str) -> Result<(), tonic::Status> {
        let pod_sandbox_id = id.to_owned();
        let mut runtime = self.cri().runtime;
        runtime
            .stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() })
            .await?;
        runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id }).await?;
        self.pods.borrow_mut().retain(|known| known != id);
        Ok(())
    }

    /// Notes a pod that is to be removed when the test ends.
    pub(crate) fn made(&self, pod: &str) {
        self.pods.borrow_mut().push(pod.to_owned());
    }

    /// Removes every pod of the test, and says what could not be removed.
    pub async fn remove_all(&self) -> Result {
        let mut failed = Vec::new();
        let pods = self.pods.borrow().clone();
        for pod in pods {
            if let Err(status) = self.remove_pod(&pod).await {
                failed.push(format!("pod {pod}: {status}"));
            }
        }
        if !failed.is_empty() {
            bail!("not removed: {}", failed.join("; "));
        }
        Ok(())
    }
}

/// An image by its reference.
pub fn spec(reference: &str) -> wire::ImageSpec {
    wire::ImageSpec { image: reference.to_owned(), ..Default::default() }
}
