//! The daemon's end of the connection to a monitor: many requests in flight, one task that reads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::monitor::wire::{self, Answer, CgroupParts, CreateOrder, Order, Refusal};
use crate::{
    AttachOrder, ContainerOrder, Detachment, Error, Event, ExecExit, ExecOrder, ExecStdio, Exit, Failure,
    Terminal,
};
pub(crate) use connection::Connection;

mod connection;

/// What a monitor tells without being asked, in order; [`Event::Lost`] is the last.
pub type Events = mpsc::UnboundedReceiver<Event>;

/// A connection to a pod's monitor; cheap to clone.
#[derive(Debug, Clone)]
pub struct Monitor {
    connection: Arc<Connection>,
    pause_pid: i32,
    version: u16,
}

impl Monitor {
    pub(crate) fn new(connection: Connection, pause_pid: i32, version: u16) -> Self {
        Self { connection: Arc::new(connection), pause_pid, version }
    }

    /// The monitor's process.
    pub fn pid(&self) -> i32 {
        self.connection.monitor()
    }

    /// The version of the protocol that it speaks: one of an earlier release has an earlier one.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The pause process, which holds the pod's namespaces.
    pub fn pause_pid(&self) -> i32 {
        self.pause_pid
    }

    /// The pod's user namespace, if it has one of its own, for mounts that are to have its ids.
    ///
    /// # Errors
    /// What open(2) says: pause may have ended.
    pub fn user_namespace(&self) -> io::Result<OwnedFd> {
        Ok(std::fs::File::open(format!("/proc/{}/ns/user", self.pause_pid))?.into())
    }

    /// Prepares a container up to its command; returns the process of its init.
    pub async fn create(&self, order: ContainerOrder) -> Result<i32, Error> {
        let id = order.id;
        let failed = |id, source| Error::Create { id, source };
        let plan = wire::sealed("plan", &order.plan)
            .map_err(|source| failed(id.clone(), Failure::io("pass the plan on", &source)))?;
        let mut fds: Vec<_> = [&plan].into_iter().chain(&order.log).map(AsFd::as_fd).collect();
        let request = Order::Create(CreateOrder {
            id: id.clone(),
            pid_namespace: order.pid_namespace,
            cgroup: CgroupParts::describe(&order.cgroup, &mut fds),
            has_log: order.log.is_some(),
            log_line_bytes: u32::try_from(order.log_line_bytes).unwrap_or(u32::MAX),
            stdin: order.stdin,
            tty: order.tty,
            executor: order.executor,
        });
        match self.ask(&request, &fds, &id, failed).await? {
            Answer::Process { pid } => Ok(pid),
            _ => Err(self.connection.nonsense()),
        }
    }

    /// Executes a prepared container's command; returns when, in nanoseconds since 1970.
    pub async fn start(&self, id: &str) -> Result<i64, Error> {
        let order = Order::Start { id: id.to_owned() };
        match self.ask(&order, &[], id, |id, source| Error::Start { id, source }).await? {
            Answer::Started { at_ns } => Ok(at_ns),
            _ => Err(self.connection.nonsense()),
        }
    }

    /// Sends `signal`, kills all of the container after `grace`, and waits for its end.
    ///
    /// The deadline is the monitor's and holds when the daemon dies; a later call can only make it shorter.
    /// Without a grace, or before its command was executed, the container is killed at once.
    pub async fn stop(&self, id: &str, signal: i32, grace: Duration) -> Result<Exit, Error> {
        let order = Order::Stop { id: id.to_owned(), signal, grace_ms: milliseconds(grace) };
        match self.ask(&order, &[], id, |id, source| Error::Signal { id, source }).await? {
            Answer::Exited(exit) => Ok(exit),
            _ => Err(self.connection.nonsense()),
        }
    }

    /// Sends a signal to the container's init.
    pub async fn kill(&self, id: &str, signal: i32) -> Result<(), Error> {
        let order = Order::Kill { id: id.to_owned(), signal };
        self.ask(&order, &[], id, |id, source| Error::Signal { id, source }).await.map(drop)
    }

