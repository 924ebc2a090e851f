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
use crate::artifact::Wrapping;
use crate::metrics::Metrics;
use crate::registry::manifest::Descriptor;
use crate::registry::{Again, Failure, Host, Patience};
use crate::store::{Begun, Layer, LayerExpectation, LayerWriter, Store};
use crate::{Algorithm, Error, Hasher};

/// After so much progress earlier breaks are forgiven.
const PROGRESS: u64 = 1 << 20;

/// What it takes to fetch one layer.
struct Job {
    store: Store,
    hosts: Vec<Arc<Host>>,
    patience: Patience,
    board: Board,
    metrics: Metrics,
    index: usize,
    descriptor: Descriptor,
    expected: LayerExpectation,
    /// What is put around a blob that is no archive.
    wrapping: Option<Wrapping>,
}

/// A transfer that did not come to its end.
enum Broken {
    /// Another host may do better, and go on with the stream if there is one.
    Source(Error, Option<Box<Stream>>),
    /// The store cannot take it.
    Sink(Error),
}

impl Puller {
    /// Brings all layers of an image into the store; the lowest come first.
    pub(super) async fn fetch(
        &self,
        image: &Resolved,
        hosts: &[Arc<Host>],
        board: &Board,
    ) -> Result<Vec<Layer>, Error> {
        let hosts = in_order(image, hosts);
        let turns = Arc::new(Semaphore::new(self.parallel_layers));
        let mut tasks = JoinSet::new();
        let layers = image.manifest.layers.iter().zip(image.manifest.expected(&image.config));
        for (index, (descriptor, (expected, wrapping))) in layers.enumerate() {
            let job = Job {
                store: self.store.clone(),
                hosts: hosts.clone(),
                patience: self.registries.patience().clone(),
                board: Arc::clone(board),
                metrics: self.metrics.clone(),
                index,
                descriptor: descriptor.clone(),
                expected,
                wrapping,
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
            return Ok(self.done(layer, "store"));
        }
        let mut earlier = Vec::new();
        let mut carried: Option<Box<Stream>> = None;
        let mut hosts = self.hosts.iter();
        let mut next = hosts.next();
        while let Some(host) = next {
            let stream = match carried.take() {
                Some(stream) => *stream,
                None => match self.store.begin_layer(self.expected.clone()).await? {
                    Begun::Here(layer) => return Ok(self.done(layer, "store")),
                    Begun::Write(writer) => self.stream(writer).await?,
                },
            };
            let mixed = stream.done > 0;
            match self.transfer(host, stream).await {
                Ok(layer) => return Ok(self.done(layer, "registry")),
                Err(Broken::Sink(error)) => return Err(error),
                Err(Broken::Source(error, stream)) => {
                    earlier.push(error);
                    // When what several hosts sent is wrong, this one may be right all the same.
                    if stream.is_some() || !mixed {
                        next = hosts.next();
                    }
                    carried = stream;
                }
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
    async fn transfer(&self, host: &Host, mut stream: Stream) -> Result<Layer, Broken> {
        let mut pauses = self.patience.pauses.iter();
        let mut mark = stream.done;
        while let Err(failure) = self.advance(host, &mut stream).await.map_err(Broken::Sink)? {
            if stream.done - mark >= PROGRESS {
                pauses = self.patience.pauses.iter();
            }
            mark = stream.done;
            let asked = match failure.again {
                Again::Later(asked) => asked.unwrap_or(Duration::ZERO).min(self.patience.longest_pause),
                // It was there a moment ago.
                Again::Soon => Duration::ZERO,
                Again::No | Again::OtherScheme => return Err(stream.broken(failure.error)),
            };
            let Some(pause) = pauses.next() else { return Err(stream.broken(failure.error)) };
            tokio::time::sleep(asked.max(*pause)).await;
        }
        let found = stream.hasher.finish();
        if found != self.descriptor.digest {
            let expected = self.descriptor.digest.clone();
            let error = Error::DigestMismatch { what: self.what(host), expected, found };
            return Err(Broken::Source(error, None));
        }
        self.finish(stream.writer).await.map_err(Broken::Sink)
    }

    async fn stream(&self, mut writer: LayerWriter) -> Result<Stream, Error> {
        if let Some(wrapping) = &self.wrapping {
            writer.write(wrapping.before.clone()).await?;
        }
        Ok(Stream::new(writer, self.descriptor.digest.algorithm()))
    }

    async fn finish(&self, writer: Result<LayerWriter, Error>) -> Result<Layer, Error> {
        let mut writer = writer?;
        if let Some(wrapping) = &self.wrapping {
            writer.write(wrapping.after.clone()).await?;
        }
        writer.finish().await
    }

    /// Takes the stream further by one request. Inside: what the request came to; outside: what the store says.
    async fn advance(&self, host: &Host, stream: &mut Stream) -> Result<Result<(), Failure>, Error> {
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
                stream.spoilt = true;
                return Ok(Err(self.wrong_size(host, done, Again::No)));
            }
            self.metrics.downloaded(chunk.len() as u64);
            stream.hasher.update(&chunk);
            stream.done = done;
            if let Ok(writer) = &mut stream.writer
                && let Err(error) = writer.write(chunk).await
            {
                if !matches!(error, Error::LayerRefused { .. }) {
                    return Err(error);
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

    fn done(&self, layer: Layer, source: &'static str) -> Layer {
        self.metrics.layer(source);
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
    /// Whether it is known to be wrong already.
    spoilt: bool,
}

impl Stream {
    fn new(writer: LayerWriter, algorithm: Algorithm) -> Self {
        Self { writer: Ok(writer), hasher: Hasher::new(algorithm), done: 0, spoilt: false }
    }

    /// Leaves what is good so far to another host.
    fn broken(self, error: Error) -> Broken {
        let good = self.writer.is_ok() && !self.spoilt;
        Broken::Source(error, good.then(|| Box::new(self)))
    }
}

/// Returns the hosts to ask for layers: who knew the manifest first, after those before it that have only layers.
fn in_order(image: &Resolved, hosts: &[Arc<Host>]) -> Vec<Arc<Host>> {
    let knew = |host: &&Arc<Host>| Arc::ptr_eq(host, &image.host);
    let before = hosts.iter().take_while(|host| !knew(host)).filter(|host| !host.resolves());
    let others = hosts.iter().filter(|host| !knew(host));
    let mut ordered: Vec<Arc<Host>> = Vec::with_capacity(hosts.len());
    for host in before.chain([&image.host]).chain(others).filter(|host| host.pulls()) {
        if !ordered.iter().any(|known| Arc::ptr_eq(known, host)) {
            ordered.push(Arc::clone(host));
        }
    }
    ordered
}
