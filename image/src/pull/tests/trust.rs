//! Pulls of images that must be signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
use serde_json::json;

use super::*;
use crate::Config;
use crate::trust::tests::{Signer, payload};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Adds a signature of what the tag means.
fn sign(content: &mut Content, tag: &str, claimed: &str, signer: &Signer) {
    let digest = Digest::sha256(&content.manifests[&format!("app/manifests/{tag}")].1);
    let payload = payload(claimed, &digest).to_string();
    let mut layer = content.blob(SIMPLE_SIGNING, payload.as_bytes());
    layer["annotations"] =
        json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signer.sign(payload.as_bytes()))});
    let config = content.blob(IMAGE_CONFIG_MEDIA_TYPE, b"{}");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_MEDIA_TYPE, "config": config, "layers": [layer]});
    let tag = format!("{}.sig", digest.to_string().replace(':', "-"));
    content.manifest("app", &tag, OCI_IMAGE_MEDIA_TYPE, &manifest);
}

/// A node with a policy, and what is needed to look for signatures.
async fn node(policy: &serde_json::Value) -> Node {
    let change = |dir: &std::path::Path, config: &mut Config| {
        let path = dir.join("policy.json");
        std::fs::write(&path, policy.to_string()).unwrap();
        std::fs::create_dir(dir.join("registries.d")).unwrap();
        let attachments = "default-docker:\n  use-sigstore-attachments: true\n";
        std::fs::write(dir.join("registries.d/a.yaml"), attachments).unwrap();
        (config.policy, config.registries_d) = (Some(path), dir.join("registries.d"));
    };
    Node::with("", change).await
}

fn signed_by(signer: &Signer, identity: &str) -> serde_json::Value {
    let key = STANDARD.encode(signer.pem());
    json!({"default": [{"type": "sigstoreSigned", "keyData": key, "signedIdentity": {"type": identity}}]})
}

fn refusal(error: &Error) -> &str {
    match error {
        Error::SignatureRefused { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_signed_image_is_pulled_and_others_are_not() {
    let signer = Signer::new();
    let mut content = Content::with_image("app", "signed", &[&layer("a", b"1")]);
    let other = layer("a", b"2");
    content.image("app", "unsigned", &[&other], &[Digest::sha256(&other)]);
    let another = layer("a", b"3");
    content.image("app", "forged", &[&another], &[Digest::sha256(&another)]);
    let server = Server::start_later().await;
    sign(&mut content, "signed", &format!("{}/app", server.host()), &signer);
    sign(&mut content, "forged", &format!("{}/app", server.host()), &Signer::new());
    server.serve(move |request| content.reply(request));

    let node = node(&signed_by(&signer, "matchRepository")).await;
    let name = |tag: &str| format!("{}/app:{tag}", server.host());
    node.pull(&name("signed")).await.unwrap();
    let error = node.fail(&name("unsigned")).await;
    assert!(refusal(&error).contains("has no signature of it"), "{error}");
    let error = node.fail(&name("forged")).await;
    assert!(refusal(&error).contains("none of the keys"), "{error}");
    assert!(!server.seen().iter().any(|request| is_layer(request, &other)), "nothing of it is fetched");

    let exact = self::node(&signed_by(&signer, "matchExact")).await;
    let error = exact.fail(&name("signed")).await;
    assert!(refusal(&error).contains("matchExact does not accept"), "{error}");
}

#[tokio::test]
async fn a_signature_of_the_index_is_one_of_the_image() {
    use oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE as INDEX;
    let signer = Signer::new();
    let mut content = Content::with_image("app", "one", &[&layer("a", b"1")]);
    let body = content.manifests["app/manifests/one"].1.clone();
    let machine = Host::detect().to_string();
    let (os, architecture) = machine.split_once('/').unwrap();
    let entry = json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": Digest::sha256(&body), "size": body.len(),
        "platform": {"os": os, "architecture": architecture}});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    content.manifest("app", "all", INDEX, &index);
    let server = Server::start_later().await;
    sign(&mut content, "all", &format!("{}/app:all", server.host()), &signer);
    server.serve(move |request| content.reply(request));
    let node = node(&signed_by(&signer, "matchRepoDigestOrExact")).await;
    node.pull(&format!("{}/app:all", server.host())).await.unwrap();
    let error = node.fail(&format!("{}/app:one", server.host())).await;
    refusal(&error);
}

#[tokio::test]
async fn a_rejected_image_is_not_even_asked_for() {
    let (server, _) = serve(&[&layer("a", b"1")]).await;
    let name = format!("{}/app:1", server.host());
    let node = node(&json!({"default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {(server.host()): [{"type": "reject"}]}}}))
    .await;
    let error = node.fail(&name).await;
    assert!(refusal(&error).contains("policy.json rejects it"), "{error}");
    assert!(server.seen().is_empty());

    let accepting = self::node(&json!({"default": [{"type": "insecureAcceptAnything"}]})).await;
    accepting.pull(&name).await.unwrap();
    let gpg =
        self::node(&json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]})).await;
    assert!(refusal(&gpg.fail(&name).await).contains("signedBy"));
    let keyless = self::node(&json!({"default": [{"type": "sigstoreSigned", "fulcio": {}}]})).await;
    assert!(refusal(&keyless.fail(&name).await).contains("fulcio"));
}

#[tokio::test]
async fn a_policy_that_breaks_refuses() {
    let (server, _) = serve(&[&layer("a", b"1")]).await;
    let node = node(&json!({"default": [{"type": "insecureAcceptAnything"}]})).await;
    std::fs::write(node.config.policy.as_ref().unwrap(), "{").unwrap();
    let error = node.fail(&format!("{}/app:1", server.host())).await;
    assert!(matches!(error, Error::Config { .. }), "{error}");
    assert!(Puller::open(&node.config, patience(), node.images.store.clone()).is_err());
}
