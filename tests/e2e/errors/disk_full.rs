//! The disk is full in the middle of something: the error says so, what was there stays, what was begun goes.
//!
//! The data directory of these nodes is a small file system of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use corten_tests::image::{Image, Layer};
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::{Container, Kubelet, Result, Setup, census, on_own_node};
use k8s_cri::v1 as wire;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

/// A small file system in the place of a node's data directory. The daemon is down when it comes and goes.
struct Small {
    root: PathBuf,
}

impl Small {
    fn mount(kubelet: &Kubelet, options: &str) -> Result<Self> {
        kubelet.node().kill_daemon()?;
        let root = kubelet.node().root();
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), Some(options))
            .context("mount a tmpfs")?;
        let small = Self { root };
        kubelet.node().start_daemon()?;
        Ok(small)
    }

    /// Fills it to the last byte; what it returns ends that when it is dropped.
    fn fill(&self) -> Result<Filler> {
        let path = self.root.join("filler");
        let mut file = File::create(&path)?;
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        Ok(Filler(path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(&self.root, MntFlags::MNT_DETACH).ok();
    }
}

struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

#[track_caller]
fn says_full(what: &str, message: &str) {
    let full = message.contains("No space left on device") || message.contains("the disk is too full");
    assert!(full, "{what}: {message}");
}

/// What does not compress.
fn noise(bytes: u32) -> Vec<u8> {
    (0..bytes / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()).collect()
}

#[test]
fn a_pull_or_an_import_that_does_not_fit_leaves_nothing_and_harms_nothing() {
    on_own_node(&Setup::default(), async |kubelet| {
        let small = Small::mount(kubelet, "size=24m,mode=0700")?;
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let before = census::files(&small.root);
        let origin = Origin::start()?;
        let layers = vec![Layer::new().file("small", b"1"), Layer::new().file("large", &noise(40 << 20))];
        let large = Image::new(&json!({}), layers)?;
        let reference = origin.offer("large", &large);
        let status = kubelet.pull(&reference).await.err().context("a pull that does not fit")?;
        says_full("pull", status.message());
        assert_eq!(kubelet.image_status(&reference).await?, None);
        census::as_before(&small.root, &before).await?;

        let layout = kubelet.node().dir().join("large");
        large.write_layout(&layout)?;
        let import =
            ["import", "--name", "localhost/large:1", &layout.display().to_string()].map(str::to_owned);
        let import: Vec<&str> = import.iter().map(String::as_str).collect();
        let output = kubelet.node().cli(&import)?.output()?;
        ensure!(!output.status.success(), "the import fits");
        says_full("import", &String::from_utf8_lossy(&output.stderr));
        census::as_before(&small.root, &before).await?;

        assert_eq!(container.sh("echo alive").await?, "alive");
        let fits = origin.offer("fits", &Image::new(&json!({}), vec![Layer::new().file("a", b"1")])?);
        kubelet.pull(&fits).await?;
        kubelet.remove_image(&fits).await?;
        kubelet.remove_pod(&pod.id).await?;
        Ok(())
    });
}

#[test]
fn a_layer_of_more_files_than_there_are_inodes_leaves_nothing() {
    on_own_node(&Setup::default(), async |kubelet| {
        let small = Small::mount(kubelet, "size=64m,nr_inodes=600,mode=0700")?;
        let before = census::files(&small.root);
        let layer = (0..1000).fold(Layer::new(), |layer, number| layer.file(&number.to_string(), b""));
        let reference = Origin::start()?.offer("many", &Image::new(&json!({}), vec![layer])?);
        let status = kubelet.pull(&reference).await.err().context("a pull that does not fit")?;
        says_full("pull", status.message());
        census::as_before(&small.root, &before).await
    });
}

#[test]
fn on_a_full_disk_what_runs_goes_on_nothing_new_begins_and_everything_can_be_removed() {
    on_own_node(&Setup::default(), async |kubelet| {
        let small = Small::mount(kubelet, "size=24m,mode=0700")?;
        kubelet.image(BUSYBOX).await?;
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let created = pod.container().create().await?;
        let reference =
            Origin::start()?.offer("tiny", &Image::new(&json!({}), vec![Layer::new().file("a", b"1")])?);
        let request = pod.container().request().await?;
        let before = census::files(&small.root);
        let filler = small.fill()?;

        let status = kubelet.pull(&reference).await.err().context("a pull on a full disk")?;
        says_full("pull", status.message());
        assert_eq!(kubelet.image_status(&reference).await?, None);
        let status = kubelet.pod().refused().await?;
        says_full("RunPodSandbox", status.message());
        let status =
            Container::create(&pod, request.clone()).await.err().context("a container on a full disk")?;
        says_full("CreateContainer", status.message());
        assert_eq!(kubelet.pods(wire::PodSandboxFilter::default()).await?.len(), 1);
        assert_eq!(kubelet.containers(wire::ContainerFilter::default()).await?.len(), 2);

        assert_eq!(container.sh("echo alive").await?, "alive");
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        assert_eq!(container.sh("echo alive").await?, "alive");
        assert!(kubelet.image_status(BUSYBOX).await?.is_some());
        created.remove().await?;
        drop(filler);
        let gone = created.id.clone();
        let before = before.into_iter().filter(|path| !path.contains(&gone)).collect();
        census::as_before(&small.root, &before).await?;

        let another = Container::create(&pod, request).await?;
        let filler = small.fill()?;
        container.stop(Duration::ZERO).await?;
        container.remove().await?;
        another.remove().await?;
        kubelet.remove_pod(&pod.id).await?;
        kubelet.remove_image(BUSYBOX).await?;
        assert_eq!(kubelet.image_status(BUSYBOX).await?, None);
        drop(filler);
        kubelet.image(BUSYBOX).await?;
        Ok(())
    });
}
