//! What happens to pods and containers, told to all who listen, in the order in which it happened.
//!
//! An event is made where the change is, in the same breath, with the state of the whole pod at that time; one
//! lock makes the order. It waits for nobody: a listener that falls too far behind is told so and has to
//! begin anew with the lists, as the kubelet does when its stream ends. Without listeners there is no work.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::node::now_ns;
use crate::record::{ContainerPhase, PodPhase};
use crate::sandbox::Sandbox;
use crate::status::{ContainerStatus, PodStatus};
use crate::table::Table;

/// How many events a listener may be behind; a power of two, as the channel has it anyway.
const BACKLOG: usize = 1024;

/// A change of a pod or a container (ContainerEventResponse).
#[derive(Debug, Clone)]
pub struct Event {
    /// The container's id, or the pod's own.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
    /// When, nanoseconds since 1970; never the same for two events.
    pub at_ns: i64,
    /// The pod then.
    pub pod: Arc<PodStatus>,
    /// All containers of the pod then.
    pub containers: Vec<Arc<ContainerStatus>>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Made; a container waits for its start.
    Created,
    /// Runs, or is ready.
    Started,
    /// Ended.
    Stopped,
    /// Gone with its record.
    Deleted,
}

/// A pod and its containers at one time, in the order of the events.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What later events are later than, nanoseconds since 1970.
    pub at_ns: i64,
    /// The pod.
    pub pod: Arc<PodStatus>,
    /// All its containers.
    pub containers: Vec<Arc<ContainerStatus>>,
}

/// One who listens; gets what happens from now on.
#[derive(Debug)]
pub struct Listener {
    events: broadcast::Receiver<Arc<Event>>,
    closed: watch::Receiver<bool>,
}

/// So many events were not taken in time, and are lost for this listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the listener is too slow: {0} events are lost to it; list what there is and listen again")]
pub struct Missed(pub u64);

/// Where events are told.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Arc<Event>>,
    closed: watch::Sender<bool>,
    /// The time of the last event. Its lock makes the order of events and snapshots; what is taken under it
    /// is the table's lock, and never the other way round.
    last_ns: Mutex<i64>,
    table: Weak<Table>,
}

impl Events {
    pub(crate) fn new(table: &Arc<Table>) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let closed = watch::Sender::new(false);
        Self { sender, closed, last_ns: Mutex::default(), table: Arc::downgrade(table) }
    }

    pub(crate) fn listen(&self) -> Listener {
        Listener { events: self.sender.subscribe(), closed: self.closed.subscribe() }
    }

    /// Ends all listening: the daemon stops.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Tells what happened to a container or to the pod itself. To be called with the lock of what changed held,
    /// so that nobody else changes it in between.
    pub(crate) fn tell(&self, kinds: &[EventKind], id: &str, pod: &Sandbox) {
        if kinds.is_empty() || self.sender.receiver_count() == 0 {
            return;
        }
        let mut last_ns = self.last_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let (pod, containers) = (pod.shown(), self.containers_of(&pod.id));
        for kind in kinds {
            *last_ns = now_ns().max(*last_ns + 1);
            let (pod, containers) = (pod.clone(), containers.clone());
            let event = Event { id: id.to_owned(), kind: *kind, at_ns: *last_ns, pod, containers };
            // An error says that the last listener has left meanwhile.
            drop(self.sender.send(Arc::new(event)));
        }
    }

    /// The state of a pod that events with a later time change.
    pub(crate) fn snapshot(&self, pod: &Sandbox) -> Snapshot {
        let mut last_ns = self.last_ns.lock().unwrap_or_else(PoisonError::into_inner);
        *last_ns = now_ns().max(*last_ns + 1);
        Snapshot { at_ns: *last_ns, pod: pod.shown(), containers: self.containers_of(&pod.id) }
    }

    fn containers_of(&self, pod_id: &str) -> Vec<Arc<ContainerStatus>> {
        let Some(table) = self.table.upgrade() else { return Vec::new() };
        let containers = table.containers_of(pod_id).into_iter();
        let mut shown: Vec<_> = containers.filter_map(|container| container.shown()).collect();
        shown.sort_by_key(|container| container.created_at_ns);
        shown
    }
}

impl Listener {
    /// The next event, none at the daemon's end; after [`Missed`] nothing more comes that would make sense.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, Missed> {
        tokio::select! {
            biased;
            event = self.events.recv() => match event {
                Ok(event) => Ok(Some(event)),
                Err(RecvError::Closed) => Ok(None),
                Err(RecvError::Lagged(count)) => Err(Missed(count)),
            },
            // Also when the sender is gone.
            _ = self.closed.wait_for(|closed| *closed) => Ok(None),
        }
    }
}

/// What a change of a container's phase is called.
pub(crate) fn of_container(before: &ContainerPhase, after: &ContainerPhase) -> &'static [EventKind] {
    use ContainerPhase::{Created, Creating, Exited, Running};
    match (before, after) {
        (Creating, Created) => &[EventKind::Created],
        (Creating, Running) => &[EventKind::Created, EventKind::Started],
        (Creating, Exited(_)) => &[EventKind::Created, EventKind::Stopped],
        (Created, Running) => &[EventKind::Started],
        (Created | Running, Exited(_)) => &[EventKind::Stopped],
        _ => &[],
    }
}

/// What a change of a pod's phase is called: making one is to start it.
pub(crate) fn of_pod(before: PodPhase, after: PodPhase) -> &'static [EventKind] {
    use PodPhase::{Creating, Ready, Stopped, Stopping};
    match (before, after) {
        (Creating, Ready) => &[EventKind::Created, EventKind::Started],
        (Ready, Stopping | Stopped) => &[EventKind::Stopped],
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
