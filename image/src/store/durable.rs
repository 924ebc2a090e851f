//! Makes images durable, behind the back of the pull that brought them.
//!
//! A pull need not wait for the disk: until the machine goes down, what was written is there. A new image's record
//! carries the id of this boot. A thread synchronises the file system, once for all images that came meanwhile,
//! and then takes the boot id out of their records. After a crash of the machine a record of another boot is void,
//! and its image has to be pulled again; a record without one speaks only of what is on disk.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Weak};
use std::{fs, io, thread};

use super::Shared;
use crate::{Error, ImageId};

/// Tells this boot of the machine from every other.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Something for the thread to do.
#[derive(Debug)]
pub(super) enum Order {
    Sync(ImageId),
    #[cfg(test)]
    Answer(Sender<()>),
}

/// Where new images are announced.
pub(super) type Orders = Sender<Order>;

/// Returns the id of this boot.
pub(super) fn boot_id() -> Result<Arc<str>, Error> {
    let id = fs::read_to_string(BOOT_ID).map_err(|e| Error::store("read", BOOT_ID, e))?;
    Ok(id.trim().into())
}

/// Starts the thread. It ends with the store.
pub(super) fn start(store: &Arc<Shared>, orders: Receiver<Order>) -> Result<(), Error> {
    let weak = Arc::downgrade(store);
    thread::Builder::new()
        .name("durable".into())
        .spawn(move || run(&weak, &orders))
        .map(drop)
        .map_err(|e| Error::store("start the thread that synchronises", &store.disk.layers, e))
}

fn run(store: &Weak<Shared>, orders: &Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        let Some(store) = store.upgrade() else { return };
        let mut images = Vec::new();
        for order in std::iter::once(first).chain(orders.try_iter()) {
            match order {
                Order::Sync(image) => images.push(image),
                #[cfg(test)]
                Order::Answer(answer) => {
                    store.make_durable(&std::mem::take(&mut images));
                    answer.send(()).ok();
                }
            }
        }
        store.make_durable(&images);
    }
}

impl Shared {
    /// Synchronises once, then says so in the records of `images`.
    fn make_durable(&self, images: &[ImageId]) {
        let synchronised = if images.is_empty() { Ok(()) } else { self.disk.sync() };
        let recorded = synchronised.and_then(|()| images.iter().try_for_each(|id| self.record_durable(id)));
        if let Err(e) = recorded {
            let error = &e as &dyn std::error::Error;
            tracing::warn!(error, "an image would be lost if the machine went down now");
        }
    }

    fn record_durable(&self, id: &ImageId) -> Result<(), Error> {
        let _changing = self.change();
        let record = self.index().set_durable(id);
        // It may be gone again.
        record.map_or(Ok(()), |record| self.disk.write_record(&record))
    }

    /// Has an image made durable soon.
    pub(super) fn sync_soon(&self, id: &ImageId) {
        if self.unsynced.send(Order::Sync(id.clone())).is_err() {
            let path = &self.disk.layers;
            let e = Error::store("synchronise", path, io::ErrorKind::BrokenPipe.into());
            tracing::warn!(error = &e as &dyn std::error::Error, image = %id, "the image is not durable");
        }
    }
}
