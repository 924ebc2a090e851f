//! Images that a test makes entry by entry: well-formed ones, and such as nobody should trust.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::{Result, host};

/// `sha256:` and the digest of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// One layer, under construction.
#[derive(Debug, Default)]
pub struct Layer {
    tar: Vec<u8>,
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A regular file of root's, readable by all.
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, |header| header.set_mode(0o644), content)
    }

    /// A directory.
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, EntryType::Directory, |header| header.set_mode(mode), &[])
    }

    /// A symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, |header| set_link(header, target), &[])
    }

    /// A hard link to a file of this layer.
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, |header| set_link(header, target), &[])
    }

    /// An entry that removes `path` of the layers below.
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let separator = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{separator}.wh.{name}"), &[])
    }

    /// An entry that hides all that the layers below have in `dir`.
    pub fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), &[])
    }

    /// Extended attributes for the next entry, as pax records.
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        let field = [b" SCHILY.xattr.", name.as_bytes(), b"=", value, b"\n"].concat();
        // The record's length counts its own digits.
        let digits = (1..).find(|digits| (field.len() + digits).to_string().len() == *digits).unwrap_or(3);
        let record = [(field.len() + digits).to_string().as_bytes(), &field].concat();
        self = self.entry("pax", EntryType::XHeader, |header| header.set_mode(0o644), &record);
        self
    }

    /// Any entry: the path is written as it is, however unwise.
    pub fn entry(
        mut self,
        path: &str,
        kind: EntryType,
        set: impl FnOnce(&mut Header),
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(0o777);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        set(&mut header);
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        self.tar.resize(self.tar.len() + 1024, 0);
        self.tar
    }
}

fn set_link(header: &mut Header, target: &str) {
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
}

/// The layers that an image begins with.
#[derive(Debug, Default)]
struct Base {
    blobs: Vec<(String, Vec<u8>)>,
    descriptors: Vec<Value>,
    diff_ids: Vec<String>,
}

impl Base {
    /// Those of a stand-in image, from the layout that hack/images made.
    fn read(reference: &str) -> Result<Self> {
        let layout = host::images().join("layout");
        let read = |path: &str| {
            let path = layout.join(path);
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().context("a digest in a descriptor")?.to_owned();
            let bytes = read(&format!("blobs/{}", digest.replace(':', "/")))?;
            Ok::<_, anyhow::Error>((digest, bytes))
        };
        let index: Value = serde_json::from_slice(&read("index.json")?)?;
        let names_it =
            |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == reference;
        let entry = index["manifests"].as_array().and_then(|entries| entries.iter().find(names_it));
        let entry = entry.with_context(|| format!("{reference} among the stand-in images"))?;
        let manifest: Value = serde_json::from_slice(&blob(entry)?.1)?;
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])?.1)?;
        let descriptors = manifest["layers"].as_array().context("layers in a manifest")?.clone();
        Ok(Self {
            blobs: descriptors.iter().map(blob).collect::<Result<_>>()?,
            descriptors,
            diff_ids: serde_json::from_value(config["rootfs"]["diff_ids"].clone())?,
        })
    }
}

/// An image: blobs by digest, and the manifest that names them.
#[derive(Debug, Clone)]
pub struct Image {
    /// Every blob but the manifest, with its digest.
    pub blobs: Vec<(String, Vec<u8>)>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

impl Image {
    /// Makes an image of layers, the lowest first, and the `config` part of its configuration.
    pub fn new(config: &Value, layers: Vec<Layer>) -> Result<Self> {
        Self::build(Base::default(), config, layers)
    }

    /// Like [`Self::new`], on the layers of a stand-in image.
    pub fn on(reference: &str, config: &Value, layers: Vec<Layer>) -> Result<Self> {
        Self::build(Base::read(reference)?, config, layers)
    }

    /// Makes an artifact: a configuration of the type `kind`, and files by their titles, or by none.
    pub fn artifact(kind: &str, files: &[(Option<&str>, &str, &[u8])]) -> Self {
        let config = br#"{"name":"web","version":"1.0.0"}"#;
        let layers: Vec<Value> = files
            .iter()
            .map(|(title, media_type, content)| {
                let mut descriptor = describe(media_type, content);
                if let Some(title) = title {
                    descriptor["annotations"] = json!({"org.opencontainers.image.title": title});
                }
                descriptor
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe(kind, config),
            "layers": layers,
        });
        let mut blobs: Vec<_> =
            files.iter().map(|(_, _, content)| (digest(content), content.to_vec())).collect();
        blobs.push((digest(config), config.to_vec()));
        Self { blobs, manifest: manifest.to_string().into_bytes() }
    }

    /// Writes it as an OCI layout, where tools like skopeo find it.
    pub fn write_layout(&self, dir: &Path) -> Result {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).context("make a layout")?;
        let manifest = (digest(&self.manifest), self.manifest.clone());
        for (digest, content) in self.blobs.iter().chain([&manifest]) {
            fs::write(blobs.join(digest.trim_start_matches("sha256:")), content).context("write a blob")?;
        }
        let entry = describe("application/vnd.oci.image.manifest.v1+json", &self.manifest);
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(dir.join("index.json"), index.to_string()).context("write the index")?;
        fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).context("write a layout")
    }

    fn build(base: Base, config: &Value, layers: Vec<Layer>) -> Result<Self> {
        let Base { mut blobs, mut descriptors, mut diff_ids } = base;
        for layer in layers {
            let tar = layer.finish();
            diff_ids.push(digest(&tar));
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&tar)?;
            let blob = gzip.finish()?;
            descriptors.push(describe("application/vnd.oci.image.layer.v1.tar+gzip", &blob));
            blobs.push((digest(&blob), blob));
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.oci.image.config.v1+json", &config),
            "layers": descriptors,
        });
        blobs.push((digest(&config), config));
        Ok(Self { blobs, manifest: manifest.to_string().into_bytes() })
    }
}

fn describe(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}
