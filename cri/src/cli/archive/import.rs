//! `import`: the images of an archive, one after the other, to the server.

use std::io::Read;

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures_util::stream;
use image::{Host, Platform};
use tokio::sync::mpsc;

use super::layout::{self, Found};
use super::source::Source;
use crate::cli::client::{Client, answer, said};
use crate::cli::output::print_line;
use crate::wire::corten::import_answer::Answer;
use crate::wire::corten::import_part::Part;
use crate::wire::corten::{ImportAnswer, ImportBegin, ImportPart};

/// How much of a layer is sent at a time.
const PIECE: usize = 256 << 10;

/// `import`
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Take the image for this platform; this machine's when not given
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms")]
    pub(crate) platform: Option<String>,
    /// Take the images for all platforms; the names go to this machine's
    #[arg(long)]
    pub(crate) all_platforms: bool,
    /// Also name the images by their manifests' digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Give an image that has no full name this one
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A tar archive, a directory in OCI's layout, or - for standard input
    pub(crate) archive: String,
}

impl Import {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let source = Source::open(&self.archive)?;
        let mut found = layout::find(&source)?;
        for image in &mut found {
            self.complete_names(image);
        }
        let wanted = self.wanted()?;
        for (mut image, named_here) in self.chosen(found, &wanted)? {
            // A repository's digest is a name that takes no tag from anybody.
            if !named_here {
                let digest = image::Digest::sha256(&image.manifest);
                image.names = image.names.iter().map(|name| format!("{}@{digest}", untagged(name))).collect();
            }
            let digests = self.digests || !named_here;
            let id = take_in(client, &source, &image, digests).await?;
            let names =
                if image.names.is_empty() { String::new() } else { format!("{} ", image.names.join(" ")) };
            print_line(&format!("{names}{id}"))?;
        }
        Ok(())
    }

    fn wanted(&self) -> anyhow::Result<Wanted> {
        self.platform.as_deref().map_or_else(|| Ok(Wanted::Here(Host::detect())), Wanted::parse)
    }

    /// A tag alone becomes a name with the one that was given.
    fn complete_names(&self, image: &mut Found) {
        let is_full = |name: &str| name.contains(['/', ':', '@']);
        let names = std::mem::take(&mut image.names);
        let complete = |name: String| match &self.name {
            _ if is_full(&name) => Some(name),
            Some(given) if is_full(given) && given.rsplit('/').next()?.contains(':') => Some(given.clone()),
            Some(given) => Some(format!("{given}:{name}")),
            None => None,
        };
        image.names = names.into_iter().filter_map(complete).collect();
        if image.names.is_empty() {
            image.names.extend(self.name.clone());
        }
        image.names.sort();
        image.names.dedup();
    }

    /// The images to take, and whether each is the one that its names mean here.
    fn chosen(&self, found: Vec<Found>, wanted: &Wanted) -> anyhow::Result<Vec<(Found, bool)>> {
        ensure!(!found.is_empty(), "there is no whole image in the archive");
        let is_best = wanted.best(&found);
        if !self.all_platforms && !is_best.contains(&true) {
            let offered: Vec<String> =
                found.iter().flat_map(|image| &image.platform).map(ToString::to_string).collect();
            bail!("there is no image for {wanted} in the archive (it has {})", offered.join(", "));
        }
        let chosen = found.into_iter().zip(is_best);
        Ok(chosen.filter(|(_, is_best)| *is_best || self.all_platforms).collect())
    }
}

/// For what an image has to be.
#[derive(Debug)]
enum Wanted {
    Here(Host),
    Platform(Platform),
}

