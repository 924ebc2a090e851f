//! A pod without a monitor: an image of busybox, the default spec, and the calls that a monitor makes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use serde_json::{Value, json};

use crate::IdMap;
use crate::native::link::{self, FailureKind, FromStage, ToStage};
use crate::native::{self, Stage};
use crate::plan::{self, Rootfs};
use crate::seccomp::Program;
use crate::sys::clone::{self, Cloned};

/// Runs the body in a process whose only other thread, that of the test harness, sleeps until the body is done;
/// `name` is the path of the test that calls.
pub(super) fn alone(name: &str, body: impl FnOnce(&Pod)) {
    const VARIABLE: &str = "CORTEN_TEST_ALONE";
    let name = format!("native::tests::{name}");
    if std::env::var(VARIABLE).is_ok_and(|wanted| wanted == name) {
        let pod = Pod::new();
        body(&pod);
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, &name)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
    print!("{stdout}");
}

/// A directory with an image, and a process that holds namespaces like pause.
pub(super) struct Pod {
    dir: tempfile::TempDir,
    pause: OwnedFd,
    users: Option<(IdMap, OwnedFd)>,
    containers: std::cell::Cell<u32>,
}

/// A container whose stage has been cloned.
pub(super) struct Container {
    link: OwnedFd,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    stage: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
    output: Option<File>,
    pub(super) spec: Value,
}

/// What a stage reported.
pub(super) type Failed = (String, i32, FailureKind);

impl Pod {
    fn new() -> Self {
        Self::with_users(None)
    }

    /// A pod whose ids are others on the host.
    pub(super) fn with_ids(ids: IdMap) -> Self {
        Self::with_users(Some(ids))
    }

    fn with_users(ids: Option<IdMap>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_image(&dir.path().join("layers/base"));
        fs::create_dir(dir.path().join("layers/empty")).unwrap();
        fs::create_dir(dir.path().join("shm")).unwrap();
        let mut namespaces =
            libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWPID;
        if ids.is_some() {
            namespaces |= libc::CLONE_NEWUSER;
        }
        match clone::fork(namespaces, None).unwrap() {
            Cloned::Child => {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
                rustix::system::sethostname(b"pod").unwrap();
                loop {
                    nix::unistd::pause();
                }
            }
            Cloned::Parent { pid, pidfd } => {
                let users = ids.map(|ids| {
                    for file in ["uid_map", "gid_map"] {
                        let line = format!("0 {} {}", ids.host, ids.length);
                        fs::write(format!("/proc/{pid}/{file}"), line).unwrap();
                    }
                    std::os::unix::fs::chown(dir.path().join("shm"), Some(ids.host), Some(ids.host)).unwrap();
                    (ids, File::open(format!("/proc/{pid}/ns/user")).unwrap().into())
                });
                Self { dir, pause: pidfd, users, containers: std::cell::Cell::new(0) }
            }
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file or directory of the image, before any container is made.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.path("layers/base").join(name)
    }

    /// The default spec with a command for the shell.
    pub(super) fn spec(&self, script: &str) -> Value {
        let mut spec = default_spec(&self.path("shm"), script);
        if let Some((ids, _)) = &self.users {
            let mappings = json!([{ "containerID": 0, "hostID": ids.host, "size": ids.length }]);
            spec["linux"]["uidMappings"] = mappings.clone();
            spec["linux"]["gidMappings"] = mappings;
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({ "type": "user", "path": "/proc/1/ns/user" }));
        }
        spec
    }

    /// Where the container that is made next is written.
    pub(super) fn rootfs(&self) -> Rootfs {
        let number = self.containers.get();
        self.containers.set(number + 1);
        let path = |name: &str| self.path(&format!("containers/{number}/{name}"));
        fs::create_dir_all(path("upper")).unwrap();
        fs::create_dir_all(path("work")).unwrap();
        let owner = self.users.as_ref().map(|(ids, _)| ids.host);
        std::os::unix::fs::chown(path("upper"), owner, owner).unwrap();
        let lowers = vec!["empty".to_owned(), "base".to_owned()];
        Rootfs { layers: self.path("layers"), lowers, upper: path("upper"), work: path("work") }
    }

