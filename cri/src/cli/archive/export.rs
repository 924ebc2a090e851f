//! `export`: images into a directory or an archive. Layers go uncompressed, since what they were compressed to is
//! not kept; ids stay the same, because they are the digests of configurations.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use image::Digest;
use serde_json::{Map, Value, json};

use super::layout::Manifest;
use super::target::Target;
use super::{CONFIG, FULL_NAME, INDEX, LAYER, MANIFEST, REF_NAME, blob};
use crate::cli::client::{Client, answer, said};
use crate::wire::corten::export_part::Part;
use crate::wire::corten::{ExportBegin, ExportRequest};

/// The blob of a manifest that has to name one and has none.
const NOTHING: &[u8] = b"{}";

/// `export`
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Where to write: a file, - for standard output, or a directory for `oci-dir`
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// How to write
    #[arg(long, value_enum, default_value_t = Form::OciArchive)]
    format: Form,
    /// With each image those for other platforms that came in the same index, and an index of them
    #[arg(long)]
    all_platforms: bool,
    /// The images' names; one that was given by a tag keeps that, others keep all theirs
    #[arg(required = true)]
    images: Vec<String>,
}

/// The forms of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// OCI's layout in a tar archive, which `docker load` takes too
    OciArchive,
    /// OCI's layout in a directory
    OciDir,
    /// As `docker save` wrote it before it wrote OCI's layout
    DockerArchive,
}

/// What was written so far.
struct Writer {
    target: Target,
    form: Form,
    /// Where each layer is, by its digest.
    layers: BTreeMap<String, String>,
    descriptors: Vec<Value>,
    saved: Vec<Value>,
    repositories: Map<String, Value>,
}

impl Export {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let docker = self.format == Form::DockerArchive;
        ensure!(
            !(docker && self.all_platforms),
            "the form docker-archive knows no platforms: write oci-archive"
        );
        let target = match self.format {
            Form::OciDir => Target::directory(&self.output)?,
            Form::OciArchive | Form::DockerArchive => Target::archive(&self.output)?,
        };
        let mut writer = Writer {
            target,
            form: self.format,
            layers: BTreeMap::new(),
            descriptors: Vec::new(),
            saved: Vec::new(),
            repositories: Map::new(),
        };
        for image in &self.images {
            let exported = writer.images(client, image, self.all_platforms).await;
            exported.with_context(|| format!("export {image}"))?;
        }
        writer.finish()
    }
}

impl Writer {
    /// Writes an image, and those for other platforms if they are wanted.
    async fn images(&mut self, client: &mut Client, image: &str, all_platforms: bool) -> anyhow::Result<()> {
        let begin = self.image(client, image).await?;
        let tags = kept(image, &begin.tags);
        let entry = self.describe(&begin, &tags)?;
        let mut entries: Vec<Value> = entry.into_iter().collect();
        if all_platforms && !begin.others.is_empty() {
            for other in &begin.others {
                let begin = self.image(client, other).await?;
                entries.extend(self.describe(&begin, &[])?);
            }
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
            entries = vec![self.document(INDEX, &serde_json::to_vec(&index)?)?];
        }
        for entry in entries {
            self.name(&entry, &tags);
        }
        Ok(())
    }

    /// Writes the layers of an image, and returns what the server says of it.
    async fn image(&mut self, client: &mut Client, image: &str) -> anyhow::Result<ExportBegin> {
        let known = self.layers.keys().cloned().collect();
        let request = ExportRequest { image: image.to_owned(), known };
        let mut parts = answer(client.archives.export(request).await)?;
        let mut begun = None;
        loop {
            let part = match parts.message().await {
                Ok(Some(part)) => part.part,
                Ok(None) => break,
                Err(status) => return Err(said(&status)),
            };
            match (part, &begun) {
                (Some(Part::Begin(begin)), None) => {
                    ensure!(
                        begin.artifact.is_empty() || self.form != Form::DockerArchive,
                        "it is an artifact, and the form docker-archive is for images alone: write oci-archive"
                    );
                    begun = Some(begin);
                }
                (Some(Part::Layer(index)), Some(begin)) => self.begin_layer(begin, index)?,
                (Some(Part::Piece(piece)), Some(_)) => self.target.write(&piece)?,
                _ => bail!("the server speaks out of order"),
            }
        }
        begun.context("the server says nothing of the image")
    }

    fn begin_layer(&mut self, begin: &ExportBegin, index: u32) -> anyhow::Result<()> {
        let layer = begin.layers.get(index as usize).context("there is no such layer")?;
        let name = match self.form {
            Form::DockerArchive => format!("{}/layer.tar", hex(&layer.digest)?),
            Form::OciArchive | Form::OciDir => blob(&layer.digest.parse()?),
        };
        self.target.begin(&name, layer.bytes)?;
        self.layers.insert(layer.digest.clone(), name);
        Ok(())
    }