    /// Runs a process in a container and waits for its end.
    pub async fn exec(&self, order: ExecOrder) -> Result<ExecExit, Error> {
        let id = order.container;
        let failed = |id, source| Error::Exec { id, source };
        let plan = wire::sealed("plan", &order.plan)
            .map_err(|source| failed(id.clone(), Failure::io("pass the plan on", &source)))?;
        let mut fds = vec![plan.as_fd()];
        match &order.stdio {
            ExecStdio::Streams(streams) => fds.extend(streams.iter().map(AsFd::as_fd)),
            ExecStdio::Terminal(handover) => fds.push(handover.as_fd()),
        }
        let request = wire::ExecOrder {
            container: id.clone(),
            cgroup: CgroupParts::describe(&order.cgroup, &mut fds),
            timeout_ms: order.timeout.map(milliseconds),
        };
        let request = match &order.stdio {
            ExecStdio::Streams(_) => Order::Exec(request),
            ExecStdio::Terminal(_) => Order::ExecTerminal(request),
        };
        let answer = self.connection.send(&request, &fds).await?;
        // Its reader sees the end of the output when the process is gone, not when its answer was taken.
        drop(fds);
        drop((order.stdio, order.cgroup, plan));
        match self.judge(answer.receive().await?, &id, failed)? {
            Answer::Exec(exit) => Ok(exit),
            _ => Err(self.connection.nonsense()),
        }
    }

    /// Attaches someone to a running container and waits until that is over.
    ///
    /// Dropping the future changes nothing; closing the other ends of the pipes is how one leaves.
    pub async fn attach(&self, order: AttachOrder) -> Result<Detachment, Error> {
        let id = order.container;
        let streams = [order.stdin, order.stdout, order.stderr];
        let request = Order::Attach(wire::AttachOrder {
            container: id.clone(),
            stdin: streams[0].is_some(),
            stdout: streams[1].is_some(),
            stderr: streams[2].is_some(),
        });
        let fds: Vec<_> = streams.iter().flatten().map(AsFd::as_fd).collect();
        let answer = self.connection.send(&request, &fds).await?;
        // Our copies would keep the pipes open.
        drop(fds);
        drop(streams);
        match self.judge(answer.receive().await?, &id, |id, source| Error::Attach { id, source })? {
            Answer::Detached(why) => Ok(why),
            _ => Err(self.connection.nonsense()),
        }
    }

    /// The terminal of a running container that has one: to be written to and resized. What it shows comes by
    /// [`Monitor::attach`], since it is read for the log.
    pub async fn terminal(&self, id: &str) -> Result<Terminal, Error> {
        let failed = |id, source| Error::Attach { id, source };
        let answer = self.connection.ask(&Order::Terminal { id: id.to_owned() }, &[]).await?;
        let (answer, mut fds) = answer.map_err(|refusal| self.refused(refusal, id, failed))?;
        let (Answer::Terminal, Ok(master)) = (answer, fds.take()) else {
            return Err(self.connection.nonsense());
        };
        Terminal::new(master).map_err(|error| Error::Attach {
            id: id.to_owned(),
            source: Failure::io("watch the terminal", &error),
        })
    }

    /// Writes the container's log into another file from here on; nothing goes into the old one afterwards.
    pub async fn reopen_log(&self, id: &str, log: OwnedFd) -> Result<(), Error> {
        let order = Order::ReopenLog { id: id.to_owned() };
        self.ask(&order, &[log.as_fd()], id, |id, source| Error::Log { id, source }).await.map(drop)
    }

    /// Forgets an exited container, and its recorded exit with it.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let order = Order::Remove { id: id.to_owned() };
        self.ask(&order, &[], id, |id, source| Error::Signal { id, source }).await.map(drop)
    }

    /// Kills all that is left in the pod, pause too; the monitor exits, so that [`Event::Lost`] follows.
    pub async fn end(&self) -> Result<(), Error> {
        match self.connection.ask(&Order::End, &[]).await {
            // It was on its way already.
            Ok(Ok(_)) | Err(Error::Lost { .. }) => Ok(()),
            Ok(Err(_)) => Err(self.connection.nonsense()),
            Err(error) => Err(error),
        }
    }

    async fn ask(
        &self,
        order: &Order,
        fds: &[BorrowedFd<'_>],
        id: &str,
        failed: impl FnOnce(String, Failure) -> Error,
    ) -> Result<Answer, Error> {
        let answer = self.connection.ask(order, fds).await?;
        self.judge(answer, id, failed)
    }

    fn judge(
        &self,
        answer: connection::Outcome,
        id: &str,
        failed: impl FnOnce(String, Failure) -> Error,
    ) -> Result<Answer, Error> {
        answer.map(|(answer, _)| answer).map_err(|refusal| self.refused(refusal, id, failed))
    }

    fn refused(&self, refusal: Refusal, id: &str, failed: impl FnOnce(String, Failure) -> Error) -> Error {
        let id = id.to_owned();
        match refusal {
            Refusal::ContainerExists => Error::ContainerExists { id },
            Refusal::Failed(source) => failed(id, source),
            Refusal::NoContainer => Error::NoContainer { id },
            Refusal::NotUnderstood => self.connection.nonsense(),
            Refusal::WrongState { state } => Error::WrongState { id, state },
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    // Rounded up: what is not zero must not become it.
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