    /// Clones the stage and waits until it is ready or has failed.
    pub(super) fn create(&self, spec: &Value) -> Result<Container, Failed> {
        self.create_with(spec, &self.rootfs(), None)
    }

    pub(super) fn create_with(
        &self,
        spec: &Value,
        rootfs: &Rootfs,
        filter: Option<&Program>,
    ) -> Result<Container, Failed> {
        let plan = plan::container(&serde_json::from_value(spec.clone()).unwrap(), rootfs, filter).unwrap();
        self.clone_stage(spec, &plan, None)
    }

    /// Clones the stage into a cgroup.
    pub(super) fn create_in(&self, spec: &Value, cgroup: &OwnedFd) -> Result<Container, Failed> {
        let parsed = serde_json::from_value(spec.clone()).unwrap();
        self.clone_stage(spec, &plan::container(&parsed, &self.rootfs(), None).unwrap(), Some(cgroup))
    }

    fn clone_stage(&self, spec: &Value, plan: &[u8], cgroup: Option<&OwnedFd>) -> Result<Container, Failed> {
        let tty = spec["process"]["terminal"].as_bool() == Some(true);
        let (output, stdio) = stdio(tty);
        let pid_namespace = match pid_namespace(spec) {
            Some(true) => Some(self.pause.try_clone().unwrap()),
            _ => None,
        };
        let is_own = pid_namespace_is_new(spec) && self.users.is_none();
        let own = if is_own { libc::CLONE_NEWPID } else { 0 };
        let users = self.users.as_ref().map(|(_, namespace)| namespace.try_clone().unwrap());
        let (monitor, stage_end) = link_pair();
        let stage = Stage {
            plan: memfd(plan),
            link: stage_end,
            stdio,
            pod: Some(self.pause.try_clone().unwrap()),
            users,
            pid_namespace,
            handover: None,
            enclosure: None,
            v1_tasks: Vec::new(),
        };
        match clone::fork(libc::CLONE_NEWNS | own, cgroup.map(AsFd::as_fd)).unwrap() {
            Cloned::Child => native::container(stage),
            Cloned::Parent { pid, pidfd } => {
                drop(stage);
                let spec = spec.clone();
                let stage = None;
                Container { link: monitor, pid, pidfd, stage, terminal: None, output, spec }.prepared()
            }
        }
    }

    /// Creates, starts and waits; the exit code and what was written.
    pub(super) fn run(&self, spec: &Value) -> Result<(i32, String), Failed> {
        let mut container = self.create(spec)?;
        container.start()?;
        Ok(container.wait())
    }

