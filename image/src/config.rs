//! The settings of the image service.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[image]` section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The registries file, in the format of containers-registries.conf(5), version 2. Files named `*.conf` in the
    /// directory of the same name with `.d` behind it are read after it, in order. It need not exist, and it is
    /// read again whenever it changes.
    pub registries_conf: PathBuf,
    /// The directory whose `HOST[:PORT]` subdirectories hold the certificates of single registries, as
    /// containers-certs.d(5) says: authorities in `*.crt`, certificates for this client in `*.cert` with the key in
    /// the `*.key` of the same name. A host that has some is spoken to in TLS, also on loopback.
    pub certs_dir: PathBuf,
    /// The directory whose `HOST_PORT_`, `HOST:PORT` or `_default` subdirectories hold a `hosts.toml` for each
    /// registry, as containerd reads them; several with colons between them. It is asked about registries that no
    /// table of `registries_conf` is about, and read again whenever it changes.
    pub hosts_dir: Option<PathBuf>,
    /// The file with the credentials of the node, in the format of containers-auth.json(5). It is asked when a
    /// request brings no credentials of its own, and for mirrors, which a request's credentials never go to.
    /// Docker's config.json has this form, too. Credential helpers that it names are executed.
    pub auth_file: Option<PathBuf>,
    /// The signature policy, in the format of containers-policy.json(5), of which insecureAcceptAnything, reject and
    /// sigstoreSigned with keys are understood, and everything else refuses. Without one every image is accepted. It
    /// is read again for each pull.
    pub policy: Option<PathBuf>,
    /// The directory with the settings of containers-registries.d(5): signatures are looked for in the registry of
    /// an image where these say `use-sigstore-attachments: true`.
    pub registries_d: PathBuf,
    /// After how many seconds without a further 64 KiB a download is begun anew, or its host given up.
    pub stall_timeout_seconds: u64,
    /// How many images are pulled at the same time; further pulls wait for their turn.
    pub max_parallel_pulls: usize,
    /// How many layers of one image are downloaded and unpacked at the same time.
    pub max_parallel_layers: usize,
    /// The control group of the processes that unpack layers, such as `/corten/pulls`, made if it is not there: what a
    /// pull computes and writes is counted there and limited as that group is. Empty: the server's own.
    pub pull_cgroup: String,
    /// Images that the kubelet's garbage collection must leave alone: names, or names that end in `*`.
    pub pinned: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registries_conf: PathBuf::from("/etc/containers/registries.conf"),
            certs_dir: PathBuf::from("/etc/containers/certs.d"),
            hosts_dir: None,
            auth_file: None,
            policy: None,
            registries_d: PathBuf::from("/etc/containers/registries.d"),
            stall_timeout_seconds: 60,
            max_parallel_pulls: 4,
            max_parallel_layers: 3,
            pull_cgroup: String::new(),
            pinned: Vec::new(),
        }
    }
}
