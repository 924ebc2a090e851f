//! Pulls from a scripted registry into a real store, with real unpacking processes.

mod faults;
mod formats;
mod hosts;
mod sharing;
mod table;
mod trust;

use std::path::PathBuf;
use std::process::ExitCode;

use super::*;
use crate::registry::Patience;
use crate::registry::tests::server::{Content, Reply, Request, Server};
use crate::registry::tests::{patience, registries};
use crate::{Digest, Images, Unpacker};

/// The test that is the unpacking process when it alone is asked for.
const UNPACK: &str = "pull::tests::unpacking_process";

#[test]
fn unpacking_process() {
    let args: Vec<_> = std::env::args().collect();
    if args.iter().any(|arg| arg == UNPACK) && args.iter().any(|arg| arg == "--nocapture") {
        let skeleton = std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned().unwrap();
        let code = crate::unpack::main(std::io::stdin(), std::io::stdout(), skeleton.into());
        std::process::exit(i32::from(code != ExitCode::SUCCESS));
    }
}

/// A node with nothing on it.
struct Node {
    images: Images,
    dir: tempfile::TempDir,
    /// How many directories an empty store has.
    empty: usize,
    config: crate::Config,
    _config_dir: tempfile::TempDir,
}

impl Node {
    async fn new(registries_conf: &str) -> Self {
        Self::with(registries_conf, |_, _| {}).await
    }

    /// A node with further settings; their files go into the directory.
    async fn with(registries_conf: &str, change: impl FnOnce(&std::path::Path, &mut crate::Config)) -> Self {
        Self::with_patience(patience(), registries_conf, change).await
    }

    async fn with_patience(
        patience: Patience,
        registries_conf: &str,
        change: impl FnOnce(&std::path::Path, &mut crate::Config),
    ) -> Self {
        let (config_dir, mut config) = registries(registries_conf);
        change(config_dir.path(), &mut config);
        let dir = tempfile::tempdir().unwrap();
        let args = ["--exact", UNPACK, "--nocapture", "--quiet"].map(Into::into).to_vec();
        let unpacker = Unpacker { program: std::env::current_exe().unwrap(), args };
        let store = Store::open(dir.path(), unpacker, &[]).await.unwrap();
        let puller = Arc::new(Puller::open(&config, patience, store.clone()).unwrap());
        let empty = directories(dir.path()).len();
        Self { images: Images { store, puller }, dir, empty, config, _config_dir: config_dir }
    }

    async fn pull(&self, reference: &str) -> Result<ImageId, Error> {
        self.images.pull(reference, None).await
    }

    /// Pulls what cannot be pulled, and checks that nothing is left of it.
    async fn fail(&self, reference: &str) -> Error {
        let before = self.images.list();
        let error = self.pull(reference).await.unwrap_err();
        assert_eq!(self.images.list(), before);
        assert!(self.images.pulls().is_empty());
        self.clean().await;
        error
    }

    /// Waits until no directory is left that no image has: what was begun goes when its process is dead.
    async fn clean(&self) {
        let wanted: usize = self.images.list().iter().map(|image| image.layers.len()).sum();
        for _ in 0..2000 {
            if directories(self.dir.path()).len() == self.empty + wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        panic!("{:?} are left, of which images have {wanted}", directories(self.dir.path()));
    }
}

/// Lists the directories for layers, and what waits to be deleted.
fn directories(data: &std::path::Path) -> Vec<PathBuf> {
    let list = |path: PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let layers = data.join("layers");
    list(layers.clone()).chain(list(layers.join(".trash"))).collect()
}

/// An archive of one file.
fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content).unwrap();
    archive.into_inner().unwrap()
}

/// A registry with the image `app:1` of these layers.
async fn serve(layers: &[&[u8]]) -> (Server, Arc<Content>) {
    let content = Arc::new(Content::with_image("app", "1", layers));
    let shared = Arc::clone(&content);
    (Server::start(move |request| shared.reply(request)).await, content)
}

fn is_layer(request: &Request, layer: &[u8]) -> bool {
    request.path.ends_with(&Digest::sha256(layer).to_string())
}

