//! Layers as the archives that they came in: made again from their files and skeletons, to leave the node or to be
//! checked against their digests.

use std::fs::File;
use std::io::BufRead;
use std::os::fd::AsFd;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Layer, Store, blocking};
use crate::unpack::{Rebuilt, compare};
use crate::{Error, Hasher};

/// How many pieces wait for whoever takes them.
const QUEUE: usize = 8;

/// A part of what comes in pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// How much comes before it.
    pub(crate) before: u64,
    /// How long it is.
    pub(crate) bytes: u64,
}

impl Part {
    /// Everything.
    pub(crate) const WHOLE: Self = Self { before: 0, bytes: u64::MAX };

    /// Takes from the next piece what belongs to the part.
    fn of<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let clamp = |bytes: u64, most: usize| usize::try_from(bytes).unwrap_or(usize::MAX).min(most);
        let skipped = clamp(self.before, piece.len());
        let taken = clamp(self.bytes, piece.len() - skipped);
        self.before -= skipped as u64;
        self.bytes -= taken as u64;
        &piece[skipped..skipped + taken]
    }
}

impl Store {
    /// Makes the archive of a layer again, and gives a part of it. The last item says why it is not the one that was
    /// unpacked.
    pub(crate) fn archive(&self, layer: &Layer, mut part: Part) -> mpsc::Receiver<Result<Bytes, Error>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (store, layer) = (self.clone(), layer.clone());
        tokio::spawn(async move {
            let pieces = sender.clone();
            let made = blocking(move || {
                // A receiver that is gone wants no more of it.
                store.rebuild(&layer, |piece| {
                    let piece = part.of(piece);
                    piece.is_empty() || pieces.blocking_send(Ok(Bytes::copy_from_slice(piece))).is_ok()
                })
            });
            if let Err(e) = made.await {
                drop(sender.send(Err(e)).await);
            }
        });
        receiver
    }

    /// Gives the archive of a layer piece by piece to `take`, as long as that says to go on, and checks its digest.
    pub(super) fn rebuild(&self, layer: &Layer, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), Error> {
        let record = layer.record();
        let damaged = |reason: String| Error::LayerDamaged { layer: record.diff_id.clone(), reason };
        let mut archive = self.rebuilt(layer)?;
        let mut hasher = Hasher::new(record.diff_id.algorithm());
        loop {
            let piece = archive.fill_buf().map_err(|e| damaged(e.to_string()))?;
            if piece.is_empty() {
                break;
            }
            hasher.update(piece);
            if !take(piece) {
                return Ok(());
            }
            let length = piece.len();
            archive.consume(length);
        }
        let found = hasher.finish();
        if found == record.diff_id { Ok(()) } else { Err(damaged(format!("its digest is {found}"))) }
    }

    /// Compares a layer with its archive, to the last byte and the last mode.
    pub(super) fn verify(&self, layer: &Layer) -> Result<(), Error> {
        let record = layer.record();
        let damaged = |reason: String| Error::LayerDamaged { layer: record.diff_id.clone(), reason };
        let archive = self.rebuilt(layer)?;
        let path = self.0.disk.layer(&record.name);
        let root = File::open(&path).map_err(|e| Error::store("open", &path, e))?;
        let found = compare(archive, record.diff_id.algorithm(), root.as_fd()).map_err(damaged)?;
        if found == record.diff_id { Ok(()) } else { Err(damaged(format!("its digest is {found}"))) }
    }

    /// Opens the archive of a layer.
    fn rebuilt(&self, layer: &Layer) -> Result<Rebuilt, Error> {
        let path = self.0.disk.layer(&layer.record().name);
        let root = File::open(&path).map_err(|e| Error::store("open", &path, e))?;
        let skeleton = layer.skeleton();
        let failed = |e| Error::store("open the skeleton", skeleton, e);
        let file = File::open(skeleton).map_err(failed)?;
        Rebuilt::open(file, root.into()).map_err(failed)
    }
}
