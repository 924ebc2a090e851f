//! What can go wrong with images, each failure with what a person needs to act on it.
//!
//! Texts never hold a credential or the query of an address: presigned links and tokens live there.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Digest;

const MAX_EXCERPT: usize = 300;

/// A failure of the image service. It is cheap to clone, because all that wait for one pull get it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// `registries.conf` blocks this name.
    #[error("registry of {reference} is blocked by {rule}")]
    Blocked {
        /// The image asked for.
        reference: String,
        /// The entry that blocks it, and the file that it is in.
        rule: String,
    },
    /// A configuration file cannot be used.
    #[error("read {}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where that is known.
        reason: String,
    },
    /// The credentials of the request are malformed.
    #[error("credentials of the request: {reason}")]
    Credentials {
        /// What is wrong; never a part of the secret.
        reason: &'static str,
    },
    /// Content is not what its digest says.
    #[error("{what}: digest is {found}, expected {expected}")]
    DigestMismatch {
        /// The content: a manifest, config or layer, and where it came from.
        what: String,
        /// The digest that was promised.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// A manifest, index or config breaks the specification.
    #[error("{what}: {reason}")]
    InvalidImage {
        /// The object.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name of an image that is none.
    #[error("invalid image reference {reference:?}: {reason}")]
    InvalidReference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer in the store is not what was unpacked.
    #[error("layer {layer} is damaged: {reason}")]
    LayerDamaged {
        /// The layer's uncompressed digest.
        layer: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer asks for what no layer may have, or is damaged.
    #[error("layer {layer} is refused: {reason}")]
    LayerRefused {
        /// The layer's uncompressed digest.
        layer: Digest,
        /// Which entry, and what is wrong with it.
        reason: String,
    },
    /// The registry answers, but has no such image.
    #[error("{reference} not found: {host} says: {reason}")]
    NotFound {
        /// The image asked for.
        reference: String,
        /// The host that said so.
        host: String,
        /// What it says, and what other hosts said before.
        reason: String,
    },
    /// The image exists, but not for this machine.
    #[error("{reference} has no image for {wanted} (it has {offered})")]
    Platform {
        /// The image asked for.
        reference: String,
        /// The machine's platform.
        wanted: String,
        /// The platforms there are.
        offered: String,
    },
    /// The registry refuses the request for a reason of its own.
    #[error("{host} answers {status} for {what}: {reason}")]
    Refused {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says, cut to a bounded length.
        reason: String,
    },
    /// No host of the registry can be reached, or it fails on its side.
    #[error("registry {host} is unavailable: {reason}")]
    RegistryUnavailable {
        /// The host.
        host: String,
        /// What happened there last.
        reason: String,
    },
    /// The signature policy does not accept the image.
    #[error("signature policy refuses {reference}: {reason}")]
    SignatureRefused {
        /// The image asked for.
        reference: String,
        /// What is missing or wrong, and which file asks for it.
        reason: String,
    },
    /// Content is longer or shorter than its descriptor says.
    #[error("{what}: size is {found} bytes, expected {expected}")]
    SizeMismatch {
        /// The content.
        what: String,
        /// The size that was promised.
        expected: u64,
        /// The bytes that came (at least so many, when there were too many).
        found: u64,
    },
    /// Reading or writing the store.
    #[error("{operation} {}", path.display())]
    Store {
        /// What was being done: "write", "rename", ...
        operation: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The TLS handshake fails, or a certificate cannot be used.
    #[error("TLS of {host}: {reason}")]
    Tls {
        /// The host.
        host: String,
        /// What is wrong, and which setting to look at.
        reason: String,
    },
    /// Something is larger than a node should swallow.
    #[error("{what} is larger than {limit} allowed")]
    TooLarge {
        /// The object.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// The registry wants (other) credentials.
    #[error("{host} refuses access to {reference}: {reason}")]
    Unauthorized {
        /// The image asked for.
        reference: String,
        /// The host.
        host: String,
        /// Which credentials were used, and what to do.
        reason: String,
    },
    /// No image of that name is in the store.
    #[error("image {name:?} is not in the store")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A layer cannot be unpacked.
    #[error("unpack layer {layer}: {reason}")]
    Unpack {
        /// The layer's uncompressed digest.
        layer: Digest,
        /// What the unpacking process says.
        reason: String,
    },
    /// A format that Corten does not handle.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// The object.
        what: String,
        /// Why, or what is supported.
        reason: String,
    },
}

impl Error {
    /// Makes the error of a file operation.
    pub(crate) fn store(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Store { operation, path: path.into(), source: Arc::new(source) }
    }

    /// Adds what other hosts said before this one.
    pub(crate) fn after(mut self, earlier: &[Self]) -> Self {
        if let Self::NotFound { reason, .. }
        | Self::Refused { reason, .. }
        | Self::RegistryUnavailable { reason, .. }
        | Self::Tls { reason, .. }
        | Self::Unauthorized { reason, .. } = &mut self
        {
            for error in earlier {
                reason.push_str(&format!("; before that: {error}"));
            }
        }
        self
    }
}

/// Takes text from outside into an error: of bounded length, and without characters that act on a terminal.
pub(crate) fn excerpt(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(MAX_EXCERPT).map(clean).collect();
    if text.chars().nth(MAX_EXCERPT).is_some() {
        short.push_str("...");
    }
    short
}
