//! `import` and `export`: archives of images are taken apart and written here, in the client; the server sees
//! manifests, configurations and layers, and checks each.

mod export;
mod import;
mod layout;
mod source;
mod target;

pub(crate) use self::export::Export;
pub(crate) use self::import::Import;

use image::Digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where containerd and Docker keep an image's whole name.
const FULL_NAME: &str = "io.containerd.image.name";
/// Where the specification keeps a tag, and most tools a name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The largest JSON document of an archive.
const MAX_DOCUMENT: u64 = 8 << 20;

/// The name of what has this digest, in OCI's layout.
fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}
