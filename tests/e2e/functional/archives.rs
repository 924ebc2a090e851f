//! Images come from archives and go into them, under the same ids.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use corten_tests::image::{Image, Layer, digest};
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::{Kubelet, Result, Setup, host, on_own_node};
use serde_json::{Value, json};

/// What a command prints.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {told}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

pub(super) fn corten(kubelet: &Kubelet, args: &[&str]) -> Result<String> {
    output(&mut kubelet.node().cli(args)?)
}

pub(super) fn path(kubelet: &Kubelet, name: &str) -> String {
    kubelet.node().dir().join(name).display().to_string()
}

async fn id_of(kubelet: &Kubelet, reference: &str) -> Result<String> {
    Ok(kubelet.image_status(reference).await?.with_context(|| format!("{reference} is there"))?.id)
}

/// A tar archive of these files; a content that begins with `->` is a symbolic link.
fn tar(to: &Path, files: &[(&str, &[u8])]) -> Result {
    let mut archive = tar::Builder::new(File::create(to)?);
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(0);
        if let Some(target) = content.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut header, name, String::from_utf8(target.to_vec())?)?;
        } else {
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, *content)?;
        }
    }
    Ok(archive.into_inner()?.flush()?)
}

#[test]
fn an_image_comes_back_from_every_form_of_archive_as_it_left() {
    on_own_node(&Setup::default(), async |kubelet| {
        let id = kubelet.pull(BUSYBOX).await?;
        for form in ["oci-archive", "oci-dir", "docker-archive"] {
            let file = path(kubelet, form);
            corten(kubelet, &["export", "--format", form, "-o", &file, BUSYBOX])?;
            kubelet.remove_image(BUSYBOX).await?;
            assert_eq!(corten(kubelet, &["import", &file])?, format!("{BUSYBOX} {id}"), "{form}");
            assert_eq!(id_of(kubelet, BUSYBOX).await?, id, "{form}");
            let pod = kubelet.pod().run().await?;
            let container = pod.container().image(BUSYBOX).command(["sleep", "1000"]).start().await?;
            assert_eq!(container.exec(["echo", "whole"]).await?.stdout, "whole\n", "{form}");
            kubelet.remove_pod(&pod.id).await?;
        }
        // Nothing is brought that is there, also from a pipe and compressed as a whole.
        let archive = File::open(path(kubelet, "oci-archive"))?;
        let gzip = Command::new("gzip").arg("-1c").stdin(archive).stdout(Stdio::piped()).spawn()?;
        let piped = gzip.stdout.context("gzip's output")?;
        assert_eq!(output(kubelet.node().cli(&["import", "-"])?.stdin(piped))?, format!("{BUSYBOX} {id}"));
        Ok(())
    });
}

#[test]
fn skopeo_and_umoci_read_what_is_exported_and_write_what_is_imported() {
    on_own_node(&Setup::default(), async |kubelet| {
        for tool in ["skopeo", "umoci"] {
            if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
                return corten_tests::skip("skopeo and umoci are not installed");
            }
        }
        let id = kubelet.pull(BUSYBOX).await?;
        let (oci, dir, docker) = (path(kubelet, "a.tar"), path(kubelet, "dir"), path(kubelet, "d.tar"));
        corten(kubelet, &["export", "-o", &oci, BUSYBOX])?;
        corten(kubelet, &["export", "--format", "oci-dir", "-o", &dir, BUSYBOX])?;
        corten(kubelet, &["export", "--format", "docker-archive", "-o", &docker, BUSYBOX])?;
        kubelet.remove_image(BUSYBOX).await?;
        let tag = BUSYBOX.rsplit(':').next().context("a tag")?;
        let policy = path(kubelet, "skopeo-policy.json");
        fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        let copied = path(kubelet, "copied.tar");
        for (from, to) in [
            (format!("oci-archive:{oci}:{tag}"), format!("docker-archive:{copied}:{BUSYBOX}")),
            (format!("oci:{dir}:{tag}"), format!("oci-archive:{copied}:{BUSYBOX}")),
            (format!("docker-archive:{docker}:{BUSYBOX}"), format!("oci-archive:{copied}:{BUSYBOX}")),
        ] {
            fs::remove_file(&copied).ok();
            output(Command::new("skopeo").args(["--policy", &policy, "copy", &from, &to]))?;
            let imported = corten(kubelet, &["import", &copied]).with_context(|| format!("{from} {to}"))?;
            assert!(imported.starts_with(&format!("{BUSYBOX} sha256:")), "{imported}");
            // Docker's form keeps the configuration as it is; skopeo may write it anew in OCI's.
            assert!(to.starts_with("oci") || imported.ends_with(&id), "{from} {to}: {imported}");
            kubelet.remove_image(BUSYBOX).await?;
        }
        let bundle = path(kubelet, "bundle");
        output(Command::new("umoci").args(["unpack", "--image", &format!("{dir}:{tag}"), &bundle]))?;
        assert!(Path::new(&bundle).join("rootfs/bin/busybox").exists());
        fs::write(Path::new(&bundle).join("rootfs/added"), "x")?;
        output(Command::new("umoci").args(["repack", "--image", &format!("{dir}:more"), &bundle]))?;
        let imported = corten(kubelet, &["import", "--name", "localhost/busy", &dir])?;
        assert!(imported.contains("localhost/busy:more "), "{imported}");
        let pod = kubelet.pod().run().await?;
        let container =
            pod.container().image("localhost/busy:more").command(["sleep", "1000"]).start().await?;
        assert_eq!(container.exec(["cat", "/added"]).await?.stdout, "x");
        Ok(())
    });
}

