//! A node with an image of busybox, and pods on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oci_spec::runtime::Spec;
use runtime::cgroup::{Cgroup, CgroupPath, Limits};
use runtime::external::{Bundle, Handler};
use runtime::plan::{self, Rootfs};
use runtime::{
    Config, ContainerOrder, Error, Event, Events, ExecExit, ExecOrder, ExecStdio, Executor, Exit, Launched,
    Monitor, NamespaceMode, Network, PidNamespace, Runtime, Sandbox, Stdin,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything here takes on a machine that is not dead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon's runtime and its directories.
pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    pub(crate) dir: TempDir,
}

/// A pod, and what belongs to its containers.
pub(crate) struct Pod<'a> {
    pub(crate) node: &'a Node,
    pub(crate) id: String,
    pub(crate) monitor: Monitor,
    pub(crate) events: Events,
    cgroups: Vec<Cgroup>,
    /// Containers of other runtimes.
    handlers: BTreeMap<String, Handler>,
}

/// A container's order before it is one.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) spec: Value,
    pub(crate) pid_namespace: PidNamespace,
    pub(crate) stdin: Stdin,
    pub(crate) limits: Limits,
    pub(crate) log_line_bytes: usize,
    /// Another runtime that makes it.
    pub(crate) handler: Option<Handler>,
}

pub(crate) fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    make_image(&dir.path().join("layers/base"));
    fs::create_dir(dir.path().join("layers/empty")).unwrap();
    Node { runtime: open(dir.path()), dir }
}

/// What a daemon does when it starts.
pub(crate) fn open(state: &Path) -> Runtime {
    let program =
        std::env::var_os("CORTEN_RUNTIME").unwrap_or_else(|| env!("CARGO_BIN_EXE_corten-runtime").into());
    let program = program.into();
    let (state, data) = (state.to_owned(), state.to_owned());
    Runtime::open(Config { program, state, data, cgroup_driver: Default::default() }).unwrap()
}

/// An id like no other.
pub(crate) fn id() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{:032x}{:032x}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Node {
    /// A pod in the node's network, with its own IPC.
    pub(crate) fn sandbox(&self) -> Sandbox {
        let id = id();
        let dir = self.dir.path().join(&id);
        fs::create_dir(&dir).unwrap();
        Sandbox {
            id,
            dir,
            hostname: "pod".into(),
            network: Network::Node,
            users: None,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Node,
            sysctls: Vec::new(),
            labels: None,
        }
    }

    pub(crate) async fn launch(&self, sandbox: Sandbox) -> Result<Pod<'_>, Error> {
        let id = sandbox.id.clone();
        let Launched { monitor, events, .. } = self.runtime.launch(sandbox).await?;
        Ok(Pod { node: self, id, monitor, events, cgroups: Vec::new(), handlers: BTreeMap::new() })
    }

    pub(crate) async fn pod(&self) -> Pod<'_> {
        self.launch(self.sandbox()).await.unwrap()
    }
}

