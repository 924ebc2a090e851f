//! Images as volumes: what of them a container sees, who holds them, and what is refused.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use corten_tests::image::{Image, Layer};
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::{Container, Kubelet, Pod, Result, Setup, newest, on_node, on_own_node};
use serde_json::json;
use tonic::{Code, Status};

/// An image of data in two layers, with links that lead astray.
async fn data(kubelet: &Kubelet) -> Result<String> {
    let lower = Layer::new().file("gone", b"").file("dir/one", b"1\n").file("dir/old", b"old\n");
    let upper = Layer::new()
        .whiteout("gone")
        .file("dir/old", b"new\n")
        .symlink("out", "/etc")
        .symlink("up", "../../../../..")
        .symlink("dir/to-one", "/dir/one");
    let image = Image::new(&json!({}), vec![lower, upper])?;
    let reference = Origin::start()?.offer(&format!("data{}", kubelet.unique()), &image);
    kubelet.image(&reference).await
}

/// A request for a container that has a part of an image, or all of it, on `/volume`.
pub(super) async fn with(
    pod: &Pod<'_>,
    image: &str,
    sub_path: &str,
) -> Result<newest::CreateContainerRequest> {
    let mut request: newest::CreateContainerRequest = newest::same(&pod.container().request().await?)?;
    request.config.get_or_insert_default().mounts.push(newest::Mount {
        container_path: "/volume".to_owned(),
        readonly: true,
        image: Some(newest::ImageSpec { image: image.to_owned(), ..Default::default() }),
        image_sub_path: sub_path.to_owned(),
        ..Default::default()
    });
    Ok(request)
}

pub(super) async fn start<'a>(pod: &'a Pod<'a>, image: &str, sub_path: &str) -> Result<Container<'a>> {
    let container = Container::create_newest(pod, with(pod, image, sub_path).await?).await?;
    container.start().await?;
    Ok(container)
}

async fn refused(pod: &Pod<'_>, image: &str, sub_path: &str) -> Result<Status> {
    let created = Container::create_newest(pod, with(pod, image, sub_path).await?).await;
    match created {
        Ok(container) => bail!("container {} was made and should not be", container.id),
        Err(status) => Ok(status),
    }
}

/// The homes of a pod's image volumes.
fn homes(pod: &Pod<'_>) -> Result<Vec<PathBuf>> {
    let dir = pod.kubelet.node().state().join("pods").join(&pod.id).join("images");
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir)?;
    Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

#[test]
fn an_image_is_read_and_executed_and_never_written() {
    on_node(async |kubelet| {
        let image = kubelet.image(BUSYBOX).await?;
        let pod = kubelet.pod().run().await?;
        let container = start(&pod, &image, "").await?;
        assert_eq!(container.sh("/volume/bin/busybox echo runs").await?, "runs");
        let output = container.exec(["touch", "/volume/file"]).await?;
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
        Ok(())
    });
}

#[test]
fn the_status_names_the_image_by_its_digest() {
    on_own_node(&Setup::default(), async |kubelet| {
        let image = data(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        let container = Container::create_newest(&pod, with(&pod, &image, "dir").await?).await?;
        let mounts = container.newest_status().await?.mounts;
        let mount = mounts.iter().find(|mount| mount.container_path == "/volume");
        let mount = mount.context("a mount on /volume")?;
        let spec = mount.image.clone().unwrap_or_default();
        assert_eq!((&spec.image, &spec.image_ref), (&image, &image));
        assert_eq!((mount.image_sub_path.as_str(), mount.readonly), ("dir", true));
        Ok(())
    });
}

#[test]
fn all_layers_are_there_and_links_stay_inside() {
    on_node(async |kubelet| {
        let image = data(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        let whole = start(&pod, &image, "").await?;
        assert_eq!(whole.sh("cd /volume && ls && cat dir/one dir/old").await?, "dir\nout\nup\n1\nnew");
        let part = start(&pod, &image, "dir").await?;
        assert_eq!(part.sh("ls /volume; cat /volume/one").await?, "old\none\nto-one\n1");
        let file = start(&pod, &image, "dir/old").await?;
        assert_eq!(file.sh("cat /volume").await?, "new");
        Ok(())
    });
}

#[test]
fn a_part_behind_a_link_is_looked_for_inside_the_image() {
    on_own_node(&Setup::default(), async |kubelet| {
        let image = data(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        let linked = start(&pod, &image, "dir/to-one").await?;
        assert_eq!(linked.sh("cat /volume").await?, "1");
        let up = start(&pod, &image, "up/dir").await?;
        assert_eq!(up.sh("cat /volume/one").await?, "1");
        for astray in ["out", "out/passwd", "up/etc", "proc/self/root"] {
            let status = refused(&pod, &image, astray).await?;
            assert_eq!(status.code(), Code::NotFound, "{status}");
        }
        Ok(())
    });
}

#[test]
fn what_cannot_be_mounted_is_told_in_the_kubelets_words() {
    on_own_node(&Setup::default(), async |kubelet| {
        let image = data(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        let absent = format!("sha256:{}", "0".repeat(64));
        for (image, sub_path, word) in [(&image, "not-existing", "not-existing"), (&absent, "", &absent)] {
            let status = refused(&pod, image, sub_path).await?;
            assert_eq!(status.code(), Code::NotFound, "{status}");
            assert!(status.message().starts_with("ImageVolumeMountFailed: "), "{status}");
            assert!(status.message().contains(word) && status.message().contains("/volume"), "{status}");
        }
        assert!(homes(&pod)?.is_empty(), "a failed create leaves no mount");
        Ok(())
    });
}

#[test]
fn an_image_in_use_stays_when_it_is_removed_and_goes_with_its_last_container() {
    on_own_node(&Setup::default(), async |kubelet| {
        let image = data(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        let first = start(&pod, &image, "").await?;
        let second = start(&pod, &image, "dir").await?;
        assert_eq!(homes(&pod)?.len(), 1, "one home for both");
        kubelet.remove_image(&image).await?;
        assert!(kubelet.image_status(&image).await?.is_none());
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        assert_eq!(first.sh("cat /volume/dir/one").await?, "1");
        first.remove().await?;
        assert_eq!(second.sh("cat /volume/one").await?, "1");
        assert_eq!(homes(&pod)?.len(), 1);
        second.remove().await?;
        assert!(homes(&pod)?.is_empty());
        Ok(())
    });
}

#[test]
fn containers_that_come_and_go_at_once_share_a_home_safely() {
    on_own_node(&Setup::default(), async |kubelet| {
        let image = data(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        let cycle = async || -> Result {
            for _ in 0..5 {
                let container = start(&pod, &image, "dir").await?;
                assert_eq!(container.sh("cat /volume/one").await?, "1");
                container.remove().await?;
            }
            Ok(())
        };
        let (a, b, c) = tokio::join!(cycle(), cycle(), cycle());
        a.and(b).and(c)?;
        assert!(homes(&pod)?.is_empty());
        Ok(())
    });
}
