//! The store of images: layers as directories, one record an image, and the leases that keep both in place.

mod lease;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::{Digest, Error, Image, ImageConfig, ImageId, Reference};

pub use lease::Lease;

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
    /// The digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
}

/// The answer to [`Store::begin_layer`].
#[derive(Debug)]
pub(crate) enum Begun {
    /// The layer is here already, or another pull has just brought it.
    Here(Layer),
    /// It has to be fetched and written.
    Write(LayerWriter),
}

/// A layer's directory. It stays in place while a handle lives; one that was never committed goes with the last.
#[derive(Clone, Debug)]
pub(crate) struct Layer;

/// Takes the compressed bytes of a layer. Dropped before [`LayerWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct LayerWriter;

/// An image that is complete and shall become visible.
#[derive(Debug)]
pub(crate) struct NewImage {
    /// The name it was pulled by. Its tag becomes a tag of the image, unless it names a digest too.
    pub(crate) name: Reference,
    /// The digests that the name's repository knows it by, first the one that the name was resolved to: of the
    /// index, if there was one, then of the manifest.
    pub(crate) digests: Vec<Digest>,
    /// The manifest of this platform, byte for byte.
    pub(crate) manifest: Bytes,
    /// Its digest.
    pub(crate) manifest_digest: Digest,
    /// The configuration, byte for byte.
    pub(crate) config: Bytes,
    /// Its digest, which becomes the image's id.
    pub(crate) config_digest: Digest,
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
pub(crate) struct Store;

impl Store {
    pub(crate) async fn open(_data: &Path, _unpacker: Unpacker, _pinned: &[String]) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Returns the layer with this chain id, if it is here, and keeps it.
    pub(crate) fn layer(&self, _chain: &Digest) -> Option<Layer> {
        unimplemented!()
    }

    /// Starts to unpack a layer. While another caller unpacks the same one, waits for it.
    pub(crate) async fn begin_layer(&self, _expected: LayerExpectation) -> Result<Begun, Error> {
        unimplemented!()
    }

    /// Makes an image durable, then visible.
    pub(crate) async fn commit(&self, _image: NewImage) -> Result<Arc<Image>, Error> {
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

    /// Removes what was kept for a lease alone and whose lease is gone.
    pub(crate) async fn collect(&self) -> Result<(), Error> {
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

impl LayerWriter {
    /// Hands the next bytes of the compressed layer on.
    pub(crate) async fn write(&mut self, _chunk: Bytes) -> Result<(), Error> {
        unimplemented!()
    }

    /// Ends the layer: everything was sent. Checks that it is the one expected.
    pub(crate) async fn finish(self) -> Result<Layer, Error> {
        unimplemented!()
    }
}
