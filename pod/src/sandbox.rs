//! A pod sandbox: its record, its monitor, and the state that others see.

mod enclosure;
pub(crate) mod files;
mod forward;
mod network;
mod remove;
mod resize;
mod run;
mod stop;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::Monitor;
use runtime::selinux::Labels;
use tokio::sync::watch;

use crate::config::{PodConfig, PodOrNode};
use crate::error::{Error, Result};
use crate::event::{self, EventKind, Events};
use crate::record::{PodPhase, PodRecord, Records};
use crate::stats::Readings;
use crate::status::{PodState, PodStatus};

/// One pod.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub id: String,
    pub config: Arc<PodConfig>,
    /// Its directory under the state directory: the monitor's socket, exit files, shared files.
    pub dir: PathBuf,
    /// Held by what changes the pod as a whole, stop and remove; never by what reads it.
    pub gate: tokio::sync::Mutex<()>,
    /// Guards the homes of image volumes while they are mounted or let go; only ever taken by threads that may block.
    pub homes: Mutex<()>,
    /// Where its changes are told.
    pub events: Arc<Events>,
    /// What is kept between two readings of the statistics.
    pub readings: Readings,
    /// Guards the record and the monitor; never held across an await.
    state: Mutex<State>,
    status: watch::Sender<Arc<PodStatus>>,
}

#[derive(Debug)]
struct State {
    record: PodRecord,
    monitor: Option<Monitor>,
    /// Whether anybody could have heard of it.
    is_told: bool,
}

impl Sandbox {
    pub(crate) fn new(record: PodRecord, dir: PathBuf, events: Arc<Events>) -> Self {
        let is_told = record.phase != PodPhase::Creating;
        let (status, _) = watch::channel(Arc::new(status_of(&record)));
        Self {
            id: record.id.clone(),
            config: record.config.clone(),
            dir,
            gate: tokio::sync::Mutex::default(),
            homes: Mutex::default(),
            events,
            readings: Readings::default(),
            state: Mutex::new(State { record, monitor: None, is_told }),
            status,
        }
    }

    /// What Status and List show; none while it is half made.
    pub(crate) fn status(&self) -> Option<Arc<PodStatus>> {
        (self.phase() != PodPhase::Creating).then(|| self.status.borrow().clone())
    }

    /// The same without a look at whether it is half made; waits for nobody.
    pub(crate) fn shown(&self) -> Arc<PodStatus> {
        self.status.borrow().clone()
    }

    pub(crate) fn phase(&self) -> PodPhase {
        self.lock().record.phase
    }

    pub(crate) fn netns(&self) -> Option<PathBuf> {
        self.lock().record.netns.clone()
    }

    pub(crate) fn enclosure(&self) -> Option<String> {
        self.lock().record.enclosure.clone()
    }

    /// What its containers are labelled with by SELinux.
    pub(crate) fn labels(&self) -> Option<Labels> {
        self.lock().record.selinux.clone()
    }

    pub(crate) fn ips(&self) -> Vec<std::net::IpAddr> {
        self.lock().record.ips.clone()
    }

    /// The monitor, while there is one.
    pub(crate) fn monitor(&self) -> Option<Monitor> {
        self.lock().monitor.clone()
    }

    pub(crate) fn set_monitor(&self, monitor: Option<Monitor>) {
        if monitor.is_none() {
            self.readings.close();
        }
        self.lock().monitor = monitor;
        // Whoever waits for the monitor's end looks again.
        self.status.send_modify(|_| ());
    }

    /// The pod's user namespace; none with the node's.
    pub(crate) fn user_namespace(&self) -> Result<Option<OwnedFd>> {
        match self.monitor().filter(|_| self.config.security.namespaces.users.is_some()) {
            None => Ok(None),
            Some(monitor) => {
                let opened = monitor.user_namespace();
                opened.map(Some).map_err(Error::file("open the user namespace of", &self.dir))
            }
        }
    }

    /// Waits until the pod has no monitor any more.
    pub(crate) async fn monitor_gone(&self) {
        let mut status = self.status.subscribe();
        // The sender lives as long as the pod does.
        drop(status.wait_for(|_| self.lock().monitor.is_none()).await);
    }

    /// Changes the record, on disk and in memory, and then what others see.
    pub(crate) fn update(&self, records: &Records, change: impl FnOnce(&mut PodRecord)) -> Result<()> {
        let mut state = self.lock();
        let mut record = state.record.clone();
        change(&mut record);
        records.save_pod(&record)?;
        self.turn(&mut state, record);
        Ok(())
    }

    /// Takes note of what has happened. It has, whether or not the disk has room to say so.
    pub(crate) fn note(&self, records: &Records, change: impl FnOnce(&mut PodRecord)) {
        let mut state = self.lock();
        let mut record = state.record.clone();
        change(&mut record);
        if let Err(error) = records.save_pod(&record) {
            tracing::warn!(pod = self.id, error = crate::error::chain(&error), "keep a record");
        }
        self.turn(&mut state, record);
    }

    fn turn(&self, state: &mut State, record: PodRecord) {
        let happened = event::of_pod(state.record.phase, record.phase);
        state.record = record;
        state.is_told |= !happened.is_empty();
        // Under the lock, so that nobody finds a new phase and an old status.
        self.status.send_replace(Arc::new(status_of(&state.record)));
        self.events.tell(happened, &self.id, self);
    }

    /// Tells that nothing is left of it.
    pub(crate) fn tell_deleted(&self) {
        if self.lock().is_told {
            self.events.tell(&[EventKind::Deleted], &self.id, self);
        }
    }

    /// Whether the pod has a network namespace of its own.
    pub(crate) fn has_network(&self) -> bool {
        self.config.security.namespaces.network == PodOrNode::Pod
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status_of(record: &PodRecord) -> PodStatus {
    let state = match record.phase {
        PodPhase::Ready => PodState::Ready,
        PodPhase::Creating | PodPhase::Stopping | PodPhase::Stopped => PodState::NotReady,
    };
    PodStatus {
        id: record.id.clone(),
        config: record.config.clone(),
        state,
        created_at_ns: record.created_at_ns,
        ips: record.ips.clone(),
    }
}
