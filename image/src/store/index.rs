//! What the store knows, in memory: images by id and by name, and the layers that live.
//!
//! Nothing here waits or touches the disk, so that lists answer at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use super::disk::Record;
use super::layer::{Layer, LayerRecord, WeakLayer};
use crate::{Digest, Image, ImageId, Reference};

/// The shortest prefix of an id that finds an image.
const SHORTEST_PREFIX: usize = 3;

/// The state of the store.
#[derive(Debug, Default)]
pub(super) struct Index {
    images: BTreeMap<ImageId, Entry>,
    names: HashMap<String, ImageId>,
    layers: HashMap<Digest, WeakLayer>,
    /// Layers that a caller of `begin_layer` unpacks; the channel closes when it ends.
    pub(super) unpacking: HashMap<Digest, watch::Receiver<()>>,
}

/// An image and what keeps it. It is not copied: a copy would count as a lease.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) image: Arc<Image>,
    pub(super) layers: Vec<Layer>,
    pub(super) removed: bool,
    pub(super) named_at_ns: i64,
    /// This boot, until everything of the image is on disk.
    pub(super) boot_id: Option<Arc<str>>,
    /// Held by every lease too.
    leases: Arc<()>,
}

impl Entry {
    pub(super) fn new(image: Image, layers: Vec<Layer>, named_at_ns: i64) -> Self {
        Self {
            image: Arc::new(image),
            layers,
            removed: false,
            named_at_ns,
            boot_id: None,
            leases: Arc::new(()),
        }
    }

    /// Returns what takes its place when it gets a name.
    pub(super) fn renamed(&self, named_at_ns: i64) -> Self {
        Self {
            image: Arc::clone(&self.image),
            layers: self.layers.clone(),
            removed: self.removed,
            named_at_ns,
            boot_id: self.boot_id.clone(),
            leases: Arc::new(()),
        }
    }

    pub(super) fn lease(&self) -> Arc<()> {
        Arc::clone(&self.leases)
    }

    pub(super) fn is_leased(&self) -> bool {
        Arc::strong_count(&self.leases) > 1
    }

    /// Returns what to write to disk of it.
    pub(super) fn record(&self) -> Record {
        let layers = self.layers.iter().map(|layer| layer.record().clone()).collect();
        let mut record = Record::new((*self.image).clone(), layers, self.named_at_ns);
        record.removed = self.removed;
        record.boot_id = self.boot_id.as_deref().map(str::to_owned);
        record
    }
}

