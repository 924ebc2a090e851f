//! Control groups: limits, device rules, statistics, and the end of all that runs in one.
//!
//! One interface over two layouts: a single v2 hierarchy, and hybrid hosts with v1 controllers on mounts
//! of their own beside a v2 hierarchy. Which controller is where is read from `/proc/self/mountinfo`.
//! Nothing here moves a process: callers clone into [`Handles::unified`] and write themselves into
//! [`Handles::v1_tasks`]. Directories are made here or by systemd ([`Driver`]). Follows cgroup-v2.rst,
//! cgroup-v1/*.rst and the resources of the OCI runtime spec.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

pub use details::{CpuDetails, Details, DeviceIo, HugepageUse, MemoryDetails};
pub use error::Error;
pub use limits::{DeviceAccess, DeviceKind, DeviceRule, HugepageLimit, IoLimit, Limits};
pub use path::CgroupPath;
pub use stats::{Io, Memory, Meter, Pressure, PressureLine, Pressures, Stats, Swap};
pub use systemd::Failure as SystemdFailure;

use directory::Directory;
use hierarchy::{Controller, Hierarchies, Place};
use slice::Slice;
use systemd::{End, Scope, Systemd};

mod create;
mod details;
mod directory;
mod error;
#[cfg(test)]
mod fixture;
mod hierarchy;
mod hugetlb;
mod limits;
mod oom_score;
mod path;
mod pids;
mod processes;
mod remove;
mod set;
mod slice;
mod stats;
mod systemd;
mod v1;
mod v2;

/// How long processes may take to stand still; one that waits for a dead disk never does.
const FREEZE_BOUND: Duration = Duration::from_secs(5);

/// Where containers go whose pod names no cgroup.
const OWN_PATH: &str = "/corten/containers";
pub(crate) const OWN_SLICE: &str = "corten-containers.slice";

/// Where monitors and their pauses are; with systemd beside the system's services.
const MONITORS_PATH: &str = "/corten/monitors";
const MONITORS_SCOPE: &str = "/system.slice/corten-monitors.scope";

/// The host's control groups; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups {
    host: Arc<Hierarchies>,
    /// None when Corten makes the directories itself.
    systemd: Option<Arc<Systemd>>,
}

/// One control group in all hierarchies; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroup {
    host: Arc<Hierarchies>,
    path: CgroupPath,
    /// Whose scope it is.
    systemd: Option<Arc<Systemd>>,
}

/// Who makes and owns the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Corten itself, by mkdir and write.
    Cgroupfs,
    /// systemd, as scopes in slices.
    Systemd,
}

/// Who is to make the directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// systemd where it is the service manager of a host with cgroup v2 alone, else Corten.
    #[default]
    Auto,
    /// This one.
    Driver(Driver),
}

/// How the host mounts its controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One v2 hierarchy with all controllers.
    V2,
    /// v1 controllers on mounts of their own, with or without a v2 hierarchy beside them.
    Hybrid,
}

/// What a process needs to enter a cgroup and what its monitor needs to watch it.
#[derive(Debug)]
pub struct Handles {
    /// The v2 directory, for CLONE_INTO_CGROUP and `cgroup.kill`.
    pub unified: Option<OwnedFd>,
    /// `tasks` of each v1 hierarchy, open for writing. A thread that writes 0 there moves itself, which
    /// takes 30 µs; a write to `cgroup.procs` after a quiet while waits 10 ms for RCU.
    pub v1_tasks: Vec<OwnedFd>,
    /// `memory.events` (v2) or `memory.oom_control` (v1), open for reading; see [`oom_kills`].
    pub oom: Option<OwnedFd>,
}

/// Limits that were set, and the way back from them.
#[derive(Debug)]
pub struct Changed {
    applied: directory::Applied,
    cgroup: Cgroup,
}

impl Changed {
    /// Restores what was there before.
    pub fn undo(self) {
        if let Some(systemd) = &self.cgroup.systemd {
            // What was in the files says what the properties were.
            let old = Limits { unified: self.applied.old().collect(), ..Limits::default() };
            if let Err(error) = systemd.update(&self.cgroup.path, &old) {
                tracing::warn!(error = &error as &dyn std::error::Error, "restore the properties of a scope");
            }
        }
        self.applied.undo();
    }
}

// === impl Cgroups ===

