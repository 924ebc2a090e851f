//! What is known of an image: its one id, its names, and the configuration that a container starts from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Config, ImageConfiguration};
use serde::{Deserialize, Serialize};

use crate::{Digest, Error};

/// The one id of an image: the digest of its configuration, which is the same wherever it was pulled from. Artifacts
/// often have an empty configuration: theirs is the digest of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(Digest);

/// An image in the store. It never changes: a new tag makes a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Image {
    /// The id.
    pub id: ImageId,
    /// Names with a tag, in full: `docker.io/library/busybox:latest`.
    pub repo_tags: Vec<String>,
    /// Names with the digest of the manifest or index that they were pulled by.
    pub repo_digests: Vec<String>,
    /// The size of the unpacked layers, with the configuration.
    pub size_bytes: u64,
    /// What a container of this image starts from.
    pub config: ImageConfig,
    /// Whether the kubelet's garbage collection must leave it alone.
    pub pinned: bool,
    /// The digest of the manifest of this platform.
    pub manifest_digest: Digest,
    /// The chain ids of the layers, the lowest first.
    pub layers: Vec<Digest>,
    /// The architecture it was built for, in Go's words.
    pub architecture: String,
    /// When it was built, as the builder wrote it (RFC 3339).
    pub created: Option<String>,
    /// The type of an artifact, which can be mounted as a volume. None: a container can run from it.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// The digest of the index that it came in. The images for other platforms are there too if they were asked for.
    #[serde(default)]
    pub index: Option<Digest>,
}

/// The part of an image's configuration that a container starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ImageConfig {
    /// `USER`: name or number, with an optional `:group`. Empty: root.
    pub user: String,
    /// `ENV`: `NAME=value`.
    pub env: Vec<String>,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
    /// `WORKDIR`. Empty: `/`.
    pub working_dir: String,
    /// `VOLUME`: absolute paths.
    pub volumes: Vec<String>,
    /// `EXPOSE`: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// `STOPSIGNAL`: name or number.
    pub stop_signal: Option<String>,
    /// `LABEL`.
    pub labels: BTreeMap<String, String>,
}

impl ImageId {
    /// Makes the id of the image whose configuration has this digest.
    pub fn new(config: Digest) -> Self {
        Self(config)
    }

    /// Returns the digest.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ImageId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse()
            .map(Self)
            .map_err(|e| Error::InvalidReference { reference: text.to_owned(), reason: e.to_string() })
    }
}

/// A configuration as the registry has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    /// What a container starts from.
    pub(crate) settings: ImageConfig,
    /// The digests of the uncompressed layers, the lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    /// In Go's words.
    pub(crate) os: String,
    /// In Go's words.
    pub(crate) architecture: String,
    /// As the builder wrote it.
    pub(crate) created: Option<String>,
}

impl Configuration {
    /// Reads the configuration of an image with this many layers.
    pub(crate) fn parse(json: &[u8], layers: usize) -> Result<Self, String> {
        let whole: ImageConfiguration = crate::json::parse(json).map_err(|e| e.to_string())?;
        if whole.rootfs().typ() != "layers" {
            return Err(format!("its rootfs is of type {:?}", whole.rootfs().typ()));
        }
        let diff_ids: Vec<Digest> = whole
            .rootfs()
            .diff_ids()
            .iter()
            .map(|text| text.parse().map_err(|e| format!("diff id {text:?}: {e}")))
            .collect::<Result<_, String>>()?;
        if diff_ids.len() != layers {
            return Err(format!("it has {} diff ids for {layers} layers", diff_ids.len()));
        }
        Ok(Self {
            settings: whole.config().as_ref().map(ImageConfig::from).unwrap_or_default(),
            diff_ids,
            os: whole.os().to_string(),
            architecture: whole.architecture().to_string(),
            created: whole.created().clone(),
        })
    }

    /// Returns the chain id of each layer: what it is together with all below it.
    pub(crate) fn chain(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            chain.push(match chain.last() {
                None => diff_id.clone(),
                Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
            });
        }
        chain
    }
}

impl From<&Config> for ImageConfig {
    fn from(config: &Config) -> Self {
        let sorted = |list: &Option<Vec<String>>| {
            let mut list = list.clone().unwrap_or_default();
            list.sort();
            list
        };
        Self {
            user: config.user().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            volumes: sorted(config.volumes()),
            exposed_ports: sorted(config.exposed_ports()),
            stop_signal: config.stop_signal().clone().filter(|signal| !signal.is_empty()),
            labels: config.labels().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_docker_is_read() {
        let one = Digest::sha256(b"1");
        let two = Digest::sha256(b"2");
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","container_config":{{}},
            "config":{{"User":"app:staff","Env":["A=1"],"Cmd":["sh"],"Entrypoint":null,"WorkingDir":"/srv",
            "Volumes":{{"/z":{{}},"/a":{{}}}},"ExposedPorts":{{"80/tcp":{{}}}},"StopSignal":"SIGQUIT",
            "Labels":{{"k":"v"}},"OnBuild":null}},
            "rootfs":{{"type":"layers","diff_ids":["{one}","{two}"]}},"history":[{{"created_by":"x"}}]}}"#
        );
        let read = Configuration::parse(json.as_bytes(), 2).unwrap();
        assert_eq!(read.settings.user, "app:staff");
        assert_eq!(read.settings.volumes, ["/a", "/z"]);
        assert_eq!(read.settings.exposed_ports, ["80/tcp"]);
        assert_eq!(read.settings.stop_signal.as_deref(), Some("SIGQUIT"));
        assert!(read.settings.entrypoint.is_empty());
        assert_eq!(read.settings.cmd, ["sh"]);
        assert_eq!((read.os.as_str(), read.architecture.as_str()), ("linux", "amd64"));
        assert_eq!(read.chain(), [one.clone(), Digest::sha256(format!("{one} {two}").as_bytes())]);
        assert_eq!(Configuration::parse(json.as_bytes(), 1).unwrap_err(), "it has 2 diff ids for 1 layers");
    }

    #[test]
    fn null_stands_for_nothing() {
        let json = r#"{"architecture":"amd64","os":"linux","config":{"Volumes":null,"Env":null,"Labels":null,
            "StopSignal":""},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let read = Configuration::parse(json.as_bytes(), 0).unwrap();
        assert_eq!(read.settings, ImageConfig::default());
        let bare = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        assert_eq!(Configuration::parse(bare.as_bytes(), 0).unwrap().settings, ImageConfig::default());
    }

    #[test]
    fn bad_diff_ids_are_refused() {
        let json =
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}"#;
        assert!(Configuration::parse(json.as_bytes(), 1).unwrap_err().contains("diff id"));
    }
}
