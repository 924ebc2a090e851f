//! Pulling, finding, listing and removing images.

use anyhow::Context;
use corten_tests::kubelet::spec;
use corten_tests::on_node;
use corten_tests::registry::{BUSYBOX, STAGING};
use k8s_cri::v1 as wire;

#[test]
fn an_image_has_one_id_everywhere() {
    on_node(async |kubelet| {
        let id = kubelet.image(BUSYBOX).await?;
        let status = kubelet.image_status(BUSYBOX).await?.context("the image")?;
        assert_eq!(status.id, id);
        assert_eq!(kubelet.pull(BUSYBOX).await?, id);
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        assert_eq!(container.status().await?.image_id, id);
        let filter = wire::ContainerFilter { id: container.id.clone(), ..Default::default() };
        let listed = kubelet.containers(filter).await?;
        assert_eq!(listed[0].image_id, id);
        assert_eq!(listed[0].image_ref, id);
        Ok(())
    });
}

#[test]
fn an_image_is_found_by_tag_digest_id_and_short_id() {
    on_node(async |kubelet| {
        let name = format!("{STAGING}/test-image-1");
        let id = kubelet.pull(&name).await?;
        let image = kubelet.image_status(&name).await?.context("the image by its name without a tag")?;
        assert_eq!(image.repo_tags, [format!("{name}:latest")]);
        let digest = image.repo_digests.first().context("a digest")?;
        assert!(digest.starts_with(&format!("{name}@sha256:")), "{digest}");
        let short = id.trim_start_matches("sha256:")[..12].to_owned();
        for reference in [&format!("{name}:latest"), digest, &id, &short] {
            let found = kubelet.image_status(reference).await?;
            assert_eq!(found.map(|image| image.id).as_ref(), Some(&id), "by {reference}");
        }
        assert!(image.size > 0);
        kubelet.remove_image(&id).await?;
        assert_eq!(kubelet.pull(digest).await?, id, "pulled by digest");
        kubelet.remove_image(digest).await?;
        Ok(())
    });
}

#[test]
fn every_form_of_manifest_and_layer_runs() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for form in ["schema2", "zstd", "plain", "index"] {
            let image = format!("quay.io/corten/busybox:{form}");
            let container = pod
                .container()
                .image(&image)
                .command(["ls", "/bin/busybox", "/other-platform"])
                .start()
                .await?;
            container.exited().await?;
            assert_eq!(container.lines("stdout")?, ["/bin/busybox"], "{form}");
        }
        Ok(())
    });
}

#[test]
fn a_mirror_is_asked_before_the_host_and_the_name_stays() {
    on_node(async |kubelet| {
        let name = "ghcr.io/corten/busybox:mirrored";
        kubelet.pull(name).await?;
        let image = kubelet.image_status(name).await?.context("the image")?;
        assert!(image.repo_tags.iter().any(|tag| tag == name), "{:?}", image.repo_tags);
        assert!(image.repo_tags.iter().all(|tag| !tag.starts_with("127.")), "{:?}", image.repo_tags);
        Ok(())
    });
}

#[test]
fn an_absent_image_has_a_status_without_an_image() {
    on_node(async |kubelet| {
        assert_eq!(kubelet.image_status("registry.k8s.io/never/pulled:1").await?, None);
        Ok(())
    });
}

#[test]
fn removing_an_image_removes_all_its_tags_at_once() {
    on_node(async |kubelet| {
        let tags = ["1", "2", "3"].map(|tag| format!("{STAGING}/test-image-tags:{tag}"));
        for tag in &tags {
            kubelet.pull(tag).await?;
        }
        let image = kubelet.image_status(&tags[0]).await?.context("the image")?;
        let mut known = image.repo_tags.clone();
        known.sort_unstable();
        assert_eq!(known, tags);
        kubelet.remove_image(&tags[1]).await?;
        for tag in &tags {
            assert_eq!(kubelet.image_status(tag).await?, None);
        }
        let images = kubelet.cri().images.list_images(wire::ListImagesRequest { filter: None }).await?;
        assert!(images.into_inner().images.iter().all(|other| other.id != image.id));
        Ok(())
    });
}