impl Cgroups {
    /// Finds the hierarchies of this host, and who makes cgroups in them.
    ///
    /// With systemd as the driver it is to be called within a tokio runtime, and whatever changes cgroups waits for
    /// an answer of systemd's and must not be called from an asynchronous context.
    pub fn detect(choice: DriverChoice) -> Result<Self, Error> {
        let host = Hierarchies::detect()?;
        let is_possible = host.layout() == Layout::V2 && Systemd::is_booted();
        let systemd = match choice {
            DriverChoice::Driver(Driver::Cgroupfs) => false,
            DriverChoice::Driver(Driver::Systemd) if !is_possible => return Err(Error::NoSystemd),
            DriverChoice::Driver(Driver::Systemd) => true,
            DriverChoice::Auto => is_possible,
        };
        Ok(Self { host: Arc::new(host), systemd: systemd.then(|| Arc::new(Systemd::new())) })
    }

    /// Who makes the directories.
    pub fn driver(&self) -> Driver {
        if self.systemd.is_some() { Driver::Systemd } else { Driver::Cgroupfs }
    }

    /// A pod's own cgroup, which the kubelet makes, from its name in the driver's form: a path, or a slice.
    pub fn parent(&self, name: &str) -> Result<CgroupPath, Error> {
        match &self.systemd {
            Some(_) => Slice::parse(name)?.path(),
            None if name.ends_with(".slice") && !name.contains('/') => Err(Error::InvalidPath {
                path: name.to_owned(),
                reason: "it is a systemd slice, but the cgroup driver is cgroupfs: give a path",
            }),
            None => CgroupPath::parse(name),
        }
    }

    /// Where a container's cgroup is; a pod without a cgroup of its own has its containers in Corten's.
    pub fn place(&self, parent: Option<&str>, id: &str) -> Result<CgroupPath, Error> {
        match &self.systemd {
            Some(_) => Slice::parse(parent.unwrap_or(OWN_SLICE))?.scope(id),
            None => self.parent(parent.unwrap_or(OWN_PATH))?.join(id),
        }
    }

    /// Where monitors and their pauses are.
    pub fn monitors(&self) -> Result<CgroupPath, Error> {
        CgroupPath::parse(if self.systemd.is_some() { MONITORS_SCOPE } else { MONITORS_PATH })
    }

    /// Where a container's cgroup is whose runtime takes none that has a process in it, as runc since 1.2: with systemd
    /// below the scope, which is never empty.
    pub fn place_below(&self, parent: Option<&str>, id: &str) -> Result<CgroupPath, Error> {
        match &self.systemd {
            Some(_) => Slice::parse(parent.unwrap_or(OWN_SLICE))?.below_scope(id),
            None => self.place(parent, id),
        }
    }

    /// How the host mounts its controllers.
    pub fn layout(&self) -> Layout {
        self.host.layout()
    }

    /// Makes a cgroup with its limits and device rules in place, or nothing at all.
    ///
    /// A cgroup of that name that is in use is refused, an empty one is made anew.
    pub fn create(&self, path: &CgroupPath, limits: &Limits) -> Result<Cgroup, Error> {
        create::create(&self.host, path, limits)?;
        Ok(self.open(path))
    }

    /// Has systemd make a container's cgroup, with its first process; with its limits in place, or nothing at all.
    ///
    /// systemd ends a scope that is empty: the first process holds it until the container's is in it. It is beside the
    /// container's cgroup where that is [below](Cgroups::place_below) the scope.
    pub fn create_scope(&self, path: &CgroupPath, limits: &Limits, first: u32) -> Result<Cgroup, Error> {
        let systemd = self.systemd.as_ref().ok_or(Error::NoSystemd)?;
        let scope = Scope { end: End::BeforeTheService, limits, first };
        create::create_scope(&self.host, systemd, path, &scope)?;
        Ok(self.open(path))
    }

    /// Has systemd make the scope of the monitors, with its first process.
    ///
    /// It is nobody's to stop: it outlives the service that the daemon is, and ends with the last process in it.
    pub fn create_monitors(&self, first: u32) -> Result<(), Error> {
        let systemd = self.systemd.as_ref().ok_or(Error::NoSystemd)?;
        systemd.start(&self.monitors()?, &Scope { end: End::Last, limits: &Limits::default(), first })
    }

