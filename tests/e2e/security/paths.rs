//! Masked, read-only and hostile paths.

use std::fs;

use corten_tests::image::{Image, Layer};
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::{on_node, skip};
use serde_json::json;

#[test]
fn a_read_only_root_is_not_written() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().security(|security| security.readonly_rootfs = true).start().await?;
        let output = container.exec(["touch", "/file"]).await?;
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
        container.sh("echo x > /dev/shm/file && echo x > /dev/null").await?;
        Ok(())
    });
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_are_not_written() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .security(|security| {
                security.masked_paths = ["/etc/passwd", "/var/log", "/not/there"].map(str::to_owned).into();
                security.readonly_paths = ["/proc/sys", "/tmp", "/not/there"].map(str::to_owned).into();
            })
            .start()
            .await?;
        assert_eq!(container.sh("cat /etc/passwd; ls -A /var/log").await?, "");
        let output = container.exec(["touch", "/tmp/file"]).await?;
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
        let output = container.exec(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).await?;
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
        Ok(())
    });
}

#[test]
fn sysfs_is_read_only_and_cgroups_are_too() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let mounts = container.sh("grep -E ' /sys[^ ]* (sysfs|cgroup2?) ' /proc/mounts").await?;
        for line in mounts.lines() {
            let options = line.split(' ').nth(3).unwrap_or_default();
            assert!(options.split(',').any(|option| option == "ro"), "{line}");
        }
        assert!(mounts.contains(" /sys/fs/cgroup"), "{mounts}");
        Ok(())
    });
}

#[test]
fn links_in_an_image_lead_no_mount_out_of_it() {
    on_node(async |kubelet| {
        let outside = kubelet.node().dir().join(format!("outside-{}", kubelet.unique()));
        fs::create_dir(&outside)?;
        let host = outside.display().to_string();
        // Every place that a runtime mounts on or writes to, led astray.
        let layer = Layer::new()
            .dir("inner/", 0o755)
            .symlink("data", &host)
            .symlink("sub", "../../../../../../../../../../..")
            .whiteout("etc/resolv.conf")
            .symlink("etc/resolv.conf", &format!("{host}/resolv.conf"))
            .symlink("etc/hosts", &format!("{host}/hosts"))
            .symlink("etc/mtab", &format!("{host}/mtab"));
        let image = Image::on(BUSYBOX, &json!({"Env": ["PATH=/bin:/usr/bin"]}), vec![layer])?;
        let reference = Origin::start()?.offer(&format!("links{}", kubelet.unique()), &image);
        let volume = kubelet.node().dir().join(format!("inside-{}", kubelet.unique()));
        fs::create_dir(&volume)?;
        fs::write(volume.join("file"), "in the volume\n")?;
        let pod = kubelet.pod().run().await?;
        let source = volume.display().to_string();
        let container = pod
            .container()
            .image(&reference)
            .command(["sleep", "1000"])
            .mount(&source, "/data/mounted", |_| {})
            .mount(&source, &format!("/sub{host}/mounted"), |_| {})
            .with(|config| config.working_dir = "/data/work".to_owned())
            .start()
            .await?;
        container.sh("cat /data/mounted/file; cat /etc/resolv.conf").await?;
        let made: Vec<_> = fs::read_dir(&outside)?.collect();
        assert!(made.is_empty(), "made outside the image: {made:?}");
        Ok(())
    });
}

#[test]
fn a_device_directory_that_is_a_link_is_not_followed() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() {
            return skip("runtimes of before CVE-2026-41579 follow it");
        }
        let outside = kubelet.node().dir().join(format!("dev-{}", kubelet.unique()));
        fs::create_dir(&outside)?;
        let layer = Layer::new().whiteout("dev").symlink("dev", &outside.display().to_string());
        let image = Image::on(BUSYBOX, &json!({"Env": ["PATH=/bin:/usr/bin"]}), vec![layer])?;
        let reference = Origin::start()?.offer("devlink", &image);
        let pod = kubelet.pod().run().await?;
        // Refused or put inside the image: both are safe.
        let request = pod.container().image(&reference).command(["sleep", "1000"]).request().await?;
        if let Ok(container) = corten_tests::Container::create(&pod, request).await {
            drop(container.start().await);
        }
        assert_eq!(fs::read_dir(&outside)?.count(), 0);
        Ok(())
    });
}

#[test]
fn a_working_directory_in_an_open_file_of_the_runtime_is_refused() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for number in 3..16 {
            let container = pod
                .container()
                .command(["pwd"])
                .with(|config| config.working_dir = format!("/proc/self/fd/{number}"))
                .create()
                .await;
            let Ok(container) = container else { continue };
            if container.start().await.is_ok() {
                container.exited().await?;
                let lines = container.lines("stdout")?;
                assert!(lines.iter().all(|line| line.starts_with("/proc/self/fd")), "{number}: {lines:?}");
            }
            container.remove().await?;
        }
        Ok(())
    });
}