    /// Writes what says of which layers the image is made, and returns what an index says of it, where there is one.
    fn describe(&mut self, begin: &ExportBegin, tags: &[String]) -> anyhow::Result<Option<Value>> {
        if !begin.artifact.is_empty() {
            return self.artifact(begin).map(Some);
        }
        let config = &begin.config;
        // The id is the digest of the configuration.
        let config_digest = &begin.id;
        let config_name = match self.form {
            Form::DockerArchive => format!("{}.json", hex(config_digest)?),
            Form::OciArchive | Form::OciDir => blob(&config_digest.parse()?),
        };
        self.target.file(&config_name, config)?;
        let files: Vec<&String> = begin.layers.iter().filter_map(|l| self.layers.get(&l.digest)).collect();
        ensure!(files.len() == begin.layers.len(), "the server left out a layer");
        self.saved.push(json!({"Config": config_name, "RepoTags": tags, "Layers": files}));
        if self.form == Form::DockerArchive {
            self.add_repositories(tags, begin)?;
            return Ok(None);
        }
        let layers: Vec<Value> = begin
            .layers
            .iter()
            .map(|layer| json!({"mediaType": LAYER, "digest": layer.digest, "size": layer.bytes}))
            .collect();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config_digest, "size": config.len()},
            "layers": layers,
        }))?;
        let mut entry = self.document(MANIFEST, &manifest)?;
        entry["platform"] = platform(config);
        Ok(Some(entry))
    }

    /// Writes the manifest of an artifact with what it names and is not here yet, and returns what an index says of it.
    fn artifact(&mut self, begin: &ExportBegin) -> anyhow::Result<Value> {
        let manifest: Manifest = serde_json::from_slice(&begin.artifact).context("read its manifest")?;
        for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
            let digest = descriptor.digest.to_string();
            if self.layers.contains_key(&digest) {
                continue;
            }
            let content = match digest {
                _ if descriptor.digest == manifest.config.digest => &begin.config[..],
                _ if descriptor.digest == descriptor.digest.same_of(NOTHING) => NOTHING,
                _ => bail!("the server left out {digest}"),
            };
            let name = blob(&descriptor.digest);
            self.target.file(&name, content)?;
            self.layers.insert(digest, name);
        }
        let mut entry = self.document(manifest.media_type.as_deref().unwrap_or(MANIFEST), &begin.artifact)?;
        entry["artifactType"] = json!(manifest.artifact_type.unwrap_or(manifest.config.media_type));
        Ok(entry)
    }

    /// Writes a manifest or an index, and returns what another index says of it.
    fn document(&mut self, media_type: &str, document: &[u8]) -> anyhow::Result<Value> {
        let digest = Digest::sha256(document);
        self.target.file(&blob(&digest), document)?;
        Ok(json!({"mediaType": media_type, "digest": digest.to_string(), "size": document.len()}))
    }

    /// Keeps an entry of the index at the top, under each of its names.
    fn name(&mut self, entry: &Value, tags: &[String]) {
        let named = |annotations: Value| {
            let mut entry = entry.clone();
            entry["annotations"] = annotations;
            entry
        };
        if tags.is_empty() {
            self.descriptors.push(named(json!({})));
        }
        for tag in tags {
            let short = tag.rsplit(':').next().unwrap_or(tag);
            self.descriptors.push(named(json!({FULL_NAME: tag, REF_NAME: short})));
        }
    }

    fn add_repositories(&mut self, tags: &[String], begin: &ExportBegin) -> anyhow::Result<()> {
        let top = begin.layers.last().map_or(Ok(String::new()), |layer| hex(&layer.digest))?;
        for (repository, tag) in tags.iter().filter_map(|tag| tag.rsplit_once(':')) {
            let tags = self.repositories.entry(repository).or_insert_with(|| json!({}));
            tags[tag] = json!(top);
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let saved = serde_json::to_vec(&self.saved)?;
        if self.form == Form::DockerArchive {
            self.target.file("repositories", &serde_json::to_vec(&self.repositories)?)?;
            self.target.file("manifest.json", &saved)?;
        } else {
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.descriptors});
            self.target.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            self.target.file("index.json", &serde_json::to_vec(&index)?)?;
            if self.form == Form::OciArchive && !self.saved.is_empty() {
                self.target.file("manifest.json", &saved)?;
            }
        }
        self.target.finish()
    }
}

/// The names that an image keeps: the one that it was asked for by, if that is one of its tags.
fn kept(asked: &str, tags: &[String]) -> Vec<String> {
    let is_asked = |tag: &&String| *tag == asked || tag.ends_with(&format!("/{asked}"));
    match tags.iter().find(is_asked) {
        Some(tag) => vec![tag.clone()],
        None => tags.to_vec(),
    }
}

fn platform(config: &[u8]) -> Value {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let keys = ["architecture", "os", "variant"].into_iter();
    let given =
        keys.filter_map(|key| Some((key.to_owned(), config.get(key).filter(|v| v.is_string())?.clone())));
    Value::Object(given.collect())
}

fn hex(digest: &str) -> anyhow::Result<String> {
    Ok(digest.parse::<Digest>()?.hex().to_owned())
}