    /// Names a cgroup that may or may not exist, without any I/O.
    pub fn open(&self, path: &CgroupPath) -> Cgroup {
        let systemd = self.systemd.clone().filter(|_| slice::scope_of(path).is_some());
        Cgroup { host: Arc::clone(&self.host), path: path.clone(), systemd }
    }

    /// Makes the parents of a cgroup where they are missing, without limits, used or not.
    ///
    /// [`Cgroups::remove_empty_parents`] removes them.
    pub fn make_parents(&self, path: &CgroupPath) -> Result<(), Error> {
        create::make_parents(&self.host, path)
    }

    /// Removes those parents of a removed cgroup that [`Cgroups::create`] made and that are empty now.
    ///
    /// It stops at the first parent that others made or use; what it made is marked in the kernel, so that a
    /// later daemon knows it too.
    pub fn remove_empty_parents(&self, path: &CgroupPath) -> Result<(), Error> {
        remove::remove_empty_parents(&self.host, path)
    }
}

// === impl Cgroup ===

impl Cgroup {
    /// The cgroup's name.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Makes it if it is not there, without limits, and moves this process into it, which has one thread yet.
    pub fn enter(&self) -> Result<(), Error> {
        // As a parent it is made whether it is in use or not.
        create::make_parents(&self.host, &self.path.join("none")?)?;
        let v1 = self.host.v1.iter().map(|v1| v1.directory(&self.path));
        for directory in v1.chain(self.host.unified(&self.path)) {
            let processes = self.open_file(&directory, "cgroup.procs", OFlags::WRONLY)?;
            // 0 is the process that writes.
            rustix::io::write(processes, b"0").map_err(|errno| directory.error("enter", errno.into()))?;
        }
        Ok(())
    }

    /// Opens what a process needs to enter it.
    pub fn handles(&self) -> Result<Handles, Error> {
        let unified = self.host.unified(&self.path).map(|directory| {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::open(directory.path(), flags, Mode::empty())
                .map_err(|errno| directory.error("open", errno.into()))
        });
        let v1 =
            self.host.v1.iter().map(|v1| self.open_file(&v1.directory(&self.path), "tasks", OFlags::WRONLY));
        let oom = self.host.place(&self.path, Controller::Memory).map(|place| match place {
            Place::V1(directory) => self.open_file(&directory, "memory.oom_control", OFlags::RDONLY),
            Place::V2(directory) => self.open_file(&directory, "memory.events", OFlags::RDONLY),
        });
        let handles = || {
            Ok(Handles {
                unified: unified.transpose()?,
                v1_tasks: v1.collect::<Result<_, _>>()?,
                oom: oom.transpose()?,
            })
        };
        handles().map_err(|error| self.not_found(error))
    }

    /// Sets the limits that are given; on an error the old values are back.
    pub fn update(&self, limits: &Limits) -> Result<Changed, Error> {
        let applied = set::update(&self.host, &self.path, limits).map_err(|error| self.not_found(error))?;
        let changed = Changed { applied, cgroup: self.clone() };
        if let Some(systemd) = &self.systemd {
            let told =
                systemd.update(&self.path, limits).and_then(|()| set::renew(&self.host, &self.path, limits));
            if let Err(error) = told {
                changed.undo();
                return Err(error);
            }
        }
        Ok(changed)
    }

    /// Sets oom_score_adj of every process in it and below it, see proc_pid_oom_score_adj(5).
    ///
    /// Where the caller may not lower it so far, a process keeps what it has.
    pub fn set_oom_score(&self, score: i32) -> Result<(), Error> {
        self.host.any(&self.path).map_or(Ok(()), |directory| oom_score::set(&directory, score))
    }

    /// Reads what the cgroup uses.
    pub fn stats(&self) -> Result<Stats, Error> {
        stats::read(&mut stats::Reader::new(None), &self.host, &self.path)
    }

    /// Reads all that the cgroup counts, which takes several times as long as [`Self::stats`].
    pub fn details(&self) -> Result<Details, Error> {
        details::read(&self.host, &self.path)
    }

    /// For those who read the statistics again and again.
    pub fn meter(&self) -> Meter {
        Meter::new(Arc::clone(&self.host), self.path.clone())
    }

