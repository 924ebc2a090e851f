//! Binds from the host into a container.

use std::fs;
use std::path::PathBuf;

use corten_tests::{Kubelet, Result, on_node};
use k8s_cri::v1 as wire;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A fresh directory of the host.
fn volume(kubelet: &Kubelet) -> Result<PathBuf> {
    let dir = kubelet.node().dir().join(format!("volume-{}", kubelet.unique()));
    fs::create_dir(&dir)?;
    Ok(dir)
}

/// A tmpfs of the host that is gone with the value.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        Ok(Self(path))
    }

    fn shared(path: PathBuf) -> Result<Self> {
        let tmpfs = Self::mount(path)?;
        mount(None::<&str>, &tmpfs.0, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
        Ok(tmpfs)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

#[test]
fn a_volume_is_read_and_written() {
    on_node(async |kubelet| {
        let dir = volume(kubelet)?;
        fs::write(dir.join("from-host"), "hello\n")?;
        let pod = kubelet.pod().run().await?;
        let source = dir.display().to_string();
        let container = pod.container().mount(&source, "/data/deep", |_| {}).start().await?;
        assert_eq!(
            container.sh("cat /data/deep/from-host; echo back > /data/deep/from-container").await?,
            "hello"
        );
        assert_eq!(fs::read_to_string(dir.join("from-container"))?, "back\n");
        let mounts = container.status().await?.mounts;
        let reported = mounts.iter().find(|mount| mount.container_path == "/data/deep");
        assert_eq!(reported.map(|mount| mount.host_path.as_str()), Some(source.as_str()));
        Ok(())
    });
}

#[test]
fn a_file_is_a_volume_too() {
    on_node(async |kubelet| {
        let dir = volume(kubelet)?;
        fs::write(dir.join("hosts"), "1.2.3.4 somewhere\n")?;
        let pod = kubelet.pod().run().await?;
        let source = dir.join("hosts").display().to_string();
        let container = pod.container().mount(&source, "/etc/hosts", |_| {}).start().await?;
        assert_eq!(container.sh("cat /etc/hosts").await?, "1.2.3.4 somewhere");
        Ok(())
    });
}

#[test]
fn a_read_only_volume_is_not_written() {
    on_node(async |kubelet| {
        let dir = volume(kubelet)?;
        let pod = kubelet.pod().run().await?;
        let source = dir.display().to_string();
        let container =
            pod.container().mount(&source, "/data", |mount| mount.readonly = true).start().await?;
        let output = container.exec(["touch", "/data/file"]).await?;
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
        Ok(())
    });
}

#[test]
fn recursively_read_only_includes_mounts_below() {
    on_node(async |kubelet| {
        let dir = volume(kubelet)?;
        let below = Tmpfs::mount(dir.join("below"))?;
        let pod = kubelet.pod().run().await?;
        let source = dir.display().to_string();
        let change = |mount: &mut wire::Mount| {
            mount.readonly = true;
            mount.recursive_read_only = true;
        };
        let container = pod.container().mount(&source, "/data", change).start().await?;
        let output = container.exec(["touch", "/data/below/file"]).await?;
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
        let plain = |mount: &mut wire::Mount| mount.readonly = true;
        let container = pod.container().mount(&source, "/data", plain).start().await?;
        assert_eq!(container.exec(["touch", "/data/below/file"]).await?.code, 0);
        drop(below);
        Ok(())
    });
}

#[test]
fn recursively_read_only_contradictions_are_refused() {
    on_node(async |kubelet| {
        let dir = volume(kubelet)?.display().to_string();
        let pod = kubelet.pod().run().await?;
        let writable = |mount: &mut wire::Mount| mount.recursive_read_only = true;
        pod.container().mount(&dir, "/data", writable).refused().await?;
        let propagated = |mount: &mut wire::Mount| {
            mount.readonly = true;
            mount.recursive_read_only = true;
            mount.propagation = wire::MountPropagation::PropagationHostToContainer.into();
        };
        pod.container().mount(&dir, "/data", propagated).refused().await?;
        Ok(())
    });
}

#[test]
fn mounts_propagate_as_asked() {
    on_node(async |kubelet| {
        let base = Tmpfs::shared(volume(kubelet)?)?;
        let source = base.0.display().to_string();
        let pod = kubelet.pod().privileged().run().await?;
        let kind = |propagation: wire::MountPropagation| {
            move |mount: &mut wire::Mount| mount.propagation = propagation.into()
        };
        let start = async |propagation| {
            pod.container()
                .mount(&source, "/data", kind(propagation))
                .security(|security| security.privileged = true)
                .start()
                .await
        };
        let private = start(wire::MountPropagation::PropagationPrivate).await?;
        let slave = start(wire::MountPropagation::PropagationHostToContainer).await?;
        let shared = start(wire::MountPropagation::PropagationBidirectional).await?;

        let late = Tmpfs::mount(base.0.join("late"))?;
        fs::write(late.0.join("file"), "")?;
        for (container, sees) in [(&private, false), (&slave, true), (&shared, true)] {
            assert_eq!(container.exec(["test", "-e", "/data/late/file"]).await?.code == 0, sees);
        }
        let inner = "mkdir -p /data/inner && mount -t tmpfs inner /data/inner && touch /data/inner/file";
        for (container, sees) in [(&private, false), (&slave, false), (&shared, true)] {
            container.sh(inner).await?;
            assert_eq!(base.0.join("inner/file").exists(), sees);
        }
        shared.sh("umount /data/inner").await?;
        drop(late);
        Ok(())
    });
}

#[test]
fn a_missing_source_is_made_as_a_directory() {
    on_node(async |kubelet| {
        let dir = volume(kubelet)?.join("not/there");
        let pod = kubelet.pod().run().await?;
        let container = pod.container().mount(&dir.display().to_string(), "/data", |_| {}).start().await?;
        container.sh("touch /data/file").await?;
        assert!(dir.join("file").exists());
        Ok(())
    });
}

#[test]
fn a_source_behind_a_symbolic_link_is_the_links_target() {
    on_node(async |kubelet| {
        let dir = volume(kubelet)?;
        fs::create_dir(dir.join("target"))?;
        fs::write(dir.join("target/file"), "found\n")?;
        std::os::unix::fs::symlink(dir.join("target"), dir.join("link"))?;
        let pod = kubelet.pod().run().await?;
        let source = dir.join("link").display().to_string();
        let container = pod.container().mount(&source, "/data", |_| {}).start().await?;
        assert_eq!(container.sh("cat /data/file").await?, "found");
        Ok(())
    });
}

#[test]
fn a_volume_below_a_volume_is_on_top_whatever_the_order() {
    on_node(async |kubelet| {
        let (outer, inner) = (volume(kubelet)?, volume(kubelet)?);
        fs::write(inner.join("file"), "inner\n")?;
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .mount(&outer.display().to_string(), "/data", |_| {})
            .mount(&inner.display().to_string(), "/data/below", |_| {})
            .start()
            .await?;
        assert_eq!(container.sh("cat /data/below/file").await?, "inner");
        Ok(())
    });
}

#[test]
fn no_mount_of_a_container_is_seen_on_the_host() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() || !corten_tests::host::handler().is_empty() {
            return corten_tests::skip("other runtimes keep root file systems mounted on the host");
        }
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own: Vec<_> = mounts.lines().filter(|line| line.contains(&container.id)).collect();
        assert!(own.is_empty(), "{own:?}");
        Ok(())
    });
}