/// Uncompressed layers and the configuration of an image, as `docker save` has them.
fn saved() -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let made = Image::new(
        &json!({"Cmd": ["x"]}),
        vec![Layer::new().file("a", b"1"), Layer::new(), Layer::new().file("b", b"2"), Layer::new()],
    )?;
    let (config, layers) = made.blobs.split_last().context("a configuration")?;
    let plain = layers.iter().map(|(_, blob)| {
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&blob[..]), &mut tar)?;
        Ok(tar)
    });
    Ok((config.1.clone(), plain.collect::<Result<_>>()?))
}

#[test]
fn archives_of_docker_save_are_taken_old_and_new() {
    on_own_node(&Setup::default(), async |kubelet| {
        let (config, layers) = saved()?;
        let id = digest(&config);
        let hex = id.trim_start_matches("sha256:");
        let name = format!("{hex}.json");
        // Before OCI's layout: a directory for each layer, and links where one is there twice.
        let manifest = json!([{"Config": name, "RepoTags": ["old:1", "localhost:5000/x/old:2"],
            "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar", "4/layer.tar"]}]);
        let old = kubelet.node().dir().join("old.tar");
        tar(
            &old,
            &[
                ("1/VERSION", b"1.0"),
                ("1/layer.tar", &layers[0]),
                ("2/layer.tar", &layers[1]),
                ("3/layer.tar", &layers[2]),
                ("4/layer.tar", b"->../2/layer.tar"),
                (&name, &config),
                ("manifest.json", manifest.to_string().as_bytes()),
                ("repositories", b"{}"),
            ],
        )?;
        let printed = corten(kubelet, &["import", &old.display().to_string()])?;
        assert!(printed.ends_with(&id), "{printed}");
        for name in ["docker.io/library/old:1", "localhost:5000/x/old:2"] {
            assert_eq!(id_of(kubelet, name).await?, id);
        }
        kubelet.remove_image(&id).await?;
        // After it: blobs, and both indexes.
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).trim_start_matches("sha256:"));
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|bytes| describe(layer, bytes)).collect::<Vec<Value>>()});
        let manifest = manifest.to_string().into_bytes();
        let mut entry = describe("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": "docker.io/library/new:1"});
        let nested = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
        let index = json!({"schemaVersion": 2,
            "manifests": [describe("application/vnd.oci.image.index.v1+json", &nested)]});
        let new = kubelet.node().dir().join("new.tar");
        let mut files: Vec<(String, &[u8])> = vec![
            ("oci-layout".into(), b"{\"imageLayoutVersion\": \"1.0.0\"}"),
            (blob(&config), &config),
            (blob(&manifest), &manifest),
            (blob(&nested), &nested),
        ];
        files.extend(layers.iter().map(|bytes| (blob(bytes), &bytes[..])));
        let index = index.to_string().into_bytes();
        files.push(("index.json".into(), &index));
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        tar(&new, &files)?;
        corten(kubelet, &["import", &new.display().to_string()])?;
        assert_eq!(id_of(kubelet, "docker.io/library/new:1").await?, id);
        Ok(())
    });
}

