//! What manifests may say: other digests, layers that are not to be distributed, artifacts.

use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE, IMAGE_LAYER_NONDISTRIBUTABLE_GZIP_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use serde_json::{Value, json};

use super::*;
use crate::{Algorithm, Hasher, NewImport};

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

/// Adds a blob under its SHA-512 and returns its descriptor.
fn blob512(content: &mut Content, media_type: &str, bytes: &[u8]) -> Value {
    let digest = sha512(bytes);
    content.blobs.insert(digest.to_string(), bytes.to_vec().into());
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

fn config(diff_ids: &[Digest]) -> Vec<u8> {
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).to_string().into_bytes()
}

fn manifest(config: &Value, layers: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_MEDIA_TYPE, "config": config, "layers": layers})
}

#[tokio::test]
async fn an_image_may_be_all_in_sha512() {
    let (one, two) = (layer("a", b"first"), layer("b", b"second"));
    let mut content = Content::default();
    let config = config(&[sha512(&one), sha512(&two)]);
    let config = blob512(&mut content, IMAGE_CONFIG_MEDIA_TYPE, &config);
    let layers = [&one, &two].map(|layer| blob512(&mut content, IMAGE_LAYER_MEDIA_TYPE, layer));
    content.manifest("app", "1", OCI_IMAGE_MEDIA_TYPE, &manifest(&config, &layers));
    let entry = content.manifests["app/manifests/1"].clone();
    let digest = sha512(&entry.1);
    content.manifests.insert(format!("app/manifests/{digest}"), entry);
    let spoilt = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (shared, layer) = (Arc::clone(&spoilt), two.clone());
    let server = Server::start(move |request| match content.reply(request) {
        Reply::Answer { status, headers, body }
            if request.path.ends_with(sha512(&layer).hex())
                && shared.load(std::sync::atomic::Ordering::Relaxed) =>
        {
            let mut body = body.to_vec();
            body[600] ^= 1;
            Reply::Answer { status, headers, body: body.into() }
        }
        good => good,
    })
    .await;
    let node = Node::new("").await;
    for name in [format!("{}/app:1", server.host()), format!("{}/app@{digest}", server.host())] {
        let id = node.pull(&name).await.unwrap();
        assert_eq!(id.digest().algorithm(), Algorithm::Sha512);
        assert_eq!(node.images.read_file(&id, "b", 100).await.unwrap().unwrap(), b"second");
        assert_eq!(node.images.find(&name).unwrap().id, id);
        assert_eq!(node.images.find(&id.to_string()).unwrap().id, id);
        node.images.remove(&name).await.unwrap();
        node.clean().await;
    }
    spoilt.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = node.fail(&format!("{}/app:1", server.host())).await;
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

/// CVE-2020-15157: the addresses of a layer are nobody's to send us to.
#[tokio::test]
async fn a_layer_that_is_not_to_be_distributed_comes_from_the_registry_or_not_at_all() {
    let trap = Server::start(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")).await;
    let (there, elsewhere) = (layer("a", b"first"), layer("b", b"second"));
    let mut content = Content::default();
    let mut describe = |layer: &[u8]| {
        let mut descriptor = content.blob(IMAGE_LAYER_NONDISTRIBUTABLE_GZIP_MEDIA_TYPE, layer);
        descriptor["urls"] = json!([format!("http://{}/foreign", trap.host())]);
        descriptor
    };
    let (first, second) = (describe(&there), describe(&elsewhere));
    let one = config(&[Digest::sha256(&there)]);
    let one = content.blob(IMAGE_CONFIG_MEDIA_TYPE, &one);
    content.manifest("app", "here", OCI_IMAGE_MEDIA_TYPE, &manifest(&one, std::slice::from_ref(&first)));
    let both = config(&[Digest::sha256(&there), Digest::sha256(&elsewhere)]);
    let both = content.blob(IMAGE_CONFIG_MEDIA_TYPE, &both);
    content.manifest("app", "elsewhere", OCI_IMAGE_MEDIA_TYPE, &manifest(&both, &[first, second]));
    content.blobs.remove(&Digest::sha256(&elsewhere).to_string());
    let server = Server::start(move |request| content.reply(request)).await;
    let node = Node::new("").await;
    let id = node.pull(&format!("{}/app:here", server.host())).await.unwrap();
    assert_eq!(node.images.read_file(&id, "a", 100).await.unwrap().unwrap(), b"first");
    let credentials =
        Credentials { username: "u".into(), password: "canary".into(), ..Credentials::default() };
    let name = format!("{}/app:elsewhere", server.host());
    let error = node.images.pull(&name, Some(credentials)).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert!(trap.seen().is_empty(), "{:?}", trap.seen());
}

#[tokio::test]
async fn a_file_of_an_artifact_goes_on_where_it_broke_and_must_be_what_was_promised() {
    let weights: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut content = Content::default();
    let config = content.blob("application/vnd.oci.empty.v1+json", b"{}");
    let mut file = content.blob("application/x-weights", &weights);
    file["annotations"] = json!({"org.opencontainers.image.title": "model/weights"});
    content.manifest("model", "1", OCI_IMAGE_MEDIA_TYPE, &manifest(&config, std::slice::from_ref(&file)));
    file["digest"] = json!(Digest::sha256(b"something else"));
    content.blobs.insert(file["digest"].as_str().unwrap().to_owned(), weights.clone().into());
    content.manifest("model", "bad", OCI_IMAGE_MEDIA_TYPE, &manifest(&config, &[file]));
    let wanted = weights.clone();
    let server = Server::start(move |request| match content.reply(request) {
        good if is_layer(request, &wanted) && request.header("range").is_none() => good.cut(70_000),
        good => good,
    })
    .await;
    let node = Node::new("").await;
    let id = node.pull(&format!("{}/model:1", server.host())).await.unwrap();
    assert_eq!(node.images.read_file(&id, "model/weights", 1 << 20).await.unwrap().unwrap(), weights);
    assert!(server.seen().iter().any(|request| request.header("range").is_some()));
    let image = node.images.find(&id.to_string()).unwrap();
    assert_eq!(image.artifact_type.as_deref(), Some("application/vnd.oci.empty.v1+json"));
    assert!(node.images.check(&image.layers[0]).await.unwrap().unwrap().found.is_ok());
    let error = node.images.pull(&format!("{}/model:bad", server.host()), None).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    leaves_and_comes_back(&node, &id, &weights).await;
    node.images.remove(&id.to_string()).await.unwrap();
    node.clean().await;
}

/// An artifact of one file leaves the node and comes in again.
async fn leaves_and_comes_back(node: &Node, id: &ImageId, file: &[u8]) {
    let export = node.images.export(&id.to_string()).await.unwrap();
    let mut pieces = export.archive(0).unwrap();
    let mut left = Vec::new();
    while let Some(piece) = pieces.recv().await {
        left.extend_from_slice(&piece.unwrap());
    }
    assert!(left == file, "a blob leaves as it came");
    let (manifest, config) = (export.artifact.clone().unwrap(), export.config.clone());
    let tags: Vec<Reference> = export.tags.iter().map(|tag| tag.parse().unwrap()).collect();
    drop(export);
    node.images.remove(&id.to_string()).await.unwrap();
    let new = || NewImport {
        names: tags.clone(),
        with_digests: false,
        index: None,
        manifest: manifest.clone(),
        config: config.clone(),
    };
    let mut import = node.images.import(new()).await.unwrap();
    assert_eq!(import.wanted(), [0]);
    assert!(import.layer(1).await.is_err(), "there is no such place");
    import.layer(0).await.unwrap();
    import.write(vec![0; file.len()].into()).await.unwrap();
    assert!(matches!(import.finish().await, Err(Error::DigestMismatch { .. })));
    let mut import = node.images.import(new()).await.unwrap();
    import.layer(0).await.unwrap();
    import.write(left.into()).await.unwrap();
    assert_eq!(import.finish().await.unwrap(), *id);
    assert_eq!(node.images.read_file(id, "model/weights", 1 << 20).await.unwrap().unwrap(), file);
}
