//! Images on their way out of the node.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Layer, Store, blocking};
use crate::{Digest, Error, Image, ImageId, Reference};

/// An image that leaves the node. Its layers stay in place while this lives.
#[derive(Debug)]
pub struct Export {
    /// The id, which is the digest of the configuration.
    pub id: ImageId,
    /// Its names with a tag.
    pub tags: Vec<String>,
    /// The configuration, byte for byte.
    pub config: Bytes,
    /// The layers, the lowest first.
    pub layers: Vec<ExportedLayer>,
    /// The images for other platforms that are here from the same index and repository.
    pub others: Vec<ImageId>,
    store: Store,
    handles: Vec<Layer>,
}

/// A layer of an image that leaves the node.
#[derive(Clone, Debug)]
pub struct ExportedLayer {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// How long that is.
    pub bytes: u64,
}

impl Store {
    /// An image's configuration, byte by byte.
    pub(crate) async fn configuration(&self, name: &str) -> Result<Vec<u8>, Error> {
        let (image, _) = self.held(name)?;
        let shared = self.0.clone();
        blocking(move || shared.disk.read_config(&image)).await
    }

    /// Gets ready to give an image away. What its layers were compressed to is not kept; their archives are made
    /// again, byte by byte.
    pub(crate) async fn export(&self, name: &str) -> Result<Export, Error> {
        let (image, handles) = self.held(name)?;
        if let Some(kind) = &image.artifact_type {
            let (what, reason) = (format!("export of {name}"), format!("it is an artifact of type {kind:?}"));
            return Err(Error::Unsupported { what, reason });
        }
        let layers = handles.iter().map(|layer| {
            let record = layer.record();
            let bytes = record.archive_bytes.ok_or_else(|| Error::Unsupported {
                what: format!("export of layer {}", record.diff_id),
                reason: "it was pulled by an earlier version: remove the image and pull it again".to_owned(),
            })?;
            Ok(ExportedLayer { diff_id: record.diff_id.clone(), bytes })
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        let others = self.others(&image);
        let (shared, of) = (self.0.clone(), image.clone());
        let config = blocking(move || shared.disk.read_config(&of)).await?;
        Ok(Export {
            id: image.id.clone(),
            tags: image.repo_tags.clone(),
            config: config.into(),
            layers,
            others,
            store: self.clone(),
            handles,
        })
    }

    /// Returns an image with its layers, which stay while they are held.
    fn held(&self, name: &str) -> Result<(Arc<Image>, Vec<Layer>), Error> {
        let index = self.0.index();
        let entry = index.find(name).ok_or_else(|| Error::Unknown { name: name.to_owned() })?;
        Ok((entry.image.clone(), entry.layers.clone()))
    }

    /// Returns the images that came in the same index and share a repository with `image`.
    fn others(&self, image: &Image) -> Vec<ImageId> {
        let Some(index) = &image.index else { return Vec::new() };
        let mine = repositories(image);
        let is_other = |other: &Arc<Image>| {
            other.id != image.id
                && other.index.as_ref() == Some(index)
                && !mine.is_disjoint(&repositories(other))
        };
        self.list().into_iter().filter(is_other).map(|other| other.id.clone()).collect()
    }
}

/// The names of an image without tag and digest.
fn repositories(image: &Image) -> BTreeSet<String> {
    let names = image.repo_tags.iter().chain(&image.repo_digests);
    let names = names.filter_map(|name| name.parse::<Reference>().ok());
    names.map(|name| format!("{}/{}", name.registry(), name.repository())).collect()
}

impl Export {
    /// Gives the archive of a layer piece by piece. The last item says why it is not the one that was unpacked.
    pub fn archive(&self, index: usize) -> Option<mpsc::Receiver<Result<Bytes, Error>>> {
        self.handles.get(index).map(|layer| self.store.archive(layer))
    }
}
