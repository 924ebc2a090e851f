//! Images: names, credentials, and how they are shown.

use image::{Credentials, Image, Usage};
use serde_json::{Value, json};

use super::{Invalid, field};
use crate::wire::cri;

/// Longer than any reference can be: a domain name, a path, a tag and a digest.
const NAME_BYTES: usize = 1024;

/// Parses the image that a request is about: its name, and the handler it is for.
pub(crate) fn parse(image: Option<cri::ImageSpec>) -> Result<(String, String), Invalid> {
    let image = field::required("image", image)?;
    if image.image.is_empty() {
        return Err(Invalid::new("image.image", "missing"));
    }
    Ok((name("image.image", image.image)?, field::plain("image.runtime_handler", image.runtime_handler)?))
}

/// Parses ListImages' filter; an empty one lets everything through.
pub(crate) fn filter(filter: Option<cri::ImageFilter>) -> Result<Option<String>, Invalid> {
    match filter.and_then(|filter| filter.image).map(|image| image.image) {
        Some(image) if !image.is_empty() => name("filter.image.image", image).map(Some),
        _ => Ok(None),
    }
}

/// A name that an image may have, or its id.
pub(super) fn name(at: &str, name: String) -> Result<String, Invalid> {
    if name.len() > NAME_BYTES {
        return Err(Invalid::new(at, format!("longer than {NAME_BYTES} bytes")));
    }
    field::plain(at, name)
}

/// The request's credentials; empty ones are none.
pub(crate) fn credentials(auth: Option<cri::AuthConfig>) -> Option<Credentials> {
    let auth = auth?;
    let credentials = Credentials {
        username: auth.username,
        password: auth.password.into(),
        auth: auth.auth.into(),
        identity_token: auth.identity_token.into(),
        registry_token: auth.registry_token.into(),
        server_address: auth.server_address,
    };
    let only_address =
        Credentials { server_address: credentials.server_address.clone(), ..Default::default() };
    (credentials != only_address).then_some(credentials)
}

/// An image as ImageStatus and ListImages show it.
pub(crate) fn show(image: &Image) -> cri::Image {
    let (uid, username) = user(&image.config.user);
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        // The kubelet takes 0 for broken; an image of nothing still has its configuration.
        size: image.size_bytes.max(1),
        uid: uid.map(|value| cri::Int64Value { value }),
        username,
        spec: Some(cri::ImageSpec { image: image.id.to_string(), ..Default::default() }),
        pinned: image.pinned,
    }
}

/// `USER` without its group: a number, or else a name; the kubelet takes neither for root.
fn user(text: &str) -> (Option<i64>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse() {
        Ok(uid) => (Some(uid), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

/// The `info` of a verbose ImageStatus, in containerd's words; the configuration is as the builder wrote it.
pub(crate) fn info(image: &Image, configuration: &[u8]) -> Value {
    json!({
        "chainID": image.layers.last(),
        "imageSpec": serde_json::from_slice::<Value>(configuration).unwrap_or_default(),
        "manifestDigest": image.manifest_digest,
        "artifactType": image.artifact_type,
        "layers": image.layers,
    })
}

/// The space that images use.
pub(crate) fn usage(usage: Usage) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: usage.at_ns,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: usage.mountpoint.display().to_string() }),
        used_bytes: Some(cri::UInt64Value { value: usage.used_bytes }),
        inodes_used: Some(cri::UInt64Value { value: usage.inodes_used }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;
    use super::*;

    #[test]
    fn an_image_has_a_name() {
        let check =
            |image: &str| parse(Some(cri::ImageSpec { image: image.to_owned(), ..Default::default() }));
        assert_eq!(check("busybox:1").unwrap(), ("busybox:1".to_owned(), String::new()));
        refused(parse(None), "image");
        refused(check(""), "image.image");
        refused(check("a\nb"), "image.image");
        refused(check(&"a".repeat(2000)), "image.image");
        let by = |image: &str| {
            filter(Some(cri::ImageFilter {
                image: Some(cri::ImageSpec { image: image.to_owned(), ..Default::default() }),
            }))
        };
        assert_eq!(by("x").unwrap().as_deref(), Some("x"));
        assert_eq!(by("").unwrap(), None);
        assert_eq!(filter(None).unwrap(), None);
        refused(by("\0"), "filter.image.image");
    }

    #[test]
    fn the_user_is_a_number_or_a_name() {
        for (text, uid, name) in [
            ("", None, ""),
            ("0", Some(0), ""),
            ("1002", Some(1002), ""),
            ("1003:1004", Some(1003), ""),
            ("www-data", None, "www-data"),
            ("www-data:1004", None, "www-data"),
            ("99999999999999999999", None, "99999999999999999999"),
        ] {
            assert_eq!(user(text), (uid, name.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn credentials_without_a_secret_are_none() {
        let auth = |change: fn(&mut cri::AuthConfig)| {
            let mut auth = cri::AuthConfig { server_address: "r.example".to_owned(), ..Default::default() };
            change(&mut auth);
            credentials(Some(auth)).is_some()
        };
        assert!(!auth(|_| ()));
        assert!(auth(|auth| auth.username = "u".to_owned()));
        assert!(auth(|auth| auth.auth = "dTpw".to_owned()));
        assert!(auth(|auth| auth.registry_token = "t".to_owned()));
        assert!(credentials(None).is_none());
    }
}
