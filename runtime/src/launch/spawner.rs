//! The thread that monitors are cloned from.
//!
//! Monitors live in a cgroup of Corten's own. In the v2 hierarchy they are cloned into it. A v1 hierarchy
//! knows no such thing: this thread moves itself there once, and what it clones is born there. With systemd
//! the cgroup is a scope, which is there as long as a process is in it: made with the first monitor, and
//! held by a placeholder until that is in it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions};
use tokio::sync::oneshot;

use crate::Error;
use crate::cgroup::{self, CgroupPath, Cgroups, Driver, Handles};
use crate::sys::clone;

/// The child needs it from clone3(2) to execveat(2).
const STACK_BYTES: usize = 64 << 10;

/// How often another daemon may take or change the cgroup under us.
const ATTEMPTS: usize = 5;

/// How long systemd may have to forget a scope that has ended, before each of the attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// The thread's address.
#[derive(Debug)]
pub(super) struct Spawner {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Job {
    arguments: Vec<CString>,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Result<(i32, OwnedFd), Error>>,
}

/// What the thread works with.
#[derive(Debug)]
struct Worker {
    program: OwnedFd,
    cgroups: Cgroups,
    /// The v2 directory, if there is one.
    unified: Option<OwnedFd>,
    /// Holds a scope that is new.
    placeholder: Option<Placeholder>,
    stack: Vec<u8>,
}

/// A process that ends with its standard input.
#[derive(Debug)]
struct Placeholder {
    _input: OwnedFd,
    process: OwnedFd,
}

// === impl Spawner ===

impl Spawner {
    /// Makes the cgroup and starts the thread in it.
    pub(super) fn start(program: OwnedFd, cgroups: Cgroups) -> Result<Self, Error> {
        let (jobs, orders) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let work = move || match Worker::enter(program, cgroups) {
            Ok(mut worker) => {
                ready.send(Ok(())).ok();
                for job in orders {
                    job.answer.send(worker.spawn(&job.arguments, &job.fds)).ok();
                }
            }
            Err(error) => {
                ready.send(Err(error)).ok();
            }
        };
        let operation = "start the thread that starts monitors";
        let thread = std::thread::Builder::new()
            .name("corten-spawner".into())
            .spawn(work)
            .map_err(|source| Error::Spawn { operation, source })?;
        let lost = || Error::Spawn { operation, source: io::ErrorKind::BrokenPipe.into() };
        started.recv().map_err(|_| lost())??;
        Ok(Self { jobs, thread })
    }

    /// Starts the program with `fds` as its 0, 1, 2 and so on.
    pub(super) async fn spawn(
        &self,
        arguments: Vec<CString>,
        fds: Vec<OwnedFd>,
    ) -> Result<(i32, OwnedFd), Error> {
        let lost = || Error::Spawn { operation: "start a monitor", source: io::ErrorKind::BrokenPipe.into() };
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { arguments, fds, answer }).map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }

    /// Ends the thread; its cgroup goes with it when no monitor is in it.
    pub(super) fn end(self, cgroups: &Cgroups) -> Result<(), Error> {
        drop(self.jobs);
        // It does not panic, and if it did it would be gone all the same.
        self.thread.join().ok();
        if cgroups.driver() == Driver::Systemd {
            return Ok(());
        }
        path_below(cgroups)
            .and_then(|below| cgroups.remove_empty_parents(&below))
            .map_err(|source| Error::Cgroup { operation: "remove", source })
    }
}

// === impl Worker ===

impl Worker {
    fn enter(program: OwnedFd, cgroups: Cgroups) -> Result<Self, Error> {
        let stack = vec![0; STACK_BYTES];
        let mut worker = Self { program, cgroups, unified: None, placeholder: None, stack };
        if worker.cgroups.driver() == Driver::Cgroupfs {
            worker.join()?;
        }
        Ok(worker)
    }

    /// Makes the cgroup if it is not there and moves this thread into its v1 parts.
    fn join(&mut self) -> Result<(), Error> {
        for _ in 1..ATTEMPTS {
            match self.try_join() {
                Err(error) if is_of_another(&error) => {}
                result => return result,
            }
        }
        self.try_join()
    }

    fn try_join(&mut self) -> Result<(), Error> {
        if self.cgroups.driver() == Driver::Systemd {
            return self.join_scope();
        }
        let handles = make(&self.cgroups).map_err(cannot_make)?;
        for tasks in &handles.v1_tasks {
            // 0 is the thread that writes.
            rustix::io::write(tasks, b"0").map_err(|errno| Error::Spawn {
                operation: "enter the monitors' cgroup",
                source: errno.into(),
            })?;
        }
        self.unified = handles.unified;
        Ok(())
    }

    /// Opens the scope, or has it made.
    fn join_scope(&mut self) -> Result<(), Error> {
        let scope = self.cgroups.open(&self.cgroups.monitors().map_err(cannot_make)?);
        let handles = match scope.handles() {
            Err(cgroup::Error::NotFound { .. }) => {
                self.make_scope()?;
                scope.handles()
            }
            handles => handles,
        };
        self.unified = handles.map_err(cannot_make)?.unified;
        Ok(())
    }

