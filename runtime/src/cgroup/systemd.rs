//! systemd as the owner of cgroups: a container's cgroup is a scope, made and changed over D-Bus
//! (org.freedesktop.systemd1(5)).
//!
//! What systemd knows as a property is told to it besides being written to the cgroup's files: it writes its
//! properties again when it is reloaded. All calls have a deadline, since a bus may hang.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use zbus::Connection;
use zbus::fdo::PropertiesProxy;
use zbus::zvariant::Value;

use interface::ManagerProxy;

use super::slice::{Slice, scope_of};
use super::{CgroupPath, Error, Limits};

mod interface;
mod properties;

/// How long systemd may take for one thing; a reload of many units takes seconds.
const DEADLINE: Duration = Duration::from_secs(30);

/// From this version on a scope has a word for `memory.oom.group`. Those before clear the file when they are reloaded.
const SCOPES_HAVE_OOM_POLICY: u32 = 253;

/// Corten's own unit.
const SERVICE: &str = "corten.service";

/// How long containers have when the machine is shut down: Kubernetes' own grace period, in microseconds.
const STOP_USEC: u64 = 30_000_000;

/// The system's service manager.
#[derive(Debug)]
pub(super) struct Systemd {
    /// For callers on threads of their own.
    runtime: Handle,
    /// Made at the first use, and again when it broke. The lock is held while it is made.
    connection: Mutex<Option<Connected>>,
    /// The bus; none for the system's.
    address: Option<String>,
    deadline: Duration,
}

/// The bus, and what is at its end.
#[derive(Debug)]
struct Connected {
    bus: Connection,
    /// systemd's version; none where it does not tell.
    version: Option<u32>,
}

/// A manager that can be asked.
struct Asked {
    manager: ManagerProxy<'static>,
    version: Option<u32>,
}

/// When a scope ends with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Stopped while Corten still runs: with SIGTERM, and in the end with SIGKILL.
    BeforeTheService,
    /// With the last processes.
    Last,
}

/// What a scope begins with.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) end: End,
    pub(super) limits: &'a Limits,
    /// Its first process.
    pub(super) first: u32,
}

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The bus or systemd said no, or cannot be reached.
    #[error("ask systemd over D-Bus")]
    Bus(#[source] Box<zbus::Error>),
    /// The job did not come to its end well.
    #[error("systemd ended the job with the result {0:?}; `journalctl -b` says more")]
    Job(String),
    /// No answer.
    #[error("systemd does not answer within {0} s: see whether dbus and systemd are well")]
    Timeout(u64),
}

impl Systemd {
    /// To be called within a tokio runtime.
    pub(super) fn new() -> Self {
        let connection = Mutex::new(None);
        Self { runtime: Handle::current(), connection, address: None, deadline: DEADLINE }
    }

    /// Whether systemd is the host's service manager, sd_booted(3).
    pub(super) fn is_booted() -> bool {
        std::path::Path::new("/run/systemd/system").is_dir()
    }

    /// Makes a scope with its first process; it is there with its limits when this returns.
    pub(super) fn start(&self, path: &CgroupPath, scope: &Scope<'_>) -> Result<(), Error> {
        let (unit, slice) = names(path)?;
        let mut properties = properties::of(scope.limits)?;
        if !properties.iter().any(|(name, _)| *name == "TasksMax") {
            // Not systemd's default, which is for services: the kubelet limits the pod.
            properties.push(("TasksMax", Value::from(u64::MAX)));
        }
        let description = match scope.end {
            End::BeforeTheService => format!("Corten's container {unit}"),
            End::Last => "Corten's monitors of pods".to_owned(),
        };
        properties.extend([
            ("Description", Value::from(description)),
            ("Slice", Value::from(slice.name().to_owned())),
            ("PIDs", Value::from(vec![scope.first])),
            // Below it the container's own init may do as it likes.
            ("Delegate", Value::from(true)),
            ("DefaultDependencies", Value::from(scope.end == End::BeforeTheService)),
            // In the order of starting: it ends before the service does, which takes note of how.
            ("After", Value::from(vec![SERVICE.to_owned()])),
            ("TimeoutStopUSec", Value::from(STOP_USEC)),
            // One that failed is gone as well.
            ("CollectMode", Value::from("inactive-or-failed")),
            ("CPUAccounting", Value::from(true)),
            ("IOAccounting", Value::from(true)),
            ("MemoryAccounting", Value::from(true)),
            ("TasksAccounting", Value::from(true)),
        ]);
        let group = is_killed_as_one(scope.limits);
        self.run("start scope", path, async move |Asked { manager, version }| {
            if group && version.is_some_and(|version| version >= SCOPES_HAVE_OOM_POLICY) {
                properties.push(("OOMPolicy", Value::from("kill")));
            }
            let ended = manager.receive_job_removed_with_args(&[(2, unit.as_str())]).await?;
            let job = manager.start_transient_unit(&unit, "replace", &properties, &[]).await?;
            wait(ended, job.as_str()).await
        })
    }

