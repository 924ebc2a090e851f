//! The store of images: layers as directories, one record an image, and the leases that keep both in place.
//!
//! What is in memory mirrors the records on disk, so that looking something up never waits. A layer is unpacked
//! straight into its directory, by a process of its own; it exists once the record of an image names it. Nothing
//! here deletes on the way out: an image that is removed while a container runs from it is hidden, and goes when
//! its last lease is gone and [`Store::collect`] is called.

mod change;
mod check;
mod disk;
mod durable;
mod export;
mod implied;
mod index;
mod layer;
mod lease;
mod pinned;
mod rebuild;
mod recover;
#[cfg(test)]
mod tests;
mod trash;
mod view;
mod writer;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;

use self::disk::{Disk, EMPTY_LAYER};
use self::index::Index;
use self::layer::Directory;
use self::pinned::Pinned;
use self::trash::Trash;
use crate::{Digest, Error, Image, ImageConfig, ImageId, Reference};

pub use self::check::Checked;
pub use self::export::{Export, ExportedLayer};
pub(crate) use self::layer::Layer;
pub use self::lease::Lease;
pub(crate) use self::writer::LayerWriter;

/// The program that unpacks one layer: executed in the empty layer directory, the compressed layer on its standard
/// input, its report on its standard output.
#[derive(Clone, Debug)]
pub struct Unpacker {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// The space that images use.
#[derive(Clone, Debug)]
pub struct Usage {
    /// A directory on the file system that holds the images.
    pub mountpoint: PathBuf,
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Inodes.
    pub inodes_used: u64,
    /// When this was measured: nanoseconds since 1970.
    pub at_ns: i64,
}

/// What a layer must turn out to be.
#[derive(Clone, Debug)]
pub(crate) struct LayerExpectation {
    /// The chain id: the layer together with all below it.
    pub(crate) chain: Digest,
    /// The digest of the uncompressed archive. None: the archive is made on the way, and nobody knows it before.
    pub(crate) diff_id: Option<Digest>,
}

impl LayerExpectation {
    /// Returns what the layer is called while it is on its way.
    fn name(&self) -> &Digest {
        self.diff_id.as_ref().unwrap_or(&self.chain)
    }
}

/// The answer to [`Store::begin_layer`].
#[derive(Debug)]
pub(crate) enum Begun {
    /// The layer is here already, or another pull has just brought it.
    Here(Layer),
    /// It has to be fetched and written.
    Write(LayerWriter),
}

/// An image that is complete and shall become visible.
#[derive(Debug)]
pub(crate) struct NewImage {
    /// The names it came by. Their tags become tags of the image, unless they name a digest too.
    pub(crate) names: Vec<Reference>,
    /// The digests that the names' repositories know it by, first the one that the name was resolved to: of the
    /// index, if there was one, then of the manifest.
    pub(crate) digests: Vec<Digest>,
    /// The manifest of this platform, byte for byte.
    pub(crate) manifest: Bytes,
    /// Its digest.
    pub(crate) manifest_digest: Digest,
    /// The configuration, byte for byte.
    pub(crate) config: Bytes,
    /// The image's id.
    pub(crate) id: ImageId,
    /// The type of an artifact. None: a container can run from it.
    pub(crate) artifact_type: Option<String>,
    /// The digest of the index that it came in.
    pub(crate) index: Option<Digest>,
    /// What was read from the configuration.
    pub(crate) settings: ImageConfig,
    /// The architecture it was built for, in Go's words.
    pub(crate) architecture: String,
    /// When it was built, as the builder wrote it.
    pub(crate) created: Option<String>,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// The store. Clones share one state.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    disk: Disk,
    trash: Trash,
    unpacker: Unpacker,
    /// Never held while anything waits.
    pinned: RwLock<Pinned>,
    boot_id: Arc<str>,
    /// Images whose files are not on disk yet.
    unsynced: durable::Orders,
    next_name: AtomicU64,
    /// Guards the state in memory. Nothing waits and nothing is read or written while it is held.
    index: Arc<Mutex<Index>>,
    /// Held while records on disk and in memory change together; only ever by threads that may block.
    changing: Mutex<()>,
}

impl Store {
    /// Opens the store under `data`: reads the records and clears away what no record names.
    pub(crate) async fn open(data: &Path, unpacker: Unpacker, pinned: &[String]) -> Result<Self, Error> {
        let (data, pinned) = (data.to_owned(), Pinned::new(pinned));
        blocking(move || Shared::open(&data, unpacker, pinned)).await.map(Self)
    }

    /// Changes which images are pinned, also of those that are here.
    pub(crate) fn set_pinned(&self, patterns: &[String]) {
        let pinned = Pinned::new(patterns);
        self.0.index().pin(|names| pinned.covers(names));
        *self.0.pinned.write().unwrap_or_else(PoisonError::into_inner) = pinned;
    }

    /// Where layers are unpacked to.
    pub(crate) fn layers_dir(&self) -> &Path {
        &self.0.disk.layers
    }

    /// Returns the layer with this chain id, if it is here, and keeps it.
    pub(crate) fn layer(&self, chain: &Digest) -> Option<Layer> {
        self.0.index().layer(chain)
    }

    /// Starts to unpack a layer. While another caller unpacks the same one, waits for it.
    pub(crate) async fn begin_layer(&self, expected: LayerExpectation) -> Result<Begun, Error> {
        let claim = loop {
            match self.0.claim(&expected.chain) {
                Claimed::Here(layer) => return Ok(Begun::Here(layer)),
                Claimed::Mine(claim) => break claim,
                // The other end closes however that unpacking ends; then it is looked up anew.
                Claimed::Others(mut done) => drop(done.changed().await),
            }
        };
        let shared = Arc::clone(&self.0);
        let directory = blocking(move || shared.make_directory()).await?;
        LayerWriter::start(&self.0.unpacker, directory, expected, claim).await.map(Begun::Write)
    }

