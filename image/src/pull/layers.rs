//! From layers by digest to layers in the store.
//!
//! Download, digest and hand-over to the unpacking process are one stream; what is in memory is one chunk. Nothing
//! that the unpacking makes counts before size and digest of the whole layer hold: a writer that is dropped leaves
//! nothing. A broken connection goes on where it broke, with the digest carried on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::resolve::Resolved;
use super::{Board, Puller, show};
use crate::registry::manifest::Descriptor;
use crate::registry::{Again, Failure, Host, Patience};
use crate::store::{Begun, Layer, LayerExpectation, LayerWriter, Store};
use crate::{Error, Hasher};

/// After so much progress earlier breaks are forgiven.
const PROGRESS: u64 = 1 << 20;

/// What it takes to fetch one layer.
struct Job {
    store: Store,
    hosts: Vec<Arc<Host>>,
    patience: Patience,
    board: Board,
    index: usize,
    descriptor: Descriptor,
    expected: LayerExpectation,
}

/// A transfer that did not come to its end.
enum Broken {
    /// Another host may do better.
    Source(Failure),
    /// The store cannot take it.
    Sink(Error),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Source(failure)
    }
}

impl Puller {
    /// Brings all layers of an image into the store; the lowest come first.
    pub(super) async fn fetch(
        &self,
        image: &Resolved,
        hosts: &[Arc<Host>],
        board: &Board,
    ) -> Result<Vec<Layer>, Error> {
        // Who knew the manifest first has its layers.
        let others = hosts.iter().filter(|host| !Arc::ptr_eq(host, &image.host));
        let hosts: Vec<_> = std::iter::once(&image.host).chain(others).cloned().collect();
        let turns = Arc::new(Semaphore::new(self.parallel_layers));
        let mut tasks = JoinSet::new();
        let layers = image.manifest.layers.iter().zip(image.config.chain()).zip(&image.config.diff_ids);
        for (index, ((descriptor, chain), diff_id)) in layers.enumerate() {
            let job = Job {
                store: self.store.clone(),
                hosts: hosts.clone(),
                patience: self.registries.patience().clone(),
                board: Arc::clone(board),
                index,
                descriptor: descriptor.clone(),
                expected: LayerExpectation { chain, diff_id: diff_id.clone() },
            };
            let turns = Arc::clone(&turns);
            tasks.spawn(async move {
                // The semaphore is fair: layers get their turns in order. It is never closed.
                let _turn = turns.acquire().await.ok();
                (job.index, job.run().await)
            });
        }
        let mut layers: Vec<Option<Layer>> = image.manifest.layers.iter().map(|_| None).collect();
        let failed = loop {
            match tasks.join_next().await {
                None => break None,
                Some(Ok((index, Ok(layer)))) => layers[index] = Some(layer),
                Some(Ok((_, Err(error)))) => break Some(error),
                Some(Err(_)) => {
                    let what = format!("manifest {}", image.manifest_digest);
                    break Some(Error::InvalidImage { what, reason: "fetching a layer panicked".to_owned() });
                }
            }
        };
        match failed {
            None => Ok(layers.into_iter().flatten().collect()),
            Some(error) => {
                // What the others began is gone before anyone hears of the failure.
                tasks.shutdown().await;
                Err(error)
            }
        }
    }
}

impl Job {
    async fn run(&self) -> Result<Layer, Error> {
        if let Some(layer) = self.store.layer(&self.expected.chain) {
            return Ok(self.done(layer));
        }
        let mut earlier = Vec::new();
        for host in &self.hosts {
            let writer = match self.store.begin_layer(self.expected.clone()).await? {
                Begun::Here(layer) => return Ok(self.done(layer)),
                Begun::Write(writer) => writer,
            };
            match self.transfer(host, writer).await {
                Ok(layer) => return Ok(self.done(layer)),
                Err(Broken::Sink(error)) => return Err(error),
                Err(Broken::Source(failure)) => earlier.push(failure.error),
            }
        }
        // The host that knew the manifest is to blame first.
        earlier.reverse();
        let last = earlier.pop();
        Err(last.map_or_else(
            || Error::RegistryUnavailable {
                host: "?".to_owned(),
                reason: "there is no host to ask".to_owned(),
            },
            |last| last.after(&earlier),
        ))
    }

