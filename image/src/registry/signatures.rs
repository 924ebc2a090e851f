//! Signatures that stand beside an image: cosign's attachments, a manifest with the tag `sha256-HEX.sig` whose
//! layers are what was signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use oci_client::manifest::OciImageManifest;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};

use super::client::Host;
use super::manifest::{self, Descriptor};
use super::{Failure, place::Role};
use crate::{Digest, Error, json};

const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// How many signatures are looked at.
const MAX_SIGNATURES: usize = 64;
const MAX_PAYLOAD_BYTES: u64 = 256 << 10;

/// What was signed, and the signature. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// What was signed.
    pub(crate) payload: Bytes,
    /// The signature.
    pub(crate) bytes: Vec<u8>,
}

impl Host {
    /// Fetches the signatures of a manifest or index. None at all is no failure.
    pub(crate) async fn signatures(&self, of: &Digest) -> Result<Vec<Signature>, Failure> {
        let tag = format!("{}.sig", of.to_string().replace(':', "-"));
        let what = format!("signatures {tag} of {}/{}", self.host(), self.repository());
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))]);
        let response = match self.ask(&format!("manifests/{tag}"), headers, &what).await {
            Err(Failure { error: Error::NotFound { .. }, .. }) => return Ok(Vec::new()),
            // A mirror need not know what a tag means.
            Err(Failure { error: Error::Refused { .. }, .. }) if self.place().role == Role::Mirror => {
                return Ok(Vec::new());
            }
            answer => answer?,
        };
        let body = self.body(response).whole(manifest::MAX_BYTES, &what).await?;
        let invalid = |reason: String| Failure::last(Error::InvalidImage { what: what.clone(), reason });
        let manifest: OciImageManifest =
            json::parse(&body).map_err(|e| invalid(format!("no image manifest: {e}")))?;
        let layers = manifest.layers.into_iter().filter(|layer| layer.media_type == MEDIA_TYPE);
        let mut signatures = Vec::new();
        for layer in layers.take(MAX_SIGNATURES) {
            let annotation = layer.annotations.as_ref().and_then(|all| all.get(ANNOTATION));
            // What cannot be a signature is none.
            let Some(bytes) = annotation.and_then(|text| STANDARD.decode(text).ok()) else { continue };
            let payload = Descriptor::parse(layer.media_type, &layer.digest, layer.size).map_err(invalid)?;
            signatures
                .push(Signature { payload: self.small_blob(&payload, MAX_PAYLOAD_BYTES).await?, bytes });
        }
        Ok(signatures)
    }
}
