//! Manifests and indexes: read once, checked whole, and of known shape from there on.
//!
//! OCI image spec `manifest.md` and `image-index.md`, Docker schema 2. A document is what its `Content-Type` and its
//! `mediaType` both say, never what its fields look like (CVE-2021-41190).

use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE,
    IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE,
    IMAGE_LAYER_NONDISTRIBUTABLE_GZIP_MEDIA_TYPE, IMAGE_LAYER_NONDISTRIBUTABLE_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciImageIndex, OciImageManifest,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::artifact::{Artifact, Wrapping};
use crate::error::excerpt;
use crate::image::Configuration;
use crate::store::LayerExpectation;
use crate::{Digest, Error, Platform, json};

/// What a request for a manifest accepts.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// The largest manifest or index.
pub(crate) const MAX_BYTES: u64 = 4 << 20;
/// The largest configuration.
pub(crate) const MAX_CONFIG_BYTES: u64 = 8 << 20;
const MAX_ENTRIES: usize = 1000;
const MAX_LAYERS: usize = 256;
/// The most that the layers of an image are together, as they travel.
const MAX_LAYER_BYTES: u64 = 1 << 40;

/// Layers in a form that Docker added after schema 2 was written, and with zstd.
const FURTHER_LAYERS: [&str; 4] = [
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];

/// A manifest or an index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// One image.
    Image(Manifest),
    /// The images of several platforms.
    Index(Vec<Entry>),
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The configuration.
    pub(crate) config: Descriptor,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Descriptor>,
    /// None: they are the layers of an image.
    pub(crate) artifact: Option<Artifact>,
}

/// One entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The manifest.
    pub(crate) descriptor: Descriptor,
    /// The machine that it is for.
    pub(crate) platform: Option<Platform>,
}

/// Content, by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// What it is.
    pub(crate) media_type: String,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its size.
    pub(crate) size_bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u64,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Index,
}

impl Document {
    /// Reads a document that came with this `Content-Type`. `what` names it in errors.
    pub(crate) fn parse(body: &[u8], content_type: Option<&str>, what: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidImage { what: what.to_owned(), reason };
        let shape: Shape = json::parse(body).map_err(|e| invalid(format!("no manifest: {e}")))?;
        let kind = kind(&shape, content_type, what)?;
        match kind {
            Kind::Index => {
                let index: OciImageIndex =
                    json::parse(body).map_err(|e| invalid(format!("no index: {e}")))?;
                if index.manifests.len() > MAX_ENTRIES {
                    return Err(too_many(what, "manifests", MAX_ENTRIES));
                }
                let entries = index.manifests.into_iter().map(|entry| {
                    let descriptor = Descriptor::parse(entry.media_type, &entry.digest, entry.size)?;
                    let platform = entry.platform.map(|p| Platform {
                        os: p.os.to_string(),
                        architecture: p.architecture.to_string(),
                        variant: p.variant.unwrap_or_default(),
                    });
                    Ok(Entry { descriptor, platform })
                });
                Ok(Self::Index(entries.collect::<Result<_, String>>().map_err(invalid)?))
            }
            Kind::Image => {
                let manifest: OciImageManifest =
                    json::parse(body).map_err(|e| invalid(format!("no image manifest: {e}")))?;
                if manifest.layers.len() > MAX_LAYERS {
                    return Err(too_many(what, "layers", MAX_LAYERS));
                }
                Manifest::parse(manifest, what).map(Self::Image)
            }
        }
    }
}

impl Manifest {
    /// Reads a manifest that comes without a `Content-Type`: where it does not say itself what it is, it is OCI's.
    pub(crate) fn without_type(body: &[u8], what: &str) -> Result<Self, Error> {
        let shape: Option<Shape> = json::parse(body).ok();
        let is_typed = shape.is_some_and(|shape| shape.media_type.is_some());
        match Document::parse(body, (!is_typed).then_some(OCI_IMAGE_MEDIA_TYPE), what)? {
            Document::Image(manifest) => Ok(manifest),
            Document::Index(_) => {
                Err(Error::InvalidImage { what: what.to_owned(), reason: "it is an index".to_owned() })
            }
        }
    }

