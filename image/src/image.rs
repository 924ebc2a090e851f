//! What is known of an image: its one id, its names, and the configuration that a container starts from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error};

/// The one id of an image: the digest of its configuration, which is the same wherever it was pulled from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(Digest);

/// An image in the store. It never changes: a new tag makes a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Image {
    /// The id.
    pub id: ImageId,
    /// Names with a tag, in full: `docker.io/library/busybox:latest`.
    pub repo_tags: Vec<String>,
    /// Names with the digest of the manifest or index that they were pulled by.
    pub repo_digests: Vec<String>,
    /// The size of the unpacked layers, with the configuration.
    pub size_bytes: u64,
    /// What a container of this image starts from.
    pub config: ImageConfig,
    /// Whether the kubelet's garbage collection must leave it alone.
    pub pinned: bool,
    /// The digest of the manifest of this platform.
    pub manifest_digest: Digest,
    /// The chain ids of the layers, the lowest first.
    pub layers: Vec<Digest>,
    /// The architecture it was built for, in Go's words.
    pub architecture: String,
    /// When it was built, as the builder wrote it (RFC 3339).
    pub created: Option<String>,
}

/// The part of an image's configuration that a container starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ImageConfig {
    /// `USER`: name or number, with an optional `:group`. Empty: root.
    pub user: String,
    /// `ENV`: `NAME=value`.
    pub env: Vec<String>,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
    /// `WORKDIR`. Empty: `/`.
    pub working_dir: String,
    /// `VOLUME`: absolute paths.
    pub volumes: Vec<String>,
    /// `EXPOSE`: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// `STOPSIGNAL`: name or number.
    pub stop_signal: Option<String>,
    /// `LABEL`.
    pub labels: BTreeMap<String, String>,
}

impl ImageId {
    /// Makes the id of the image whose configuration has this digest.
    pub fn new(config: Digest) -> Self {
        Self(config)
    }

    /// Returns the digest of the configuration.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ImageId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse()
            .map(Self)
            .map_err(|e| Error::InvalidReference { reference: text.to_owned(), reason: e.to_string() })
    }
}