    /// The output of a command that is expected to go well.
    pub(super) fn output(&self, spec: &Value) -> String {
        match self.run(spec) {
            Ok((0, output)) => output,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a further process in a container.
    pub(super) fn exec(&self, container: &Container, process: &Value) -> Result<(i32, String), Failed> {
        self.exec_with(container, process, None)
    }

    pub(super) fn exec_with(
        &self,
        container: &Container,
        process: &Value,
        filter: Option<&Program>,
    ) -> Result<(i32, String), Failed> {
        let spec = serde_json::from_value(container.spec.clone()).unwrap();
        let plan = plan::exec(&spec, &serde_json::from_value(process.clone()).unwrap(), filter).unwrap();
        let (output, stdio) = stdio(process["terminal"].as_bool() == Some(true));
        let (monitor, stage_end) = link_pair();
        let stage = Stage {
            plan: memfd(&plan),
            link: stage_end,
            stdio,
            pod: None,
            users: None,
            pid_namespace: None,
            handover: None,
            enclosure: None,
            v1_tasks: Vec::new(),
        };
        let target = container.pidfd.try_clone().unwrap();
        match clone::fork(0, None).unwrap() {
            Cloned::Child => native::exec(stage, target),
            Cloned::Parent { pid, pidfd } => {
                drop(stage);
                let spec = Value::Null;
                let mut process =
                    Container { link: monitor, pid, pidfd, stage: None, terminal: None, output, spec };
                process.until_executed()?;
                Ok(process.wait())
            }
        }
    }
}

impl Container {
    fn prepared(mut self) -> Result<Self, Failed> {
        loop {
            match self.packet() {
                Some(FromStage::Ready) => return Ok(self),
                Some(FromStage::Failed { what, errno, kind }) => {
                    reap(&self.pidfd);
                    return Err((what, errno, kind));
                }
                Some(_) => {}
                None => panic!("the stage ended: {}", reap(&self.pidfd)),
            }
        }
    }

    fn packet(&mut self) -> Option<FromStage> {
        let (message, fd) = link::receive::<FromStage>(&self.link).unwrap()?;
        match message {
            FromStage::Process { pid } => {
                self.pid = pid;
                self.stage = Some(std::mem::replace(&mut self.pidfd, fd.unwrap()));
            }
            FromStage::Console => self.terminal = fd,
            _ => {}
        }
        Some(message)
    }

    fn until_executed(&mut self) -> Result<(), Failed> {
        while let Some(message) = self.packet() {
            if let FromStage::Failed { what, errno, kind } = message {
                self.wait();
                return Err((what, errno, kind));
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self) -> Result<(), Failed> {
        link::send(&self.link, &ToStage::Go, None).unwrap();
        self.until_executed()
    }

    /// The code as a shell has it, and everything written to standard output and error.
    pub(super) fn wait(&mut self) -> (i32, String) {
        let mut text = String::new();
        if let Some(output) = &mut self.output {
            output.read_to_string(&mut text).unwrap();
        }
        if let Some(stage) = &self.stage {
            assert_eq!(reap(stage), 0, "the stage that handed over");
        }
        (reap(&self.pidfd), text)
    }

    pub(super) fn kill(&mut self) {
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).unwrap();
        self.wait();
    }
}

fn reap(pidfd: &OwnedFd) -> i32 {
    let status =
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

fn link_pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn stdio(terminal: bool) -> (Option<File>, [Option<OwnedFd>; 3]) {
    if terminal {
        return (None, [None, None, None]);
    }
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (Some(read.into()), [None, Some(write.try_clone().unwrap()), Some(write)])
}

fn memfd(bytes: &[u8]) -> OwnedFd {
    let fd = rustix::fs::memfd_create(c"plan", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    file.into()
}

/// Whether the PID namespace of the spec is the pod's; none when there is none.
fn pid_namespace(spec: &Value) -> Option<bool> {
    let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
    namespaces.iter().find(|namespace| namespace["type"] == "pid").map(|pid| pid.get("path").is_some())
}

fn pid_namespace_is_new(spec: &Value) -> bool {
    pid_namespace(spec) == Some(false)
}

/// Debian's dynamic busybox with its libraries and some of its applets.
fn make_image(base: &Path) {
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "usr", "var"] {
        fs::create_dir_all(base.join(directory)).unwrap();
    }
    fs::copy("/usr/bin/busybox", base.join("bin/busybox")).expect("Debian's package busybox is installed");
    let libraries = Command::new("ldd").arg("/usr/bin/busybox").output().unwrap();
    for word in
        String::from_utf8(libraries.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/'))
    {
        let target = base.join(&word[1..]);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(word, target).unwrap();
    }
    for applet in [
        "cat", "chmod", "chroot", "echo", "false", "find", "grep", "hostname", "id", "ip", "ls", "mkdir",
        "mount", "ps", "pwd", "readlink", "sh", "sleep", "sort", "stat", "stty", "test", "touch", "true",
        "tty", "umount", "wc",
    ] {
        symlink("busybox", base.join("bin").join(applet)).unwrap();
    }
    fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
}

/// What the CRI gives a container by default.
fn default_spec(shm: &Path, script: &str) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE"
    ]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": ["sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "capabilities": { "bounding": capabilities, "permitted": capabilities, "effective": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096 }],
            "noNewPrivileges": true,
            "oomScoreAdj": 500
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
            { "destination": "/dev/shm", "type": "bind", "source": shm, "options": ["rbind", "rprivate", "rw"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["rbind", "rprivate", "rw"] },
        ],
        "linux": {
            "cgroupsPath": "/corten-test-none/x",
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "cgroup" },
                { "type": "ipc", "path": "/proc/1/ns/ipc" },
                { "type": "uts", "path": "/proc/1/ns/uts" },
                { "type": "network", "path": "/proc/1/ns/net" },
            ],
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
