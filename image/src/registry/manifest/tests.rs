//! Which documents are manifests, indexes and configurations, and which are refused.

use serde_json::{Value, json};

use super::*;

const OCI: &str = OCI_IMAGE_MEDIA_TYPE;
const INDEX: &str = OCI_IMAGE_INDEX_MEDIA_TYPE;
const DOCKER: &str = IMAGE_MANIFEST_MEDIA_TYPE;
const LIST: &str = IMAGE_MANIFEST_LIST_MEDIA_TYPE;

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", "1".repeat(64)), "size": 7})
}

fn image(media_type: Option<&str>) -> Value {
    let mut document = json!({
        "schemaVersion": 2,
        "config": descriptor(IMAGE_CONFIG_MEDIA_TYPE),
        "layers": [descriptor(IMAGE_LAYER_GZIP_MEDIA_TYPE)],
    });
    if let Some(media_type) = media_type {
        document["mediaType"] = media_type.into();
    }
    document
}

fn index(media_type: Option<&str>) -> Value {
    let mut entry = descriptor(OCI);
    entry["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
    let mut document = json!({"schemaVersion": 2, "manifests": [entry, descriptor(OCI)]});
    if let Some(media_type) = media_type {
        document["mediaType"] = media_type.into();
    }
    document
}

fn parse(document: &Value, content_type: Option<&str>) -> Result<Document, Error> {
    Document::parse(document.to_string().as_bytes(), content_type, "the test")
}

fn refused(document: &Value, content_type: Option<&str>, part: &str) {
    let error = parse(document, content_type).unwrap_err().to_string();
    assert!(error.contains(part), "{content_type:?}: {error}");
}

#[test]
fn a_document_is_what_it_says_twice() {
    for (document, content_type) in [
        (image(Some(OCI)), Some(OCI)),
        (image(None), Some(OCI)),
        (image(Some(DOCKER)), Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8")),
        (image(Some(OCI)), None),
        (image(Some(OCI)), Some("application/json")),
    ] {
        let Document::Image(manifest) = parse(&document, content_type).unwrap() else { panic!("{document}") };
        assert_eq!((manifest.layers.len(), manifest.config.size_bytes), (1, 7));
    }
    for (document, content_type) in [(index(Some(INDEX)), Some(INDEX)), (index(Some(LIST)), Some(LIST))] {
        let Document::Index(entries) = parse(&document, content_type).unwrap() else { panic!("{document}") };
        assert_eq!(entries[0].platform.as_ref().unwrap().to_string(), "linux/arm64/v8");
        assert_eq!(entries[1].platform, None);
    }
}

#[test]
fn ambiguous_documents_are_refused() {
    let mut both = image(Some(OCI));
    both["manifests"] = json!([]);
    refused(&both, Some(OCI), "both manifests and layers");
    refused(&image(Some(OCI)), Some(INDEX), "but its mediaType");
    refused(&image(Some(OCI)), Some(DOCKER), "but its mediaType");
    refused(&index(Some(INDEX)), Some(OCI), "but its mediaType");
    refused(&index(None), Some(OCI), "no image manifest");
    refused(&image(None), Some(INDEX), "no index");
    refused(&image(None), None, "neither its Content-Type");
    refused(&image(None), Some("text/html"), "neither manifest nor index");
    refused(&json!({"schemaVersion": 3}), Some(OCI), "schemaVersion is 3");
    refused(&json!([]), Some(OCI), "no manifest");
    let twice = image(None).to_string().replacen('{', "{\"layers\": [],", 1);
    assert!(Document::parse(twice.as_bytes(), Some(OCI), "x").is_err(), "a field that is there twice");
}

#[test]
fn schema_1_is_refused_by_name() {
    let document = json!({"schemaVersion": 1, "name": "x", "fsLayers": []});
    refused(&document, Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1");
    refused(&document, Some("application/json"), "schema 1");
    refused(&image(Some(OCI)), Some("application/vnd.docker.distribution.manifest.v1+json"), "schema 1");
}

#[test]
fn digests_and_sizes_are_checked_in_every_field() {
    for digest in ["", "sha256:../../x", "sha256:", "md5:0", &format!("sha256:{}", "A".repeat(64))] {
        let mut document = image(Some(OCI));
        document["config"]["digest"] = (*digest).into();
        refused(&document, Some(OCI), "digest");
        let mut document = image(Some(OCI));
        document["layers"][0]["digest"] = (*digest).into();
        refused(&document, Some(OCI), "digest");
        let mut document = index(Some(INDEX));
        document["manifests"][1]["digest"] = (*digest).into();
        refused(&document, Some(INDEX), "digest");
    }
    let mut document = image(Some(OCI));
    document["layers"][0]["size"] = (-1).into();
    refused(&document, Some(OCI), "size -1");
}

#[test]
fn what_has_no_configuration_of_an_image_is_an_artifact() {
    let parsed = |document: &Value| match parse(document, Some(OCI)).unwrap() {
        Document::Image(manifest) => manifest,
        Document::Index(_) => panic!("{document}"),
    };
    let mut chart = image(Some(OCI));
    chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    chart["layers"][0]["mediaType"] = "application/vnd.cncf.helm.chart.content.v1.tar+gzip".into();
    let artifact = parsed(&chart).artifact.unwrap();
    assert_eq!(artifact.kind, "application/vnd.cncf.helm.config.v1+json");
    let mut files = image(Some(OCI));
    files["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into();
    files["artifactType"] = "application/x".into();
    files["layers"][0]["annotations"] = json!({"org.opencontainers.image.title": "../../x"});
    refused(&files, Some(OCI), "the title \"../../x\"");
    files["layers"][0]["annotations"] = json!({"org.opencontainers.image.title": "dir/x"});
    let artifact = parsed(&files).artifact.unwrap();
    assert_eq!(
        (artifact.kind.as_str(), artifact.names[0].as_bytes()),
        ("application/x", b"dir/x".as_slice())
    );
    // Layers are those of an image, whatever type it is given on top.
    let mut typed = image(Some(OCI));
    typed["artifactType"] = "application/x".into();
    assert_eq!(parsed(&typed).artifact, None);
    typed["layers"][0]["mediaType"] = "text/plain".into();
    assert!(parsed(&typed).artifact.is_some());
}

#[test]
fn what_is_no_image_is_said_so() {
    let mut encrypted = image(Some(OCI));
    encrypted["layers"][0]["mediaType"] = format!("{IMAGE_LAYER_GZIP_MEDIA_TYPE}+encrypted").into();
    refused(&encrypted, Some(OCI), "+encrypted");
    // No file system of a stranger's is mounted.
    for kind in ["application/vnd.erofs.layer.v1", "application/vnd.oci.image.layer.squashfs"] {
        let mut layers = image(Some(OCI));
        layers["layers"][0]["mediaType"] = kind.into();
        refused(&layers, Some(OCI), kind);
    }
}

#[test]
fn counts_are_bounded() {
    let mut wide = index(Some(INDEX));
    wide["manifests"] = vec![descriptor(OCI); MAX_ENTRIES + 1].into();
    refused(&wide, Some(INDEX), "1000 manifests");
    let mut deep = image(Some(OCI));
    deep["layers"] = vec![descriptor(IMAGE_LAYER_MEDIA_TYPE); MAX_LAYERS + 1].into();
    refused(&deep, Some(OCI), "256 layers");
    let mut heavy = image(Some(OCI));
    let mut half = descriptor(IMAGE_LAYER_MEDIA_TYPE);
    half["size"] = i64::MAX.into();
    heavy["layers"] = vec![half.clone()].into();
    refused(&heavy, Some(OCI), "1024 GiB");
    heavy["layers"] = vec![half.clone(), half.clone(), half].into();
    refused(&heavy, Some(OCI), "1024 GiB");
    let nested = format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Document::parse(nested.as_bytes(), Some(OCI), "x").is_err());
}
