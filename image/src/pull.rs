//! Pulls: who waits for which, how many run at a time, and how far they are.
//!
//! A pull is one future that all its waiters share, so that it stops when the last of them goes; nothing else keeps
//! it running. What it does is in `resolve` (names to manifests) and `layers` (content to the store).

mod layers;
mod resolve;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::{Semaphore, watch};

use crate::metrics::Metrics;
use crate::registry::{Patience, Registries};
use crate::store::{NewImage, Store};
use crate::trust::Trust;
use crate::{Config, Credentials, Error, Host, ImageId, LayerProgress, Phase, Progress, Reference};
use resolve::Resolved;

/// What all waiters of a pull wait for.
type Outcome = BoxFuture<'static, Result<ImageId, Error>>;

/// Pulls images into a store.
#[derive(Debug)]
pub(crate) struct Puller {
    store: Store,
    registries: Registries,
    trust: Trust,
    machine: Host,
    turns: Semaphore,
    parallel_layers: usize,
    metrics: Metrics,
    /// The pulls under way. Guards a map; nothing is awaited under it.
    flights: Mutex<HashMap<Key, Flight>>,
    /// Where the progress of each reference is shown. Guards a map; nothing is awaited under it.
    boards: Mutex<HashMap<String, Board>>,
}

/// Where the progress of a reference is shown.
type Board = Arc<watch::Sender<Progress>>;

/// What makes two pulls the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    names: Vec<Reference>,
    credentials: Option<Credentials>,
}

/// A pull under way. It is kept alive by its waiters alone.
struct Flight {
    /// Tells it from an earlier one of the same key, whose end may come late.
    number: u64,
    outcome: WeakShared<Outcome>,
}

/// Takes a pull off the list, however it ends.
struct Landing {
    puller: Arc<Puller>,
    key: Key,
    number: u64,
    /// Whether it came to its end, well or not.
    has_ended: bool,
}

impl Puller {
    pub(crate) fn open(config: &Config, patience: Patience, store: Store) -> Result<Self, Error> {
        Ok(Self {
            store,
            registries: Registries::open(config, patience)?,
            trust: Trust::open(config)?,
            machine: Host::detect(),
            turns: Semaphore::new(config.max_parallel_pulls.max(1)),
            parallel_layers: config.max_parallel_layers.max(1),
            metrics: Metrics::default(),
            flights: Mutex::default(),
            boards: Mutex::default(),
        })
    }

    /// Pulls an image, or waits for the same pull.
    pub(crate) async fn pull(
        self: &Arc<Self>,
        text: &str,
        credentials: Option<Credentials>,
    ) -> Result<ImageId, Error> {
        let key = Key { names: self.registries.names(text)?, credentials };
        self.join(key).await
    }

    /// Returns the full names that `text` may mean.
    pub(crate) fn names(&self, text: &str) -> Result<Vec<Reference>, Error> {
        self.registries.names(text)
    }

    /// Returns the progress of the pulls under way.
    pub(crate) fn pulls(&self) -> Vec<Progress> {
        let flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = flights.iter().filter_map(|(key, flight)| Some((key.board(), flight.outcome.upgrade()?)));
        let alive: Vec<_> = alive.collect();
        // If a last waiter goes now, the pull ends with what is held here, and that takes the lock.
        drop(flights);
        alive.iter().map(|(name, _)| self.board(name).borrow().clone()).collect()
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Watches the pull of a reference.
    pub(crate) fn watch(&self, text: &str) -> watch::Receiver<Progress> {
        // A text that names nothing is never pulled; its board stays as it is.
        let name = match self.registries.names(text) {
            Ok(names) => names.first().map_or_else(|| text.to_owned(), ToString::to_string),
            Err(_) => text.to_owned(),
        };
        self.board(&name).subscribe()
    }

    fn join(self: &Arc<Self>, key: Key) -> Shared<Outcome> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = flights.get(&key).and_then(|flight| flight.outcome.upgrade()) {
            return outcome;
        }
        let number = flights.get(&key).map_or(0, |flight| flight.number + 1);
        let landing = Landing { puller: Arc::clone(self), key: key.clone(), number, has_ended: false };
        let outcome = landing.fly().boxed().shared();
        if let Some(weak) = outcome.downgrade() {
            flights.insert(key, Flight { number, outcome: weak });
        }
        outcome
    }

