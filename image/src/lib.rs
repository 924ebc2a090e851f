//! Images: references, registries, pulls, the store of unpacked layers and the plan of a root file system.
//!
//! [`Images`] is the whole interface. Pulling (`pull`, `registry`) fetches by name and checks by digest; the store
//! (`store`, `unpack`) keeps layers as directories that overlayfs stacks. Nothing here mounts: that is the
//! runtime's. Formats: OCI image and distribution specifications, Docker's schema 2.
#![forbid(unsafe_code)]

mod config;
mod credentials;
mod digest;
mod error;
mod image;
mod progress;
mod reference;
mod store;
pub mod unpack;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

pub use config::Config;
pub use credentials::Credentials;
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use error::Error;
pub use image::{Image, ImageConfig, ImageId};
pub use progress::{LayerProgress, Phase, Progress};
pub use reference::Reference;
pub use store::{Lease, Unpacker, Usage};

/// The image service. Clones share one state.
#[derive(Clone, Debug)]
pub struct Images {
    store: store::Store,
}

impl Images {
    /// Opens the store under `data`, recovers it, and makes ready to pull.
    pub async fn open(config: Config, data: &Path, unpacker: Unpacker) -> Result<Self, Error> {
        let store = store::Store::open(data, unpacker, &config.pinned).await?;
        Ok(Self { store })
    }

    /// Pulls an image, or joins the pull of the same reference with the same credentials. Dropping the future of
    /// the last waiter stops the pull and frees what it began.
    pub async fn pull(&self, reference: &str, credentials: Option<Credentials>) -> Result<ImageId, Error> {
        let _ = (reference.parse::<Reference>()?, credentials);
        unimplemented!()
    }

    /// Returns the state of all pulls under way.
    pub fn pulls(&self) -> Vec<Progress> {
        Vec::new()
    }

    /// Watches the pull of `reference`, also one that has not begun yet. Pulls of one reference with different
    /// credentials share the channel.
    pub fn watch(&self, reference: &str) -> watch::Receiver<Progress> {
        let _ = reference;
        watch::channel(Progress::default()).1
    }

    /// Finds an image by its id, with or without `sha256:`, whole or a unique prefix, or by a tag or digest.
    pub fn find(&self, name: &str) -> Option<Arc<Image>> {
        self.store.find(name)
    }

    /// Returns all images.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.store.list()
    }

    /// Removes an image with all its names. One that is not there is fine. Layers that a [`Lease`] holds stay until
    /// it is dropped.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        self.store.remove(name).await
    }

    /// Returns the space that images use.
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.store.usage().await
    }

    /// Keeps the layers of an image from being removed, and says where they are.
    pub fn lease(&self, id: &ImageId) -> Result<Lease, Error> {
        self.store.lease(id)
    }

    /// Reads a file of the image as a container would see it, at most `limit` bytes of it. None: it does not exist
    /// or is not a regular file.
    pub async fn read_file(&self, id: &ImageId, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        self.store.read_file(id, path, limit).await
    }
}