/// The same image with another word in its configuration.
fn with(image: &Image, key: &str, value: &str) -> Result<Image> {
    let (config, layers) = image.blobs.split_last().context("a configuration")?;
    let mut foreign: Value = serde_json::from_slice(&config.1)?;
    foreign[key] = json!(value);
    let foreign = foreign.to_string().into_bytes();
    let mut manifest: Value = serde_json::from_slice(&image.manifest)?;
    manifest["config"]["digest"] = json!(digest(&foreign));
    manifest["config"]["size"] = json!(foreign.len());
    let blobs = layers.iter().cloned().chain([(digest(&foreign), foreign)]).collect();
    Ok(Image { blobs, manifest: manifest.to_string().into_bytes() })
}

/// What BuildKit lists beside an image: how it was built, in the form of an image.
fn attestation(dir: &Path, image: &Image) -> Result<Value> {
    let put = |kind: &str, bytes: &[u8]| {
        let digest = digest(bytes);
        fs::write(dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), bytes)?;
        Ok::<_, anyhow::Error>(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
    };
    let config =
        put("application/vnd.oci.image.config.v1+json", br#"{"architecture":"unknown","os":"unknown"}"#)?;
    let statement = put("application/vnd.in-toto+json", br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#)?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [statement]});
    let mut entry = put(kind, manifest.to_string().as_bytes())?;
    entry["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": digest(&image.manifest)});
    Ok(entry)
}

/// An OCI layout of one name, which means an index of all these images.
fn write_index(dir: &Path, name: &str, images: &[&Image]) -> Result {
    let describe =
        |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let manifests = images.iter().map(|image| {
        image.write_layout(dir)?;
        Ok(describe("application/vnd.oci.image.manifest.v1+json", &image.manifest))
    });
    let mut manifests: Vec<Value> = manifests.collect::<Result<_>>()?;
    manifests.push(attestation(dir, images[0])?);
    let nested = json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes();
    fs::write(dir.join("blobs/sha256").join(digest(&nested).trim_start_matches("sha256:")), &nested)?;
    let mut entry = describe("application/vnd.oci.image.index.v1+json", &nested);
    entry["annotations"] = json!({"io.containerd.image.name": name});
    Ok(fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())?)
}

#[test]
fn the_images_for_all_platforms_come_in_and_go_out_together() {
    on_own_node(&Setup::default(), async |kubelet| {
        let here = Image::new(&json!({"Cmd": ["x"]}), vec![Layer::new().file("a", b"1").file("a", b"22")])?;
        let there = with(&here, "architecture", "s390x")?;
        let ids = [&here, &there]
            .map(|image| image.blobs.last().map(|(digest, _)| digest.clone()).unwrap_or_default());
        let name = "docker.io/library/many:1";
        let (layout, archive) = (path(kubelet, "layout"), path(kubelet, "many.tar"));
        write_index(Path::new(&layout), name, &[&here, &there])?;
        let taken = async || -> Result<Vec<bool>> {
            let mut found = Vec::new();
            for id in &ids {
                found.push(kubelet.image_status(id).await?.is_some());
            }
            Ok(found)
        };
        corten(kubelet, &["import", &layout])?;
        assert_eq!((taken().await?, id_of(kubelet, name).await?), (vec![true, false], ids[0].clone()));
        corten(kubelet, &["import", "--all-platforms", &layout])?;
        assert_eq!((taken().await?, id_of(kubelet, name).await?), (vec![true, true], ids[0].clone()));
        corten(kubelet, &["export", "--all-platforms", "-o", &archive, name])?;
        for id in &ids {
            kubelet.remove_image(id).await?;
        }
        let printed = corten(kubelet, &["import", "--all-platforms", &archive])?;
        assert_eq!(
            (taken().await?, id_of(kubelet, name).await?),
            (vec![true, true], ids[0].clone()),
            "{printed}"
        );
        corten(kubelet, &["export", "-o", &archive, name])?;
        for id in &ids {
            kubelet.remove_image(id).await?;
        }
        corten(kubelet, &["import", "--all-platforms", &archive])?;
        assert_eq!(taken().await?, [true, false], "one alone, when one is asked for");
        let docker = ["export", "--all-platforms", "--format", "docker-archive", "-o", &archive, name];
        let refused = kubelet.node().cli(&docker)?.output()?;
        assert!(String::from_utf8_lossy(&refused.stderr).contains("knows no platforms"), "{refused:?}");
        Ok(())
    });
}

