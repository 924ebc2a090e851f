//! A container: its record, and the state that others see.

mod attach;
mod bundle;
mod create;
mod exec;
mod exec_sync;
mod remove;
mod start;
mod stop;
mod update;
pub(crate) mod volumes;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::Lease;
use oci_spec::runtime::Spec;
use runtime::seccomp::Program;
use tokio::sync::watch;

pub(crate) use self::remove::discard;

use crate::config::ContainerConfig;
use crate::error::{Error, Result};
use crate::event::{self, EventKind};
use crate::node::{Node, blocking};
use crate::record::{ContainerPhase, ContainerRecord, Ending, Records};
use crate::sandbox::Sandbox;
use crate::stats::Readings;
use crate::stats::disk::Layer;
use crate::status::{ContainerState, ContainerStatus};

/// The reason of a container whose command never ran.
const START_ERROR: &str = "StartError";

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub id: String,
    pub pod: Arc<Sandbox>,
    pub config: Arc<ContainerConfig>,
    /// Held by what changes the container as a whole: create, update, remove; never by what reads it.
    pub gate: tokio::sync::Mutex<()>,
    /// Held while it is started: its end is taken in after its start, however short its life.
    pub starting: tokio::sync::Mutex<()>,
    /// What is kept between two readings of the statistics.
    pub readings: Readings,
    /// What its writable layer takes.
    pub layer: Layer,
    /// Guards the record; never held across an await.
    record: Mutex<ContainerRecord>,
    /// Whether anybody could have heard of it. Written under the record's lock.
    is_told: AtomicBool,
    status: watch::Sender<Arc<ContainerStatus>>,
    /// What a command in the container is started with; read from the record when first needed after
    /// a restart.
    template: Mutex<Option<Template>>,
    /// Keep the layers of the image and of those that are volumes.
    leases: Mutex<Vec<Lease>>,
}

/// What every process of a container shares.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// The spec without its seccomp profile, which is large.
    pub spec: Arc<Spec>,
    pub filter: Option<Arc<Program>>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, config: Arc<ContainerConfig>, pod: Arc<Sandbox>) -> Self {
        let (status, _) = watch::channel(Arc::new(status_of(&record)));
        let is_told = AtomicBool::new(record.phase != ContainerPhase::Creating);
        Self {
            id: record.id.clone(),
            pod,
            config,
            gate: tokio::sync::Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            readings: Readings::default(),
            layer: Layer::default(),
            record: Mutex::new(record),
            is_told,
            status,
            template: Mutex::default(),
            leases: Mutex::default(),
        }
    }

    /// What Status and List show; none while it is half made.
    pub(crate) fn status(&self) -> Option<Arc<ContainerStatus>> {
        (self.phase() != ContainerPhase::Creating).then(|| self.status.borrow().clone())
    }

    /// The same, waiting for nobody.
    pub(crate) fn shown(&self) -> Option<Arc<ContainerStatus>> {
        let status = self.status.borrow().clone();
        (status.state != ContainerState::Unknown).then_some(status)
    }

    pub(crate) fn phase(&self) -> ContainerPhase {
        self.record().phase.clone()
    }

    /// Its first process in the node's PID namespace, 0 before there is one.
    pub(crate) fn pid(&self) -> i32 {
        self.record().pid
    }

    pub(crate) fn cgroup(&self) -> String {
        self.record().cgroup.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.record().phase, ContainerPhase::Exited(_))
    }

    /// Waits until the container has ended.
    pub(crate) async fn ended(&self) {
        let mut status = self.status.subscribe();
        // The sender lives as long as the container does.
        drop(status.wait_for(|status| status.state == ContainerState::Exited).await);
    }

    /// Changes the record, on disk and in memory, and then what others see.
    pub(crate) fn update(&self, records: &Records, change: impl FnOnce(&mut ContainerRecord)) -> Result<()> {
        let mut current = self.record();
        let mut record = current.clone();
        change(&mut record);
        records.save_container(&record)?;
        self.turn(&mut current, record);
        Ok(())
    }

    /// Takes note of what has happened. It has, whether or not the disk has room to say so: the monitor tells the next
    /// daemon.
    pub(crate) fn note(&self, records: &Records, change: impl FnOnce(&mut ContainerRecord)) {
        let mut current = self.record();
        let mut record = current.clone();
        change(&mut record);
        if let Err(error) = records.save_container(&record) {
            tracing::warn!(container = self.id, error = crate::error::chain(&error), "keep a record");
        }
        self.turn(&mut current, record);
    }

    fn turn(&self, current: &mut ContainerRecord, record: ContainerRecord) {
        let happened = event::of_container(&current.phase, &record.phase);
        *current = record;
        // Under the lock, so that nobody finds a new phase and an old status.
        self.status.send_replace(Arc::new(status_of(current)));
        if !happened.is_empty() {
            self.is_told.store(true, Ordering::Relaxed);
            self.pod.events.tell(happened, &self.id, &self.pod);
        }
    }

    /// Tells that nothing is left of it.
    pub(crate) fn tell_deleted(&self) {
        if self.is_told.load(Ordering::Relaxed) {
            self.pod.events.tell(&[EventKind::Deleted], &self.id, &self.pod);
        }
    }

    pub(crate) fn set_leases(&self, leases: Vec<Lease>) {
        *self.leases.lock().unwrap_or_else(PoisonError::into_inner) = leases;
    }

    /// The images that are mounted as volumes.
    pub(crate) fn volume_images(&self) -> Vec<String> {
        self.record().volume_images.clone()
    }

    pub(crate) fn set_template(&self, template: Template) {
        *self.template.lock().unwrap_or_else(PoisonError::into_inner) = Some(template);
    }

    pub(crate) fn template(&self) -> Option<Template> {
        self.template.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self) -> MutexGuard<'_, ContainerRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Template {
    pub(crate) fn new(mut spec: Spec, filter: Option<Arc<Program>>) -> Self {
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(None);
        }
        Self { spec: Arc::new(spec), filter }
    }
}

