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

impl Store {
    /// Makes the archive of a layer again. The last item says why it is not the one that was unpacked.
    pub(crate) fn archive(&self, layer: &Layer) -> mpsc::Receiver<Result<Bytes, Error>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (store, layer) = (self.clone(), layer.clone());
        tokio::spawn(async move {
            let pieces = sender.clone();
            let made = blocking(move || {
                // A receiver that is gone wants no more of it.
                store.rebuild(&layer, |piece| pieces.blocking_send(Ok(Bytes::copy_from_slice(piece))).is_ok())
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