/// As a pull chooses among them.
#[test]
fn of_the_variants_that_an_index_offers_the_best_for_this_machine_comes_in() {
    on_own_node(&Setup::default(), async |kubelet| {
        let variant = if cfg!(target_arch = "aarch64") { "v8" } else { "v1" };
        let any = Image::new(&json!({"Cmd": ["x"]}), vec![Layer::new().file("a", b"1")])?;
        let (best, none) = (with(&any, "variant", variant)?, with(&any, "variant", "v99")?);
        let ids =
            [&best, &any].map(|image| image.blobs.last().map(|blob| blob.0.clone()).unwrap_or_default());
        for (number, order) in [[&any, &best, &none], [&best, &any, &none]].into_iter().enumerate() {
            let name = format!("docker.io/library/variants:{number}");
            let layout = path(kubelet, &format!("layout-{number}"));
            write_index(Path::new(&layout), &name, &order)?;
            corten(kubelet, &["import", &layout])?;
            assert_eq!(id_of(kubelet, &name).await?, ids[0]);
            assert_eq!(kubelet.image_status(&ids[1]).await?, None);
            corten(kubelet, &["import", "--all-platforms", &layout])?;
            assert_eq!(id_of(kubelet, &name).await?, ids[0], "of all the best has the name");
            assert!(kubelet.image_status(&ids[1]).await?.is_some());
            kubelet.remove_image(&ids[1]).await?;
        }
        Ok(())
    });
}

#[test]
fn two_tags_are_no_platforms_of_each_other() {
    on_own_node(&Setup::default(), async |kubelet| {
        let names = ["docker.io/library/two:1", "docker.io/library/two:2"];
        let (first, second) = (path(kubelet, "first"), path(kubelet, "second.tar"));
        for (name, content) in names.iter().zip([b"1", b"2"]) {
            let layout = path(kubelet, name.rsplit(':').next().context("a tag")?);
            let image = Image::new(&json!({"Cmd": ["x"]}), vec![Layer::new().file("a", content)])?;
            write_index(Path::new(&layout), name, &[&image])?;
            corten(kubelet, &["import", &layout])?;
        }
        let ids = [id_of(kubelet, names[0]).await?, id_of(kubelet, names[1]).await?];
        corten(kubelet, &["export", "-o", &first, names[0], names[1]])?;
        let forget = async || -> Result {
            for id in &ids {
                kubelet.remove_image(id).await?;
            }
            Ok(())
        };
        forget().await?;
        corten(kubelet, &["import", &first])?;
        corten(kubelet, &["export", "--all-platforms", "-o", &second, names[0]])?;
        forget().await?;
        corten(kubelet, &["import", &second])?;
        assert_eq!(id_of(kubelet, names[0]).await?, ids[0]);
        assert_eq!(kubelet.image_status(&ids[1]).await?, None);
        Ok(())
    });
}

#[test]
fn a_pipe_that_is_exported_to_stays_one() {
    on_own_node(&Setup::default(), async |kubelet| {
        let id = kubelet.pull(BUSYBOX).await?;
        let pipe = path(kubelet, "pipe");
        nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU)?;
        let mut import = kubelet.node().cli(&["import", &pipe])?.stdout(Stdio::piped()).spawn()?;
        corten(kubelet, &["export", "-o", &pipe, BUSYBOX])?;
        let printed = std::io::read_to_string(import.stdout.take().context("its output")?)?;
        assert!(import.wait()?.success() && printed.trim_end() == format!("{BUSYBOX} {id}"), "{printed}");
        Ok(())
    });
}

#[test]
fn an_archive_that_lies_leaves_nothing() {
    on_own_node(&Setup::default(), async |kubelet| {
        let (config, mut layers) = saved()?;
        let name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let manifest = json!([{"Config": name, "RepoTags": ["bad:1"], "Layers": ["1", "2", "3", "2"]}]);
        layers[2][600] ^= 1;
        let file = kubelet.node().dir().join("bad.tar");
        let manifest = manifest.to_string().into_bytes();
        let files: [(&str, &[u8]); 5] = [
            ("1", &layers[0]),
            ("2", &layers[1]),
            ("3", &layers[2]),
            (&name, &config),
            ("manifest.json", &manifest),
        ];
        let import = |files: &[(&str, &[u8])]| {
            tar(&file, files)?;
            let failed = kubelet.node().cli(&["import", &file.display().to_string()])?.output()?;
            ensure!(!failed.status.success(), "the archive was taken");
            Ok(String::from_utf8(failed.stderr)?)
        };
        let told = import(&files)?;
        assert!(told.contains("digest"), "{told}");
        assert!(import(&files[1..])?.contains("1 is not in the archive"));
        assert!(import(&files[..4])?.contains("no archive of images"));
        assert!(import(&[])?.contains("no archive of images"));
        assert_eq!(kubelet.image_status("bad:1").await?, None);
        let layers = kubelet.node().root().join("layers");
        corten_tests::eventually("nothing is left", async || {
            let names = fs::read_dir(&layers)?.flatten().count();
            Ok((names == 3 && fs::read_dir(layers.join(".trash"))?.count() == 0).then_some(()))
        })
        .await
    });
}