    /// Tells systemd of changed limits.
    pub(super) fn update(&self, path: &CgroupPath, limits: &Limits) -> Result<(), Error> {
        let (unit, _) = names(path)?;
        let properties = properties::of(limits)?;
        if properties.is_empty() {
            return Ok(());
        }
        self.run("change scope", path, async |Asked { manager, .. }| {
            manager.set_unit_properties(&unit, true, &properties).await?;
            Ok(())
        })
    }

    /// Ends a scope and all in it; one that is gone is fine.
    pub(super) fn stop(&self, path: &CgroupPath) -> Result<(), Error> {
        let (unit, _) = names(path)?;
        self.run("stop scope", path, async |Asked { manager, .. }| {
            let ended = manager.receive_job_removed_with_args(&[(2, unit.as_str())]).await?;
            match manager.stop_unit(&unit, "replace").await {
                Ok(job) => wait(ended, job.as_str()).await,
                Err(zbus::Error::MethodError(name, ..)) if name == "org.freedesktop.systemd1.NoSuchUnit" => {
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    fn run<T>(
        &self,
        operation: &'static str,
        path: &CgroupPath,
        ask: impl AsyncFnOnce(Asked) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let asked = async { ask(self.manager().await?).await };
        let answer = self.runtime.block_on(async {
            let answer = tokio::time::timeout(self.deadline, asked).await;
            let answer = answer.unwrap_or(Err(Failure::Timeout(self.deadline.as_secs())));
            if answer.as_ref().is_err_and(Failure::is_of_the_connection) {
                // The next one makes a new connection.
                self.connection.lock().await.take();
            }
            answer
        });
        answer.map_err(|source| Error::Systemd { operation, path: path.clone(), source })
    }

    async fn manager(&self) -> Result<Asked, Failure> {
        let mut connection = self.connection.lock().await;
        if let Some(Connected { bus, version }) = connection.as_ref() {
            return Ok(Asked { manager: ManagerProxy::new(bus).await?, version: *version });
        }
        let made = match &self.address {
            None => Connection::system().await?,
            Some(address) => zbus::connection::Builder::address(address.as_str())?.build().await?,
        };
        let manager = ManagerProxy::new(&made).await?;
        // Without it systemd tells nobody how jobs end.
        match manager.subscribe().await {
            Ok(()) => {}
            Err(zbus::Error::MethodError(name, ..))
                if name == "org.freedesktop.systemd1.AlreadySubscribed" => {}
            Err(error) => return Err(error.into()),
        }
        let version = version(&manager).await;
        *connection = Some(Connected { bus: made, version });
        Ok(Asked { manager, version })
    }
}

/// systemd's version, of a text such as `252.39-1~deb12u1`.
async fn version(manager: &ManagerProxy<'static>) -> Option<u32> {
    let manager = manager.inner();
    let properties =
        PropertiesProxy::builder(manager.connection()).destination(manager.destination().to_owned());
    let properties = properties.ok()?.path(manager.path().to_owned()).ok()?.build().await.ok()?;
    let text = properties.get(manager.interface().to_owned(), "Version").await.ok()?;
    let text = String::try_from(text).ok()?;
    text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Whether the kernel is to kill all of the container when it kills one process for want of memory.
fn is_killed_as_one(limits: &Limits) -> bool {
    limits.unified.get("memory.oom.group").is_some_and(|value| value.trim() == "1")
}

/// Waits for the end of a job.
async fn wait(mut ended: interface::JobRemovedStream, job: &str) -> Result<(), Failure> {
    while let Some(signal) = ended.next().await {
        let signal = signal.args()?;
        if signal.job.as_str() == job {
            return match signal.result {
                "done" | "skipped" => Ok(()),
                result => Err(Failure::Job(result.to_owned())),
            };
        }
    }
    // The stream of signals ends with the connection.
    Err(zbus::Error::from(io::Error::from(io::ErrorKind::NotConnected)).into())
}

/// The unit that a cgroup is, and the slice that it is in.
fn names(path: &CgroupPath) -> Result<(String, Slice), Error> {
    let refuse = || Error::InvalidPath { path: path.to_string(), reason: "it is not a scope in a slice" };
    let scope = scope_of(path).ok_or_else(refuse)?;
    let (slice, unit) = scope.as_str().rsplit_once('/').ok_or_else(refuse)?;
    Ok((unit.to_owned(), Slice::parse(slice)?))
}

impl Failure {
    /// Whether there is one of that name already, or one that has not quite ended.
    pub(crate) fn is_of_the_name(&self) -> bool {
        matches!(self, Self::Bus(error) if matches!(&**error, zbus::Error::MethodError(name, ..)
            if *name == "org.freedesktop.systemd1.UnitExists"))
    }

    /// Whether it is the connection that is no good any more.
    fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Bus(error) => matches!(**error, zbus::Error::InputOutput(_)),
            Self::Timeout(_) => true,
            Self::Job(_) => false,
        }
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(Box::new(error))
    }
}

#[cfg(test)]
mod tests;