#[tokio::test]
async fn an_image_is_pulled_once() {
    let (one, two) = (layer("a", b"first"), layer("b", b"second"));
    let (server, content) = serve(&[&one, &two]).await;
    let node = Node::new("").await;
    let name = format!("{}/app:1", server.host());
    let mut watched = node.images.watch(&name);
    let id = node.pull(&name).await.unwrap();

    let image = node.images.find(&name).unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, std::slice::from_ref(&name));
    let digest = Digest::sha256(&content.manifests["app/manifests/1"].1);
    assert_eq!(image.repo_digests, [format!("{}/app@{digest}", server.host())]);
    assert_eq!(
        (image.config.cmd.as_slice(), image.config.user.as_str()),
        (["sh".to_owned()].as_slice(), "7")
    );
    assert_eq!(node.images.read_file(&id, "b", 100).await.unwrap().unwrap(), b"second");
    let progress = watched.borrow_and_update().clone();
    assert_eq!((progress.phase, progress.reference.as_str()), (Phase::Done, name.as_str()));
    assert!(progress.layers.iter().all(|layer| layer.done && layer.done_bytes == layer.total_bytes));
    assert_eq!(progress.layers.len(), 2);
    assert!(node.images.pulls().is_empty());

    let before = server.seen().len();
    assert_eq!(node.pull(&name).await.unwrap(), id);
    let again = server.seen().split_off(before);
    assert!(!again.iter().any(|request| is_layer(request, &one) || is_layer(request, &two)), "{again:?}");

    let by_digest = format!("{}/app@{digest}", server.host());
    assert_eq!(node.pull(&by_digest).await.unwrap(), id);
    assert_eq!(node.images.find(&by_digest).unwrap().id, id);
    assert_eq!(node.images.list().len(), 1);
}

#[tokio::test]
async fn layers_that_are_here_are_not_fetched_again() {
    let (base, one, two) = (layer("base", b"0"), layer("a", b"1"), layer("b", b"2"));
    let mut content = Content::with_image("one", "1", &[&base, &one]);
    content.image("two", "1", &[&base, &two], &[Digest::sha256(&base), Digest::sha256(&two)]);
    let server = Server::start(move |request| content.reply(request)).await;
    let node = Node::new("").await;
    node.pull(&format!("{}/one:1", server.host())).await.unwrap();
    node.pull(&format!("{}/two:1", server.host())).await.unwrap();
    assert_eq!(server.seen().iter().filter(|request| is_layer(request, &base)).count(), 1);
}

#[tokio::test]
async fn the_image_for_this_machine_is_taken_from_an_index() {
    use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE as INDEX, OCI_IMAGE_MEDIA_TYPE as IMAGE};
    use serde_json::{Value, json};

    let archive = layer("a", b"1");
    let mut content = Content::with_image("app", "mine", &[&archive]);
    let entry = |content: &Content, tag: &str, media_type: &str, platform: &str| -> Value {
        let body = &content.manifests[&format!("app/manifests/{tag}")].1;
        let (os, architecture) = platform.split_once('/').unwrap();
        json!({"mediaType": media_type, "digest": Digest::sha256(body), "size": body.len(),
            "platform": {"os": os, "architecture": architecture}})
    };
    let index = |entries: &[Value]| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let machine = Host::detect().to_string();
    let mine = entry(&content, "mine", IMAGE, &machine);
    let other = entry(&content, "mine", IMAGE, "plan9/mips");
    let top = content.manifest("app", "1", INDEX, &index(&[other.clone(), mine]));
    let nested = index(&[entry(&content, "1", INDEX, &machine)]);
    content.manifest("app", "nested", INDEX, &nested);
    let deep = index(&[entry(&content, "nested", INDEX, &machine)]);
    content.manifest("app", "deep", INDEX, &deep);
    content.manifest("app", "foreign", INDEX, &index(&[other]));
    let server = Server::start(move |request| content.reply(request)).await;
    let node = Node::new("").await;
    let name = |tag: &str| format!("{}/app:{tag}", server.host());

    let id = node.pull(&name("1")).await.unwrap();
    let image = node.images.find(&name("1")).unwrap();
    assert_eq!(image.repo_digests[0], format!("{}/app@{top}", server.host()));
    assert_eq!(node.pull(&name("nested")).await.unwrap(), id);
    let error = node.fail(&name("deep")).await;
    assert!(error.to_string().contains("nested"), "{error}");
    let error = node.fail(&name("foreign")).await;
    assert!(matches!(&error, Error::Platform { offered, .. } if offered == "plan9/mips"), "{error}");
}