impl Pod<'_> {
    pub(crate) fn dir(&self) -> PathBuf {
        self.node.dir.path().join(&self.id)
    }

    pub(crate) fn log_path(&self, container: &str) -> PathBuf {
        self.dir().join(format!("{container}.log"))
    }

    /// The log's records without their times.
    pub(crate) fn log(&self, container: &str) -> Vec<String> {
        records(&self.log_path(container))
    }

    pub(crate) fn cgroup(&self, container: &str) -> Cgroup {
        self.cgroups.iter().find(|cgroup| cgroup.path().as_str().ends_with(container)).unwrap().clone()
    }

    pub(crate) async fn create(&mut self, container: Container) -> Result<i32, Error> {
        let order = self.order(container);
        self.monitor.create(order).await
    }

    pub(crate) fn order(&mut self, container: Container) -> ContainerOrder {
        let path = |name: &str| self.node.dir.path().join("containers").join(&container.id).join(name);
        fs::create_dir_all(path("upper")).unwrap();
        fs::create_dir_all(path("work")).unwrap();
        let rootfs = Rootfs {
            layers: self.node.dir.path().join("layers"),
            lowers: vec!["empty".into(), "base".into()],
            upper: path("upper"),
            work: path("work"),
        };
        let tty = container.spec["process"]["terminal"] == true;
        let mut spec: Spec = serde_json::from_value(container.spec).unwrap();
        let cgroup = format!("/corten-test-monitor-{}/{}", self.id, container.id);
        let cgroup: CgroupPath = cgroup.parse().unwrap();
        let cgroup = self.node.runtime.cgroups().create(&cgroup, &container.limits).unwrap();
        self.cgroups.push(cgroup.clone());
        let (executor, plan) = match &container.handler {
            None => (Executor::Native, plan::container(&spec, &rootfs, None).unwrap()),
            Some(handler) => {
                let linux = spec.linux_mut().as_mut().unwrap();
                linux.set_cgroups_path(Some(cgroup.path().as_str().into()));
                self.handlers.insert(container.id.clone(), handler.clone());
                let bundle = Bundle::new(self.dir(), &container.id);
                (Executor::External, handler.create(&bundle, &spec, &rootfs).unwrap())
            }
        };
        ContainerOrder {
            executor,
            plan,
            pid_namespace: container.pid_namespace,
            cgroup: cgroup.handles().unwrap(),
            log: Some(open_log(&self.log_path(&container.id))),
            log_line_bytes: container.log_line_bytes,
            stdin: container.stdin,
            tty,
            id: container.id,
        }
    }

    /// What a container has written into its root.
    pub(crate) fn upper(&self, container: &str) -> PathBuf {
        self.node.dir.path().join("containers").join(container).join("upper")
    }

    /// Creates and starts.
    pub(crate) async fn run(&mut self, container: Container) -> String {
        let id = container.id.clone();
        self.create(container).await.unwrap();
        self.monitor.start(&id).await.unwrap();
        id
    }

    /// Creates, starts and waits for the end.
    pub(crate) async fn finish(&mut self, container: Container) -> Exit {
        let id = self.run(container).await;
        self.exit_of(&id).await
    }

    /// The next event, which must be this container's end.
    pub(crate) async fn exit_of(&mut self, container: &str) -> Exit {
        match tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap() {
            Some(Event::Exited { id, exit }) if id == container => exit,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a script in a container; how it ended and what it wrote.
    pub(crate) async fn exec(&self, container: &str, script: &str) -> (Result<ExecExit, Error>, String) {
        self.exec_for(container, script, None).await
    }

    pub(crate) async fn exec_for(
        &self,
        container: &str,
        script: &str,
        timeout: Option<Duration>,
    ) -> (Result<ExecExit, Error>, String) {
        let (mut output, theirs) = std::io::pipe().unwrap();
        let reader = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut output, &mut text).unwrap();
            text
        });
        let order = self.exec_order(container, &["sh", "-c", script], theirs.into(), timeout);
        let exit = tokio::time::timeout(PATIENCE, self.monitor.exec(order)).await.unwrap();
        (exit, reader.await.unwrap())
    }

    pub(crate) fn exec_order(
        &self,
        container: &str,
        args: &[&str],
        output: OwnedFd,
        timeout: Option<Duration>,
    ) -> ExecOrder {
        ExecOrder {
            container: container.into(),
            plan: self.plan_of(container, args, false),
            cgroup: self.cgroup(container).handles().unwrap(),
            stdio: ExecStdio::Streams([
                File::open("/dev/null").unwrap().into(),
                output.try_clone().unwrap(),
                output,
            ]),
            timeout,
        }
    }

    /// The plan of a command for whoever made the container.
    pub(crate) fn plan_of(&self, container: &str, args: &[&str], tty: bool) -> Vec<u8> {
        let spec = spec("");
        let mut process = spec["process"].clone();
        process["args"] = json!(args);
        process["terminal"] = json!(tty);
        let process = serde_json::from_value(process).unwrap();
        let spec = serde_json::from_value(spec).unwrap();
        match self.handlers.get(container) {
            None => plan::exec(&spec, &process, None).unwrap(),
            Some(handler) => handler.exec(&Bundle::new(self.dir(), container), &spec, &process).unwrap(),
        }
    }

    /// Ends the pod; nothing of it may be left.
    pub(crate) async fn end(mut self) {
        let (pid, pause) = (self.monitor.pid(), self.monitor.pause_pid());
        tokio::time::timeout(PATIENCE, self.monitor.end()).await.unwrap().unwrap();
        while tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap() != Some(Event::Lost) {}
        assert!(!Path::new(&format!("/proc/{pause}")).exists());
        self.clean_up();
        until_gone(pid).await;
    }

    /// Removes the cgroups; that waits for what is dying in them, and fails when something lives.
    pub(crate) fn clean_up(&self) {
        for cgroup in &self.cgroups {
            cgroup.remove().unwrap_or_else(|error| panic!("{}: {error}", cgroup.path()));
            self.node.runtime.cgroups().remove_empty_parents(cgroup.path()).unwrap();
        }
        if !self.handlers.is_empty() {
            self.cgroups.iter().for_each(|cgroup| remove_elsewhere(cgroup.path()));
        }
    }
}

