//! Artifacts: what registries keep beside images can be mounted, and not run.

use std::process::Command;

use anyhow::{Context, ensure};
use corten_tests::distribution::{Distribution, Settings};
use corten_tests::image::{Image, digest};
use corten_tests::kubelet::spec;
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::{Container, Kubelet, Result, Setup, on_own_node};
use k8s_cri::v1 as wire;
use tonic::Code;

use super::archives::{corten, output, path};
use super::image_volumes::{start, with};

const CHART: &str = "application/vnd.cncf.helm.config.v1+json";
const CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// Files as ORAS pushes them: most with a title, one without.
fn files() -> Image {
    let text = "text/plain";
    Image::artifact(
        "application/vnd.example.files",
        &[
            (Some("one.txt"), text, b"one\n"),
            (Some("conf/two.txt"), text, b"two\n"),
            (Some("conf/deep/three.txt"), text, b"three\n"),
            (None, text, b"no title\n"),
            (None, "application/vnd.oci.empty.v1+json", b"{}"),
        ],
    )
}

async fn offered(kubelet: &Kubelet, image: &Image) -> Result<String> {
    let reference = Origin::start()?.offer(&format!("files{}", kubelet.unique()), image);
    kubelet.image(&reference).await?;
    Ok(reference)
}

#[test]
fn a_helm_chart_that_was_pushed_to_the_registry_is_mounted() {
    on_own_node(&Setup::default(), async |kubelet| {
        let registry = Distribution::start(&Settings { empty: true, ..Default::default() })?;
        let chart = Image::artifact(CHART, &[(None, CONTENT, b"the chart's archive")]);
        let layout = tempfile::tempdir()?;
        chart.write_layout(layout.path())?;
        let name = format!("{}/charts/web:1.0.0", registry.host());
        let pushed = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("oci:{}", layout.path().display()))
            .arg(format!("docker://{name}"))
            .output()
            .context("run skopeo")?;
        ensure!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        let id = kubelet.image(&name).await?;
        assert_eq!(id, digest(&chart.manifest), "a chart is known by its manifest");
        let pod = kubelet.pod().run().await?;
        let container = start(&pod, &name, "").await?;
        let file = digest(b"the chart's archive").replace(':', "-");
        assert_eq!(container.sh("ls /volume").await?, file);
        assert_eq!(container.sh(&format!("cat /volume/{file}")).await?, "the chart's archive");
        Ok(())
    });
}

#[test]
fn files_stand_where_their_titles_say_and_are_never_written() {
    on_own_node(&Setup::default(), async |kubelet| {
        let name = offered(kubelet, &files()).await?;
        let pod = kubelet.pod().run().await?;
        let whole = start(&pod, &name, "").await?;
        let untitled = digest(b"no title\n").replace(':', "-");
        let listed = whole.sh("cd /volume && find . -type f | sort").await?;
        assert_eq!(listed, format!("./conf/deep/three.txt\n./conf/two.txt\n./one.txt\n./{untitled}"));
        assert_eq!(
            whole.sh("cd /volume; cat one.txt conf/two.txt conf/deep/three.txt").await?,
            "one\ntwo\nthree"
        );
        assert_eq!(whole.sh("stat -c %a:%u:%g /volume/one.txt").await?, "644:0:0");
        let output = whole.exec(["touch", "/volume/one.txt"]).await?;
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
        let part = start(&pod, &name, "conf").await?;
        assert_eq!(part.sh("cat /volume/two.txt /volume/deep/three.txt").await?, "two\nthree");
        let file = start(&pod, &name, "conf/two.txt").await?;
        assert_eq!(file.sh("cat /volume").await?, "two");
        let status = Container::create_newest(&pod, with(&pod, &name, "absent").await?)
            .await
            .err()
            .context("a part that is not there")?;
        assert_eq!(status.code(), Code::NotFound, "{status}");
        Ok(())
    });
}

/// Mounts the files and reads them.
async fn check_files(kubelet: &Kubelet, name: &str) -> Result {
    let pod = kubelet.pod().run().await?;
    let container = start(&pod, name, "").await?;
    assert_eq!(container.sh("cd /volume && find . -type f | wc -l").await?, "4");
    let read = container.sh("cd /volume; cat one.txt conf/two.txt conf/deep/three.txt").await?;
    assert_eq!(read, "one\ntwo\nthree");
    Ok(kubelet.remove_pod(&pod.id).await?)
}

