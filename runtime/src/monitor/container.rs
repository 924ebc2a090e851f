//! A container from its order to the execution of its command.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use rustix::pipe::PipeFlags;

use super::Monitor;
use super::child::{Birthplace, Role, Work};
use super::clock::now_ns;
use super::connection::Ticket;
use super::enclosed::Enclosed;
use super::family;
use super::kill::Stop;
use super::link::Owner;
use super::log::{Slot, Stream};
use super::oom::Kills;
use super::poll::Key;
use super::wire::{Answer, CreateOrder, Descriptors, Refusal};
use crate::cgroup::Handles;
use crate::native::{self, Stage, link};
use crate::{Executor, Exit, Failure, PidNamespace, Stdin};

/// What the monitor knows of a container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) executor: Executor,
    /// Where it is within an enclosure.
    pub(super) enclosed: Option<Enclosed>,
    pub(super) phase: Phase,
    /// Its init until it is reaped; before the command runs, the stage that prepares it.
    pub(super) init: Option<Key>,
    pub(super) pid: i32,
    /// Until the command is executed.
    pub(super) link: Option<Key>,
    /// What the stage said went wrong.
    pub(super) failure: Option<Failure>,
    pub(super) started_at_ns: i64,
    pub(super) cgroup: Handles,
    /// What the OOM killer takes.
    pub(super) kills: Option<Kills>,
    pub(super) log: Option<Slot>,
    pub(super) log_line_bytes: usize,
    pub(super) outputs: Vec<Key>,
    /// Kept open for those who attach.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdin_mode: Stdin,
    pub(super) has_terminal: bool,
    pub(super) stop: Option<Stop>,
}

/// How far a container has come; it only moves down this list.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// A stage builds it.
    Preparing { ticket: Ticket },
    /// The stage waits.
    Created,
    /// The stage has been told to execute the command.
    Starting { ticket: Ticket },
    /// The command runs.
    Running,
    /// It ended; its output is not all in the log. At the deadline that is waited for no longer.
    Ending { exit: Exit, deadline: Instant, is_flushed: bool },
    /// Its exit is recorded and announced.
    Exited(Exit),
}

/// What becomes a container's 0, 1 and 2, and our ends of it.
#[derive(Debug, Default)]
struct Stdio {
    theirs: [Option<OwnedFd>; 3],
    stdin: Option<OwnedFd>,
    outputs: Vec<(Stream, OwnedFd)>,
}

// === impl Container ===

impl Container {
    pub(super) fn wrong_state(&self) -> Refusal {
        let state = match self.phase {
            Phase::Preparing { .. } => "being created",
            Phase::Created => "created",
            Phase::Starting { .. } => "being started",
            Phase::Running => "running",
            Phase::Ending { .. } | Phase::Exited(_) => "exited",
        };
        Refusal::WrongState { state: state.into() }
    }

    fn new(order: &CreateOrder, mut cgroup: Handles, ticket: Ticket) -> Self {
        let kills = cgroup.oom.take().and_then(Kills::of);
        Self {
            id: order.id.clone(),
            executor: order.executor,
            enclosed: None,
            phase: Phase::Preparing { ticket },
            init: None,
            pid: 0,
            link: None,
            failure: None,
            started_at_ns: 0,
            cgroup,
            kills,
            log: None,
            log_line_bytes: usize::try_from(order.log_line_bytes).unwrap_or(usize::MAX),
            outputs: Vec::new(),
            stdin: None,
            stdin_mode: order.stdin,
            has_terminal: order.tty,
            stop: None,
        }
    }
}

// === impl Stdio ===

impl Stdio {
    /// Pipes, unless a terminal is to come from the stage.
    fn new(order: &CreateOrder) -> io::Result<Self> {
        if order.tty {
            return Ok(Self::default());
        }
        let mut stdio = Self::default();
        if order.stdin != Stdin::Closed {
            let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            stdio.theirs[0] = Some(theirs);
            stdio.stdin = Some(ours);
        }
        for (number, stream) in [(1, Stream::Stdout), (2, Stream::Stderr)] {
            let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            stdio.theirs[number] = Some(theirs);
            stdio.outputs.push((stream, ours));
        }
        Ok(stdio)
    }
}

impl Monitor {
    /// Clones the stage that builds the container; the answer comes when it is ready.
    pub(super) fn create(
        &mut self,
        ticket: Ticket,
        order: CreateOrder,
        mut fds: Descriptors,
    ) -> Result<(), Refusal> {
        if self.find(&order.id).is_ok() {
            return Err(Refusal::ContainerExists);
        }
        let plan = fds.take()?;
        let log = fds.take_if(order.has_log)?;
        let mut cgroup = fds.take_cgroup(&order.cgroup)?;
        let pid_namespace = self.pid_namespace(&order.pid_namespace)?;
        let pod = self.pause_pidfd()?;
        let failed = |what: &'static str| move |error| Refusal::Failed(Failure::io(what, &error));
        let stdio = Stdio::new(&order).map_err(failed("make pipes"))?;
        let v1_tasks = family::take_tasks(&mut cgroup).map_err(failed("copy a descriptor"))?;
        self.count_kills_of_the_pod(&cgroup);
        let enclosed = Enclosed::of(order.executor, &plan).map_err(failed("copy a descriptor"))?;
        let container = Container { enclosed, ..Container::new(&order, cgroup, ticket) };
        let key = self.containers.insert(container);
        self.watch_kills(key);
        let begun = self.take_on(key, log, stdio.outputs, stdio.stdin).and_then(|()| {
            let (link, stage_end) = self.add_link(Owner::Container(key)).map_err(failed("make a link"))?;
            if let Some(container) = self.containers.get_mut(key) {
                container.link = Some(link);
            }
            let users = self.sandbox.users.as_ref().map(OwnedFd::try_clone).transpose();
            let users = users.map_err(failed("copy a descriptor"))?;
            // A PID namespace of a pod's user namespace is made by the stage when it is in that.
            let own_pid_namespace = order.pid_namespace == PidNamespace::Own && users.is_none();
            let stage = Stage {
                plan,
                link: stage_end,
                stdio: stdio.theirs,
                pod: Some(pod),
                users,
                pid_namespace,
                handover: None,
                enclosure: None,
                v1_tasks,
            };
            self.clone_init(key, own_pid_namespace, stage).map_err(failed("clone the container's init"))
        });
        if begun.is_err() {
            self.forget(key);
        }
        begun
    }

