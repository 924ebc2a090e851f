//! How much a layer may ask of the node.

use rustix::fs::StatVfs;

/// The limits of one layer.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Entries, with the directories that they imply.
    pub(super) entries: u64,
    /// Bytes of the archive, decompressed.
    pub(super) bytes: u64,
    /// Decompressed bytes for each compressed one, once the first [`Limits::RATIO_FROM`] have come. No honest gzip
    /// stream reaches it.
    pub(super) ratio: u64,
    /// The part of the file system that must stay free, in percent, but at most [`Limits::FLOOR_BYTES`].
    pub(super) free_percent: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 10_000_000, bytes: 1 << 40, ratio: 1000, free_percent: 3 }
    }
}

impl Limits {
    const RATIO_FROM: u64 = 1 << 30;
    const FLOOR_BYTES: u64 = 1 << 30;

    /// Checks how far a stream has grown.
    pub(super) fn check_growth(&self, compressed: u64, bytes: u64) -> Result<(), String> {
        if bytes > self.bytes {
            return Err(format!("the layer unpacks to more than {} bytes", self.bytes));
        }
        if bytes > Self::RATIO_FROM && bytes / self.ratio > compressed {
            return Err(format!("the layer unpacks to more than {} times its size", self.ratio));
        }
        Ok(())
    }

    /// Checks that enough space stays free when `wanted` bytes more are written.
    pub(super) fn check_space(&self, space: &StatVfs, wanted: u64) -> Result<(), String> {
        let total = space.f_blocks.saturating_mul(space.f_frsize);
        let floor = (total / 100 * self.free_percent).min(Self::FLOOR_BYTES);
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < floor.saturating_add(wanted) {
            return Err(format!("the disk is too full: {free} bytes free, {floor} must stay free"));
        }
        Ok(())
    }
}