    /// Reads an image, or an artifact: what has a configuration that is none of an image's, or blobs that are no
    /// layers under a type of its own.
    fn parse(manifest: OciImageManifest, what: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidImage { what: what.to_owned(), reason };
        let OciImageManifest { config, layers, artifact_type, .. } = manifest;
        let is_config =
            matches!(config.media_type.as_str(), IMAGE_CONFIG_MEDIA_TYPE | IMAGE_DOCKER_CONFIG_MEDIA_TYPE);
        let config = Descriptor::parse(config.media_type, &config.digest, config.size).map_err(invalid)?;
        let layers = layers.into_iter().map(|layer| {
            let descriptor = Descriptor::parse(layer.media_type, &layer.digest, layer.size)?;
            Ok((descriptor, layer.annotations.unwrap_or_default()))
        });
        let layers: Vec<_> = layers.collect::<Result<_, String>>().map_err(invalid)?;
        let together = layers.iter().try_fold(0_u64, |sum, (layer, _)| sum.checked_add(layer.size_bytes));
        if together.is_none_or(|bytes| bytes > MAX_LAYER_BYTES) {
            let limit = format!("the {} GiB of all layers", MAX_LAYER_BYTES >> 30);
            return Err(Error::TooLarge { what: what.to_owned(), limit });
        }
        let foreign = layers.iter().map(|(layer, _)| layer).find(|layer| !layer.is_layer());
        match (is_config, foreign, artifact_type) {
            (true, None, _) => {
                let layers = layers.into_iter().map(|(layer, _)| layer).collect();
                Ok(Self { config, layers, artifact: None })
            }
            (true, Some(layer), None) => {
                Err(unsupported(what, format!("a layer is of type {:?}", excerpt(&layer.media_type))))
            }
            (_, _, kind) => {
                let kind = kind.unwrap_or_else(|| config.media_type.clone());
                let (artifact, layers) =
                    Artifact::parse(&kind, layers).map_err(|reason| invalid(excerpt(&reason)))?;
                Ok(Self { config, layers, artifact: Some(artifact) })
            }
        }
    }

    /// Returns what each blob has to become, and what is put around it for that. `config` is the image's.
    pub(crate) fn expected(&self, config: &Configuration) -> Vec<(LayerExpectation, Option<Wrapping>)> {
        if let Some(artifact) = &self.artifact {
            return artifact.layers(&self.layers);
        }
        let layers = config.chain().into_iter().zip(&config.diff_ids);
        let expected =
            layers.map(|(chain, diff_id)| LayerExpectation { chain, diff_id: Some(diff_id.clone()) });
        expected.map(|expected| (expected, None)).collect()
    }
}

impl Descriptor {
    pub(super) fn parse(media_type: String, digest: &str, size: i64) -> Result<Self, String> {
        let digest = digest.parse().map_err(|e| format!("digest {:?}: {e}", excerpt(digest)))?;
        let size_bytes = size.try_into().map_err(|_| format!("{digest} has the size {size}"))?;
        Ok(Self { media_type, digest, size_bytes })
    }

    /// Says whether this is a manifest or index.
    pub(crate) fn is_document(&self) -> bool {
        kind_of(&self.media_type).is_some()
    }

    fn is_layer(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            IMAGE_LAYER_MEDIA_TYPE
                | IMAGE_LAYER_GZIP_MEDIA_TYPE
                | IMAGE_LAYER_NONDISTRIBUTABLE_MEDIA_TYPE
                | IMAGE_LAYER_NONDISTRIBUTABLE_GZIP_MEDIA_TYPE
                | IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE
                | IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE
        ) || FURTHER_LAYERS.contains(&self.media_type.as_str())
    }
}

fn kind(shape: &Shape, content_type: Option<&str>, what: &str) -> Result<Kind, Error> {
    let invalid = |reason: String| Error::InvalidImage { what: what.to_owned(), reason };
    let header = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    let schema1 =
        header.is_some_and(|header| header.starts_with("application/vnd.docker.distribution.manifest.v1+"));
    if shape.schema_version == 1 || shape.fs_layers.is_some() || schema1 {
        return Err(unsupported(what, "it is in Docker's schema 1: push the image again".to_owned()));
    }
    if shape.schema_version != 2 {
        return Err(invalid(format!("schemaVersion is {}", shape.schema_version)));
    }
    if shape.manifests.is_some() && shape.layers.is_some() {
        return Err(invalid("it has both manifests and layers".to_owned()));
    }
    // A server that knows only files says nothing, or something general.
    let header = header.filter(|text| {
        !text.is_empty() && !matches!(*text, "application/json" | "application/octet-stream" | "text/plain")
    });
    match (header, shape.media_type.as_deref()) {
        (Some(header), Some(field)) if header != field => {
            Err(invalid(format!("its Content-Type is {header:?}, but its mediaType {field:?}")))
        }
        (Some(media_type), _) | (None, Some(media_type)) => kind_of(media_type).ok_or_else(|| {
            unsupported(what, format!("its type {media_type:?} is neither manifest nor index"))
        }),
        (None, None) => Err(invalid("neither its Content-Type nor its mediaType says what it is".to_owned())),
    }
}

fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE => Some(Kind::Image),
        OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE => Some(Kind::Index),
        _ => None,
    }
}

fn unsupported(what: &str, reason: String) -> Error {
    Error::Unsupported { what: what.to_owned(), reason }
}

fn too_many(what: &str, object: &str, limit: usize) -> Error {
    Error::TooLarge { what: what.to_owned(), limit: format!("the {limit} {object}") }
}

#[cfg(test)]
mod tests;
