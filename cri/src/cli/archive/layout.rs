//! Which images an archive holds: OCI's layout, with nested indexes, or `manifest.json` as `docker save` writes it.

use std::io::Read;

use anyhow::{Context, bail, ensure};
use image::{Algorithm, Digest, Hasher, Platform};
use serde::Deserialize;
use serde_json::{Value, json};

use super::source::Source;
use super::{CONFIG, FULL_NAME, INDEX, LAYER, MANIFEST, MAX_DOCUMENT, REF_NAME, blob};

/// How deep indexes may be nested, the layout's own among them.
const MAX_DEPTH: usize = 4;
/// How many manifests an archive may have.
const MAX_IMAGES: usize = 1000;
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// How many layers an image may have.
const MAX_LAYERS: usize = 256;

/// An image of an archive, for one platform.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) names: Vec<String>,
    /// None: for any, as an artifact is.
    pub(super) platform: Option<Platform>,
    /// The index that lists it with the images for other platforms.
    pub(super) index: Option<Digest>,
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
    /// Where each layer is in the archive.
    pub(super) layers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// A manifest, as far as its files have to be found.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) media_type: Option<String>,
    pub(super) artifact_type: Option<String>,
    pub(super) config: Descriptor,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Descriptor {
    /// The platform of the image that has this configuration.
    fn platform(&self, config: &[u8]) -> Option<Platform> {
        let is_config = [CONFIG, DOCKER_CONFIG].contains(&self.media_type.as_str());
        let platform = is_config.then(|| serde_json::from_slice::<Platform>(config).unwrap_or_default());
        platform.filter(|platform| !platform.os.is_empty())
    }

    /// The name of what an index lists. A tool that gives something another tag may leave the whole name behind.
    fn name(&self) -> Option<&String> {
        let (full, given) = (self.annotations.get(FULL_NAME), self.annotations.get(REF_NAME));
        let stale =
            |full: &&String| given.is_some_and(|tag| *full != tag && !full.ends_with(&format!(":{tag}")));
        full.filter(|full| !stale(full)).or(given)
    }
}

/// Finds all images.
pub(super) fn find(source: &Source) -> anyhow::Result<Vec<Found>> {
    if source.has("index.json") {
        let mut found = Vec::new();
        let index = source.read("index.json", MAX_DOCUMENT)?;
        indexed(source, &index, &[], &mut found, MAX_DEPTH).context("read the index of the archive")?;
        return Ok(found);
    }
    if source.has("manifest.json") {
        let saved = source.read("manifest.json", MAX_DOCUMENT)?;
        let saved: Vec<Saved> = serde_json::from_slice(&saved).context("read manifest.json")?;
        return saved.iter().map(|image| docker(source, image)).collect();
    }
    bail!("there is neither index.json nor manifest.json in it: it is no archive of images")
}

fn indexed(
    source: &Source,
    index: &[u8],
    names: &[String],
    found: &mut Vec<Found>,
    depth: usize,
) -> anyhow::Result<()> {
    ensure!(depth > 0, "more than {MAX_DEPTH} indexes are nested");
    let digest = Digest::sha256(index);
    let index: Index = serde_json::from_slice(index)?;
    for entry in index.manifests {
        // What a builder says of an image is no image.
        if entry.annotations.contains_key("vnd.docker.reference.type") {
            continue;
        }
        let mut names = names.to_vec();
        names.extend(entry.name().cloned());
        // Archives often hold the content of one platform alone.
        if !source.has(&blob(&entry.digest)) {
            continue;
        }
        let document = checked(source, &entry)?;
        if matches!(
            entry.media_type.as_str(),
            INDEX | "application/vnd.docker.distribution.manifest.list.v2+json"
        ) {
            indexed(source, &document, &names, found, depth - 1)?;
            continue;
        }
        ensure!(found.len() < MAX_IMAGES, "it has more than {MAX_IMAGES} manifests");
        let manifest: Manifest = serde_json::from_slice(&document).context("read a manifest")?;
        let layers: Vec<String> = manifest.layers.iter().map(|layer| blob(&layer.digest)).collect();
        if !layers.iter().all(|layer| source.has(layer)) || !source.has(&blob(&manifest.config.digest)) {
            continue;
        }
        let config = checked(source, &manifest.config)?;
        let platform = manifest.config.platform(&config).or(entry.platform);
        match found.iter_mut().find(|known: &&mut Found| known.manifest == document) {
            Some(known) => known.names.extend(names),
            None => {
                // The layout's own index only lists what is there.
                let index = (depth < MAX_DEPTH).then(|| digest.clone());
                found.push(Found { names, platform, index, manifest: document, config, layers });
            }
        }
    }
    Ok(())
}

fn docker(source: &Source, image: &Saved) -> anyhow::Result<Found> {
    ensure!(image.layers.len() <= MAX_LAYERS, "an image has more than {MAX_LAYERS} layers");
    let config = source.read(&image.config, MAX_DOCUMENT)?;
    let layers: Vec<Value> =
        image.layers.iter().map(|name| described(source, name)).collect::<anyhow::Result<_>>()?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": Digest::sha256(&config).to_string(), "size": config.len()},
        "layers": layers,
    });
    Ok(Found {
        names: image.repo_tags.clone().unwrap_or_default(),
        platform: Some(serde_json::from_slice(&config).with_context(|| format!("read {}", image.config))?),
        index: None,
        manifest: serde_json::to_vec(&manifest)?,
        config,
        layers: image.layers.clone(),
    })
}

/// The descriptor of a layer that no manifest describes: it has to be read for it.
fn described(source: &Source, name: &str) -> anyhow::Result<Value> {
    let mut opened = source.member_content(name)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 1 << 20];
    let mut suffix = None;
    loop {
        let length = opened.content.read(&mut buffer).with_context(|| format!("read {name}"))?;
        suffix.get_or_insert(match buffer[..length] {
            [0x1f, 0x8b, ..] => "+gzip",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "+zstd",
            _ => "",
        });
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
    }
    let media_type = format!("{LAYER}{}", suffix.unwrap_or_default());
    Ok(json!({"mediaType": media_type, "digest": hasher.finish().to_string(), "size": opened.size}))
}

fn checked(source: &Source, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
    let bytes = source.read(&blob(&descriptor.digest), MAX_DOCUMENT)?;
    let same =
        bytes.len() as u64 == descriptor.size && descriptor.digest.same_of(&bytes) == descriptor.digest;
    ensure!(same, "{} in the archive is something else", descriptor.digest);
    Ok(bytes)
}
