//! Changes of the images that are there: one becomes visible, one is removed.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::index::Entry;
use super::{Layer, NewImage, Shared, implied, lowers, now_ns};
use crate::{Error, Image, Reference};

impl Shared {
    /// Makes an image visible. It becomes durable soon after.
    pub(super) fn commit(&self, new: &NewImage) -> Result<Arc<Image>, Error> {
        self.settle_implied(&new.layers)?;
        let _changing = self.change();
        let entry = self.entry(new);
        let written = self
            .disk
            .write_blobs(&entry.image, [&new.manifest, &new.config])
            .and_then(|()| self.disk.write_record(&entry.record()));
        if let Err(e) = written {
            if self.index().get(&entry.image.id).is_none() {
                // The first error is the one to tell; the next start sweeps as well.
                drop(self.disk.remove(&entry.image));
            }
            return Err(e);
        }
        let image = self.publish(entry);
        self.sync_soon(&image.id);
        Ok(image)
    }

    /// Gives an image one more name, and takes that from another image.
    pub(super) fn tag(&self, name: &str, tag: &Reference) -> Result<(), Error> {
        let _changing = self.change();
        let mut entry = self
            .index()
            .find(name)
            .map(|found| found.renamed(now_ns()))
            .ok_or_else(|| Error::Unknown { name: name.to_owned() })?;
        let mut image = (*entry.image).clone();
        let Some(tag) = tag.repo_tag() else {
            let reason = "a tag is needed, and no digest".to_owned();
            return Err(Error::InvalidReference { reference: tag.to_string(), reason });
        };
        add(&mut image.repo_tags, tag);
        image.pinned = self.pins(image.repo_tags.iter().chain(&image.repo_digests));
        entry.image = Arc::new(image);
        self.disk.write_record(&entry.record())?;
        self.publish(entry);
        Ok(())
    }

    /// Removes an image with all its names, or hides it while it is leased.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let changing = self.change();
        let mut index = self.index();
        let Some(id) = index.find(name).map(|entry| entry.image.id.clone()) else {
            drop(index);
            return self.collect(&changing);
        };
        if index.get(&id).is_some_and(Entry::is_leased) {
            let hidden = index.hide(&id);
            drop(index);
            hidden.map_or(Ok(()), |record| self.disk.write_record(&record))?;
        } else {
            let removed = index.remove(&id);
            drop(index);
            removed.map_or(Ok(()), |entry| self.forget(entry))?;
        }
        self.collect(&changing)
    }

    /// Removes what was kept for leases alone that are gone.
    pub(super) fn collect(&self, _changing: &MutexGuard<'_, ()>) -> Result<(), Error> {
        loop {
            let removed = self.index().remove_unleased();
            let Some(entry) = removed else { return Ok(()) };
            self.forget(entry)?;
        }
    }

    pub(super) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the files of an image that is out of the index. Its layers go with the entry.
    fn forget(&self, entry: Entry) -> Result<(), Error> {
        let removed = self.disk.remove(&entry.image);
        if removed.is_err() {
            // The record may still be there, and names the layers.
            drop(self.index().insert(entry));
        }
        removed
    }

    /// Gives the directories that layers only imply the metadata of the layers below them.
    fn settle_implied(&self, layers: &[Layer]) -> Result<(), Error> {
        let path = &self.disk.layers;
        let directory = File::open(path).map_err(|e| Error::store("open", path, e))?;
        for (index, layer) in layers.iter().enumerate() {
            let below = if layer.record().opaque { Vec::new() } else { lowers(&layers[..index]) };
            let name = &layer.record().name;
            implied::settle(directory.as_fd(), name, &below, &layer.implied())
                .map_err(|e| Error::store("complete the directories of", path.join(name), e.into()))?;
        }
        Ok(())
    }

    /// Shows an image whose record is in place, and takes its names from others.
    fn publish(&self, entry: Entry) -> Arc<Image> {
        let image = Arc::clone(&entry.image);
        let (before, losers) = {
            let mut index = self.index();
            let before = index.get(&image.id).map(|before| Arc::clone(&before.image));
            (before, index.insert(entry))
        };
        let stale = before.filter(|before| before.manifest_digest != image.manifest_digest);
        let cleared = losers
            .iter()
            .try_for_each(|loser| self.disk.write_record(loser))
            .and_then(|()| stale.map_or(Ok(()), |before| self.disk.remove_manifest(&before)));
        if let Err(e) = cleared {
            // The newest record has a name that two claim, and the next start sweeps.
            tracing::warn!(
                error = &e as &dyn std::error::Error,
                "an older record keeps a name until the next start"
            );
        }
        image
    }

    /// Returns the image as it will be: with the names that it has already.
    fn entry(&self, new: &NewImage) -> Entry {
        let id = new.id.clone();
        let before = self.index().get(&id).map(|entry| Arc::clone(&entry.image));
        let (mut tags, mut digests) = before
            .as_ref()
            .map_or_else(Default::default, |image| (image.repo_tags.clone(), image.repo_digests.clone()));
        for name in &new.names {
            if let Some(tag) = name.repo_tag() {
                add(&mut tags, tag);
            }
            for digest in &new.digests {
                add(&mut digests, name.repo_digest(digest));
            }
        }
        let layers = &new.layers;
        let size_bytes =
            layers.iter().map(|layer| layer.record().bytes).sum::<u64>() + new.config.len() as u64;
        let image = Image {
            id,
            pinned: self.pins(tags.iter().chain(&digests)),
            repo_tags: tags,
            repo_digests: digests,
            size_bytes,
            config: new.settings.clone(),
            manifest_digest: new.manifest_digest.clone(),
            layers: layers.iter().map(|layer| layer.record().chain.clone()).collect(),
            architecture: new.architecture.clone(),
            created: new.created.clone(),
            artifact_type: new.artifact_type.clone(),
            index: new.index.clone().or_else(|| before?.index.clone()),
        };
        let mut entry = Entry::new(image, layers.clone(), now_ns());
        entry.boot_id = Some(Arc::clone(&self.boot_id));
        entry
    }
}

fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}
