//! Images that do not come from a registry: the client has taken an archive apart, and brings manifest,
//! configuration and those layers that are not here yet. Everything is checked as if a registry had sent it.

use bytes::Bytes;

use crate::image::Configuration;
use crate::registry::manifest::{Descriptor, Document, MAX_BYTES, MAX_CONFIG_BYTES, Manifest};
use crate::store::{Begun, Layer, LayerExpectation, LayerWriter, NewImage, Store};
use crate::{Digest, Error, Hasher, ImageId, Reference};

/// An image that is to be taken in.
#[derive(Debug)]
pub struct NewImport {
    /// Its names.
    pub names: Vec<Reference>,
    /// Whether the names' repositories get a name with the manifest's digest, too.
    pub with_digests: bool,
    /// The digest of the index that it came in with the images for other platforms.
    pub index: Option<Digest>,
    /// The manifest of one platform, byte for byte.
    pub manifest: Bytes,
    /// The configuration, byte for byte.
    pub config: Bytes,
}

/// An image that is being taken in. Dropped before [`Import::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Import {
    store: Store,
    new: NewImport,
    manifest: Manifest,
    manifest_digest: Digest,
    config: Configuration,
    expected: Vec<LayerExpectation>,
    layers: Vec<Option<Layer>>,
    writing: Option<Writing>,
}

/// A layer on its way in.
#[derive(Debug)]
struct Writing {
    index: usize,
    writer: LayerWriter,
    hasher: Hasher,
    bytes: u64,
}

impl Import {
    pub(crate) fn begin(store: Store, new: NewImport) -> Result<Self, Error> {
        let what = "manifest of the archive";
        let too_large =
            |limit: u64| Error::TooLarge { what: what.to_owned(), limit: format!("{limit} bytes") };
        if new.manifest.len() as u64 > MAX_BYTES || new.config.len() as u64 > MAX_CONFIG_BYTES {
            return Err(too_large(MAX_BYTES));
        }
        let invalid = |reason: String| Error::InvalidImage { what: what.to_owned(), reason };
        let Document::Image(manifest) = Document::parse(&new.manifest, None, what)? else {
            return Err(invalid("it is an index".to_owned()));
        };
        if let Some(artifact) = &manifest.artifact {
            let reason = format!("it is an artifact of type {:?}, which only a pull brings", artifact.kind);
            return Err(Error::Unsupported { what: what.to_owned(), reason });
        }
        let found = manifest.config.digest.same_of(&new.config);
        if found != manifest.config.digest {
            let expected = manifest.config.digest;
            return Err(Error::DigestMismatch { what: "config of the archive".into(), expected, found });
        }
        let config = Configuration::parse(&new.config, manifest.layers.len())
            .map_err(|reason| invalid(crate::error::excerpt(&reason)))?;
        let chain = config.chain().into_iter().zip(&config.diff_ids);
        let expected: Vec<_> = chain
            .map(|(chain, diff_id)| LayerExpectation { chain, diff_id: Some(diff_id.clone()) })
            .collect();
        let layers = expected.iter().map(|layer| store.layer(&layer.chain)).collect();
        let manifest_digest = Digest::sha256(&new.manifest);
        Ok(Self { store, new, manifest, manifest_digest, config, expected, layers, writing: None })
    }

    /// Returns the layers that have to be brought, by their place in the manifest.
    pub fn wanted(&self) -> Vec<usize> {
        (0..self.layers.len()).filter(|index| self.layers[*index].is_none()).collect()
    }

    /// Starts with a layer. Pieces of one that has come by another way meanwhile are passed over.
    pub async fn layer(&mut self, index: usize) -> Result<(), Error> {
        self.end_layer().await?;
        let expected =
            self.expected.get(index).cloned().ok_or_else(|| out_of_order("there is no such layer"))?;
        match self.store.begin_layer(expected).await? {
            Begun::Here(layer) => self.layers[index] = Some(layer),
            Begun::Write(writer) => {
                let hasher = Hasher::new(self.descriptor(index)?.digest.algorithm());
                self.writing = Some(Writing { index, writer, hasher, bytes: 0 });
            }
        }
        Ok(())
    }

    /// Takes the next piece of the layer, as compressed as the manifest has it.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), Error> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        writing.hasher.update(&piece);
        writing.bytes += piece.len() as u64;
        writing.writer.write(piece).await
    }

    /// Makes the image visible.
    pub async fn finish(mut self) -> Result<ImageId, Error> {
        self.end_layer().await?;
        let layers: Option<Vec<Layer>> = std::mem::take(&mut self.layers).into_iter().collect();
        let layers = layers.ok_or_else(|| out_of_order("layers are missing"))?;
        let Self { store, new, manifest, manifest_digest, config, .. } = self;
        let image = store.commit(NewImage {
            names: new.names,
            digests: if new.with_digests { vec![manifest_digest.clone()] } else { Vec::new() },
            manifest: new.manifest,
            manifest_digest,
            config: new.config,
            id: ImageId::new(manifest.config.digest),
            artifact_type: None,
            index: new.index,
            settings: config.settings,
            architecture: config.architecture,
            created: config.created,
            layers,
        });
        Ok(image.await?.id.clone())
    }

    async fn end_layer(&mut self) -> Result<(), Error> {
        let Some(Writing { index, writer, hasher, bytes }) = self.writing.take() else { return Ok(()) };
        let descriptor = self.descriptor(index)?;
        let what = format!("layer {} of the archive", descriptor.digest);
        let (expected, size) = (descriptor.digest.clone(), descriptor.size_bytes);
        if bytes != size {
            return Err(Error::SizeMismatch { what, expected: size, found: bytes });
        }
        let found = hasher.finish();
        if found != expected {
            return Err(Error::DigestMismatch { what, expected, found });
        }
        self.layers[index] = Some(writer.finish().await?);
        Ok(())
    }

    fn descriptor(&self, index: usize) -> Result<&Descriptor, Error> {
        self.manifest.layers.get(index).ok_or_else(|| out_of_order("there is no such layer"))
    }
}

fn out_of_order(reason: &str) -> Error {
    Error::InvalidImage { what: "archive".to_owned(), reason: reason.to_owned() }
}
