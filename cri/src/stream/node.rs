//! What the streaming server needs of the node: commands and ports. The real one is [`Pods`].

use pod::stream::{Session, Stdio};
use pod::{Pods, Result};
use tokio::net::TcpStream;
use tonic::async_trait;

/// Where commands run and ports are.
#[async_trait]
pub(crate) trait Node: Send + Sync + 'static {
    /// Starts a command in a container.
    async fn exec(&self, container: &str, command: Vec<String>, stdio: Stdio) -> Result<Session>;

    /// Joins the streams of a container's process.
    async fn attach(&self, container: &str, stdio: Stdio) -> Result<Session>;

    /// Connects to a port of a pod's own loopback.
    async fn dial(&self, pod: &str, port: u16) -> Result<TcpStream>;
}

#[async_trait]
impl Node for Pods {
    async fn exec(&self, container: &str, command: Vec<String>, stdio: Stdio) -> Result<Session> {
        Self::exec(self, container, command, stdio).await
    }

    async fn attach(&self, container: &str, stdio: Stdio) -> Result<Session> {
        Self::attach(self, container, stdio).await
    }

    async fn dial(&self, pod: &str, port: u16) -> Result<TcpStream> {
        Self::dial(self, pod, port).await
    }
}
