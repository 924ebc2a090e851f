//! Image volumes: images that a container reads as directories.
//!
//! A pod has one home for each image, `<pod>/images/<hex of its id>`: the layers are stacked there once, in `tree`, for
//! all its containers. A container that wants a part has that part bound beside it. A home goes with the last
//! container that uses it; whatever is left goes with the pod.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use image::{ImageId, Lease};
use runtime::mount;

use super::Container;
use crate::config::ImageVolume;
use crate::error::{Error, Result};
use crate::node::Node;
use crate::record::entries;

/// The directory of the homes in a pod's.
const HOMES: &str = "images";
/// In a home: the whole image.
const TREE: &str = "tree";
/// In a home: nothing, which is put below the layers.
const BOTTOM: &str = "bottom";

/// An image that becomes a volume, found and held.
#[derive(Debug)]
pub(crate) struct Volume {
    pub image: ImageId,
    pub lease: Lease,
}

impl Node {
    /// Finds the images of volumes.
    pub(crate) fn volumes(&self, wanted: &[ImageVolume]) -> Result<Vec<Volume>> {
        let find = |volume: &ImageVolume| {
            let name = &volume.image;
            let found = self.images.find(name).ok_or_else(|| Error::ImageNotFound { name: name.clone() })?;
            let lease = self.images.lease(&found.id);
            let lease =
                lease.map_err(|source| Error::Image { name: name.clone(), source: Arc::new(source) })?;
            Ok(Volume { image: found.id.clone(), lease })
        };
        wanted.iter().map(|volume| find(volume).map_err(of_volume(volume))).collect()
    }

    /// Mounts a container's volumes in their homes and says where they are.
    pub(crate) fn mount_volumes(&self, container: &Container, volumes: &[Volume]) -> Result<Vec<PathBuf>> {
        let _homes = container.pod.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let users = if volumes.is_empty() { None } else { container.pod.user_namespace()? };
        let label = container.pod.labels().map(|labels| labels.mount);
        let wanted = container.config.image_volumes.iter().zip(volumes).enumerate();
        let mounted = wanted.map(|(number, (wanted, volume))| {
            let home = home(&container.pod.dir, volume.image.digest().hex());
            let failed = |source: runtime::Failure| Error::Mount {
                image: volume.image.to_string(),
                source: Arc::new(source),
            };
            let mount = || {
                let layers = mount::Layers {
                    dir: volume.lease.layers_dir(),
                    lowers: volume.lease.lowers(),
                    users: users.as_ref().map(AsFd::as_fd),
                    label: label.as_deref(),
                };
                let tree = tree(&home, layers, failed)?;
                if wanted.sub_path.as_os_str().is_empty() {
                    return Ok(tree);
                }
                let part = home.join(format!("{}-{number}", container.id));
                mount::inside(&tree, &wanted.sub_path, &part).map_err(failed)?;
                Ok(part)
            };
            mount().map_err(of_volume(wanted))
        });
        mounted.collect()
    }

    /// Lets go of a container's volumes, and of homes that no other container of the pod uses.
    pub(crate) fn release_volumes(&self, container: &Container) -> Result<()> {
        let images = container.volume_images();
        if images.is_empty() {
            return Ok(());
        }
        let _homes = container.pod.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.table.containers_of(&container.pod.id);
        let used: Vec<String> = others
            .iter()
            .filter(|other| other.id != container.id)
            .flat_map(|other| other.volume_images())
            .collect();
        for (number, image) in images.iter().enumerate() {
            let hex = image.rsplit(':').next().unwrap_or(image);
            let home = home(&container.pod.dir, hex);
            detach(&home.join(format!("{}-{number}", container.id)))?;
            if !used.contains(image) {
                detach(&home.join(TREE))?;
                detach(&home.join(BOTTOM))?;
                absent_is_fine(&home, fs::remove_dir(&home))?;
            }
        }
        // Before the lock goes, so that of two that leave at once the second sees that it is the last.
        container.note(&self.records, |record| record.volume_images.clear());
        Ok(())
    }
}

/// Unmounts all homes in a pod's directory.
pub(crate) fn detach_all(pod_dir: &Path) -> Result<()> {
    let homes = pod_dir.join(HOMES);
    if !crate::node::exists(&homes) {
        return Ok(());
    }
    for home in entries(&homes)? {
        for place in entries(&home)? {
            detach(&place)?;
        }
    }
    Ok(())
}

fn home(pod_dir: &Path, hex: &str) -> PathBuf {
    pod_dir.join(HOMES).join(hex)
}

/// The whole image in its home, mounted if that has not been done yet.
fn tree(
    home: &Path,
    layers: mount::Layers<'_>,
    failed: impl Fn(runtime::Failure) -> Error,
) -> Result<PathBuf> {
    let (tree, bottom) = (home.join(TREE), home.join(BOTTOM));
    if mount::is_mounted(&tree).map_err(Error::file("look at", &tree))? {
        return Ok(tree);
    }
    for dir in [&tree, &bottom] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(Error::file("make directory", dir))?;
    }
    mount::image(layers, &bottom, &tree).map_err(failed)?;
    Ok(tree)
}

/// Unmounts a place in a home and removes it.
fn detach(place: &Path) -> Result<()> {
    mount::detach(place).map_err(Error::file("unmount", place))?;
    let removed = if place.is_dir() { fs::remove_dir(place) } else { fs::remove_file(place) };
    absent_is_fine(place, removed)
}

fn absent_is_fine(path: &Path, removed: std::io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn of_volume(volume: &ImageVolume) -> impl FnOnce(Error) -> Error + use<> {
    let path = volume.container_path.clone();
    move |source| Error::ImageVolume { path, source: Arc::new(source) }
}