impl Ending {
    pub(crate) fn from_exit(exit: &runtime::Exit) -> Self {
        let reason = match exit {
            exit if exit.oom_killed => "OOMKilled",
            exit if exit.code == 0 => "Completed",
            _ => "Error",
        };
        Self { at_ns: exit.at_ns, code: exit.code, reason: reason.to_owned(), message: String::new() }
    }

    /// Nobody can say how it ended.
    pub(crate) fn unknown(at_ns: i64, message: &str) -> Self {
        Self { at_ns, code: 255, reason: "Unknown".to_owned(), message: message.to_owned() }
    }

    fn is_start_error(&self) -> bool {
        self.reason == START_ERROR
    }

    /// Its command never ran.
    pub(crate) fn start_error(at_ns: i64, message: String) -> Self {
        Self { at_ns, code: 128, reason: START_ERROR.to_owned(), message }
    }
}

impl Node {
    /// Takes in that a container ended. The first word counts, but for that of a start that failed: it says more.
    pub(crate) async fn exited(self: &Arc<Self>, container: &Arc<Container>, ending: Ending) {
        let (node, ended) = (self.clone(), container.clone());
        let recorded = blocking(move || {
            ended.note(&node.records, |record| {
                if ending.is_start_error() || !matches!(record.phase, ContainerPhase::Exited(_)) {
                    record.phase = ContainerPhase::Exited(ending);
                }
            });
            ended.readings.close();
            // The kubelet removes the pod's cgroup once its containers have ended.
            node.remove_cgroup(&ended)
        });
        let recorded = recorded.await;
        for error in [recorded, self.release_bundle(container).await].into_iter().filter_map(Result::err) {
            tracing::warn!(container = container.id, error = crate::error::chain(&error), "take in an exit");
        }
    }

    pub(crate) fn remove_cgroup(&self, container: &Container) -> Result<()> {
        let path = parse_cgroup(&container.cgroup())?;
        let cgroups = self.runtime.cgroups();
        let removed = cgroups.open(&path).remove().and_then(|()| cgroups.remove_empty_parents(&path));
        removed.map_err(|source| Error::Cgroup {
            operation: "remove",
            id: container.id.clone(),
            source: Arc::new(source),
        })
    }

    /// Kills everything in the container's cgroup.
    pub(crate) async fn kill_cgroup(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let (node, container) = (self.clone(), container.clone());
        blocking(move || {
            let cgroup = node.runtime.cgroups().open(&parse_cgroup(&container.cgroup())?);
            cgroup.kill().map_err(|source| Error::Cgroup {
                operation: "kill",
                id: container.id.clone(),
                source: Arc::new(source),
            })
        })
        .await
    }

    /// The cgroup that the kubelet made for a pod, from its name in the driver's form.
    pub(crate) fn pod_cgroup(&self, parent: &str) -> Result<runtime::cgroup::CgroupPath> {
        let path = self.runtime.cgroups().parent(parent);
        path.map_err(|error| Error::invalid("config.linux.cgroup_parent", crate::error::chain(&error)))
    }
}

pub(crate) fn parse_cgroup(path: &str) -> Result<runtime::cgroup::CgroupPath> {
    path.parse().map_err(|error: runtime::cgroup::Error| {
        Error::invalid("linux.cgroup_parent", format!("{path:?}: {}", crate::error::chain(&error)))
    })
}

fn status_of(record: &ContainerRecord) -> ContainerStatus {
    let (state, ending) = match &record.phase {
        ContainerPhase::Creating => (ContainerState::Unknown, None),
        ContainerPhase::Created => (ContainerState::Created, None),
        ContainerPhase::Running => (ContainerState::Running, None),
        ContainerPhase::Exited(ending) => (ContainerState::Exited, Some(ending)),
    };
    ContainerStatus {
        id: record.id.clone(),
        pod_id: record.pod_id.clone(),
        config: record.config.clone(),
        state,
        created_at_ns: record.created_at_ns,
        started_at_ns: record.started_at_ns,
        finished_at_ns: ending.map_or(0, |ending| ending.at_ns),
        exit_code: ending.map_or(0, |ending| ending.code),
        reason: ending.map_or_else(String::new, |ending| ending.reason.clone()),
        message: ending.map_or_else(String::new, |ending| ending.message.clone()),
        image_id: record.image_id.clone(),
        volume_images: record.volume_images.clone(),
        log_path: record.log_path.clone(),
        resources: record.resources.clone(),
        user: record.user.clone(),
        stop_signal: record.stop_signal.clone(),
    }
}
