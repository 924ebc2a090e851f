//! Images on their way out of the node.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::rebuild::Part;
use super::{Layer, Store, blocking};
use crate::image::Configuration;
use crate::registry::manifest::Manifest;
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
    /// The manifest of an artifact, byte for byte. Images get one that says how their layers leave.
    pub artifact: Option<Bytes>,
    /// The layers, the lowest first; the blobs of an artifact.
    pub layers: Vec<ExportedLayer>,
    /// The images for other platforms that are here from the same index and repository.
    pub others: Vec<ImageId>,
    store: Store,
    handles: Vec<(Layer, Part)>,
}

/// A layer of an image, or a blob of an artifact, that leaves the node.
#[derive(Clone, Debug)]
pub struct ExportedLayer {
    /// The digest of the uncompressed archive, or of the blob.
    pub digest: Digest,
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
    /// again, byte by byte. The blobs of an artifact are as they were.
    pub(crate) async fn export(&self, name: &str) -> Result<Export, Error> {
        let (image, handles) = self.held(name)?;
        let others = self.others(&image);
        let (shared, of) = (self.0.clone(), image.clone());
        let (config, manifest) = blocking(move || {
            let manifest = of.artifact_type.as_ref().map(|_| shared.disk.read_manifest(&of)).transpose()?;
            Ok((shared.disk.read_config(&of)?, manifest))
        })
        .await?;
        let layers = handles.iter().map(exported).collect::<Result<Vec<_>, Error>>()?;
        let (layers, parts) = match &manifest {
            Some(manifest) => blobs(manifest, &image.manifest_digest)?,
            None => (layers, vec![Part::WHOLE; handles.len()]),
        };
        Ok(Export {
            id: image.id.clone(),
            tags: image.repo_tags.clone(),
            config: config.into(),
            artifact: manifest.map(Bytes::from),
            layers,
            others,
            store: self.clone(),
            handles: handles.into_iter().zip(parts).collect(),
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

/// A layer as it leaves.
fn exported(layer: &Layer) -> Result<ExportedLayer, Error> {
    let record = layer.record();
    let bytes = record.archive_bytes.ok_or_else(|| Error::Unsupported {
        what: format!("export of layer {}", record.diff_id),
        reason: "it was pulled by an earlier version: remove the image and pull it again".to_owned(),
    })?;
    Ok(ExportedLayer { digest: record.diff_id.clone(), bytes })
}

/// The blobs of an artifact as they leave, and where each is in the archive that it became.
fn blobs(manifest: &[u8], digest: &Digest) -> Result<(Vec<ExportedLayer>, Vec<Part>), Error> {
    let manifest = Manifest::without_type(manifest, &format!("manifest {digest}"))?;
    let wrapped = manifest.layers.iter().zip(manifest.expected(&Configuration::default()));
    Ok(wrapped
        .map(|(blob, (_, wrapping))| {
            let before = wrapping.map_or(0, |wrapping| wrapping.before.len() as u64);
            let layer = ExportedLayer { digest: blob.digest.clone(), bytes: blob.size_bytes };
            (layer, Part { before, bytes: blob.size_bytes })
        })
        .unzip())
}

/// The names of an image without tag and digest.
fn repositories(image: &Image) -> BTreeSet<String> {
    let names = image.repo_tags.iter().chain(&image.repo_digests);
    let names = names.filter_map(|name| name.parse::<Reference>().ok());
    names.map(|name| format!("{}/{}", name.registry(), name.repository())).collect()
}

impl Export {
    /// Gives a layer or a blob piece by piece. The last item says why it is not the one that was unpacked.
    pub fn archive(&self, index: usize) -> Option<mpsc::Receiver<Result<Bytes, Error>>> {
        self.handles.get(index).map(|(layer, part)| self.store.archive(layer, *part))
    }
}
