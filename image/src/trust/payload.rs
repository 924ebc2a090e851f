//! What a signature says: the payload of cosign, in the form of Red Hat's simple signing.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Digest;

const KIND: &str = "cosign container image signature";

/// What is signed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The name that the image had.
    pub(super) reference: String,
    /// The digest of its manifest or index.
    pub(super) digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    #[serde(rename = "optional")]
    _optional: Option<IgnoredAny>,
}

/// Nothing else may be critical, since what is critical must be understood.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Named,
    image: Content,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

impl Claim {
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let payload: Payload = crate::json::parse(json)
            .map_err(|e| format!("its signature says nothing that is understood: {e}"))?;
        if payload.critical.kind != KIND {
            return Err(format!("its signature is a {:?}", crate::error::excerpt(&payload.critical.kind)));
        }
        Ok(Self { reference: payload.critical.identity.reference, digest: payload.critical.image.digest })
    }
}
