//! Layers: directories that live as long as an image or a handle needs them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::trash::Trash;
use crate::Digest;
use crate::unpack::Name;

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// The chain id: the layer together with all below it.
    pub(crate) chain: Digest,
    /// The digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// The name of its directory.
    pub(crate) name: String,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Inodes.
    pub(crate) inodes: u64,
    /// Whether nothing of the layers below shows through its root. Overlayfs does not look at the mark there.
    pub(crate) opaque: bool,
    /// Bytes of its uncompressed archive, if that can be made again: older records do not say so.
    #[serde(default)]
    pub(crate) archive_bytes: Option<u64>,
}

/// A layer. Its directory stays in place while a handle lives; one that no image holds goes with the last.
#[derive(Clone, Debug)]
pub(crate) struct Layer(Arc<Inner>);

/// Finds a layer while it lives.
#[derive(Clone, Debug)]
pub(super) struct WeakLayer(Weak<Inner>);

#[derive(Debug)]
struct Inner {
    record: LayerRecord,
    directory: Directory,
    /// Directories inside whose metadata must still come from the layers below.
    implied: Mutex<Vec<Name>>,
}

impl Layer {
    pub(super) fn new(record: LayerRecord, directory: Directory, implied: Vec<Name>) -> Self {
        Self(Arc::new(Inner { record, directory, implied: Mutex::new(implied) }))
    }

    /// Returns what is known of it.
    pub(crate) fn record(&self) -> &LayerRecord {
        &self.0.record
    }

    /// Returns where its skeleton is.
    pub(super) fn skeleton(&self) -> &Path {
        &self.0.directory.skeleton
    }

    /// Returns the directories whose metadata must still come from below.
    pub(super) fn implied(&self) -> Vec<Name> {
        self.0.implied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An image on disk names this layer now: its directory outlives its handles.
    pub(super) fn keep(&self) {
        self.0.directory.kept.store(true, Ordering::Release);
        self.0.implied.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// No image names this layer any more: its directory goes with the last handle.
    pub(super) fn abandon(&self) {
        self.0.directory.kept.store(false, Ordering::Release);
    }

    pub(super) fn downgrade(&self) -> WeakLayer {
        WeakLayer(Arc::downgrade(&self.0))
    }
}

impl WeakLayer {
    pub(super) fn upgrade(&self) -> Option<Layer> {
        self.0.upgrade().map(Layer)
    }
}

/// The directory of a layer, and its skeleton beside it. Dropped, it goes to the trash, unless it is kept.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    skeleton: PathBuf,
    trash: Trash,
    kept: AtomicBool,
}

impl Directory {
    /// Takes the directory of a layer that is being unpacked.
    pub(super) fn fresh(disk: &Disk, name: &str, trash: Trash) -> Self {
        Self { path: disk.layer(name), skeleton: disk.skeleton(name), trash, kept: AtomicBool::new(false) }
    }

    /// Takes the directory of a layer that an image on disk names.
    pub(super) fn kept(disk: &Disk, name: &str, trash: Trash) -> Self {
        let directory = Self::fresh(disk, name, trash);
        directory.kept.store(true, Ordering::Release);
        directory
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn skeleton(&self) -> &Path {
        &self.skeleton
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if *self.kept.get_mut() {
            return;
        }
        // What is left of it goes at the next start.
        drop(std::fs::remove_file(&self.skeleton));
        if let Err(e) = self.trash.take(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %e, "an unused layer stays until the next start");
        }
    }
}
