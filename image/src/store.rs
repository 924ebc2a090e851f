//! The store of images.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, Image, ImageId};

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

#[derive(Clone, Debug)]
pub(crate) struct Store;

impl Store {
    pub(crate) async fn open(_data: &Path, _unpacker: Unpacker, _pinned: &[String]) -> Result<Self, Error> {
        unimplemented!()
    }
    pub(crate) fn find(&self, _name: &str) -> Option<Arc<Image>> {
        unimplemented!()
    }
    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        unimplemented!()
    }
    pub(crate) async fn remove(&self, _name: &str) -> Result<(), Error> {
        unimplemented!()
    }
    pub(crate) async fn usage(&self) -> Result<Usage, Error> {
        unimplemented!()
    }
    pub(crate) fn lease(&self, _id: &ImageId) -> Result<Lease, Error> {
        unimplemented!()
    }
    pub(crate) async fn read_file(
        &self,
        _id: &ImageId,
        _path: &str,
        _limit: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        unimplemented!()
    }
}