    /// Kills every process in it and below it, without waiting for their end; a cgroup that is gone has none.
    pub fn kill(&self) -> Result<(), Error> {
        let v1 = self.host.v1.first().map(|v1| v1.directory(&self.path));
        match self.host.unified(&self.path) {
            Some(unified) if processes::kill_at_once(&unified)? => {}
            Some(unified) => processes::kill_each(&unified)?,
            None => return v1.map_or(Ok(()), |directory| processes::kill_each(&directory)),
        }
        // One that was moved in the v2 hierarchy alone is still in the others.
        v1.map_or(Ok(()), |directory| processes::signal_all(&directory).map(drop))
    }

    /// The processes in it and below it, in the caller's PID namespace.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        self.host.any(&self.path).map_or_else(|| Ok(Vec::new()), |directory| processes::list(&directory))
    }

    /// Whether a process is in it or below it; a cgroup that is gone has none.
    pub fn populated(&self) -> Result<bool, Error> {
        let events = match self.host.unified(&self.path) {
            Some(unified) => unified.read_if_there("cgroup.events")?,
            None => None,
        };
        match events {
            Some(events) => Ok(events.lines().any(|line| line == "populated 1")),
            None => Ok(!self.processes()?.is_empty()),
        }
    }

    /// Stops all its processes and waits until they stand still; when they do not in time they go on.
    pub fn freeze(&self) -> Result<(), Error> {
        let deadline = Instant::now() + FREEZE_BOUND;
        let is_frozen = match self.freezer()? {
            Place::V1(directory) => v1::freeze::freeze(&directory, deadline),
            Place::V2(directory) => v2::freeze::freeze(&directory, deadline),
        };
        if matches!(is_frozen, Ok(true)) {
            return Ok(());
        }
        self.thaw()?;
        Err(is_frozen
            .map_or_else(|error| self.not_found(error), |_| Error::NotFrozen { path: self.path.clone() }))
    }

    /// Lets its processes go on.
    pub fn thaw(&self) -> Result<(), Error> {
        let result = match self.freezer()? {
            Place::V1(directory) => v1::freeze::thaw(&directory),
            Place::V2(directory) => v2::freeze::thaw(&directory),
        };
        result.map_err(|error| self.not_found(error))
    }

    /// Removes it and all below it, everywhere; a cgroup that is gone is fine.
    ///
    /// Processes that are about to end are waited for, a few seconds at most.
    pub fn remove(&self) -> Result<(), Error> {
        if let Some(systemd) = &self.systemd {
            systemd.stop(&self.path)?;
        }
        remove::remove(&self.host, &self.path)
    }

    fn freezer(&self) -> Result<Place, Error> {
        self.host.place(&self.path, Controller::Freezer).ok_or_else(|| Error::NoController {
            path: self.path.clone(),
            controller: Controller::Freezer.name().to_owned(),
            limit: "the frozen state".to_owned(),
        })
    }

    fn open_file(&self, directory: &Directory, file: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        let path = directory.path().join(file);
        rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| Error::Io {
            operation: "open".to_owned(),
            path,
            source: errno.into(),
        })
    }

    /// Tells a cgroup that is gone from a file that it lacks.
    fn not_found(&self, error: Error) -> Error {
        let is_gone =
            error.is_missing() && self.host.any(&self.path).is_none_or(|any| !any.has("cgroup.procs"));
        if is_gone { Error::NotFound { path: self.path.clone() } } else { error }
    }
}

/// What happened in a cgroup for want of memory, see `memory.events` in cgroup-v2.rst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEvents {
    /// How many processes the OOM killer took.
    pub oom_kills: u64,
    /// Everything that was counted, in one sum: another one when anything has happened.
    pub sum: u64,
}

impl MemoryEvents {
    /// Reads `memory.events` or `memory.oom_control`.
    ///
    /// It allocates nothing and reads from the start, wherever the descriptor stands.
    ///
    /// # Errors
    /// When the cgroup is gone, or the file another one.
    pub fn read(file: BorrowedFd<'_>) -> io::Result<Self> {
        let mut content = [0; 1024];
        let length = loop {
            match rustix::io::pread(file, &mut content, 0) {
                Ok(length) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let mut events = (None, 0_u64);
        for line in content[..length].split(|byte| *byte == b'\n') {
            let Some((name, count)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let count: u64 = count.parse().map_err(io::Error::other)?;
            events.1 = events.1.wrapping_add(count);
            if name == "oom_kill" {
                events.0 = Some(count);
            }
        }
        let oom_kills = events.0.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { oom_kills, sum: events.1 })
    }
}

#[cfg(test)]
mod tests;
