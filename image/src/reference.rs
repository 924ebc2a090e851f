//! Names of images.

use std::str::FromStr;

use crate::{Digest, Error};

/// A name of an image, in full: registry, repository, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidReference { reference: text.to_owned(), reason };
        let name: oci_client::Reference =
            text.parse().map_err(|e: oci_client::ParseError| invalid(e.to_string()))?;
        let digest = name
            .digest()
            .map(str::parse)
            .transpose()
            .map_err(|e: crate::InvalidDigest| invalid(e.to_string()))?;
        Ok(Self {
            registry: name.registry().to_owned(),
            repository: name.repository().to_owned(),
            tag: name.tag().map(str::to_owned),
            digest,
        })
    }
}

impl Reference {
    /// Returns the registry, `docker.io` when none was named.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `latest` when neither tag nor digest was named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, which wins over a tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}
