//! Masked and read-only paths in trees that change meanwhile.
//!
//! Class of known bugs 1A: CVE-2025-31133, CVE-2025-52565 and their like, where the mask is the attacker's.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use corten_tests::{Container, host, on_node, rounds, skip};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// What a container does to names of a volume that it shares with one that is being made.
fn exchange(one: &str, other: &str) -> String {
    format!(
        "while :; do mv {one} {one}.aside; mv {other} {one}; mv {one} {other}; mv {one}.aside {one}; done"
    )
}

fn utf8(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_null_device_exchanged_with_a_link_masks_nothing_with_what_it_leads_to() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() || !host::handler().is_empty() {
            return skip("runtimes of before CVE-2025-31133 mount what the link leads to");
        }
        let volume = kubelet.node().dir().join(format!("dev-{}", kubelet.unique()));
        fs::create_dir(&volume)?;
        let device =
            || mknodat(CWD, volume.join("null"), FileType::CharacterDevice, Mode::RWXU, makedev(1, 3));
        if device().is_err() {
            return skip("this machine makes no device nodes");
        }
        std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", volume.join("link"))?;
        let before = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
        let pod = kubelet.pod().run().await?;
        let attacker = pod.container().mount(&utf8(&volume), "/shared", |_| {});
        let attacker = attacker.sh(&exchange("/shared/null", "/shared/link")).start().await?;
        let mut started = 0;
        for round in 0..rounds(40) {
            let request = pod
                .container()
                .mount(&utf8(&volume), "/dev", |_| {})
                .security(|security| security.masked_paths = vec!["/proc/keys".to_owned()])
                .request()
                .await?;
            // Refused or made: both are safe.
            let Ok(container) = Container::create(&pod, request).await else { continue };
            if container.start().await.is_ok() {
                started += 1;
                let masks = container.sh("grep ' /proc/keys ' /proc/self/mountinfo; cat /proc/keys").await?;
                ensure!(!masks.contains("core_pattern") && masks.lines().count() == 1, "{round}: {masks}");
            }
            container.remove().await?;
        }
        ensure!(attacker.status().await?.finished_at == 0, "the attacker ended: no race");
        ensure!(started > 0, "none started");
        assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern")?, before);
        Ok(())
    });
}

#[test]
fn paths_exchanged_while_they_are_masked_leave_the_masks_of_others_in_place() {
    on_node(async |kubelet| {
        let dir = kubelet.node().dir().join(format!("masks-{}", kubelet.unique()));
        let (volume, outside) = (dir.join("volume"), dir.join("outside"));
        fs::create_dir_all(volume.join("place"))?;
        fs::create_dir(&outside)?;
        for file in [volume.join("place/file"), outside.join("file")] {
            fs::write(file, "it")?;
        }
        std::os::unix::fs::symlink("/proc/self/root/proc", volume.join("link"))?;
        std::os::unix::fs::symlink(&outside, volume.join("place/far"))?;
        let pod = kubelet.pod().run().await?;
        let attacker = pod.container().mount(&utf8(&volume), "/shared", |_| {});
        let attacker = attacker.sh(&exchange("/shared/place", "/shared/link")).start().await?;
        let mut started = 0;
        for round in 0..rounds(40) {
            let lists = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
            let request = pod
                .container()
                .mount(&utf8(&volume), "/data", |_| {})
                .security(|security| {
                    security.masked_paths =
                        lists(&["/data/place/file", "/data/place/far/file", "/proc/keys"]);
                    security.readonly_paths = lists(&["/data/place", "/data/place/sys", "/proc/sys"]);
                })
                .request()
                .await?;
            let Ok(container) = Container::create(&pod, request).await else { continue };
            if container.start().await.is_ok() {
                started += 1;
                assert_eq!(container.sh("cat /proc/keys").await?, "", "round {round}");
                let written = container.exec(["sh", "-c", "echo x > /proc/sys/kernel/domainname"]).await?;
                assert_ne!(written.code, 0, "round {round}: {written:?}");
            }
            container.remove().await?;
        }
        ensure!(attacker.status().await?.finished_at == 0, "the attacker ended: no race");
        ensure!(started > 0, "none started");
        assert_eq!(fs::read_to_string(outside.join("file"))?, "it");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!mounts.contains(&utf8(&dir)), "{mounts}");
        Ok(())
    });
}