/// Removes a cgroup where only runc makes one: it joins every hierarchy of v1. `runc delete`, which would, is not
/// called by every test.
fn remove_elsewhere(path: &CgroupPath) {
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let cgroup = hierarchy.unwrap().path().join(path.as_str().trim_start_matches('/'));
        for directory in cgroup.ancestors().take(2) {
            // It is not there, or its sibling is.
            fs::remove_dir(directory).ok();
        }
    }
}

impl Container {
    pub(crate) fn new(script: &str) -> Self {
        Self {
            id: id(),
            spec: spec(script),
            pid_namespace: PidNamespace::Own,
            stdin: Stdin::Closed,
            limits: Limits::default(),
            log_line_bytes: 16 << 10,
            handler: None,
        }
    }

    /// In the PID namespace of the node, the pod or another container.
    pub(crate) fn in_pid_namespace(mut self, mode: PidNamespace) -> Self {
        let namespaces = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        if mode == PidNamespace::Own {
            namespaces.push(json!({ "type": "pid" }));
        } else if mode != PidNamespace::Host {
            namespaces.push(json!({ "type": "pid", "path": "/proc/1/ns/pid" }));
        }
        self.pid_namespace = mode;
        self
    }
}

/// Waits until a process is not there, not even as a zombie.
pub(crate) async fn until_gone(pid: i32) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(tokio::time::Instant::now() < deadline, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// `/proc/PID/cgroup` is of one in the container's cgroups, in the hierarchies that matter.
pub(crate) fn assert_is_in(cgroups: &str, container: &str) {
    for hierarchy in ["0:", "cpu:", "memory:", "pids:"] {
        let line = cgroups.lines().find(|line| line.contains(hierarchy));
        assert!(line.is_none_or(|line| line.ends_with(container)), "{cgroups}");
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "it never came to that");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn open_log(path: &Path) -> OwnedFd {
    File::options().create(true).append(true).open(path).unwrap().into()
}

/// The records of a log without their times, which must be there.
pub(crate) fn records(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let record = |line: &str| {
        assert!(line.as_bytes()[29] == b'Z' && line.as_bytes()[30] == b' ', "{line:?}");
        line[31..].to_owned()
    };
    text.lines().map(record).collect()
}

/// The children of a process, by its threads.
pub(crate) fn children(pid: i32) -> BTreeSet<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let text: String = tasks.map(|task| of_task(task.unwrap())).collect();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Debian's dynamic busybox with its libraries and some of its applets.
fn make_image(base: &Path) {
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(base.join(directory)).unwrap();
    }
    fs::copy("/usr/bin/busybox", base.join("bin/busybox")).expect("Debian's package busybox is installed");
    let libraries = Command::new("ldd").arg("/usr/bin/busybox").output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    for word in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = base.join(&word[1..]);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(word, target).unwrap();
    }
    for applet in [
        "cat", "dd", "echo", "head", "kill", "ls", "ps", "seq", "setsid", "sh", "sleep", "stty", "touch",
        "tty", "yes",
    ] {
        symlink("busybox", base.join("bin").join(applet)).unwrap();
    }
}

fn spec(script: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc", "path": "/proc/1/ns/ipc" },
            ],
        }
    })
}