    fn make_scope(&mut self) -> Result<(), Error> {
        let failed = |source| Error::Spawn { operation: "start a placeholder", source };
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let (theirs, input) = pipe().map_err(|errno| failed(errno.into()))?;
        // They are of no use to it, but a program without standard streams is asking for trouble.
        let (silent, _) = pipe().map_err(|errno| failed(errno.into()))?;
        let copy = silent.try_clone().map_err(failed)?;
        self.unified = None;
        let arguments = [c"corten-runtime".to_owned(), c"placeholder".to_owned()];
        let (pid, process) = self.try_spawn(&arguments, &[theirs, silent, copy]).map_err(failed)?;
        self.placeholder = Some(Placeholder { _input: input, process });
        match self.cgroups.create_monitors(pid.unsigned_abs()) {
            // Another daemon made it this moment, or systemd has yet to forget the last one.
            Err(cgroup::Error::Systemd { source, .. }) if source.is_of_the_name() => {
                std::thread::sleep(PAUSE);
                Err(failed(io::ErrorKind::NotFound.into()))
            }
            made => made.map_err(cannot_make),
        }
    }

    fn spawn(&mut self, arguments: &[CString], fds: &[OwnedFd]) -> Result<(i32, OwnedFd), Error> {
        let spawned = self.spawn_inside(arguments, fds);
        // A monitor holds the scope now, or nobody needs it.
        self.placeholder = None;
        spawned
    }

    fn spawn_inside(&mut self, arguments: &[CString], fds: &[OwnedFd]) -> Result<(i32, OwnedFd), Error> {
        let failed = |source| Error::Spawn { operation: "start a monitor", source };
        if self.cgroups.driver() == Driver::Systemd && self.unified.is_none() {
            self.join()?;
        }
        for _ in 1..ATTEMPTS {
            match self.try_spawn(arguments, fds).map_err(failed) {
                Err(error) if is_of_another(&error) => self.join()?,
                result => return result,
            }
        }
        self.try_spawn(arguments, fds).map_err(failed)
    }

    fn try_spawn(&mut self, arguments: &[CString], fds: &[OwnedFd]) -> io::Result<(i32, OwnedFd)> {
        let arguments: Vec<_> = arguments.iter().map(CString::as_c_str).collect();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let file = self.program.as_fd();
        let program = clone::Program { file, arguments: &arguments, fds: &fds, namespaces: 0 };
        clone::spawn(&program, self.unified.as_ref().map(AsFd::as_fd), &mut self.stack)
    }
}

// === impl Placeholder ===

impl Drop for Placeholder {
    fn drop(&mut self) {
        // It waits for nothing else, and does not fail to end.
        rustix::process::pidfd_send_signal(&self.process, Signal::KILL).ok();
        rustix::process::waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED).ok();
    }
}

fn cannot_make(source: cgroup::Error) -> Error {
    Error::Cgroup { operation: "make", source }
}

/// Whether it comes of another daemon, so that the next attempt may do: one that has ended took the empty cgroup with
/// it, and one that makes it anew has yet to give it processors, without which nothing enters (cpusets.rst).
fn is_of_another(error: &Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(cgroup::Error::NotFound { .. }) = error.downcast_ref() {
            return true;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let is_being_made =
                matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOSPC | libc::EACCES));
            return is_being_made || error.kind() == io::ErrorKind::NotFound;
        }
        cause = error.source();
    }
    false
}

/// Makes the cgroup if it is not there. Others may be in it: another daemon's monitors, or those of one before.
fn make(cgroups: &Cgroups) -> Result<Handles, cgroup::Error> {
    cgroups.make_parents(&path_below(cgroups)?)?;
    cgroups.open(&cgroups.monitors()?).handles()
}

/// A name in it, whose parent it is: made and removed without a look at who else uses it.
fn path_below(cgroups: &Cgroups) -> Result<CgroupPath, cgroup::Error> {
    cgroups.monitors()?.join("none")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// What the kernel says of a cgroup that a daemon has made and given nothing yet.
    #[test]
    fn a_cgroup_that_another_daemon_is_making_is_tried_again() {
        let new = PathBuf::from(format!("/sys/fs/cgroup/cpuset/corten-test-spawner-{}", std::process::id()));
        if fs::create_dir(&new).is_err() {
            eprintln!("skipped: needs root and cpuset's v1 hierarchy");
            return;
        }
        let operation = "enter the monitors' cgroup";
        let enter =
            |name: &str| Error::Spawn { operation, source: fs::write(new.join(name), "0").unwrap_err() };
        let refused = enter("tasks");
        fs::create_dir(new.join("below")).unwrap();
        let below = enter("below/cpuset.cpus");
        fs::remove_dir(new.join("below")).unwrap();
        fs::remove_dir(&new).unwrap();
        let gone = enter("tasks");
        for error in [refused, below, gone] {
            assert!(is_of_another(&error), "{error:?}");
        }
        assert!(!is_of_another(&Error::Spawn { operation, source: io::ErrorKind::OutOfMemory.into() }));
    }
}
