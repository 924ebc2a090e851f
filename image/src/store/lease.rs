//! Leases: what keeps the layers of an image in place.

use std::path::{Path, PathBuf};

/// Keeps the layers of an image in place while it lives.
#[derive(Debug)]
pub struct Lease {
    layers_dir: PathBuf,
    lowers: Vec<String>,
}

impl Lease {
    /// Returns the directory that the names of [`Lease::lowers`] are relative to.
    pub fn layers_dir(&self) -> &Path {
        &self.layers_dir
    }

    /// Returns the layers' directories, the topmost first.
    pub fn lowers(&self) -> &[String] {
        &self.lowers
    }
}
