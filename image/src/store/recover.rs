//! Opens a store: reads what is there, and clears away what no record names.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, RwLock};

use super::disk::{Disk, Record};
use super::index::{Entry, Index};
use super::layer::{Directory, Layer};
use super::pinned::Pinned;
use super::trash::Trash;
use super::{Shared, Unpacker, durable};
use crate::Error;

impl Shared {
    pub(super) fn open(data: &Path, unpacker: Unpacker, pinned: Pinned) -> Result<Arc<Self>, Error> {
        let boot_id = durable::boot_id()?;
        let disk = Disk::open(data)?;
        // Names are not used again while something of that name is still being deleted.
        let left_over = disk.trash_names()?;
        let trash = Trash::open(disk.trash())?;
        let names = disk.layer_names()?;
        let last = names.iter().chain(&left_over).filter_map(|name| u64::from_str_radix(name, 36).ok()).max();
        let mut records = disk.records()?;
        records.sort_by_key(|record| record.named_at_ns);
        let mut index = Index::default();
        for mut record in records {
            if let Some(reason) = void(&record, &boot_id, &names) {
                tracing::warn!(image = %record.image.id, reason, "an image has to be pulled again");
                disk.remove(&record.image)?;
                continue;
            }
            let image = &mut record.image;
            image.pinned = pinned.covers(image.repo_tags.iter().chain(&image.repo_digests));
            let entry = load(&index, &disk, &trash, record);
            // A name that two records claim is the newer one's.
            drop(index.insert(entry));
        }
        discard_unnamed(&index, &disk, &trash, &names)?;
        let unsynced: Vec<_> =
            index.entries().filter(|e| e.boot_id.is_some()).map(|e| e.image.id.clone()).collect();
        let (sender, orders) = channel();
        let store = Arc::new(Self {
            disk,
            trash,
            unpacker,
            pinned: RwLock::new(pinned),
            boot_id,
            unsynced: sender,
            next_name: AtomicU64::new(last.unwrap_or(0) + 1),
            index: Arc::new(Mutex::new(index)),
            changing: Mutex::new(()),
        });
        durable::start(&store, orders)?;
        unsynced.iter().for_each(|image| store.sync_soon(image));
        Ok(store)
    }
}

/// Tells why a record is worth nothing.
fn void(record: &Record, boot_id: &str, layers: &[String]) -> Option<&'static str> {
    if record.boot_id.as_ref().is_some_and(|boot| boot != boot_id) {
        return Some("the machine went down before it was all on disk");
    }
    let missing = record.layers.iter().any(|layer| !layers.contains(&layer.name));
    missing.then_some("a layer is gone")
}

fn load(index: &Index, disk: &Disk, trash: &Trash, record: Record) -> Entry {
    let layers = record.layers.into_iter().map(|layer| {
        index.layer(&layer.chain).filter(|known| known.record().name == layer.name).unwrap_or_else(|| {
            let directory = Directory::kept(disk, &layer.name, trash.clone());
            Layer::new(layer, directory, Vec::new())
        })
    });
    let mut entry = Entry::new(record.image, layers.collect(), record.named_at_ns);
    entry.removed = record.removed;
    entry.boot_id = record.boot_id.map(Into::into);
    entry
}

fn discard_unnamed(index: &Index, disk: &Disk, trash: &Trash, names: &[String]) -> Result<(), Error> {
    let known = index.layer_records();
    for name in names.iter().filter(|name| known.iter().all(|layer| layer.name != **name)) {
        let path = disk.layer(name);
        trash.take(&path).map_err(|e| Error::store("remove", path, e))?;
    }
    disk.sweep_skeletons(&known.into_iter().map(|layer| layer.name).collect())?;
    disk.sweep(index.entries().map(|entry| &*entry.image))
}
