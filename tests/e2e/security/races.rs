//! Trees that change while the runtime works in them, and images that lie about where things are.
//!
//! Classes of known bugs 1A and 1C. A race is run some hundred times, which takes seconds; whoever changes how paths
//! are walked runs it ten thousand times (`CORTEN_TEST_ROUNDS`).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, ensure};
use corten_tests::image::{Image, Layer};
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::{Container, Result, on_node, rounds, skip};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

/// Exchanges two names without a pause.
struct Racer {
    done: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Racer {
    fn start(one: &Path, other: &Path) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (ended, one, other) = (done.clone(), one.to_owned(), other.to_owned());
        let thread = std::thread::spawn(move || {
            let mut rounds = 0;
            while !ended.load(Ordering::Relaxed) {
                rounds += u64::from(renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok());
            }
            rounds
        });
        Self { done, thread }
    }

    /// Ends it, and returns how often it exchanged them.
    fn end(self) -> Result<u64> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the racer")
    }
}

/// CVE-2021-30465, CVE-2024-45310: a place to mount at that is a directory now and a link to the node then.
#[test]
fn a_directory_exchanged_with_a_link_leads_no_mount_to_the_node() {
    on_node(async |kubelet| {
        let dir = kubelet.node().dir().join(format!("race-{}", kubelet.unique()));
        let (volume, inner, outside) = (dir.join("volume"), dir.join("inner"), dir.join("outside"));
        for path in [&volume.join("place"), &inner, &outside] {
            fs::create_dir_all(path)?;
        }
        std::os::unix::fs::symlink(&outside, volume.join("link"))?;
        let pod = kubelet.pod().run().await?;
        let text = |path: &std::path::Path| path.display().to_string();
        let request = |number: usize| {
            let builder = pod.container().mount(&text(&volume), "/data", |_| {});
            builder.mount(&text(&inner), &format!("/data/place/{number}/inner"), |_| {}).request()
        };
        let racer = Racer::start(&volume.join("place"), &volume.join("link"));
        let mut made = 0;
        for number in 0..rounds(150) {
            // Refused or made: both are safe.
            if let Ok(container) = Container::create(&pod, request(number).await?).await {
                made += 1;
                container.remove().await?;
            }
        }
        let exchanged = racer.end()?;
        ensure!(made > 0 && exchanged > 150, "{made} containers, {exchanged} exchanges: no race");
        assert_eq!(fs::read_dir(&outside)?.count(), 0, "made on the node");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        assert!(!mounts.contains(&text(&outside)) && !mounts.contains(&text(&inner)), "{mounts}");
        Ok(())
    });
}

/// 1C, CVE-2017-1002101, CVE-2021-25741: a volume that is another directory at every look.
#[test]
fn a_volume_exchanged_with_a_link_is_one_of_both_and_as_read_only_as_asked() {
    on_node(async |kubelet| {
        let dir = kubelet.node().dir().join(format!("volumes-{}", kubelet.unique()));
        let (volume, link, target) = (dir.join("volume"), dir.join("link"), dir.join("target"));
        for path in [&volume, &target] {
            fs::create_dir_all(path)?;
            fs::write(path.join("mark"), "it\n")?;
        }
        std::os::unix::fs::symlink(&target, &link)?;
        let pod = kubelet.pod().run().await?;
        let racer = Racer::start(&volume, &link);
        let mut made = 0;
        for _ in 0..rounds(60) {
            let script = "cat /data/mark; touch /data/new 2>/dev/null && echo written; true";
            let builder = pod.container().sh(script);
            let builder =
                builder.mount(&volume.display().to_string(), "/data", |mount| mount.readonly = true);
            // Refused or made: both are safe.
            if let Ok(container) = Container::create(&pod, builder.request().await?).await {
                container.start().await?;
                container.exited().await?;
                assert_eq!(container.lines("stdout")?, ["it"]);
                container.remove().await?;
                made += 1;
            }
        }
        let exchanged = racer.end()?;
        ensure!(made > 0 && exchanged > 60, "{made} containers, {exchanged} exchanges: no race");
        for path in [&volume, &target] {
            assert_eq!(fs::read_dir(path)?.count(), 1, "something was written to {}", path.display());
        }
        Ok(())
    });
}

