//! Verification of layers, and what makes room for a repaired one.

use super::{Layer, Shared, Store, blocking};
use crate::{Digest, Error, Image};

/// What a layer turned out to be.
#[derive(Debug)]
pub struct Checked {
    /// The digest of its uncompressed archive.
    pub diff_id: Digest,
    /// The layer together with all below it.
    pub chain: Digest,
    /// The images that are made of it: a name of each, or its id.
    pub images: Vec<String>,
    /// What is wrong with it.
    pub found: Result<(), Error>,
}

impl Store {
    /// Returns the layers of all images, each once.
    pub(crate) fn chains(&self) -> Vec<Digest> {
        let index = self.0.index();
        let mut chains: Vec<_> = index
            .entries()
            .filter(|entry| !entry.removed)
            .flat_map(|entry| entry.image.layers.clone())
            .collect();
        chains.sort_unstable();
        chains.dedup();
        chains
    }

    /// Compares one layer with its archive. None: it is gone.
    pub(crate) async fn check(&self, chain: &Digest) -> Result<Option<Checked>, Error> {
        let Some(layer) = self.layer(chain) else { return Ok(None) };
        let images = self.0.users(chain).iter().map(name).collect();
        let (store, handle) = (self.clone(), layer.clone());
        let found = blocking(move || store.verify(&handle)).await;
        let diff_id = layer.record().diff_id.clone();
        Ok(Some(Checked { diff_id, chain: chain.clone(), images, found }))
    }

    /// Forgets a layer, so that the next pull of an image with it brings it anew. Returns it and those images. One
    /// that containers run from stays.
    pub(crate) fn set_aside(&self, chain: &Digest) -> Result<(Layer, Vec<Image>), Error> {
        let users = self.0.users(chain);
        let mut index = self.0.index();
        let used =
            users.iter().find(|image| index.get(&image.id).is_some_and(super::index::Entry::is_leased));
        if let Some(image) = used {
            let what = format!("repair of {}", name(image));
            return Err(Error::Unsupported {
                what,
                reason: "containers use it: remove them first".to_owned(),
            });
        }
        let layer = index.forget_layer(chain).ok_or_else(|| Error::Unknown { name: chain.to_string() })?;
        Ok((layer, users))
    }

    /// Ends a repair: the old layer goes with its last handle, or takes its place again.
    pub(crate) fn settle_repair(&self, old: &Layer) {
        let mut index = self.0.index();
        if index.uses(old) { index.add_layer(old) } else { old.abandon() }
    }
}

impl Shared {
    fn users(&self, chain: &Digest) -> Vec<Image> {
        let index = self.index();
        let users = index.entries().filter(|entry| entry.image.layers.contains(chain));
        users.map(|entry| (*entry.image).clone()).collect()
    }
}

fn name(image: &Image) -> String {
    image
        .repo_tags
        .first()
        .or_else(|| image.repo_digests.first())
        .map_or_else(|| image.id.to_string(), Clone::clone)
}
