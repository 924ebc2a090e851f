//! What a layer says is what a container sees: whiteouts, links, modes and attributes. Credentials.

use anyhow::Context;
use corten_tests::image::{Image, Layer};
use corten_tests::kubelet::spec;
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::{Kubelet, Result, on_node};
use k8s_cri::v1 as wire;
use serde_json::json;
use tonic::Code;

/// Runs a shell script in an image of these layers, which lie on those of busybox.
async fn output(kubelet: &Kubelet, layers: Vec<Layer>, script: &str) -> Result<Vec<String>> {
    let origin = Origin::start()?;
    let image = on_busybox(layers)?;
    let reference = origin.offer(&format!("layers{}", kubelet.unique()), &image);
    let pod = kubelet.pod().run().await?;
    let container = pod.container().image(&reference).sh(script).start().await?;
    container.exited().await?;
    let mut lines = container.lines("stdout")?;
    lines.extend(container.lines("stderr")?);
    pod.remove().await?;
    kubelet.remove_image(&reference).await?;
    Ok(lines)
}

fn on_busybox(layers: Vec<Layer>) -> Result<Image> {
    Image::on(BUSYBOX, &json!({"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}), layers)
}

#[test]
fn a_whiteout_hides_one_file_and_an_opaque_directory_all() {
    on_node(async |kubelet| {
        let lower = Layer::new()
            .dir("data/", 0o755)
            .file("data/kept", b"")
            .file("data/removed", b"")
            .dir("full/", 0o755)
            .file("full/old", b"");
        let upper =
            Layer::new().whiteout("data/removed").dir("full/", 0o755).opaque("full").file("full/new", b"");
        let lines = output(kubelet, vec![lower, upper], "ls -A /data /full").await?;
        assert_eq!(lines, ["/data:", "kept", "", "/full:", "new"]);
        Ok(())
    });
}

#[test]
fn a_later_layer_changes_what_a_path_is() {
    on_node(async |kubelet| {
        let lower = Layer::new().file("was-file", b"x").dir("was-dir/", 0o755).file("was-dir/inner", b"x");
        let upper = Layer::new().dir("was-file/", 0o755).file("was-file/inner", b"").file("was-dir", b"y");
        let lines = output(kubelet, vec![lower, upper], "ls -A /was-file; cat /was-dir").await?;
        assert_eq!(lines, ["inner", "y"]);
        Ok(())
    });
}

#[test]
fn links_owners_modes_and_times_are_kept() {
    on_node(async |kubelet| {
        let owned = |header: &mut tar::Header| {
            header.set_mode(0o4750);
            header.set_uid(1234);
            header.set_gid(4321);
            header.set_mtime(1_000_000_000);
        };
        let link = |header: &mut tar::Header| {
            owned(header);
            header.as_old_mut().linkname[..6].copy_from_slice(b"d/file");
        };
        let layer = Layer::new()
            .dir("d/", 0o1777)
            .entry("d/file", tar::EntryType::Regular, owned, b"content")
            .entry("d/hard", tar::EntryType::Link, link, b"")
            .symlink("d/soft", "file");
        let script = "stat -c '%a %u %g %Y %h' /d/file; stat -c %a /d; readlink /d/soft; \
                      [ $(stat -c %i /d/file) = $(stat -c %i /d/hard) ] && echo same; cat /d/soft";
        let lines = output(kubelet, vec![layer], script).await?;
        assert_eq!(lines, ["4750 1234 4321 1000000000 2", "1777", "file", "same", "content"]);
        Ok(())
    });
}

#[test]
fn file_capabilities_are_kept() {
    on_node(async |kubelet| {
        // CAP_NET_RAW, permitted and effective, in the second form of vfs_cap_data.
        let capability = [0x01, 0, 0, 0x02, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let program = std::fs::read("/proc/self/exe").context("any program")?;
        let program = &program[..program.len().min(64)];
        let layer = Layer::new().xattr("security.capability", &capability).entry(
            "capable",
            tar::EntryType::Regular,
            |header| header.set_mode(0o755),
            program,
        );
        let origin = Origin::start()?;
        let image = on_busybox(vec![layer])?;
        let reference = origin.offer("capable", &image);
        let pod = kubelet.pod().run().await?;
        let container = pod.container().image(&reference).command(["sleep", "1000"]).start().await?;
        let file = std::fs::File::open(format!("/proc/{}/root/capable", container.pid().await?))?;
        let mut value = [0; 64];
        let length = rustix::fs::fgetxattr(&file, "security.capability", &mut value)?;
        assert_eq!(&value[..length], capability);
        Ok(())
    });
}

#[test]
fn missing_parents_are_made_for_root() {
    on_node(async |kubelet| {
        let layer = Layer::new().file("a/b/c/file", b"deep\n");
        let lines = output(kubelet, vec![layer], "cat /a/b/c/file; stat -c '%u %a' /a/b").await?;
        assert_eq!(lines, ["deep", "0 755"]);
        Ok(())
    });
}

#[test]
fn credentials_of_the_request_open_a_private_registry() {
    on_node(async |kubelet| {
        let origin = Origin::start()?;
        let image = Image::new(&json!({}), vec![Layer::new().file("secret", b"")])?;
        let reference = origin.offer("private", &image);
        origin.require("user", "password");
        let pull = async |password: &str| {
            let auth = wire::AuthConfig {
                username: "user".to_owned(),
                password: password.to_owned(),
                ..Default::default()
            };
            let request = wire::PullImageRequest {
                image: Some(spec(&reference)),
                auth: Some(auth),
                sandbox_config: None,
            };
            kubelet.cri().images.pull_image(request).await
        };
        let refused = pull("hunter2").await.unwrap_err();
        assert_ne!(refused.code(), Code::DeadlineExceeded, "{refused}");
        assert!(!refused.message().contains("hunter2"), "a password in the error: {refused}");
        assert!(kubelet.pull(&reference).await.is_err(), "it was pulled without credentials");
        pull("password").await?;
        kubelet.remove_image(&reference).await?;
        Ok(())
    });
}

#[test]
fn layers_that_two_images_share_are_fetched_once() {
    on_node(async |kubelet| {
        let origin = Origin::start()?;
        let shared = || Layer::new().file("shared", b"the same in both");
        let first = Image::new(&json!({}), vec![shared(), Layer::new().file("first", b"")])?;
        let second = Image::new(&json!({}), vec![shared(), Layer::new().file("second", b"")])?;
        let name = format!("sharing{}", kubelet.unique());
        let first_reference = origin.offer(&name, &first);
        kubelet.pull(&first_reference).await?;
        let second_reference = origin.offer(&format!("{name}-too"), &second);
        kubelet.pull(&second_reference).await?;
        let digest = &first.blobs[0].0;
        assert_eq!(origin.fetches(digest), 1, "the shared layer");
        kubelet.remove_image(&first_reference).await?;
        kubelet.remove_image(&second_reference).await?;
        Ok(())
    });
}