#[test]
fn removing_an_image_twice_is_no_error() {
    on_node(async |kubelet| {
        kubelet.remove_image("registry.k8s.io/never/pulled:1").await?;
        let name = format!("{STAGING}/test-image-2:latest");
        kubelet.pull(&name).await?;
        kubelet.remove_image(&name).await?;
        kubelet.remove_image(&name).await?;
        Ok(())
    });
}

#[test]
fn two_registries_with_one_image_give_one_id() {
    on_node(async |kubelet| {
        let first = kubelet.pull("registry.k8s.io/pause:3.9").await?;
        let second = kubelet.pull("k8s.gcr.io/pause:3.9").await?;
        assert_eq!(first, second);
        let image = kubelet.image_status(&first).await?.context("the image")?;
        for tag in ["registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"] {
            assert!(image.repo_tags.iter().any(|known| known == tag), "{:?}", image.repo_tags);
        }
        Ok(())
    });
}

#[test]
fn the_user_of_an_image_is_reported_without_its_group() {
    on_node(async |kubelet| {
        let cases = [
            ("test-image-user-uid", Some(1002), ""),
            ("test-image-user-username", None, "www-data"),
            ("test-image-user-uid-group", Some(1003), ""),
            ("test-image-user-username-group", None, "www-data"),
        ];
        for (name, uid, username) in cases {
            let name = format!("{STAGING}/{name}");
            kubelet.pull(&name).await?;
            let image = kubelet.image_status(&name).await?.context("the image")?;
            assert_eq!(image.uid.map(|uid| uid.value), uid, "{name}");
            assert_eq!(image.username, username, "{name}");
        }
        Ok(())
    });
}

#[test]
fn one_image_pulled_many_times_at_once_is_one_image() {
    on_node(async |kubelet| {
        let name = format!("{STAGING}/test-image-3:latest");
        kubelet.remove_image(&name).await?;
        let pulls: Vec<_> = (0..8)
            .map(|_| {
                let mut images = kubelet.cri().images;
                let request = wire::PullImageRequest { image: Some(spec(&name)), ..Default::default() };
                tokio::spawn(async move { images.pull_image(request).await })
            })
            .collect();
        let mut ids = Vec::new();
        for pull in pulls {
            ids.push(pull.await??.into_inner().image_ref);
        }
        ids.dedup();
        assert_eq!(ids.len(), 1);
        kubelet.remove_image(&name).await?;
        Ok(())
    });
}

#[test]
fn images_that_containers_run_stay_listed_with_their_digests() {
    on_node(async |kubelet| {
        kubelet.image(BUSYBOX).await?;
        let images = kubelet.cri().images.list_images(wire::ListImagesRequest { filter: None }).await?;
        let images = images.into_inner().images;
        assert!(images.iter().all(|image| !image.id.is_empty() && image.size > 0));
        let busybox = images.iter().find(|image| image.repo_tags.iter().any(|tag| tag == BUSYBOX));
        assert!(!busybox.context("busybox in the list")?.repo_digests.is_empty());
        let filter = Some(wire::ImageFilter { image: Some(spec(BUSYBOX)) });
        let images = kubelet.cri().images.list_images(wire::ListImagesRequest { filter }).await?;
        assert_eq!(images.into_inner().images.len(), 1);
        Ok(())
    });
}

#[test]
fn the_image_file_system_is_an_existing_directory_with_bytes_in_it() {
    on_node(async |kubelet| {
        kubelet.image(BUSYBOX).await?;
        let usage = kubelet.cri().images.image_fs_info(wire::ImageFsInfoRequest {}).await?.into_inner();
        let first = usage.image_filesystems.first().context("a file system")?;
        let path = &first.fs_id.as_ref().context("its directory")?.mountpoint;
        assert!(std::path::Path::new(path).is_dir(), "{path}");
        assert!(first.used_bytes.as_ref().context("its bytes")?.value > 0);
        assert!(first.timestamp > 0);
        Ok(())
    });
}