    /// Pulls what one full name means.
    async fn pull_name(
        &self,
        name: &Reference,
        credentials: Option<&Credentials>,
        board: &Board,
    ) -> Result<ImageId, Error> {
        show(board, |progress| progress.phase = Phase::Resolving);
        let demands = self.trust.demands(name)?;
        let hosts = self.registries.hosts(name, credentials).await?;
        let resolved = self.resolve(&hosts).await?;
        if let Some(demands) = demands {
            demands.check(&resolved.host, &resolved.digests).await?;
        }
        let layers = resolved.manifest.layers.iter().map(|layer| LayerProgress {
            digest: layer.digest.clone(),
            total_bytes: layer.size_bytes,
            done_bytes: 0,
            done: false,
        });
        let layers = layers.collect();
        show(board, |progress| (progress.phase, progress.layers) = (Phase::Fetching, layers));
        let layers = self.fetch(&resolved, &hosts, board).await?;

        show(board, |progress| progress.phase = Phase::Committing);
        let Resolved { id, manifest_digest, manifest_body, digests, manifest, config_body, config, .. } =
            resolved;
        // What the name was resolved to, if that was no manifest.
        let index = digests.first().filter(|first| **first != manifest_digest).cloned();
        let image = self.store.commit(NewImage {
            names: vec![name.clone()],
            digests,
            manifest: manifest_body,
            manifest_digest,
            config: config_body,
            id,
            artifact_type: manifest.artifact.map(|artifact| artifact.kind),
            index,
            settings: config.settings,
            architecture: config.architecture,
            created: config.created,
            layers,
        });
        Ok(image.await?.id.clone())
    }

    /// Returns the board of a name, and forgets those that nobody looks at.
    fn board(&self, name: &str) -> Board {
        let mut boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
        boards.retain(|_, board| Arc::strong_count(board) > 1 || board.receiver_count() > 0);
        let fresh =
            || Arc::new(watch::Sender::new(Progress { reference: name.to_owned(), ..Progress::default() }));
        Arc::clone(boards.entry(name.to_owned()).or_insert_with(fresh))
    }
}

impl Key {
    /// Returns the name under which progress is shown.
    fn board(&self) -> String {
        self.names.first().map(ToString::to_string).unwrap_or_default()
    }
}

impl Landing {
    async fn fly(mut self) -> Result<ImageId, Error> {
        let outcome = self.pull().await;
        self.puller.metrics.pulled(&outcome);
        self.has_ended = true;
        outcome
    }

    async fn pull(&self) -> Result<ImageId, Error> {
        let puller = &self.puller;
        let board = puller.board(&self.key.board());
        show(&board, |progress| (progress.phase, progress.layers) = (Phase::Waiting, Vec::new()));
        // The semaphore is never closed; without a turn there would be no limit, and nothing worse.
        let _turn = puller.turns.acquire().await.ok();
        let mut earlier = Vec::new();
        for name in &self.key.names {
            match puller.pull_name(name, self.key.credentials.as_ref(), &board).await {
                Ok(id) => {
                    show(&board, |progress| progress.phase = Phase::Done);
                    return Ok(id);
                }
                Err(error) => earlier.push(error),
            }
        }
        show(&board, |progress| progress.phase = Phase::Failed);
        let last = earlier.pop();
        Err(last.map_or_else(
            || Error::InvalidReference { reference: String::new(), reason: "it names nothing".to_owned() },
            |last| last.after(&earlier),
        ))
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.has_ended {
            self.puller.metrics.cancelled();
        }
        let mut flights = self.puller.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.key);
        }
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("number", &self.number).finish_non_exhaustive()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.names).finish()
    }
}

fn show(board: &watch::Sender<Progress>, change: impl FnOnce(&mut Progress)) {
    board.send_modify(change);
}

#[cfg(test)]
mod tests;
