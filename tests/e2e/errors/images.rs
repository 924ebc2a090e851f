//! Images that are missing, damaged or hostile.

use corten_tests::image::{Image, Layer, digest};
use corten_tests::origin::{Fault, Origin};
use corten_tests::registry::BUSYBOX;
use corten_tests::{Kubelet, Result, Setup, census, host, on_node, on_own_node};
use serde_json::json;
use tonic::Code;

/// Pulls, expects an error, and expects the data directory to be as before.
async fn refused(kubelet: &Kubelet, reference: &str) -> Result<tonic::Status> {
    let before = census::files(&kubelet.node().root());
    let status = match kubelet.pull(reference).await {
        Ok(id) => anyhow::bail!("{reference} was pulled as {id}"),
        Err(status) => status,
    };
    assert_eq!(kubelet.image_status(reference).await?, None);
    census::as_before(&kubelet.node().root(), &before).await?;
    Ok(status)
}

#[test]
fn a_missing_image_is_not_found_and_named() {
    on_own_node(&Setup::default(), async |kubelet| {
        let reference = "registry.k8s.io/no/such/image:9";
        let status = refused(kubelet, reference).await?;
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(status.message().contains("no/such/image"), "{status}");
        let tag = "registry.k8s.io/e2e-test-images/busybox:no-such-tag";
        assert_eq!(refused(kubelet, tag).await?.code(), Code::NotFound);
        Ok(())
    });
}

#[test]
fn a_container_of_an_image_that_was_not_pulled_is_not_found() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let mut request = pod.container().request().await?;
        let config = request.config.get_or_insert_default();
        config.image = Some(corten_tests::kubelet::spec("registry.k8s.io/never/pulled:1"));
        let status = corten_tests::Container::create(&pod, request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(status.message().contains("never/pulled"), "{status}");
        Ok(())
    });
}

#[test]
fn a_reference_that_is_none_is_an_invalid_argument() {
    on_node(async |kubelet| {
        for reference in ["", "lower/UPPER", "a b", "busybox@sha256:123", "-/x", "a//b", "registry.k8s.io/x:"]
        {
            let status = kubelet.pull(reference).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{reference:?}: {status}");
        }
        Ok(())
    });
}

#[test]
fn a_layer_with_another_digest_is_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = Origin::start()?;
        let honest = Image::new(&json!({}), vec![Layer::new().file("file", b"honest")])?;
        let forged = Image::new(&json!({}), vec![Layer::new().file("file", b"forged")])?;
        let reference = origin.offer("forged", &honest);
        origin.replace_blob("forged", &honest.blobs[0].0, &forged.blobs[0].1);
        let status = refused(kubelet, &reference).await?;
        assert_eq!(status.code(), Code::DataLoss, "{status}");
        assert!(status.message().contains(&honest.blobs[0].0), "{status}");

        let corrupted = Image::new(&json!({}), vec![Layer::new().file("file", &[b'x'; 5000])])?;
        let reference = origin.offer("corrupted", &corrupted);
        origin.spoil_blob("corrupted", &corrupted.blobs[0].0, Fault::Corrupted);
        refused(kubelet, &reference).await?;
        Ok(())
    });
}

#[test]
fn a_configuration_with_another_digest_is_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = Origin::start()?;
        let image = Image::new(&json!({"Cmd": ["honest"]}), vec![Layer::new().file("file", b"")])?;
        let reference = origin.offer("config", &image);
        let config = &image.blobs[1];
        let forged = String::from_utf8(config.1.clone())?.replace("honest", "forged");
        origin.replace_blob("config", &config.0, forged.as_bytes());
        assert_eq!(refused(kubelet, &reference).await?.code(), Code::DataLoss);
        Ok(())
    });
}

#[test]
fn a_manifest_other_than_the_digest_asked_for_is_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = Origin::start()?;
        let image = Image::new(&json!({}), vec![Layer::new().file("file", b"")])?;
        origin.offer("pinned", &image);
        let other = digest(b"something else");
        let reference = origin.offer_manifest("pinned", &other, &image.manifest);
        assert_eq!(refused(kubelet, &reference).await?.code(), Code::DataLoss);
        Ok(())
    });
}

#[test]
fn a_layer_that_ends_early_is_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = Origin::start()?;
        let image = Image::new(&json!({}), vec![Layer::new().file("file", &vec![1; 100_000])])?;
        let reference = origin.offer("truncated", &image);
        origin.spoil_blob("truncated", &image.blobs[0].0, Fault::Truncated);
        refused(kubelet, &reference).await?;
        Ok(())
    });
}

#[test]
fn a_registry_that_fails_is_named() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = Origin::start()?;
        let image = Image::new(&json!({}), vec![Layer::new().file("file", b"")])?;
        let reference = origin.offer("failing", &image);
        origin.spoil_blob("failing", &image.blobs[0].0, Fault::Refused);
        let status = refused(kubelet, &reference).await?;
        assert!(status.message().contains("500"), "{status}");
        let closed = format!("127.0.0.1:{}/x:1", host::free_port()?);
        let status = refused(kubelet, &closed).await?;
        // The kubelet looks for this very word at the beginning, under this code alone.
        assert_eq!(status.code(), Code::Unknown, "{status}");
        assert!(status.message().starts_with("RegistryUnavailable"), "{status}");
        Ok(())
    });
}

#[test]
fn a_manifest_that_is_no_manifest_is_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = Origin::start()?;
        let digest = "sha256:../../../../etc/passwd";
        let traversal = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 2},
            "layers": [],
        });
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        for (name, text) in [
            ("empty", String::new()),
            ("list", "[]".to_owned()),
            ("html", "<html>log in first</html>".to_owned()),
            ("traversal", traversal.to_string()),
            ("deep", deep),
        ] {
            let reference = origin.offer_manifest(name, "latest", text.as_bytes());
            let status = refused(kubelet, &reference).await?;
            assert!(!status.message().is_empty(), "{name}");
        }
        Ok(())
    });
}

#[test]
fn a_hostile_layer_is_refused_and_named() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = Origin::start()?;
        let climbing = Layer::new().file("../../outside", b"x");
        let reference = origin.offer("climbing", &Image::new(&json!({}), vec![climbing])?);
        let status = refused(kubelet, &reference).await?;
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("../../outside"), "{status}");
        Ok(())
    });
}

#[test]
fn a_pull_whose_caller_leaves_is_stopped() {
    on_own_node(&Setup::default(), async |kubelet| {
        let before = census::files(&kubelet.node().root());
        let origin = Origin::start()?;
        let image = Image::new(&json!({}), vec![Layer::new().file("file", &vec![1; 1 << 20])])?;
        let reference = origin.offer("left", &image);
        origin.spoil_blob("left", &image.blobs[0].0, Fault::Stalled);
        let limit = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(limit, kubelet.pull(&reference)).await.is_err());
        census::as_before(&kubelet.node().root(), &before).await?;
        // And the next one is not held up by it.
        origin.release();
        kubelet.pull(&reference).await?;
        kubelet.image(BUSYBOX).await?;
        Ok(())
    });
}
