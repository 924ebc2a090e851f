//! Hostile layers: nothing in them reaches the host. A pull may fail or put things inside; both are
//! safe, and the errors are tested in `errors`.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use corten_tests::image::{Image, Layer, digest};
use corten_tests::origin::Origin;
use corten_tests::{Kubelet, Result, on_node};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tar::EntryType;

/// Pulls an image of these layers, whatever comes of it, and looks whether `outside` was touched.
async fn stays_inside(kubelet: &Kubelet, what: &str, outside: &Path, layers: Vec<Layer>) -> Result {
    let before = fs::read(outside.join("canary"))?;
    let origin = Origin::start()?;
    let image = Image::new(&json!({"Cmd": ["x"]}), layers)?;
    let reference = origin.offer(&format!("hostile{}", kubelet.unique()), &image);
    if kubelet.pull(&reference).await.is_ok() {
        kubelet.remove_image(&reference).await?;
    }
    assert_eq!(fs::read(outside.join("canary")).unwrap_or_default(), before, "{what}: the canary changed");
    let mut names: Vec<_> = fs::read_dir(outside)?.flatten().map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["canary"], "{what}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(outside)?.permissions()) & 0o7777;
    assert_eq!(mode, 0o755, "{what}: the mode of the directory changed");
    Ok(())
}

#[test]
fn no_layer_writes_outside_its_directory() {
    on_node(async |kubelet| {
        let outside = kubelet.node().dir().join(format!("host-{}", kubelet.unique()));
        fs::create_dir(&outside)?;
        fs::write(outside.join("canary"), "alive")?;
        let host = outside.display().to_string();
        let up = "../".repeat(12);
        let relative = format!("{up}{}", host.trim_start_matches('/'));
        let cases: Vec<(&str, Vec<Layer>)> = vec![
            ("an absolute name", vec![Layer::new().file(&format!("{host}/x"), b"x")]),
            ("a name with dots", vec![Layer::new().file(&format!("{relative}/x"), b"x")]),
            ("a link, then a file below it", vec![Layer::new().symlink("link", &host).file("link/x", b"x")]),
            (
                "a relative link, then a file below it",
                vec![Layer::new().symlink("link", &relative).file("link/canary", b"dead")],
            ),
            (
                "a link in the layer below",
                vec![Layer::new().symlink("link", &host), Layer::new().file("link/x", b"x")],
            ),
            ("a link to a link", vec![Layer::new().symlink("a", &host).symlink("b", "a").file("b/x", b"x")]),
            (
                "a hard link to a file outside",
                vec![Layer::new().hardlink("hard", &format!("{host}/canary")).file("hard", b"dead")],
            ),
            (
                "a hard link with dots",
                vec![Layer::new().hardlink("hard", &format!("{relative}/canary")).file("hard", b"dead")],
            ),
            (
                "a hard link through a link",
                vec![
                    Layer::new().symlink("link", &host).hardlink("hard", "link/canary").file("hard", b"dead"),
                ],
            ),
            ("a whiteout through a link", vec![Layer::new().symlink("link", &host).whiteout("link/canary")]),
            ("a whiteout with dots", vec![Layer::new().whiteout(&format!("{relative}/canary"))]),
            ("a whiteout of the parent", vec![Layer::new().file(".wh...", b"")]),
            ("an opaque directory behind a link", vec![Layer::new().symlink("link", &host).opaque("link")]),
            (
                "a directory over a link, for its mode",
                vec![Layer::new().symlink("link", &host).dir("link", 0o777)],
            ),
            ("a link over the root", vec![Layer::new().symlink("./", &host).file("x", b"x")]),
            (
                "a file behind /proc",
                vec![
                    Layer::new().symlink("link", "/proc/self/cwd/..").file("link/x", b"x"),
                    Layer::new().symlink("link", &format!("/proc/1/root{host}")).file("link/x", b"x"),
                ],
            ),
        ];
        for (what, layers) in cases {
            stays_inside(kubelet, what, &outside, layers).await?;
        }
        Ok(())
    });
}

/// A zstd frame that demands a window of so many bytes, as a power of two, with its content as it is.
fn zstd(window_log: u8, content: &[u8]) -> Result<Vec<u8>> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
    let mut blocks = content.chunks(100_000).peekable();
    while let Some(block) = blocks.next() {
        let head = u32::try_from(block.len())? << 3 | u32::from(blocks.peek().is_none());
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    Ok(frame)
}

/// The same image, with its one layer in such a frame.
fn in_zstd(image: &Image, window_log: u8) -> Result<Image> {
    let mut tar = Vec::new();
    GzDecoder::new(&image.blobs[0].1[..]).read_to_end(&mut tar)?;
    let blob = zstd(window_log, &tar)?;
    let mut manifest: Value = serde_json::from_slice(&image.manifest)?;
    manifest["layers"][0] = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
        "digest": digest(&blob), "size": blob.len()});
    let blobs = vec![(digest(&blob), blob), image.blobs[1].clone()];
    Ok(Image { blobs, manifest: manifest.to_string().into_bytes() })
}

#[test]
fn a_window_of_128_mib_fits_into_the_jail_and_a_larger_one_is_refused() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() {
            return corten_tests::skip("other runtimes have other limits");
        }
        let image = Image::new(&json!({}), vec![Layer::new().file("file", &[7; 300_000])])?;
        let origin = Origin::start()?;
        let fits = origin.offer("window27", &in_zstd(&image, 27)?);
        kubelet.pull(&fits).await?;
        kubelet.remove_image(&fits).await?;
        let status = kubelet.pull(&origin.offer("window28", &in_zstd(&image, 28)?)).await;
        let status = status.err().context("a window of 256 MiB")?;
        assert!(status.message().contains("layer") && status.message().contains("sha256:"), "{status}");
        Ok(())
    });
}

#[test]
fn devices_and_private_attributes_of_overlayfs_do_not_come_out_of_a_layer() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() {
            return corten_tests::skip("other runtimes make device nodes from layers");
        }
        let node = |header: &mut tar::Header| {
            header.set_device_major(1).ok();
            header.set_device_minor(11).ok();
        };
        let layer = Layer::new()
            .entry("kmsg", EntryType::Char, node, b"")
            .xattr("trusted.overlay.redirect", b"/")
            .dir("redirected/", 0o755)
            .xattr("user.kept", b"yes")
            .file("attributed", b"x");
        let origin = Origin::start()?;
        let image =
            Image::on(corten_tests::registry::BUSYBOX, &json!({"Env": ["PATH=/bin:/usr/bin"]}), vec![layer])?;
        let reference = origin.offer("devices", &image);
        if kubelet.pull(&reference).await.is_err() {
            return Ok(());
        }
        let pod = kubelet.pod().run().await?;
        let container = pod.container().image(&reference).command(["sleep", "1000"]).start().await?;
        assert_ne!(container.exec(["test", "-c", "/kmsg"]).await?.code, 0);
        assert_ne!(container.exec(["test", "-e", "/redirected/bin"]).await?.code, 0);
        Ok(())
    });
}
