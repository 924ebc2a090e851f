//! Tests of the store, with real unpacking processes.

mod images;
mod layers;
mod reading;
mod rebuilding;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Begun, Layer, LayerExpectation, NewImage, Store};
use crate::unpack::tests::tar::Tar;
use crate::unpack::tests::unpacker;
use crate::{Digest, Error, Image, ImageConfig, ImageId};

/// A store in a directory of its own.
struct Fixture {
    data: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = open(data.path()).await;
        Self { data, store }
    }

    /// Ends the daemon and starts it anew.
    async fn reopen(self) -> Self {
        self.sync();
        let Self { data, store } = self;
        drop(store);
        let store = open(data.path()).await;
        Self { data, store }
    }

    /// Brings a layer as a pull does.
    async fn layer(&self, below: Option<&Layer>, tar: &Tar) -> Result<Layer, Error> {
        let archive = tar.clone().end();
        match self.store.begin_layer(expectation(below, &archive)).await? {
            Begun::Here(layer) => Ok(layer),
            Begun::Write(mut writer) => {
                for chunk in gzip(&archive).chunks(1000) {
                    writer.write(Bytes::copy_from_slice(chunk)).await?;
                }
                writer.finish().await
            }
        }
    }

    async fn layers(&self, tars: &[Tar]) -> Vec<Layer> {
        let mut layers = Vec::new();
        for tar in tars {
            layers.push(self.layer(layers.last(), tar).await.unwrap());
        }
        layers
    }

    /// Brings an image as a pull does.
    async fn image(&self, name: &str, tars: &[Tar]) -> Arc<Image> {
        let layers = self.layers(tars).await;
        self.store.commit(new_image(name, layers)).await.unwrap()
    }

    /// Returns what is in `layers/`, once all that was deleted is gone.
    fn layer_names(&self) -> BTreeSet<String> {
        self.store.0.trash.wait();
        assert_eq!(names(&self.data.path().join("layers/.trash")), BTreeSet::new());
        let mut names = names(&self.data.path().join("layers"));
        assert!(names.remove(".trash") && names.remove(".skeletons") && names.remove("0"));
        assert_eq!(self::names(&self.data.path().join("layers/.skeletons")), names);
        names
    }

    /// Waits until all images so far are durable.
    fn sync(&self) {
        let (answer, done) = std::sync::mpsc::channel();
        self.store.0.unsynced.send(super::durable::Order::Answer(answer)).unwrap();
        done.recv().unwrap();
    }

    fn files(&self) -> BTreeSet<String> {
        names(&self.data.path().join("images"))
    }
}

async fn open(data: &Path) -> Store {
    Store::open(data, unpacker(), &["docker.io/library/pinned:*".to_owned()]).await.unwrap()
}

fn expectation(below: Option<&Layer>, archive: &[u8]) -> LayerExpectation {
    let diff_id = Digest::sha256(archive);
    let chain = match below {
        None => diff_id.clone(),
        Some(below) => Digest::sha256(format!("{} {diff_id}", below.record().chain).as_bytes()),
    };
    LayerExpectation { chain, diff_id: Some(diff_id) }
}

fn new_image(name: &str, layers: Vec<Layer>) -> NewImage {
    let chain = layers.last().map(|layer| layer.record().chain.to_string()).unwrap_or_default();
    let config = Bytes::from(format!("{{\"config of\":\"{chain}\"}}"));
    let manifest = Bytes::from(format!("{{\"manifest of\":\"{chain}\"}}"));
    let manifest_digest = Digest::sha256(&manifest);
    NewImage {
        names: vec![name.parse().unwrap()],
        digests: vec![manifest_digest.clone()],
        manifest,
        manifest_digest,
        id: ImageId::new(Digest::sha256(&config)),
        artifact_type: None,
        index: None,
        config,
        settings: ImageConfig::default(),
        architecture: "amd64".into(),
        created: None,
        layers,
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn names(directory: &Path) -> BTreeSet<String> {
    directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
