//! The connection to a CRI socket, and requests with errors that a person can read.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tower::service_fn;

use crate::wire::corten::archives_client::ArchivesClient;
use crate::wire::corten::pulls_client::PullsClient;
use crate::wire::cri::image_service_client::ImageServiceClient;
use crate::wire::cri::runtime_service_client::RuntimeServiceClient;

/// As large as the kubelet accepts.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The services behind one socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
    pub(crate) pulls: PullsClient<Channel>,
    pub(crate) archives: ArchivesClient<Channel>,
}

impl Client {
    /// Connects to `unix:///PATH` or `/PATH`.
    pub(crate) async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        if !path.starts_with('/') {
            return Err(anyhow!("{endpoint:?} is not a socket: give unix:///PATH"));
        }
        let path = PathBuf::from(path);
        let at = path.clone();
        let connector = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is never looked up: the connector knows where to go.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
        let channel =
            channel.with_context(|| format!("connect to {}: is the server running?", at.display()))?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            pulls: PullsClient::new(channel.clone()),
            archives: ArchivesClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
        })
    }
}

/// The answer, or what the server says is wrong.
pub(crate) fn answer<T>(result: Result<Response<T>, Status>) -> anyhow::Result<T> {
    result.map(Response::into_inner).map_err(|status| said(&status))
}

/// What the server says is wrong.
pub(crate) fn said(status: &Status) -> anyhow::Error {
    anyhow!("{} ({:?})", status.message(), status.code())
}