    /// Makes an image visible, and soon after durable.
    pub(crate) async fn commit(&self, image: NewImage) -> Result<Arc<Image>, Error> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.commit(&image)).await
    }

    /// Finds an image by its id, with or without `sha256:`, whole or a unique prefix, or by a tag or digest.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Image>> {
        self.0.index().find(name).map(|entry| Arc::clone(&entry.image))
    }

    /// Returns all images.
    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        let index = self.0.index();
        index.entries().filter(|entry| !entry.removed).map(|entry| Arc::clone(&entry.image)).collect()
    }

    /// Removes an image with all its names. One that is not there is fine; one that is leased is hidden, and goes
    /// with a later [`Store::collect`].
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Error> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        blocking(move || shared.remove(&name)).await
    }

    /// Removes what was kept for leases alone that are gone.
    pub(crate) async fn collect(&self) -> Result<(), Error> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.collect(&shared.change())).await
    }

    /// Gives an image one more name.
    pub(crate) async fn tag(&self, name: &str, tag: Reference) -> Result<(), Error> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        blocking(move || shared.tag(&name, &tag)).await
    }

    /// Returns the space that images use.
    pub(crate) async fn usage(&self) -> Result<Usage, Error> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.usage()).await
    }

    /// Keeps the layers of an image, also of one that was removed while another lease held it.
    pub(crate) fn lease(&self, id: &ImageId) -> Result<Lease, Error> {
        let index = self.0.index();
        let entry = index.get(id).ok_or_else(|| Error::Unknown { name: id.to_string() })?;
        Ok(Lease {
            layers_dir: self.0.disk.layers.clone(),
            lowers: lowers(&entry.layers),
            _layers: entry.layers.clone(),
            _image: entry.lease(),
        })
    }

    /// Reads a file of the image as a container would see it. None: it does not exist or is not a regular file.
    pub(crate) async fn read_file(
        &self,
        id: &ImageId,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        let (lease, path) = (self.lease(id)?, path.to_owned());
        let id = id.clone();
        blocking(move || {
            let failed = |e| Error::store("read a file of an image in", lease.layers_dir(), e);
            let layers = File::open(lease.layers_dir()).map_err(failed)?;
            match view::read(layers.as_fd(), lease.lowers(), &path, limit).map_err(|e| failed(e.into()))? {
                view::Content::File(content) => Ok(Some(content)),
                view::Content::Missing => Ok(None),
                view::Content::TooLong => {
                    Err(Error::TooLarge { what: format!("{path} of {id}"), limit: format!("{limit} bytes") })
                }
            }
        })
        .await
    }
}

/// What came of claiming a layer.
enum Claimed {
    Here(Layer),
    Mine(Claim),
    Others(watch::Receiver<()>),
}

/// The right to unpack a layer. Others that want it wait until this is dropped.
#[derive(Debug)]
struct Claim {
    chain: Digest,
    index: Arc<Mutex<Index>>,
    _done: watch::Sender<()>,
}

impl Claim {
    /// Makes the layer known, and lets those go on that wait for it.
    fn settle(&self, layer: Layer) -> Layer {
        lock(&self.index).add_layer(&layer);
        layer
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.index).unpacking.remove(&self.chain);
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    fn pins<'a>(&self, names: impl Iterator<Item = &'a String>) -> bool {
        self.pinned.read().unwrap_or_else(PoisonError::into_inner).covers(names)
    }

    fn claim(&self, chain: &Digest) -> Claimed {
        let mut index = self.index();
        if let Some(layer) = index.layer(chain) {
            return Claimed::Here(layer);
        }
        if let Some(done) = index.unpacking.get(chain) {
            return Claimed::Others(done.clone());
        }
        let (done, receiver) = watch::channel(());
        index.unpacking.insert(chain.clone(), receiver);
        Claimed::Mine(Claim { chain: chain.clone(), index: Arc::clone(&self.index), _done: done })
    }

    fn make_directory(&self) -> Result<Directory, Error> {
        let name = base36(self.next_name.fetch_add(1, Ordering::Relaxed));
        let directory = Directory::fresh(&self.disk, &name, self.trash.clone());
        let path = directory.path();
        std::fs::create_dir(path).map_err(|e| Error::store("make directory", path, e))?;
        Ok(directory)
    }

    fn usage(&self) -> Result<Usage, Error> {
        let layers = self.index().layer_records();
        let (bytes, inodes) = self.disk.blob_usage()?;
        Ok(Usage {
            mountpoint: self.disk.layers.clone(),
            used_bytes: bytes + layers.iter().map(|layer| layer.bytes).sum::<u64>(),
            inodes_used: inodes + layers.iter().map(|layer| layer.inodes).sum::<u64>(),
            at_ns: now_ns(),
        })
    }
}

/// Returns the directories that overlayfs stacks for these layers, the topmost first.
fn lowers(layers: &[Layer]) -> Vec<String> {
    let mut names = Vec::new();
    for layer in layers.iter().rev() {
        names.push(layer.record().name.clone());
        if layer.record().opaque {
            break;
        }
    }
    if names.is_empty() {
        names.push(EMPTY_LAYER.to_owned());
    }
    names
}

/// Names are short, because overlayfs takes all of an image's in one page.
fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit((number % 36) as u32, 36));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Runs what reads or writes files. It goes on to its end when nobody waits any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::store("work on", "the store", std::io::Error::other(e))),
    }
}
