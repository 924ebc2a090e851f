//! Exec, Attach and PortForward: the request is checked and kept, and the answer is the URL that leads to it.

use pod::Pods;
use tonic::Status;

use super::id;
use crate::stream::{Command, Request, Urls};
use crate::wire::cri;
use crate::{convert, status};

/// The calls that answer URLs.
#[derive(Debug)]
pub(super) struct Streaming {
    pods: Pods,
    urls: Urls,
}

impl Streaming {
    pub(super) fn new(pods: Pods, urls: Urls) -> Self {
        Self { pods, urls }
    }

    pub(super) fn exec(&self, request: cri::ExecRequest) -> Result<cri::ExecResponse, Status> {
        let id = id("container_id", request.container_id)?;
        let command = convert::container::parse_command(request.cmd)?;
        let stdio = convert::stdio([request.stdin, request.stdout, request.stderr, request.tty])?;
        let container = self.pods.running(&id).map_err(status::pod)?;
        let url = self.url(Request::Command(Command { container, command: Some(command), stdio }))?;
        Ok(cri::ExecResponse { url })
    }

    pub(super) fn attach(&self, request: cri::AttachRequest) -> Result<cri::AttachResponse, Status> {
        let id = id("container_id", request.container_id)?;
        let stdio = convert::stdio([request.stdin, request.stdout, request.stderr, request.tty])?;
        let container = self.pods.running(&id).map_err(status::pod)?;
        let url = self.url(Request::Command(Command { container, command: None, stdio }))?;
        Ok(cri::AttachResponse { url })
    }

    pub(super) fn port_forward(
        &self,
        request: cri::PortForwardRequest,
    ) -> Result<cri::PortForwardResponse, Status> {
        let id = id("pod_sandbox_id", request.pod_sandbox_id)?;
        let ports = convert::ports(&request.port)?;
        let pod = self.pods.ready(&id).map_err(status::pod)?;
        let url = self.url(Request::PortForward { pod, ports })?;
        Ok(cri::PortForwardResponse { url })
    }

    fn url(&self, request: Request) -> Result<String, Status> {
        self.urls.make(request).map_err(status::stream)
    }
}
