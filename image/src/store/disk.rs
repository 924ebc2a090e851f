//! The store's files: `images/` with a record, a manifest and a configuration for each image, `layers/` with a
//! directory for each layer.
//!
//! A record is the only thing that makes an image or a layer exist. It is written beside its place and renamed; what
//! no record names is garbage.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::layer::LayerRecord;
use crate::{Error, Image};

/// The layer of an image that has none: overlayfs wants at least one.
pub(super) const EMPTY_LAYER: &str = "0";

/// The version of the records.
const VERSION: u32 = 1;

const TRASH: &str = ".trash";

/// Where the layers' skeletons are.
const SKELETONS: &str = ".skeletons";

/// Where the store keeps its files.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) images: PathBuf,
    pub(super) layers: PathBuf,
}

/// What is on disk of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// The boot of the machine in which this was written, until everything that it speaks of is on disk.
    pub(super) boot_id: Option<String>,
    /// The image was removed, but containers still use its layers.
    pub(super) removed: bool,
    /// When its names changed last: the newest record has a name that two claim.
    pub(super) named_at_ns: i64,
    pub(super) image: Image,
    pub(super) layers: Vec<LayerRecord>,
}

impl Record {
    pub(super) fn new(image: Image, layers: Vec<LayerRecord>, named_at_ns: i64) -> Self {
        Self { version: VERSION, boot_id: None, removed: false, named_at_ns, image, layers }
    }
}

impl Disk {
    /// Makes the directories, closed to everyone else.
    pub(super) fn open(data: &Path) -> Result<Self, Error> {
        let disk = Self { images: data.join("images"), layers: data.join("layers") };
        let trash = disk.trash();
        let skeletons = disk.layers.join(SKELETONS);
        let empty = disk.layer(EMPTY_LAYER);
        let private = [data, &disk.images, &disk.layers, &trash, &skeletons].map(|path| (path, 0o700));
        for (path, mode) in private.into_iter().chain([(empty.as_path(), 0o755)]) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(path)
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
                .map_err(|e| Error::store("make directory", path, e))?;
        }
        Ok(disk)
    }

    pub(super) fn trash(&self) -> PathBuf {
        self.layers.join(TRASH)
    }

    pub(super) fn layer(&self, name: &str) -> PathBuf {
        self.layers.join(name)
    }

    /// Returns the place of a layer's skeleton: what it takes, beside its files, to make its archive again.
    pub(super) fn skeleton(&self, name: &str) -> PathBuf {
        self.layers.join(SKELETONS).join(name)
    }

    /// Returns the names of all directories of layers, the trash and its like aside.
    pub(super) fn layer_names(&self) -> Result<Vec<String>, Error> {
        let mut names = file_names(&self.layers)?;
        names.retain(|name| name != TRASH && name != SKELETONS && name != EMPTY_LAYER);
        Ok(names)
    }

    /// Removes the skeletons of all layers but those `known`.
    pub(super) fn sweep_skeletons(&self, known: &HashSet<String>) -> Result<(), Error> {
        for name in file_names(&self.layers.join(SKELETONS))? {
            if !known.contains(&name) {
                remove(&self.skeleton(&name))?;
            }
        }
        Ok(())
    }

    /// Returns the names of what is still to be deleted.
    pub(super) fn trash_names(&self) -> Result<Vec<String>, Error> {
        file_names(&self.trash())
    }

    /// Reads all records. One that cannot be read is set aside: its image has to be pulled again.
    pub(super) fn records(&self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for name in file_names(&self.images)? {
            let path = self.images.join(&name);
            if !name.ends_with(".json") {
                continue;
            }
            let bytes = fs::read(&path).map_err(|e| Error::store("read", &path, e))?;
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.version == VERSION && files(&record.image)[0] == name => {
                    records.push(record);
                }
                other => {
                    let reason = other.map_or_else(
                        |e| e.to_string(),
                        |record| format!("version {} of {}", record.version, record.image.id),
                    );
                    tracing::warn!(path = %path.display(), reason, "the record of an image cannot be used");
                    let aside = path.with_extension("bad");
                    fs::rename(&path, aside).map_err(|e| Error::store("set aside", &path, e))?;
                }
            }
        }
        Ok(records)
    }

    /// Removes files that belong to none of `images`.
    pub(super) fn sweep<'a>(&self, images: impl Iterator<Item = &'a Image>) -> Result<(), Error> {
        let known: HashSet<String> = images.flat_map(files).collect();
        for name in file_names(&self.images)? {
            if !known.contains(&name) && !name.ends_with(".bad") {
                remove(&self.images.join(name))?;
            }
        }
        Ok(())
    }

    /// Writes an image's manifest and configuration, not yet durable.
    pub(super) fn write_blobs(&self, image: &Image, blobs: [&[u8]; 2]) -> Result<(), Error> {
        let [_, names @ ..] = files(image);
        for (name, bytes) in names.iter().zip(blobs) {
            Staged::write(&self.images, name, bytes)?.publish()?;
        }
        Ok(())
    }

    /// Makes everything that was written so far durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let open = |path: &Path| {
            let file = File::open(path).map_err(|e| Error::store("open", path, e))?;
            let device = file.metadata().map_err(|e| Error::store("look at", path, e))?.dev();
            Ok::<_, Error>((file, device))
        };
        let sync = |file: &File, path: &Path| {
            rustix::fs::syncfs(file).map_err(|e| Error::store("make durable", path, e.into()))
        };
        let (layers, layers_device) = open(&self.layers)?;
        let (images, images_device) = open(&self.images)?;
        sync(&layers, &self.layers)?;
        if images_device != layers_device {
            sync(&images, &self.images)?;
        }
        Ok(())
    }

    /// Reads an image's configuration.
    pub(super) fn read_config(&self, image: &Image) -> Result<Vec<u8>, Error> {
        let [_, _, config] = files(image);
        let path = self.images.join(config);
        fs::read(&path).map_err(|e| Error::store("read", path, e))
    }

    /// Reads an image's manifest.
    pub(super) fn read_manifest(&self, image: &Image) -> Result<Vec<u8>, Error> {
        let [_, manifest, _] = files(image);
        let path = self.images.join(manifest);
        fs::read(&path).map_err(|e| Error::store("read", path, e))
    }

    /// Puts a record in the place of the one before. One that says that its image is on disk is so itself.
    pub(super) fn write_record(&self, record: &Record) -> Result<(), Error> {
        let [name, ..] = files(&record.image);
        let bytes = serde_json::to_vec_pretty(record)
            .map_err(|e| Error::store("write", self.images.join(&name), io::Error::other(e)))?;
        let staged = Staged::write(&self.images, &name, &bytes)?;
        if record.boot_id.is_none() {
            staged.sync()?;
        }
        staged.publish()
    }

    /// Removes an image's files, the record first.
    pub(super) fn remove(&self, image: &Image) -> Result<(), Error> {
        files(image).iter().try_for_each(|name| remove(&self.images.join(name)))
    }

    /// Removes the manifest that `image` had before it came by another one.
    pub(super) fn remove_manifest(&self, image: &Image) -> Result<(), Error> {
        let [_, manifest, _] = files(image);
        remove(&self.images.join(manifest))
    }

    /// Returns bytes and inodes that records, manifests and configurations use.
    pub(super) fn blob_usage(&self) -> Result<(u64, u64), Error> {
        let failed = |e| Error::store("read", &self.images, e);
        let (mut bytes, mut inodes) = (0, 0);
        for entry in self.images.read_dir().map_err(failed)? {
            // Gone in the meantime is as good as not there.
            if let Ok(metadata) = entry.map_err(failed)?.metadata() {
                bytes += metadata.blocks() * 512;
                inodes += 1;
            }
        }
        Ok((bytes, inodes))
    }
}

