//! What the program answers when it is called by the name `ctr`: the calls that kind makes in a node's image.
//!
//! Options that mean nothing here (snapshotters, unpacking, labels) are taken and passed over.

use clap::{Args, Parser, Subcommand};

use super::archive::Import;
use super::client::{Client, answer};
use super::output::print_line;
use crate::wire::corten::TagRequest;
use crate::wire::cri::ListImagesRequest;

/// The part of containerd's client that kind uses, for Corten.
#[derive(Debug, Parser)]
#[command(name = "ctr", version)]
pub(crate) struct Ctr {
    /// Passed over: there is one namespace
    #[arg(short, long, default_value = "k8s.io")]
    namespace: String,
    /// The socket to talk to
    #[arg(short, long, env = "CONTAINERD_ADDRESS", default_value = "/run/corten/corten.sock")]
    address: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work with images
    #[command(subcommand, visible_aliases = ["image", "i"])]
    Images(Images),
}

#[derive(Debug, Subcommand)]
enum Images {
    /// Take images in from an archive
    Import(Taken),
    /// Give an image one more name
    Tag(Tag),
    /// List images
    #[command(visible_alias = "ls")]
    List(List),
}

#[derive(Debug, Args)]
struct Taken {
    /// Passed over
    #[arg(long)]
    no_unpack: bool,
    /// Passed over
    #[arg(long)]
    local: bool,
    /// Passed over
    #[arg(long)]
    label: Vec<String>,
    /// Passed over
    #[arg(long)]
    snapshotter: Option<String>,
    /// Passed over
    #[arg(long)]
    index_name: Option<String>,
    #[command(flatten)]
    import: Import,
}

#[derive(Debug, Args)]
struct Tag {
    /// Passed over: a name always goes to the image that it is given last
    #[arg(long)]
    force: bool,
    /// The image
    source: String,
    /// Its further names
    #[arg(required = true)]
    targets: Vec<String>,
}

#[derive(Debug, Args)]
struct List {
    /// Only the names; there is no other list
    #[arg(short, long)]
    quiet: bool,
}

impl Ctr {
    /// Asks the server.
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        let address = self.address.strip_prefix("unix://").unwrap_or(&self.address);
        let mut client = Client::connect(address).await?;
        let Command::Images(command) = self.command;
        match command {
            Images::Import(taken) => taken.import.execute(&mut client).await,
            Images::Tag(tag) => tag.execute(&mut client).await,
            Images::List(_) => list(&mut client).await,
        }
    }
}

impl Tag {
    async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for tag in self.targets {
            let request = TagRequest { image: self.source.clone(), tag: tag.clone() };
            answer(client.archives.tag(request).await)?;
            print_line(&tag)?;
        }
        Ok(())
    }
}

async fn list(client: &mut Client) -> anyhow::Result<()> {
    let images = answer(client.images.list_images(ListImagesRequest::default()).await)?.images;
    let mut names: Vec<String> = images
        .into_iter()
        .flat_map(|image| image.repo_tags.into_iter().chain(image.repo_digests).chain([image.id]))
        .collect();
    names.sort();
    names.iter().try_for_each(|name| print_line(name))
}
