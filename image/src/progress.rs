//! How far a pull is.

use crate::Digest;

/// The state of one pull, for progress bars and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The image, in full.
    pub reference: String,
    /// What is being done.
    pub phase: Phase,
    /// The layers, the lowest first; empty until the manifest is known.
    pub layers: Vec<LayerProgress>,
}

/// The steps of a pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Other pulls have the places.
    #[default]
    Waiting,
    /// The manifest and the configuration are being fetched.
    Resolving,
    /// Layers are being downloaded and unpacked.
    Fetching,
    /// All layers are there; the image is being made durable.
    Committing,
    /// The image is in the store.
    Done,
    /// The pull failed; its waiters have the error.
    Failed,
}

/// The state of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerProgress {
    /// The digest of the compressed layer.
    pub digest: Digest,
    /// Its compressed size.
    pub total_bytes: u64,
    /// How much of it came.
    pub done_bytes: u64,
    /// Whether it is unpacked; at once for a layer that was there before.
    pub done: bool,
}