    /// Streams the layer from one host, as often as it takes and is worth while.
    async fn transfer(&self, host: &Host, writer: LayerWriter) -> Result<Layer, Broken> {
        let mut stream =
            Stream { writer: Ok(writer), hasher: Hasher::new(self.descriptor.digest.algorithm()), done: 0 };
        let mut pauses = self.patience.pauses.iter();
        let mut mark = 0;
        while let Err(failure) = self.advance(host, &mut stream).await? {
            if stream.done - mark >= PROGRESS {
                pauses = self.patience.pauses.iter();
            }
            mark = stream.done;
            let (Again::Later(asked), Some(pause)) = (failure.again, pauses.next()) else {
                return Err(Broken::Source(failure));
            };
            let asked = asked.unwrap_or(Duration::ZERO).min(self.patience.longest_pause);
            tokio::time::sleep(asked.max(*pause)).await;
        }
        let found = stream.hasher.finish();
        if found != self.descriptor.digest {
            let expected = self.descriptor.digest.clone();
            return Err(Broken::Source(Failure::last(Error::DigestMismatch {
                what: self.what(host),
                expected,
                found,
            })));
        }
        let layer = match stream.writer {
            Ok(writer) => writer.finish().await,
            Err(error) => Err(error),
        };
        layer.map_err(Broken::Sink)
    }

    /// Takes the stream further by one request. Inside: what the request came to.
    async fn advance(&self, host: &Host, stream: &mut Stream) -> Result<Result<(), Failure>, Broken> {
        let size = self.descriptor.size_bytes;
        let mut blob = match host.blob(&self.descriptor, stream.done).await {
            Ok(blob) => blob,
            Err(failure) => return Ok(Err(failure)),
        };
        loop {
            let chunk = match blob.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if stream.done == size => return Ok(Ok(())),
                Ok(None) => return Ok(Err(self.wrong_size(host, stream.done, Again::Later(None)))),
                Err(failure) => return Ok(Err(failure)),
            };
            let done = stream.done + chunk.len() as u64;
            if done > size {
                return Ok(Err(self.wrong_size(host, done, Again::No)));
            }
            stream.hasher.update(&chunk);
            stream.done = done;
            if let Ok(writer) = &mut stream.writer
                && let Err(error) = writer.write(chunk).await
            {
                if !matches!(error, Error::LayerRefused { .. }) {
                    return Err(Broken::Sink(error));
                }
                // Garbage, or something else than was promised? The digest will tell.
                stream.writer = Err(error);
            }
            show(&self.board, |progress| {
                if let Some(layer) = progress.layers.get_mut(self.index) {
                    layer.done_bytes = done;
                }
            });
        }
    }

    fn wrong_size(&self, host: &Host, found: u64, again: Again) -> Failure {
        let error =
            Error::SizeMismatch { what: self.what(host), expected: self.descriptor.size_bytes, found };
        Failure { error, again }
    }

    fn what(&self, host: &Host) -> String {
        format!("layer {} of {}", self.descriptor.digest, host.name())
    }

    fn done(&self, layer: Layer) -> Layer {
        show(&self.board, |progress| {
            if let Some(shown) = progress.layers.get_mut(self.index) {
                (shown.done_bytes, shown.done) = (shown.total_bytes, true);
            }
        });
        layer
    }
}

/// A layer on its way.
struct Stream {
    /// Who takes it; the error once that failed to.
    writer: Result<LayerWriter, Error>,
    hasher: Hasher,
    done: u64,
}
