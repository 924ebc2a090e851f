//! The client's end of a CRI socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::wait::slowness;
use crate::{Result, newest};

/// What the kubelet accepts, and no more.
const MESSAGE_BYTES: usize = 16 << 20;

/// A connection; made anew by itself when the daemon was restarted.
#[derive(Debug, Clone)]
pub struct Cri {
    /// Pods and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub images: ImageServiceClient<Channel>,
    /// Pods and containers, with fields and calls that `k8s-cri` does not have.
    pub newest: newest::runtime_service_client::RuntimeServiceClient<Channel>,
    /// Images, with fields and calls that `k8s-cri` does not have.
    pub newest_images: newest::image_service_client::ImageServiceClient<Channel>,
    /// What they all use.
    pub channel: Channel,
}

impl Cri {
    /// A client of the socket at `path`, which need not answer yet.
    pub fn lazy(path: &Path) -> Result<Self> {
        Self::with(path, |endpoint| endpoint)
    }

    /// A client that takes in little of a stream that nobody reads.
    pub fn narrow(path: &Path) -> Result<Self> {
        Self::with(path, |endpoint| endpoint.initial_stream_window_size(1 << 16))
    }

    fn with(path: &Path, change: impl FnOnce(Endpoint) -> Endpoint) -> Result<Self> {
        let path: PathBuf = path.to_owned();
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // No test waits longer for one call: a hang becomes an error that names the call.
        let endpoint =
            change(Endpoint::try_from("http://localhost")?.timeout(Duration::from_secs(90) * slowness()));
        let channel = endpoint.connect_with_connector_lazy(connector);
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES),
            newest: newest::runtime_service_client::RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES),
            newest_images: newest::image_service_client::ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES),
            channel,
        })
    }
}
