//! Policies, identities and signatures.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::registry::Signature;

/// A key pair.
pub(crate) struct Signer(EcdsaKeyPair);

impl Signer {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    /// The public key in PEM.
    pub(crate) fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    pub(crate) fn sign(&self, payload: &[u8]) -> Vec<u8> {
        self.0.sign(&SystemRandom::new(), payload).unwrap().as_ref().to_vec()
    }
}

/// What cosign signs.
pub(crate) fn payload(reference: &str, digest: &Digest) -> Value {
    json!({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn the_narrowest_scope_decides() {
    let scope = |name: &str| json!([{"type": "sigstoreSigned", "keyPath": format!("/{name}")}]);
    let digest = format!("sha256:{}", "0".repeat(64));
    let text = json!({
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {
                "": scope("transport"),
                "q.io": scope("host"),
                "q.io/team": scope("team"),
                "q.io/team/app": scope("app"),
                "q.io/team/app:1": scope("tag"),
                (format!("q.io/team/app@{digest}")): scope("digest"),
                "*.b.io": scope("wildcard"),
                "docker.io/library": scope("library"),
                "a.b.io:5000": scope("port"),
            },
            "oci": {"/x": scope("other")},
        },
    });
    let policy = Policy::parse(text.to_string().as_bytes()).unwrap();
    for (name, expected) in [
        ("q.io/team/app:1", "tag"),
        ("q.io/team/app:2", "app"),
        ("q.io/team/other", "team"),
        ("q.io/teams/app", "host"),
        ("q.io:5000/x", "transport"),
        ("x.a.b.io/x", "wildcard"),
        ("a.b.io/x", "wildcard"),
        ("b.io/x", "transport"),
        ("a.b.io:5000/x", "port"),
        ("c.b.io:5000/x", "wildcard"),
        ("busybox", "library"),
    ] {
        let (_, requirements) = policy.requirements(&reference(name));
        assert!(
            format!("{requirements:?}").contains(&format!("\"/{expected}\"")),
            "{name}: {requirements:?}"
        );
    }
    let (_, by_digest) = policy.requirements(&reference(&format!("q.io/team/app:1@{digest}")));
    assert!(format!("{by_digest:?}").contains("\"/digest\""));
    let bare = Policy::parse(br#"{"default": [{"type": "reject"}]}"#).unwrap();
    assert_eq!(bare.requirements(&reference("q.io/x")).0, "the default");
}

#[test]
fn policies_are_read_strictly() {
    let check = |text: &str, part: &str| {
        let error = Policy::parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    };
    check("{}", "missing field `default`");
    check(r#"{"default": []}"#, "insecureAcceptAnything says");
    check(r#"{"default": [{"type": "trustMe"}]}"#, "unknown variant");
    check(r#"{"default": [{"type": "reject", "x": 1}]}"#, "unknown field");
    check(r#"{"default": [{"type": "reject"}], "defaults": 1}"#, "unknown field");
    check(r#"{"default": [{"type": "reject"}], "default": []}"#, "duplicate field");
    check(
        r#"{"default": [{"type": "reject"}], "transports": {"docker": {"a": [{"type":"reject"}], "a": [{"type":"reject"}]}}}"#,
        "is there twice",
    );
    check(r#"{"default": [{"type": "sigstoreSigned"}]}"#, "exactly one of");
    check(
        r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "keyData": "YQ=="}]}"#,
        "exactly one of",
    );
    check(r#"{"default": [{"type": "sigstoreSigned", "keyData": "%"}]}"#, "not base64");
    check(
        r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": {"type": "matchAll"}}]}"#,
        "unknown variant",
    );
    Policy::parse(br#"{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]}"#).unwrap();
    Policy::parse(br#"{"default": [{"type": "sigstoreSigned", "fulcio": {"caPath": "/k"}}]}"#).unwrap();
}

#[test]
fn identities_match_as_the_manual_says() {
    let digest = format!("q.io/app@sha256:{}", "0".repeat(64));
    let identity = |json: &str| -> Identity { serde_json::from_str(json).unwrap() };
    let exact = identity(r#"{"type": "matchExact"}"#);
    let usual = Identity::default();
    let repository = identity(r#"{"type": "matchRepository"}"#);
    let this = identity(r#"{"type": "exactReference", "dockerReference": "r.io/x:3"}"#);
    let those = identity(r#"{"type": "exactRepository", "dockerRepository": "r.io/x"}"#);
    let remap = identity(r#"{"type": "remapIdentity", "prefix": "q.io", "signedPrefix": "r.io/team"}"#);
    for (identity, image, signed, accepted) in [
        (&exact, "q.io/app:1", "q.io/app:1", true),
        (&exact, "q.io/app:1", "q.io/app:2", false),
        (&exact, "q.io/app:latest", "q.io/app", false),
        (&exact, digest.as_str(), "q.io/app:1", false),
        (&exact, digest.as_str(), digest.as_str(), true),
        (&usual, "q.io/app:1", "q.io/app:1", true),
        (&usual, "q.io/app:1", "q.io/app", false),
        (&usual, digest.as_str(), "q.io/app:7", true),
        (&usual, digest.as_str(), "q.io/other:7", false),
        (&repository, "q.io/app:1", "q.io/app", true),
        (&repository, "q.io/app:1", "q.io/apps", false),
        (&repository, "busybox:1", "docker.io/library/busybox", true),
        (&this, "q.io/app:1", "r.io/x:3", true),
        (&this, "q.io/app:1", "r.io/x:4", false),
        (&those, "q.io/app:1", "r.io/x:4", true),
        (&those, "q.io/app:1", "q.io/app:1", false),
        (&remap, "q.io/app:1", "r.io/team/app:1", true),
        (&remap, "q.io/app:1", "q.io/app:1", false),
        (&remap, "s.io/app:1", "s.io/app:1", true),
        (&usual, "q.io/app:1", "not//valid", false),
    ] {
        assert_eq!(identity.accepts(&reference(image), signed), accepted, "{identity} {image} {signed}");
    }
}

#[test]
fn a_signature_is_judged_by_key_content_and_name() {
    let (signer, other) = (Signer::new(), Signer::new());
    let digest = Digest::sha256(b"manifest");
    let wanted = Signed {
        keys: vec![Key::parse(other.pem().as_bytes()).unwrap(), Key::parse(signer.pem().as_bytes()).unwrap()],
        identity: Identity::default(),
    };
    let judge = |payload: &Value, signed_by: &Signer| {
        let payload = payload.to_string().into_bytes();
        let signature = Signature { bytes: signed_by.sign(&payload), payload: payload.into() };
        wanted.judge(&signature, &reference("q.io/app:1"), std::slice::from_ref(&digest))
    };
    judge(&payload("q.io/app:1", &digest), &signer).unwrap();
    judge(&payload("q.io/app:1", &digest), &other).unwrap();
    let error = judge(&payload("q.io/app:1", &digest), &Signer::new()).unwrap_err();
    assert!(error.contains("none of the keys"), "{error}");
    let error = judge(&payload("q.io/app:1", &Digest::sha256(b"x")), &signer).unwrap_err();
    assert!(error.contains("of another image"), "{error}");
    let error = judge(&payload("q.io/app:2", &digest), &signer).unwrap_err();
    assert!(error.contains("does not accept"), "{error}");
    let mut strange = payload("q.io/app:1", &digest);
    strange["critical"]["type"] = json!("atomic container signature");
    assert!(judge(&strange, &signer).is_err());
    let mut strange = payload("q.io/app:1", &digest);
    strange["critical"]["more"] = json!(1);
    assert!(judge(&strange, &signer).is_err());
    assert!(judge(&json!([]), &signer).is_err());

    let signature =
        Signature { payload: payload("q.io/app:1", &digest).to_string().into(), bytes: vec![0; 70] };
    assert!(wanted.judge(&signature, &reference("q.io/app:1"), std::slice::from_ref(&digest)).is_err());
}

#[test]
fn keys_are_public_keys_in_pem() {
    for text in ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert!(Key::parse(text.as_bytes()).is_err(), "{text}");
    }
    // Keys and signatures that openssl made of the text "message".
    for (key, signature) in [
        (include_str!("pem/rsa.pub"), include_str!("pem/rsa.sig")),
        (include_str!("pem/p384.pub"), include_str!("pem/p384.sig")),
        (include_str!("pem/ed25519.pub"), include_str!("pem/ed25519.sig")),
    ] {
        let key = Key::parse(key.as_bytes()).unwrap();
        let signature: String = signature.split_whitespace().collect();
        let signature = STANDARD.decode(signature).unwrap();
        assert!(key.verifies(b"message", &signature));
        assert!(!key.verifies(b"massage", &signature));
    }
}

#[test]
fn attachments_are_switched_by_scope() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let enabled = |name: &str| attachments::enabled(dir.path(), &reference(name)).map_err(|e| e.to_string());
    assert_eq!(enabled("q.io/x"), Ok(false));
    write(
        "a.yaml",
        "docker:\n  q.io/team:\n    use-sigstore-attachments: true\n  q.io/team/off:\n    lookaside: x\n",
    );
    write("empty.yaml", "# nothing\n");
    write("readme", "[ no yaml");
    assert_eq!(enabled("q.io/team/x:1"), Ok(true));
    assert_eq!(enabled("q.io/team/off:1"), Ok(false));
    assert_eq!(enabled("q.io/x"), Ok(false));
    write("b.yaml", "default-docker:\n  use-sigstore-attachments: true\n");
    assert_eq!(enabled("q.io/x"), Ok(true));
    assert_eq!(enabled("q.io/team/off:1"), Ok(false), "a narrower section says nothing about it");
    write("c.yaml", "docker:\n  q.io/team: {}\n");
    assert!(enabled("q.io/x").unwrap_err().contains("another file"));
    write("c.yaml", "[ no yaml");
    assert!(enabled("q.io/x").unwrap_err().contains("c.yaml"));
    assert!(!attachments::enabled(Path::new("/nonexistent"), &reference("q.io/x")).unwrap());
}