/// A file that is written but not in its place. Dropped before it is, it goes.
#[derive(Debug)]
struct Staged {
    path: PathBuf,
    place: PathBuf,
}

impl Staged {
    fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = directory.join(format!("{name}.{}.new", NEXT.fetch_add(1, Ordering::Relaxed)));
        let staged = Self { path, place: directory.join(name) };
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged.path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|e| Error::store("write", &staged.path, e))?;
        Ok(staged)
    }

    fn sync(&self) -> Result<(), Error> {
        File::open(&self.path)
            .and_then(|file| file.sync_data())
            .map_err(|e| Error::store("make durable", &self.path, e))
    }

    /// Puts the file in its place.
    fn publish(&self) -> Result<(), Error> {
        fs::rename(&self.path, &self.place).map_err(|e| Error::store("rename", &self.path, e))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // In its place it has this name no more; otherwise the next start removes it.
        drop(fs::remove_file(&self.path));
    }
}

/// Returns the names of an image's files: record, manifest, configuration.
fn files(image: &Image) -> [String; 3] {
    let id = image.id.digest().hex();
    [format!("{id}.json"), format!("{}.manifest", image.manifest_digest.hex()), format!("{id}.config")]
}

fn file_names(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = |e| Error::store("read", directory, e);
    let mut names = Vec::new();
    for entry in directory.read_dir().map_err(failed)? {
        // What is not UTF-8 is not ours.
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::store("remove", path, e)),
        _ => Ok(()),
    }
}