/// CVE-2023-28642, containerd CVE-2022-23648, CRI-O CVE-2024-5154: `/proc`, `/etc`, devices and volumes that are links.
#[test]
fn what_an_image_says_of_places_is_about_the_image_alone() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() {
            return skip("other runtimes refuse some of these images");
        }
        let outside = kubelet.node().dir().join(format!("outside-{}", kubelet.unique()));
        fs::create_dir(&outside)?;
        let host = outside.display().to_string();
        let up = format!("../../../../../../..{host}");
        let link = |path: &str, to: &str| Layer::new().whiteout(path).symlink(path, to);
        let volumes =
            [&host, &up, &format!("/proc/self/root/..{host}"), "relative", "/../../..", "/data/../..//x"];
        let volumes: serde_json::Map<_, _> =
            volumes.into_iter().map(|path| (path.to_string(), json!({}))).collect();
        let images = [
            (json!({}), link("proc", &host)),
            (json!({}), link("sys", &up)),
            (json!({}), link("etc", &host)),
            (json!({}), link("dev", "nowhere")),
            (json!({}), Layer::new().symlink("dev/console", &host).symlink("dev/pts", &up)),
            (json!({}), Layer::new().symlink("dev/shm", &host).symlink("dev/mqueue", "nowhere")),
            (json!({ "Volumes": volumes }), Layer::new().dir("data/", 0o755)),
            (json!({ "WorkingDir": up }), Layer::new()),
        ];
        let pod = kubelet.pod().run().await?;
        for (number, (mut config, layer)) in images.into_iter().enumerate() {
            config["Env"] = json!(["PATH=/bin:/usr/bin"]);
            let image = Image::on(BUSYBOX, &config, vec![layer])?;
            let reference = Origin::start()?.offer(&format!("places{}", kubelet.unique()), &image);
            let request = pod.container().image(&reference).command(["sleep", "1000"]).request().await?;
            // Refused or put inside the image: both are safe.
            if let Ok(container) = Container::create(&pod, request).await {
                if container.start().await.is_ok() {
                    let kinds = container.sh("grep -c ' /proc proc ' /proc/mounts").await?;
                    assert_eq!(kinds, "1", "{number}");
                }
                container.remove().await?;
            }
            assert_eq!(fs::read_dir(&outside)?.count(), 0, "{number} made something on the node");
        }
        Ok(())
    });
}

/// 1C, CRI-O CVE-2024-3154, CVE-2023-6476, containerd CVE-2026-53488: what is written on a pod or an image orders
/// nothing.
#[test]
fn annotations_and_labels_of_images_order_nothing() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() {
            return skip("it looks at Corten's own spec");
        }
        let orders = [
            ("org.systemd.property.ExecStop", "'/bin/touch /x'"),
            ("io.kubernetes.cri-o.UnifiedCgroup.c", "memory.max=4096"),
            ("run.oci.keep_original_groups", "1"),
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.containerd.log.uri", "binary:///bin/sh"),
        ];
        let orders = || orders.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels: std::collections::HashMap<_, _> = orders().into();
        let image = Image::on(
            BUSYBOX,
            &json!({"Env": ["PATH=/bin:/usr/bin"], "Labels": labels}),
            vec![Layer::new().file("mark", b"")],
        )?;
        let reference = Origin::start()?.offer(&format!("labels{}", kubelet.unique()), &image);
        let pod = kubelet.pod().with(|config| config.annotations.extend(orders())).run().await?;
        let container = pod
            .container()
            .image(&reference)
            .command(["sleep", "1000"])
            .with(|config| config.annotations.extend(orders()))
            .start()
            .await?;
        let status = container.status().await?;
        assert_eq!((status.labels.len(), status.annotations.len()), (0, 5), "{status:?}");
        let info = container.info().await?;
        let spec = info["runtimeSpec"]["annotations"].as_object().context("annotations")?;
        assert!(spec.keys().all(|key| key.starts_with("io.kubernetes.cri.")), "{spec:?}");
        assert_eq!(spec["io.kubernetes.cri.container-type"], "container");
        assert_eq!(container.cgroup().await?.memory_limit()?, None);
        Ok(())
    });
}

/// 1B, containerd CVE-2021-21334: containers of one image that are made at once have each their own environment.
#[test]
fn no_container_has_the_environment_of_another() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        kubelet.image(BUSYBOX).await?;
        let one = async |number: usize| -> Result<()> {
            let mark = k8s_cri::v1::KeyValue { key: format!("MARK_{number}"), value: number.to_string() };
            let container =
                pod.container().sh("env | grep ^MARK_").with(|config| config.envs.push(mark)).start().await?;
            container.exited().await?;
            assert_eq!(container.lines("stdout")?, [format!("MARK_{number}={number}")]);
            container.remove().await?;
            Ok(())
        };
        let all = futures_util::future::join_all((0..40).map(one)).await;
        all.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(())
    });
}