impl Wanted {
    /// Reads OS/ARCH[/VARIANT].
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None) => {
                Ok(Self::Platform(Platform { os, architecture, variant: variant.unwrap_or_default() }))
            }
            _ => bail!("{text:?} is no platform: write OS/ARCH or OS/ARCH/VARIANT"),
        }
    }

    /// How many others would be better than this image; none when it is not what is wanted.
    fn rank(&self, image: &Found) -> Option<usize> {
        let Some(platform) = &image.platform else { return Some(0) };
        match self {
            Self::Here(host) => host.rank(platform),
            Self::Platform(wanted) => {
                let is_same = platform.os == wanted.os
                    && platform.architecture == wanted.architecture
                    && (wanted.variant.is_empty() || platform.variant == wanted.variant);
                is_same.then_some(0)
            }
        }
    }

    /// Tells of each image whether it fits, and better than all that its index offers under the same names.
    fn best(&self, found: &[Found]) -> Vec<bool> {
        let ranked =
            || found.iter().enumerate().filter_map(|(at, image)| Some((self.rank(image)?, at, image)));
        let mut best = vec![false; found.len()];
        for (rank, at, image) in ranked() {
            let is_same = |other: &Found| {
                other.index.is_some() && (&other.index, &other.names) == (&image.index, &image.names)
            };
            // The first of equals, as with pulls.
            best[at] = !ranked().any(|(other, before, rival)| (other, before) < (rank, at) && is_same(rival));
        }
        best
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here(host) => host.fmt(f),
            Self::Platform(platform) => platform.fmt(f),
        }
    }
}

/// The name without its tag.
fn untagged(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// Brings one image to the server, and returns its id.
async fn take_in(
    client: &mut Client,
    source: &Source,
    image: &Found,
    with_digests: bool,
) -> anyhow::Result<String> {
    let (sender, mut receiver) = mpsc::channel(4);
    let parts = stream::poll_fn(move |context| receiver.poll_recv(context));
    let (names, manifest, config) = (image.names.clone(), image.manifest.clone(), image.config.clone());
    let index = image.index.as_ref().map(ToString::to_string).unwrap_or_default();
    let begin = ImportBegin { names, with_digests, manifest, config, index };
    send(&sender, Part::Begin(begin)).await.context("talk to the server")?;
    let mut answers = answer(client.archives.import(parts).await)?;
    let wanted = match next(&mut answers).await? {
        Some(Answer::Wanted(wanted)) => wanted.layers,
        _ => bail!("the server does not say which layers it wants"),
    };
    for index in wanted {
        let layer = image.layers.get(index as usize).context("the server wants a layer that is not there")?;
        // If the server stops taking, its answer says why.
        if bring(&sender, source, index, layer).await?.is_none() {
            break;
        }
    }
    drop(sender);
    match next(&mut answers).await? {
        Some(Answer::Id(id)) => Ok(id),
        _ => bail!("the server ended without an answer"),
    }
}

/// Sends one layer. None: the server takes no more.
async fn bring(
    sender: &mpsc::Sender<ImportPart>,
    source: &Source,
    index: u32,
    layer: &str,
) -> anyhow::Result<Option<()>> {
    if send(sender, Part::Layer(index)).await.is_err() {
        return Ok(None);
    }
    let mut opened = source.member_content(layer)?;
    loop {
        let mut piece = vec![0; PIECE];
        let length = opened.content.read(&mut piece).with_context(|| format!("read {layer}"))?;
        if length == 0 {
            return Ok(Some(()));
        }
        piece.truncate(length);
        if send(sender, Part::Piece(piece)).await.is_err() {
            return Ok(None);
        }
    }
}

async fn send(
    sender: &mpsc::Sender<ImportPart>,
    part: Part,
) -> Result<(), mpsc::error::SendError<ImportPart>> {
    sender.send(ImportPart { part: Some(part) }).await
}

async fn next(answers: &mut tonic::Streaming<ImportAnswer>) -> anyhow::Result<Option<Answer>> {
    match answers.message().await {
        Ok(message) => Ok(message.and_then(|message| message.answer)),
        Err(status) => Err(said(&status)),
    }
}