    /// Executes the command of a prepared container; the answer comes when it runs.
    pub(super) fn start(&mut self, ticket: Ticket, id: &str) -> Result<(), Refusal> {
        let key = self.find(id)?;
        let Some(container) = self.containers.get_mut(key) else { return Err(Refusal::NoContainer) };
        match container.phase {
            Phase::Created if container.stop.is_none() => {
                container.phase = Phase::Starting { ticket };
                if let Some(link) = container.link.and_then(|link| self.links.get(link)) {
                    // If the stage is gone, its end is noticed as such.
                    link::send(&link.socket, &link::ToStage::Go, None).ok();
                }
                Ok(())
            }
            _ => Err(container.wrong_state()),
        }
    }

    /// The stage has nothing left to do but to execute the command.
    pub(super) fn container_is_ready(&mut self, key: Key) {
        if let Some(container) = self.containers.get_mut(key)
            && let Phase::Preparing { ticket } = container.phase
        {
            container.phase = Phase::Created;
            let pid = container.pid;
            self.answer(ticket, Ok(Answer::Process { pid }));
        }
    }

    /// The stage made the process that goes on as the container's init.
    pub(super) fn init_is(&mut self, key: Key, child: Key, pid: i32) {
        if let Some(container) = self.containers.get_mut(key) {
            container.init = Some(child);
            container.pid = pid;
        }
    }

    /// The link is closed by the execution of the command, or with the process.
    pub(super) fn container_link_ended(&mut self, key: Key) {
        let Some(container) = self.containers.get_mut(key) else { return };
        container.link = None;
        if let Phase::Starting { ticket } = container.phase
            && container.failure.is_none()
        {
            container.phase = Phase::Running;
            container.started_at_ns = now_ns();
            let at_ns = container.started_at_ns;
            self.answer(ticket, Ok(Answer::Started { at_ns }));
        }
        self.driver_ended(key);
    }

    /// The process whose PID namespace is to be joined, if any.
    fn pid_namespace(&self, mode: &PidNamespace) -> Result<Option<OwnedFd>, Refusal> {
        match mode {
            PidNamespace::Host | PidNamespace::Own => Ok(None),
            PidNamespace::Pod => self.pause_pidfd().map(Some),
            PidNamespace::Target(id) => {
                let target = self.containers.get(self.find(id)?);
                let child = target
                    .filter(|target| matches!(target.phase, Phase::Running))
                    .and_then(|target| target.init)
                    .and_then(|init| self.children.get(init))
                    .ok_or_else(|| {
                        Refusal::Failed(Failure::setup(format!("container {id} does not run"), 0))
                    })?;
                let copied = child.pidfd.try_clone();
                copied.map(Some).map_err(|error| Refusal::Failed(Failure::io("copy a pidfd", &error)))
            }
        }
    }

    /// Our ends of the container's files.
    fn take_on(
        &mut self,
        key: Key,
        log: Option<OwnedFd>,
        outputs: Vec<(Stream, OwnedFd)>,
        stdin: Option<OwnedFd>,
    ) -> Result<(), Refusal> {
        let failed = |what: &'static str| move |error| Refusal::Failed(Failure::io(what, &error));
        let slot = log.map(|log| self.open_log(log).map_err(failed("take on a log"))).transpose()?;
        if let Some(container) = self.containers.get_mut(key) {
            container.log = slot;
            container.stdin = stdin;
        }
        for (stream, fd) in outputs {
            self.add_output(key, stream, fd).map_err(failed("watch the container's output"))?;
        }
        Ok(())
    }

    fn clone_init(&mut self, key: Key, own_pid_namespace: bool, stage: Stage) -> io::Result<()> {
        if self.is_external(key) {
            return self.clone_driver(key, stage);
        }
        let mut namespaces = libc::CLONE_NEWNS;
        if own_pid_namespace {
            namespaces |= libc::CLONE_NEWPID;
        }
        // A copy, since the container is the monitor's, which is to be changed.
        let cgroup = self.containers.get(key).and_then(|container| container.cgroup.unified.as_ref());
        let cgroup = cgroup.map(OwnedFd::try_clone).transpose()?;
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        let birthplace = Birthplace { namespaces, cgroup, beside: None };
        let work = Work { fds: stage_fds(&stage), with: stage, run: native::container };
        let child = self.clone_child(Role::Init(key), &birthplace, work)?;
        let pid = self.children.get(child).map_or(0, |child| child.pid);
        if let Some(container) = self.containers.get_mut(key) {
            container.init = Some(child);
            container.pid = pid;
        }
        Ok(())
    }
}

/// The descriptors that a stage needs.
pub(super) fn stage_fds(stage: &Stage) -> Vec<RawFd> {
    let stdio = stage.stdio.iter().flatten();
    let others = [&stage.plan, &stage.link].into_iter().chain(&stage.pod).chain(&stage.users);
    let others = others.chain(&stage.pid_namespace).chain(&stage.handover).chain(&stage.v1_tasks);
    stdio.chain(others).map(AsRawFd::as_raw_fd).collect()
}
