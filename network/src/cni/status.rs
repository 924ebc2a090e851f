//! The network of the moment, and whether its plugins can take pods.
//!
//! Two tasks keep both in memory, for as long as the value of this module lives: one follows the directory,
//! the other asks the plugins for STATUS, where the network's version has it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::chain::Chain;
use super::config::NetworkConfig;
use super::directory::Listing;
use super::plugins::Plugins;
use super::version::Verb;
use super::watch::Watcher;
use crate::blocking;
use crate::error::{Error, NotReady, PluginError};

/// How long an answer to STATUS counts; the kubelet asks for the node's status as often.
const PERIOD: Duration = Duration::from_secs(5);

/// The network, or why there is none.
type Current = Result<Arc<NetworkConfig>, NotReady>;
/// What the plugins last said, and of which network. Never held across an await.
type Verdict = Arc<Mutex<Option<(Arc<NetworkConfig>, Result<(), NotReady>)>>>;

/// What is known of the network at any time.
#[derive(Debug)]
pub(crate) struct Watched {
    current: watch::Receiver<Current>,
    verdict: Verdict,
    tasks: [AbortHandle; 2],
}

// === impl Watched ===

impl Watched {
    /// Looks once, and goes on looking.
    pub(crate) fn open(dir: &Path, chain: &Arc<Chain>) -> Result<Self, Error> {
        let failed = |source| Error::Watch { path: dir.to_owned(), source };
        let runtime = tokio::runtime::Handle::try_current().map_err(std::io::Error::other).map_err(failed)?;
        let mut watcher = Watcher::new(dir).map_err(failed)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe; an Arc of an owned descriptor is what it asks for"
        )]
        let events = AsyncFd::new(watcher.descriptor()).map_err(failed)?;
        let (listing, watched) = watcher.look();
        watched.map_err(failed)?;
        let (publish, current) = watch::channel(read(dir, listing, None));
        let verdict = Verdict::default();
        let follow = runtime.spawn(follow(dir.to_owned(), watcher, events, publish));
        let ask = runtime.spawn(ask(Arc::clone(chain), current.clone(), Arc::clone(&verdict)));
        Ok(Self { current, verdict, tasks: [follow.abort_handle(), ask.abort_handle()] })
    }

    /// The network of the moment.
    pub(crate) fn network(&self) -> Current {
        self.current.borrow().clone()
    }

    /// Whether pods can be added to it.
    pub(crate) fn status(&self, plugins: &Plugins) -> Result<(), NotReady> {
        let network = self.network()?;
        for plugin in &network.plugins {
            match plugins.find(&plugin.program) {
                Ok(_) => {}
                Err(PluginError::NotFound { dirs }) => {
                    let (network, plugin) = (network.name.clone(), plugin.program.clone());
                    return Err(NotReady::NoPlugin { network, plugin, dirs });
                }
                Err(error) => {
                    let reason = format!("CNI plugin {}: {error}", plugin.program);
                    return Err(NotReady::Status { network: network.name.clone(), reason });
                }
            }
        }
        if !network.newest().has(Verb::Status) {
            return Ok(());
        }
        match &*self.verdict.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((of, verdict)) if Arc::ptr_eq(of, &network) => verdict.clone(),
            _ => Err(NotReady::Pending { network: network.name.clone() }),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

// === tasks ===

/// Looks again whenever something has changed.
async fn follow(
    dir: std::path::PathBuf,
    mut watcher: Watcher,
    events: AsyncFd<Arc<std::os::fd::OwnedFd>>,
    publish: watch::Sender<Current>,
) {
    let mut blind = false;
    loop {
        let Ok(mut ready) = events.readable().await else { return };
        let changed = watcher.changed();
        ready.clear_ready();
        // Events that cannot be read may have told anything.
        if let Ok(false) = changed {
            continue;
        }
        let (back, listing, watched) = blocking(move || {
            let (listing, watched) = watcher.look();
            (watcher, listing, watched)
        })
        .await;
        watcher = back;
        if let (Err(error), false) = (&watched, blind) {
            tracing::error!(%error, dir = %dir.display(), "changes of the CNI configuration may go unseen");
        }
        blind = watched.is_err();
        publish.send_if_modified(|current| {
            let new = read(&dir, listing, current.as_ref().ok());
            let modified = *current != new;
            if modified {
                *current = new;
            }
            modified
        });
    }
}

/// What a look at the directory means; the network stays the very same value while it says the same.
fn read(dir: &Path, listing: Listing, before: Option<&Arc<NetworkConfig>>) -> Current {
    match (listing.network, before) {
        (Some((_, network)), Some(before)) if **before == network => Ok(Arc::clone(before)),
        (Some((path, network)), _) => {
            tracing::info!(network = network.name, path = %path.display(), "CNI network");
            Ok(Arc::new(network))
        }
        (None, _) => {
            let problems = listing.problems.iter();
            let problems = problems.map(|problem| format!("{}: {}", problem.path.display(), problem.reason));
            Err(NotReady::NoConfig { dir: dir.to_owned(), problems: problems.collect() })
        }
    }
}

/// Asks the plugins of a network that has STATUS, again and again, and those of a new one at once.
async fn ask(chain: Arc<Chain>, mut current: watch::Receiver<Current>, verdict: Verdict) {
    loop {
        let network = current.borrow_and_update().clone().ok().filter(|now| now.newest().has(Verb::Status));
        let round = async {
            let Some(network) = network else { return std::future::pending().await };
            let answer = chain
                .status(&network)
                .await
                .map_err(|error| NotReady::Status { network: network.name.clone(), reason: error.chain() });
            *verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some((network, answer));
            tokio::time::sleep(PERIOD).await;
        };
        tokio::select! {
            () = round => {}
            changed = current.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests;
