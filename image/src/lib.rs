//! Images: references, registries, pulls, the store of unpacked layers and the plan of a root file system.
//!
//! [`Images`] is the whole interface. Pulling (`pull`, `registry`) fetches by name and checks by digest; the store
//! (`store`, `unpack`) keeps layers as directories that overlayfs stacks. Nothing here mounts: that is the
//! runtime's. Formats: OCI image and distribution specifications, Docker's schema 2.
#![forbid(unsafe_code)]

mod artifact;
mod config;
mod credentials;
mod digest;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod import;
mod json;
mod metrics;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod store;
mod trust;
pub mod unpack;
pub mod ustar;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

pub use config::Config;
pub use credentials::{Credentials, Secret};
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use error::Error;
pub use image::{Image, ImageConfig, ImageId};
pub use import::{Import, NewImport};
pub use platform::{Host, Platform};
pub use progress::{LayerProgress, Phase, Progress};
pub use reference::Reference;
pub use registry::explain::{Explained, Explanation, Route, explain};
pub use store::{Checked, Export, ExportedLayer, Lease, Unpacker, Usage};

use pull::Puller;
use registry::Patience;
use store::Store;

/// The image service. Clones share one state.
#[derive(Clone, Debug)]
pub struct Images {
    store: Store,
    puller: Arc<Puller>,
}

impl Images {
    /// Opens the store under `data`, recovers it, and makes ready to pull.
    pub async fn open(config: Config, data: &Path, unpacker: Unpacker) -> Result<Self, Error> {
        let store = Store::open(data, unpacker, &config.pinned).await?;
        let puller = Arc::new(Puller::open(&config, Patience::of(&config), store.clone())?);
        Ok(Self { store, puller })
    }

    /// Pulls an image, or joins the pull of the same reference with the same credentials. Dropping the future of
    /// the last waiter stops the pull and frees what it began.
    pub async fn pull(&self, reference: &str, credentials: Option<Credentials>) -> Result<ImageId, Error> {
        self.puller.pull(reference, credentials).await
    }

    /// Returns the state of all pulls under way.
    pub fn pulls(&self) -> Vec<Progress> {
        self.puller.pulls()
    }

    /// Watches the pull of `reference`, also one that has not begun yet. Pulls of one reference with different
    /// credentials share the channel.
    pub fn watch(&self, reference: &str) -> watch::Receiver<Progress> {
        self.puller.watch(reference)
    }

    /// Finds an image by its id, with or without `sha256:`, whole or a unique prefix, or by a tag or digest.
    pub fn find(&self, name: &str) -> Option<Arc<Image>> {
        let found = self.store.find(name);
        if found.is_some() || !Reference::is_short(name) {
            return found;
        }
        // A short name may have been pulled from another registry than Docker's.
        let names = self.puller.names(name).ok()?;
        names.iter().find_map(|name| self.store.find(&name.to_string()))
    }

    /// Names what is counted in a registry of metrics.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.puller.metrics().register(&self.puller, registry);
    }

    /// Changes which images are pinned: names, or names that end in `*`.
    pub fn set_pinned(&self, patterns: &[String]) {
        self.store.set_pinned(patterns);
    }

    /// Returns all images.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.store.list()
    }

    /// Removes an image with all its names. One that is not there is fine. Layers that a [`Lease`] holds stay until
    /// it is dropped.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        match self.find(name) {
            Some(image) => self.store.remove(&image.id.to_string()).await,
            None => self.store.remove(name).await,
        }
    }

    /// Deletes what removed images left behind for leases that are gone by now.
    pub async fn collect(&self) -> Result<(), Error> {
        self.store.collect().await
    }

    /// Gets ready to give an image away.
    pub async fn export(&self, name: &str) -> Result<Export, Error> {
        let image = self.find(name).ok_or_else(|| Error::Unknown { name: name.to_owned() })?;
        self.store.export(&image.id.to_string()).await
    }

    /// The configuration of an image as its builder wrote it.
    pub async fn configuration(&self, id: &ImageId) -> Result<Vec<u8>, Error> {
        self.store.configuration(&id.to_string()).await
    }

    /// Takes an image in that does not come from a registry.
    pub async fn import(&self, image: NewImport) -> Result<Import, Error> {
        Import::begin(self.store.clone(), image)
    }

    /// Gives an image one more name; another image that has it loses it.
    pub async fn tag(&self, name: &str, tag: &str) -> Result<(), Error> {
        let image = self.find(name).ok_or_else(|| Error::Unknown { name: name.to_owned() })?;
        self.store.tag(&image.id.to_string(), tag.parse()?).await
    }

    /// The directory of the unpacked layers.
    pub fn layers_dir(&self) -> &Path {
        self.store.layers_dir()
    }

    /// Returns the layers that there are to check, by their chain ids.
    pub fn layers(&self) -> Vec<Digest> {
        self.store.chains()
    }

    /// Compares a layer with the archive that it came in, to the last byte. None: it is gone.
    pub async fn check(&self, layer: &Digest) -> Result<Option<Checked>, Error> {
        self.store.check(layer).await
    }

    /// Pulls one layer anew, for all images that are made of it. When it cannot be pulled, everything stays as it was.
    pub async fn repair(&self, layer: &Digest) -> Result<(), Error> {
        let (old, images) = self.store.set_aside(layer)?;
        let mut repaired = Ok(());
        for image in images {
            repaired = match image.repo_digests.first() {
                Some(name) => self.pull(name, None).await.map(drop),
                None => Err(Error::Unsupported {
                    what: format!("repair of {}", image.id),
                    reason: "it came from no registry: import it again".to_owned(),
                }),
            };
            if repaired.is_err() {
                break;
            }
        }
        self.store.settle_repair(&old);
        repaired
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
