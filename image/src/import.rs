//! Images that do not come from a registry: the client has taken an archive apart, and brings manifest,
//! configuration and those layers that are not here yet. Everything is checked as if a registry had sent it.

use bytes::Bytes;

use crate::artifact::Wrapping;
use crate::image::Configuration;
use crate::registry::manifest::{Descriptor, MAX_BYTES, MAX_CONFIG_BYTES, Manifest};
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
    /// The configuration, byte for byte; an artifact's is whatever its kind has there.
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
    id: ImageId,
    expected: Vec<(LayerExpectation, Option<Wrapping>)>,
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
        let manifest = Manifest::without_type(&new.manifest, what)?;
        let found = manifest.config.digest.same_of(&new.config);
        if found != manifest.config.digest {
            let expected = manifest.config.digest;
            return Err(Error::DigestMismatch { what: "config of the archive".into(), expected, found });
        }
        let manifest_digest = Digest::sha256(&new.manifest);
        let (id, config) = if manifest.artifact.is_some() {
            (ImageId::new(manifest_digest.clone()), Configuration::default())
        } else {
            let config = Configuration::parse(&new.config, manifest.layers.len()).map_err(|reason| {
                Error::InvalidImage { what: what.to_owned(), reason: crate::error::excerpt(&reason) }
            })?;
            (ImageId::new(manifest.config.digest.clone()), config)
        };
        let expected = manifest.expected(&config);
        let layers = expected.iter().map(|(layer, _)| store.layer(&layer.chain)).collect();
        Ok(Self { store, new, manifest, manifest_digest, config, id, expected, layers, writing: None })
    }

    /// Returns the layers that have to be brought, by their place in the manifest.
    pub fn wanted(&self) -> Vec<usize> {
        let missing = self.layers.iter().enumerate().filter(|(_, layer)| layer.is_none());
        missing.map(|(index, _)| self.places().map_or(index, |places| places[index])).collect()
    }

    /// Starts with a layer. Pieces of one that has come by another way meanwhile are passed over.
    pub async fn layer(&mut self, place: usize) -> Result<(), Error> {
        self.end_layer().await?;
        let index = match self.places() {
            Some(places) => places.iter().position(|known| *known == place),
            None => Some(place),
        };
        let found = index.and_then(|index| Some((index, self.expected.get(index).cloned()?)));
        let (index, (expected, wrapping)) = found.ok_or_else(|| out_of_order("there is no such layer"))?;
        match self.store.begin_layer(expected).await? {
            Begun::Here(layer) => self.layers[index] = Some(layer),
            Begun::Write(mut writer) => {
                if let Some(wrapping) = wrapping {
                    writer.write(wrapping.before).await?;
                }
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
        let Self { store, new, manifest, manifest_digest, config, id, .. } = self;
        let image = store.commit(NewImage {
            names: new.names,
            digests: if new.with_digests { vec![manifest_digest.clone()] } else { Vec::new() },
            manifest: new.manifest,
            manifest_digest,
            config: new.config,
            id,
            artifact_type: manifest.artifact.map(|artifact| artifact.kind),
            index: new.index,
            settings: config.settings,
            architecture: config.architecture,
            created: config.created,
            layers,
        });
        Ok(image.await?.id.clone())
    }

    async fn end_layer(&mut self) -> Result<(), Error> {
        let Some(Writing { index, mut writer, hasher, bytes }) = self.writing.take() else { return Ok(()) };
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
        if let Some((_, Some(wrapping))) = self.expected.get(index) {
            writer.write(wrapping.after.clone()).await?;
        }
        self.layers[index] = Some(writer.finish().await?);
        Ok(())
    }

    /// The places of an artifact's blobs in its manifest, where those stand too that are for nothing.
    fn places(&self) -> Option<&[usize]> {
        self.manifest.artifact.as_ref().map(|artifact| &artifact.places[..])
    }

    fn descriptor(&self, index: usize) -> Result<&Descriptor, Error> {
        self.manifest.layers.get(index).ok_or_else(|| out_of_order("there is no such layer"))
    }
}

fn out_of_order(reason: &str) -> Error {
    Error::InvalidImage { what: "archive".to_owned(), reason: reason.to_owned() }
}
