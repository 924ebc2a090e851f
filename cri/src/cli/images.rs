//! `images`, `rmi`, `inspecti`, `imagefsinfo`.

use anyhow::{Context, ensure};
use clap::Args;

use super::client::{Client, answer};
use super::output::{Format, print_line, print_table, print_value, short_id, size};
use super::{Ids, Output, info, message};
use crate::wire::cri::{
    FilesystemUsage, Image, ImageFilter, ImageFsInfoRequest, ImageSpec, ImageStatusRequest,
    ListImagesRequest, ListImagesResponse, RemoveImageRequest, UInt64Value,
};

/// `images`
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this image
    reference: Option<String>,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Also the digests
    #[arg(long)]
    digests: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    output: Output,
}

/// `rmi`
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// All images
    #[arg(short, long)]
    all: bool,
    /// Their names or ids
    #[arg(required_unless_present = "all")]
    images: Vec<String>,
}

/// `inspecti`
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    ids: Ids,
    #[command(flatten)]
    output: Output,
}

/// `imagefsinfo`
#[derive(Debug, Args)]
pub(crate) struct Filesystem {
    #[command(flatten)]
    output: Output,
}

impl Filesystem {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let response = answer(client.images.image_fs_info(ImageFsInfoRequest {}).await)?;
        if self.output.output != Some(Format::Table) {
            let format = self.output.format().unwrap_or(Format::Json);
            // As crictl shows it.
            let status = message::to_json("ImageFsInfoResponse", &response)?;
            return print_value(&serde_json::json!({ "status": status }), format);
        }
        let row = |(kind, usage): (&str, &FilesystemUsage)| {
            let value = |number: Option<UInt64Value>| number.map_or(0, |number| number.value);
            let mountpoint = usage.fs_id.clone().unwrap_or_default().mountpoint;
            [kind.to_owned(), mountpoint, size(value(usage.used_bytes)), value(usage.inodes_used).to_string()]
        };
        let images = response.image_filesystems.iter().map(|usage| ("images", usage));
        let containers = response.container_filesystems.iter().map(|usage| ("containers", usage));
        let rows: Vec<_> = images.chain(containers).map(row).collect();
        print_table(["FILESYSTEM", "MOUNTPOINT", "USED", "INODES"], &rows)
    }
}

impl List {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let spec = self.reference.clone().map(|image| ImageSpec { image, ..Default::default() });
        let request = ListImagesRequest { filter: Some(ImageFilter { image: spec }) };
        let mut response = answer(client.images.list_images(request).await)?;
        response.images.sort_by(|one, other| one.repo_tags.cmp(&other.repo_tags));
        self.print(&response)
    }

    fn print(&self, response: &ListImagesResponse) -> anyhow::Result<()> {
        if let Some(format) = self.output.format() {
            return print_value(&message::to_json("ListImagesResponse", response)?, format);
        }
        if self.quiet {
            return response.images.iter().try_for_each(|image| print_line(&image.id));
        }
        let rows: Vec<_> = response.images.iter().flat_map(|image| self.rows(image)).collect();
        if self.digests {
            return print_table(["IMAGE", "TAG", "DIGEST", "IMAGE ID", "SIZE"], &rows);
        }
        let rows: Vec<_> = rows.into_iter().map(|[name, tag, _, id, size]| [name, tag, id, size]).collect();
        print_table(["IMAGE", "TAG", "IMAGE ID", "SIZE"], &rows)
    }

    /// A row for each tag, one for an image without.
    fn rows(&self, image: &Image) -> Vec<[String; 5]> {
        let id = if self.no_trunc { image.id.clone() } else { short_id(&image.id) };
        let digest = image.repo_digests.first().and_then(|name| name.split_once('@'));
        let (repository, digest) = digest.unwrap_or(("<none>", "<none>"));
        let digest = if self.no_trunc { digest.to_owned() } else { short_id(digest) };
        let row = |name: &str, tag: &str| {
            [name.to_owned(), tag.to_owned(), digest.clone(), id.clone(), size(image.size)]
        };
        if image.repo_tags.is_empty() {
            return vec![row(repository, "<none>")];
        }
        let split = |name: &String| {
            name.rsplit_once(':').map_or_else(|| row(name, "<none>"), |(name, tag)| row(name, tag))
        };
        image.repo_tags.iter().map(split).collect()
    }
}

impl Remove {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let mut names = self.images;
        if self.all {
            let all = answer(client.images.list_images(ListImagesRequest::default()).await)?;
            names.extend(all.images.into_iter().map(|image| image.id));
        }
        for name in names {
            let spec = ImageSpec { image: name.clone(), ..Default::default() };
            let request = ImageStatusRequest { image: Some(spec.clone()), verbose: false };
            let known = answer(client.images.image_status(request).await)?.image;
            ensure!(known.is_some(), "no such image: {name}");
            answer(client.images.remove_image(RemoveImageRequest { image: Some(spec) }).await)?;
            print_line(&format!("Deleted: {name}"))?;
        }
        Ok(())
    }
}

impl Inspect {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for name in self.ids.ids {
            let spec = ImageSpec { image: name.clone(), ..Default::default() };
            let request = ImageStatusRequest { image: Some(spec), verbose: true };
            let response = answer(client.images.image_status(request).await)?;
            let image = response.image.with_context(|| format!("no such image: {name}"))?;
            let status = message::to_json("Image", &image)?;
            print_value(
                &info::with_status(status, &response.info),
                self.output.format().unwrap_or(Format::Json),
            )?;
        }
        Ok(())
    }
}
