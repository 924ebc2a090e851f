//! The daemon's end of the connection to a monitor: many requests in flight, one task that reads.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::{ContainerOrder, Error, Event, ExecExit, ExecOrder, Exit};

/// What a monitor tells without being asked, in order; [`Event::Lost`] is the last.
pub type Events = mpsc::UnboundedReceiver<Event>;

/// A connection to a pod's monitor; cheap to clone.
#[derive(Debug, Clone)]
pub struct Monitor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pid: i32,
    pause_pid: i32,
}

impl Monitor {
    /// The monitor's process.
    pub fn pid(&self) -> i32 {
        self.inner.pid
    }

    /// The pause process, which holds the pod's namespaces.
    pub fn pause_pid(&self) -> i32 {
        self.inner.pause_pid
    }

    /// Prepares a container up to its command; returns the process of its init.
    pub async fn create(&self, order: ContainerOrder) -> Result<i32, Error> {
        let _ = order;
        unimplemented!()
    }

    /// Executes a prepared container's command; returns when, in nanoseconds since 1970.
    pub async fn start(&self, id: &str) -> Result<i64, Error> {
        let _ = id;
        unimplemented!()
    }

    /// Sends `signal`, kills all of the container after `grace`, and waits for its end.
    ///
    /// The deadline is the monitor's and holds when the daemon dies; a later call can only make it shorter.
    pub async fn stop(&self, id: &str, signal: i32, grace: Duration) -> Result<Exit, Error> {
        let _ = (id, signal, grace);
        unimplemented!()
    }

    /// Sends a signal to the container's init.
    pub async fn kill(&self, id: &str, signal: i32) -> Result<(), Error> {
        let _ = (id, signal);
        unimplemented!()
    }

    /// Runs a process in a container and waits for its end.
    pub async fn exec(&self, order: ExecOrder) -> Result<ExecExit, Error> {
        let _ = order;
        unimplemented!()
    }

    /// Writes the container's log into another file from here on.
    pub async fn reopen_log(&self, id: &str, log: OwnedFd) -> Result<(), Error> {
        let _ = (id, log);
        unimplemented!()
    }

    /// Forgets an exited container.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let _ = id;
        unimplemented!()
    }

    /// Kills all that is left in the pod, pause too; the monitor exits.
    pub async fn end(&self) -> Result<(), Error> {
        unimplemented!()
    }
}
