//! Leases: what keeps the layers of an image in place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layer::Layer;

/// Keeps the layers of an image in place while it lives, even when the image is removed meanwhile.
///
/// Dropping it deletes nothing by itself, so that a daemon that ends leaves the layers to its containers.
#[derive(Debug)]
pub struct Lease {
    pub(super) layers_dir: PathBuf,
    pub(super) lowers: Vec<String>,
    pub(super) _layers: Vec<Layer>,
    pub(super) _image: Arc<()>,
}

impl Lease {
    /// Returns the directory that the names of [`Lease::lowers`] are relative to.
    pub fn layers_dir(&self) -> &Path {
        &self.layers_dir
    }

    /// Returns the layers' directories, the topmost first. There is always one.
    pub fn lowers(&self) -> &[String] {
        &self.lowers
    }
}