impl Index {
    /// Finds the id of an image that is not removed.
    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let id = self.by_id(name, hex).or_else(|| self.by_name(name)).or_else(|| self.by_prefix(hex))?;
        self.images.get(id).filter(|entry| !entry.removed)
    }

    /// Returns the image of this id, even when it is removed but kept.
    pub(super) fn get(&self, id: &ImageId) -> Option<&Entry> {
        self.images.get(id)
    }

    /// Returns all that is there, removed images too.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.images.values()
    }

    /// Puts an image in the place of what was known of it. Returns what to write of the other images, which
    /// lost a name to it.
    pub(super) fn insert(&mut self, mut entry: Entry) -> Vec<Record> {
        if let Some(before) = self.images.get(&entry.image.id) {
            entry.leases = Arc::clone(&before.leases);
        }
        for layer in &entry.layers {
            layer.keep();
            self.layers.insert(layer.record().chain.clone(), layer.downgrade());
        }
        let id = entry.image.id.clone();
        let mut losers: Vec<ImageId> = Vec::new();
        if !entry.removed {
            for name in entry.image.repo_tags.iter().chain(&entry.image.repo_digests) {
                losers.extend(self.names.insert(name.clone(), id.clone()).filter(|other| *other != id));
            }
        }
        self.images.insert(id, entry);
        losers.sort_unstable();
        losers.dedup();
        losers.into_iter().filter_map(|loser| self.strip(&loser)).collect()
    }

    /// Takes an image out. Its layers go with the entry, unless something else holds them.
    pub(super) fn remove(&mut self, id: &ImageId) -> Option<Entry> {
        let entry = self.images.remove(id)?;
        self.names.retain(|_, owner| owner != id);
        for layer in &entry.layers {
            let chain = &layer.record().chain;
            if !self.images.values().any(|other| other.image.layers.contains(chain)) {
                layer.abandon();
            }
        }
        self.layers.retain(|_, layer| layer.upgrade().is_some());
        Some(entry)
    }

    /// Takes out an image that was removed and whose last lease is gone.
    pub(super) fn remove_unleased(&mut self) -> Option<Entry> {
        let mut entries = self.images.iter();
        let id = entries.find(|(_, entry)| entry.removed && !entry.is_leased()).map(|(id, _)| id.clone())?;
        self.remove(&id)
    }

    /// Hides an image whose layers are still in use. It keeps no name.
    pub(super) fn hide(&mut self, id: &ImageId) -> Option<Record> {
        let entry = self.images.get_mut(id)?;
        entry.removed = true;
        let mut image = (*entry.image).clone();
        image.repo_tags.clear();
        image.repo_digests.clear();
        entry.image = Arc::new(image);
        let record = entry.record();
        self.names.retain(|_, owner| owner != id);
        Some(record)
    }

    /// Marks the images whose names are to be pinned, and no others.
    pub(super) fn pin(&mut self, mut covers: impl FnMut(&mut dyn Iterator<Item = &String>) -> bool) {
        for entry in self.images.values_mut() {
            let image = &entry.image;
            let pinned = covers(&mut image.repo_tags.iter().chain(&image.repo_digests));
            if pinned != image.pinned {
                entry.image = Arc::new(Image { pinned, ..(**image).clone() });
            }
        }
    }

    /// Notes that everything of an image is on disk.
    pub(super) fn set_durable(&mut self, id: &ImageId) -> Option<Record> {
        let entry = self.images.get_mut(id)?;
        entry.boot_id = None;
        Some(entry.record())
    }

    /// Finds a layer that lives.
    pub(super) fn layer(&self, chain: &Digest) -> Option<Layer> {
        self.layers.get(chain)?.upgrade()
    }

    /// Makes a layer known that belongs to no image yet.
    pub(super) fn add_layer(&mut self, layer: &Layer) {
        self.layers.insert(layer.record().chain.clone(), layer.downgrade());
    }

    /// Makes a layer unknown, though images still hold it.
    pub(super) fn forget_layer(&mut self, chain: &Digest) -> Option<Layer> {
        self.layers.remove(chain)?.upgrade()
    }

    /// Tells whether an image holds this very layer.
    pub(super) fn uses(&self, layer: &Layer) -> bool {
        let name = &layer.record().name;
        self.images.values().any(|entry| entry.layers.iter().any(|held| held.record().name == *name))
    }

    /// Returns what all layers use.
    pub(super) fn layer_records(&self) -> Vec<LayerRecord> {
        self.layers.values().filter_map(WeakLayer::upgrade).map(|layer| layer.record().clone()).collect()
    }

    fn by_id(&self, name: &str, hex: &str) -> Option<&ImageId> {
        let id: ImageId = format!("sha256:{hex}").parse().or_else(|_| name.parse()).ok()?;
        self.images.get_key_value(&id).map(|(id, _)| id)
    }

    fn by_name(&self, name: &str) -> Option<&ImageId> {
        let reference: Reference = name.parse().ok()?;
        let full = match reference.digest() {
            Some(digest) => reference.repo_digest(digest),
            None => reference.repo_tag()?,
        };
        self.names.get(&full)
    }

    fn by_prefix(&self, hex: &str) -> Option<&ImageId> {
        if hex.len() < SHORTEST_PREFIX {
            return None;
        }
        let mut found = self
            .images
            .iter()
            .filter(|(id, entry)| !entry.removed && id.digest().hex().starts_with(hex))
            .map(|(id, _)| id);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Takes names away from an image that it no longer owns.
    fn strip(&mut self, id: &ImageId) -> Option<Record> {
        let names = &self.names;
        let entry = self.images.get_mut(id)?;
        let mut image = (*entry.image).clone();
        image.repo_tags.retain(|name| names.get(name) == Some(id));
        image.repo_digests.retain(|name| names.get(name) == Some(id));
        entry.image = Arc::new(image);
        Some(entry.record())
    }
}