#[test]
fn by_the_name_ctr_it_answers_what_kind_calls() {
    on_own_node(&Setup::default(), async |kubelet| {
        let id = kubelet.pull(BUSYBOX).await?;
        let archive = path(kubelet, "kind.tar");
        corten(kubelet, &["export", "-o", &archive, BUSYBOX])?;
        kubelet.remove_image(BUSYBOX).await?;
        let program = kubelet.node().dir().join("ctr");
        std::os::unix::fs::symlink(host::corten()?, &program)?;
        let socket = kubelet.node().socket().display().to_string();
        let ctr = |args: &[&str]| {
            let mut command = Command::new(&program);
            command.args(["--address", &socket]).args(args);
            command
        };
        let import = [
            "--namespace=k8s.io",
            "images",
            "import",
            "--all-platforms",
            "--digests",
            "--snapshotter=overlayfs",
            "-",
        ];
        output(ctr(&import).stdin(File::open(&archive)?))?;
        assert_eq!(id_of(kubelet, BUSYBOX).await?, id);
        output(&mut ctr(&["-n", "k8s.io", "images", "tag", "--force", BUSYBOX, "kind.local/busy:1"]))?;
        let listed = output(&mut ctr(&["--namespace=k8s.io", "images", "list", "-q"]))?;
        for name in [BUSYBOX, "kind.local/busy:1"] {
            assert!(listed.lines().any(|line| line == name), "{name} in {listed}");
        }
        assert!(listed.contains("busybox@sha256:"), "{listed}");
        Ok(())
    });
}

#[test]
fn a_manifest_without_a_type_is_taken_for_oci_s() {
    on_own_node(&Setup::default(), async |kubelet| {
        let mut image = Image::new(&json!({"Cmd": ["x"]}), vec![Layer::new().file("a", b"1")])?;
        let mut manifest: Value = serde_json::from_slice(&image.manifest)?;
        manifest.as_object_mut().context("a manifest")?.remove("mediaType");
        image.manifest = manifest.to_string().into_bytes();
        let layout = path(kubelet, "layout");
        image.write_layout(Path::new(&layout))?;
        let told = corten(kubelet, &["import", "--name", "localhost/typeless:1", &layout])?;
        let id = id_of(kubelet, "localhost/typeless:1").await?;
        assert_eq!(told, format!("localhost/typeless:1 {id}"));
        Ok(())
    });
}

#[test]
fn a_damaged_layer_is_found_and_that_layer_alone_is_pulled_anew() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = Origin::start()?;
        let layers = vec![Layer::new().file("whole", b"1"), Layer::new().file("victim", b"content")];
        let reference = origin.offer("checked", &Image::new(&json!({"Cmd": ["x"]}), layers)?);
        kubelet.pull(&reference).await?;
        assert_eq!(corten(kubelet, &["check-images"])?, "2 layers, 0 damaged, 0 repaired");
        let all = kubelet.node().root().join("layers");
        let find = |name: &str| {
            let found =
                fs::read_dir(&all)?.flatten().map(|entry| entry.path().join(name)).find(|p| p.exists());
            found.with_context(|| format!("{name} in a layer"))
        };
        let (whole, victim) = (find("whole")?, find("victim")?);
        fs::write(&victim, "CONTENT")?;
        let checked = kubelet.node().cli(&["check-images"])?.output()?;
        let told = String::from_utf8(checked.stdout)?;
        assert!(!checked.status.success() && told.contains("2 layers, 1 damaged, 0 repaired"), "{told}");
        assert!(told.contains(&reference), "{told}");
        let told = corten(kubelet, &["check-images", "--repair"])?;
        assert!(told.contains("2 layers, 1 damaged, 1 repaired"), "{told}");
        assert_eq!(corten(kubelet, &["check-images"])?, "2 layers, 0 damaged, 0 repaired");
        assert_eq!((fs::read(find("victim")?)?, find("whole")?), (b"content".to_vec(), whole));
        Ok(())
    });
}