#[test]
fn an_artifact_comes_back_from_archives_as_it_left() {
    on_own_node(&Setup::default(), async |kubelet| {
        let name = offered(kubelet, &files()).await?;
        let id = digest(&files().manifest);
        for form in ["oci-archive", "oci-dir"] {
            let file = path(kubelet, form);
            corten(kubelet, &["export", "--format", form, "-o", &file, &name])?;
            kubelet.remove_image(&name).await?;
            assert_eq!(corten(kubelet, &["import", &file])?, format!("{name} {id}"), "{form}");
            check_files(kubelet, &name).await.context(form)?;
        }
        // Beside an image, from which it takes no platform.
        let (both, busybox) = (path(kubelet, "both"), kubelet.pull(BUSYBOX).await?);
        corten(kubelet, &["export", "-o", &both, BUSYBOX, &name])?;
        kubelet.remove_image(&name).await?;
        let imported = corten(kubelet, &["import", &both])?;
        assert_eq!(imported, format!("{BUSYBOX} {busybox}\n{name} {id}"));
        let checked = corten(kubelet, &["check-images"])?;
        assert!(checked.ends_with(" 0 damaged, 0 repaired"), "{checked}");
        let file = path(kubelet, "docker-archive");
        let refused =
            kubelet.node().cli(&["export", "--format", "docker-archive", "-o", &file, &name])?.output()?;
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && told.contains("it is an artifact"), "{told}");
        assert!(!std::path::Path::new(&file).exists(), "nothing is left of it");
        Ok(())
    });
}

#[test]
fn an_artifact_goes_to_a_registry_by_way_of_an_archive_and_back() {
    on_own_node(&Setup::default(), async |kubelet| {
        let registry = Distribution::start(&Settings { empty: true, ..Default::default() })?;
        let name = offered(kubelet, &files()).await?;
        let id = digest(&files().manifest);
        let (out, back) = (path(kubelet, "out.tar"), path(kubelet, "back.tar"));
        corten(kubelet, &["export", "-o", &out, &name])?;
        kubelet.remove_image(&name).await?;
        let tag = name.rsplit(':').next().context("a tag")?;
        let there = format!("{}/files:1", registry.host());
        for (from, to) in [
            (format!("oci-archive:{out}:{tag}"), format!("docker://{there}")),
            (format!("docker://{there}"), format!("oci-archive:{back}:{there}")),
        ] {
            let mut skopeo = Command::new("skopeo");
            skopeo.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
            output(skopeo.args(["--src-tls-verify=false", &from, &to]))?;
        }
        assert_eq!(kubelet.image(&there).await?, id);
        kubelet.remove_image(&there).await?;
        assert_eq!(corten(kubelet, &["import", &back])?, format!("{there} {id}"));
        check_files(kubelet, &there).await
    });
}

#[test]
fn an_artifact_is_not_run() {
    on_own_node(&Setup::default(), async |kubelet| {
        let name = offered(kubelet, &files()).await?;
        let pod = kubelet.pod().run().await?;
        let mut request = pod.container().request().await?;
        request.config.get_or_insert_default().image = Some(spec(&name));
        let status = Container::create(&pod, request).await.err().context("a container of an artifact")?;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let expected = format!("{name} is an artifact of type \"application/vnd.example.files\"");
        assert!(status.message().contains(&expected), "{status}");
        Ok(())
    });
}

#[test]
fn an_artifact_is_listed_counted_removed_and_outlives_a_restart() {
    on_own_node(&Setup::default(), async |kubelet| {
        let used = async || -> Result<u64> {
            let info = kubelet.cri().images.image_fs_info(wire::ImageFsInfoRequest {}).await?.into_inner();
            let images = info.image_filesystems.into_iter().next().and_then(|disk| disk.used_bytes);
            Ok(images.context("used bytes")?.value)
        };
        let before = used().await?;
        let model = vec![7_u8; 3 << 20];
        let image = Image::artifact("application/x-model", &[(Some("weights"), "x/y", &model)]);
        let name = offered(kubelet, &image).await?;
        let other = offered(kubelet, &files()).await?;
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        let found = kubelet.image_status(&name).await?.context("the artifact")?;
        assert_eq!(
            (found.id.as_str(), &found.repo_tags),
            (digest(&image.manifest).as_str(), &vec![name.clone()])
        );
        assert!(found.size > 3 << 20, "{}", found.size);
        assert!(kubelet.image_status(&other).await?.is_some_and(|other| other.id != found.id), "same config");
        let listed = kubelet.cri().images.list_images(wire::ListImagesRequest { filter: None }).await?;
        assert_eq!(listed.into_inner().images.len(), 2);
        assert!(used().await? >= before + (3 << 20));
        kubelet.remove_image(&name).await?;
        kubelet.remove_image(&other).await?;
        assert_eq!(kubelet.image_status(&name).await?, None);
        assert_eq!(used().await?, before);
        Ok(())
    });
}

#[test]
fn an_artifact_with_names_that_lead_astray_is_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        for title in ["../../../etc/cron.d/x", "/etc/passwd", ".wh.one", "a/../../b"] {
            let image = Image::artifact("application/x", &[(Some(title), "x/y", b"x")]);
            let reference = Origin::start()?.offer(&format!("astray{}", kubelet.unique()), &image);
            let status = kubelet.pull(&reference).await.err().context("a pull of names that lead astray")?;
            assert!(status.message().contains(title), "{status}");
        }
        Ok(())
    });
}
