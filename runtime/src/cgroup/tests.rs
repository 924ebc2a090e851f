//! The real thing, under `/corten-test-*` of this host's hierarchies; needs root.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::fixture::directory_of;
use super::*;

mod replacement;

/// A place of its own for one test, removed with all that is in it.
struct Scene {
    cgroups: Cgroups,
    top: CgroupPath,
}

impl Scene {
    /// None, and a line that says so, where the test cannot run.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let top = CgroupPath::parse(&format!("/corten-test-{}-{number}", std::process::id())).unwrap();
        Some(Self { cgroups: Cgroups::detect(DriverChoice::Driver(Driver::Cgroupfs)).unwrap(), top })
    }

    fn path(&self, below: &str) -> CgroupPath {
        self.top.join(below).unwrap()
    }

    fn create(&self, limits: &Limits) -> Cgroup {
        self.cgroups.create(&self.path("pod/one"), limits).unwrap()
    }

    /// One that the container makes in its own, which has processes: v2 takes no controllers there.
    fn below(&self, cgroup: &Cgroup, name: &str) -> Cgroup {
        let path = cgroup.path().join(name).unwrap();
        if self.cgroups.layout() != Layout::V2 {
            return self.cgroups.create(&path, &Limits::default()).unwrap();
        }
        for directory in self.cgroups.host.directories(&path) {
            fs::create_dir(directory.path()).unwrap();
        }
        self.cgroups.open(&path)
    }

    /// A file of the controller, whichever hierarchy it is in.
    fn file(&self, cgroup: &Cgroup, controller: Controller, (v1, v2): (&str, &str)) -> String {
        match self.cgroups.host.place(cgroup.path(), controller).unwrap() {
            Place::V1(directory) => directory.read(v1).unwrap(),
            Place::V2(directory) => directory.read(v2).unwrap(),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let top = self.cgroups.open(&self.top);
        top.kill().unwrap();
        top.remove().unwrap();
    }
}

/// A shell that runs the script once it is in the cgroup.
fn run_in(cgroup: &Cgroup, script: &str) -> Child {
    let mut shell = Command::new("sh")
        .args(["-c", &format!("read line; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for directory in cgroup.host.directories(cgroup.path()) {
        directory.write("cgroup.procs", &shell.id().to_string()).unwrap();
    }
    drop(shell.stdin.take());
    shell
}

/// Reads until the process says that it is ready.
fn wait_for_line(child: &mut Child) {
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
}

#[test]
fn sets_limits_and_changes_them() {
    let Some(scene) = Scene::new() else { return };
    let limits = Limits {
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory_limit: Some(64 << 20),
        memory_swap: Some(64 << 20),
        pids: Some(50),
        cpuset_cpus: Some("0".into()),
        ..Limits::default()
    };
    let cgroup = scene.create(&limits);
    let memory = ("memory.limit_in_bytes", "memory.max");
    let quota = ("cpu.cfs_quota_us", "cpu.max");
    assert_eq!(scene.file(&cgroup, Controller::Memory, memory), "67108864");
    assert_eq!(scene.file(&cgroup, Controller::Pids, ("pids.max", "pids.max")), "50");
    assert_eq!(scene.file(&cgroup, Controller::Cpuset, ("cpuset.cpus", "cpuset.cpus")), "0");
    assert!(scene.file(&cgroup, Controller::Cpu, quota).starts_with("50000"));

    let doubled = Limits {
        cpu_quota: Some(10_000),
        cpu_period: Some(20_000),
        memory_limit: Some(128 << 20),
        memory_swap: Some(128 << 20),
        ..Limits::default()
    };
    cgroup.update(&doubled).unwrap();
    assert_eq!(scene.file(&cgroup, Controller::Memory, memory), "134217728");
    assert!(scene.file(&cgroup, Controller::Cpu, quota).starts_with("10000"));

    // Without a word about swap, which stays forbidden.
    cgroup.update(&Limits { memory_limit: Some(256 << 20), ..Limits::default() }).unwrap();
    assert_eq!(scene.file(&cgroup, Controller::Memory, memory), "268435456");
    cgroup.update(&doubled).unwrap();

    let half = Limits {
        cpu_quota: Some(5_000),
        memory_limit: Some(32 << 20),
        memory_swap: Some(32 << 20),
        pids: Some(7),
        cpuset_cpus: Some("100000".into()),
        ..Limits::default()
    };
    let error = cgroup.update(&half).unwrap_err();
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
    assert_eq!(scene.file(&cgroup, Controller::Memory, memory), "134217728");
    assert!(scene.file(&cgroup, Controller::Cpu, quota).starts_with("10000"));
    assert_eq!(scene.file(&cgroup, Controller::Pids, ("pids.max", "pids.max")), "50");
}

#[test]
fn limits_huge_pages() {
    let Some(scene) = Scene::new() else { return };
    if scene.cgroups.host.place(&scene.top, Controller::Hugetlb).is_none() {
        eprintln!("skipped: needs the hugetlb controller");
        return;
    }
    let hugepages = vec![HugepageLimit { size: "2MB".into(), limit: 4 << 20 }];
    let cgroup = scene.create(&Limits { hugepages, ..Limits::default() });
    let file = ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
    assert_eq!(scene.file(&cgroup, Controller::Hugetlb, file), "4194304");
}

#[test]
fn leaves_nothing_when_it_fails() {
    let Some(scene) = Scene::new() else { return };
    let limits = Limits { pids: Some(5), cpuset_cpus: Some("100000".into()), ..Limits::default() };
    scene.cgroups.create(&scene.path("pod/one"), &limits).unwrap_err();
    for directory in scene.cgroups.host.directories(&scene.top) {
        assert!(!directory.path().exists(), "{directory:?}");
    }
}

#[test]
fn refuses_a_controller_that_is_not_there() {
    let Some(scene) = Scene::new() else { return };
    let unified = |file: &str| Limits { unified: [(file.into(), "1".into())].into(), ..Limits::default() };
    let error = scene.cgroups.create(&scene.path("one"), &unified("rdma.max")).unwrap_err();
    assert!(matches!(&error, Error::NoController { controller, .. } if controller == "rdma"), "{error}");
    let hugepages = vec![HugepageLimit { size: "3MB".into(), limit: 0 }];
    scene.cgroups.create(&scene.path("two"), &Limits { hugepages, ..Limits::default() }).unwrap();
}

#[test]
fn refuses_a_cgroup_in_use_and_renews_an_empty_one() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.create(&Limits { pids: Some(5), ..Limits::default() });
    scene.create(&Limits::default());
    assert_eq!(scene.file(&cgroup, Controller::Pids, ("pids.max", "pids.max")), "max");
    let mut child = run_in(&cgroup, "echo ready; exec sleep 1000");
    wait_for_line(&mut child);
    let error = scene.cgroups.create(cgroup.path(), &Limits::default()).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(cgroup.processes().unwrap(), [i32::try_from(child.id()).unwrap()]);
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn kills_the_whole_tree_and_removes_it() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.create(&Limits::default());
    let mut child = run_in(&cgroup, "sleep 1000 & sleep 1000 & echo ready; wait");
    wait_for_line(&mut child);
    let inner = scene.below(&cgroup, "inner");
    let mut deep = run_in(&inner, "echo ready; exec sleep 1000");
    wait_for_line(&mut deep);
    assert_eq!(cgroup.processes().unwrap().len(), 4);
    assert!(cgroup.populated().unwrap());
    cgroup.kill().unwrap();
    child.wait().unwrap();
    deep.wait().unwrap();
    cgroup.remove().unwrap();
    assert!(!cgroup.populated().unwrap());
    cgroup.remove().unwrap();
    cgroup.kill().unwrap();
    assert!(matches!(cgroup.stats(), Err(Error::NotFound { .. })));
    assert!(matches!(cgroup.handles(), Err(Error::NotFound { .. })));
    assert!(matches!(cgroup.freeze(), Err(Error::NotFound { .. })));
    let limits = Limits { pids: Some(5), ..Limits::default() };
    assert!(matches!(cgroup.update(&limits), Err(Error::NotFound { .. })));
}

#[test]
fn kills_without_the_kernels_help() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.create(&Limits::default());
    let mut child = run_in(&cgroup, "sleep 1000 & sleep 1000 & echo ready; wait");
    wait_for_line(&mut child);
    let any = cgroup.host.any(cgroup.path()).unwrap();
    processes::kill_each(&any).unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn removal_waits_for_the_last_process() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.create(&Limits::default());
    let mut child = run_in(&cgroup, "echo ready; exec sleep 0.2");
    wait_for_line(&mut child);
    cgroup.remove().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn freezes_and_thaws() {
    let Some(scene) = Scene::new() else { return };
    let cgroup = scene.create(&Limits::default());
    let mut child = run_in(&cgroup, "echo ready; exec sleep 1000");
    wait_for_line(&mut child);
    let state = ("freezer.state", "cgroup.events");
    cgroup.freeze().unwrap();
    let frozen = scene.file(&cgroup, Controller::Freezer, state);
    assert!(frozen.contains("frozen 1") || frozen == "FROZEN", "{frozen}");
    cgroup.thaw().unwrap();
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn counts_oom_kills() {
    let Some(scene) = Scene::new() else { return };
    let limits = Limits { memory_limit: Some(16 << 20), memory_swap: Some(16 << 20), ..Limits::default() };
    let cgroup = scene.create(&limits);
    let handles = cgroup.handles().unwrap();
    let oom = handles.oom.unwrap();
    assert_eq!(MemoryEvents::read(oom.as_fd()).unwrap().oom_kills, 0);
    // tail keeps the last line, and there is but one.
    let mut child = run_in(&cgroup, "exec tail -n 1 /dev/zero");
    assert!(!child.wait().unwrap().success());
    assert!(MemoryEvents::read(oom.as_fd()).unwrap().oom_kills >= 1);
}

#[test]
fn denies_devices() {
    let Some(scene) = Scene::new() else { return };
    let mut devices = DeviceRule::defaults();
    devices.insert(
        0,
        DeviceRule {
            allow: false,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: DeviceAccess::ALL,
        },
    );
    let cgroup = scene.create(&Limits { devices: Some(devices.clone()), ..Limits::default() });
    // 1:11 is kmsg, which root may read and a container may not.
    let node = tempfile::tempdir().unwrap();
    let kmsg = node.path().join("kmsg");
    let script = format!(
        "head -c 1 /dev/zero | wc -c | grep -q 1 || exit 10; mknod {0} c 1 11 || exit 11; exec 3<{0} && exit 12; exit 0",
        kmsg.display()
    );
    // The redirection of exec ends the shell when it fails, with 2.
    let status = run_in(&cgroup, &script).wait().unwrap();
    assert_eq!(status.code(), Some(2));

    let kmsg_rule = DeviceRule {
        allow: true,
        kind: DeviceKind::Char,
        major: Some(1),
        minor: Some(11),
        access: DeviceAccess::ALL,
    };
    devices.push(kmsg_rule);
    cgroup.update(&Limits { devices: Some(devices), ..Limits::default() }).unwrap();
    let status = run_in(&cgroup, &format!("exec 3<{} && exit 12", kmsg.display())).wait().unwrap();
    assert_eq!(status.code(), Some(12));
}

/// A cgroup whose devices a program of these rules guards, and where it is in the v2 hierarchy, if there is one.
fn guarded(scene: &Scene, rules: &[DeviceRule]) -> Option<(Cgroup, Directory)> {
    let cgroup = scene.create(&Limits::default());
    let Some(unified) = cgroup.host.unified(cgroup.path()) else {
        eprintln!("skipped: needs a v2 hierarchy");
        return None;
    };
    v2::devices::set(cgroup.path(), &unified, rules).unwrap();
    Some((cgroup, unified))
}

#[test]
fn denies_devices_by_a_program() {
    let Some(scene) = Scene::new() else { return };
    let rules = DeviceRule::defaults();
    let Some((cgroup, unified)) = guarded(&scene, &rules) else { return };
    let script = "exec 3</dev/null || exit 10; exec 3</dev/kmsg";
    assert_eq!(run_in(&cgroup, script).wait().unwrap().code(), Some(2));
    let mut more = rules.clone();
    more.push(DeviceRule {
        allow: true,
        kind: DeviceKind::Char,
        major: Some(1),
        minor: Some(11),
        access: DeviceAccess { read: true, ..DeviceAccess::NONE },
    });
    v2::devices::replace(cgroup.path(), &unified, &more).unwrap();
    assert_eq!(run_in(&cgroup, script).wait().unwrap().code(), Some(0));
    assert_eq!(run_in(&cgroup, "exec 3>/dev/kmsg").wait().unwrap().code(), Some(2));
    let open = fs::File::open(unified.path()).unwrap();
    assert_eq!(crate::sys::bpf::attached_device_programs(open.as_fd()).unwrap().len(), 1);
}

#[test]
fn removes_only_the_parents_it_made() {
    let Some(scene) = Scene::new() else { return };
    // As the kubelet does on a hybrid host: in one hierarchy, and not in the others.
    let first = scene.cgroups.host.directories(&scene.top).next().unwrap();
    fs::create_dir(first.path()).unwrap();
    let one = scene.create(&Limits::default());
    let two = scene.cgroups.create(&scene.path("pod/two"), &Limits::default()).unwrap();
    one.remove().unwrap();
    scene.cgroups.remove_empty_parents(one.path()).unwrap();
    assert!(two.handles().is_ok());
    two.remove().unwrap();
    scene.cgroups.remove_empty_parents(two.path()).unwrap();
    scene.cgroups.remove_empty_parents(two.path()).unwrap();
    let left: Vec<_> = scene.cgroups.host.directories(&scene.top).filter(|top| top.path().exists()).collect();
    assert_eq!(left, std::slice::from_ref(&first));
    assert_eq!(processes::tree(&first).unwrap().len(), 1);
}

#[test]
fn statistics_are_read_with_files_kept_open_until_the_cgroup_is_gone() {
    let Some(scene) = Scene::new() else { return };
    let limits = Limits { memory_limit: Some(64 << 20), ..Limits::default() };
    let cgroup = scene.cgroups.create(&scene.path("pod/one"), &limits).unwrap();
    // The kernel sums page faults up only once there are many.
    let script = "x=$(head -c 8000000 /dev/zero | tr '\\0' x); echo ready; kill -STOP $$";
    let mut child = run_in(&cgroup, script);
    wait_for_line(&mut child);
    let mut meter = cgroup.meter();
    for stats in [cgroup.stats().unwrap(), meter.read().unwrap(), meter.read().unwrap()] {
        assert!(stats.cpu_usage_ns > 0);
        assert!(stats.memory.usage > 8_000_000 && stats.memory.page_faults > 0, "{stats:?}");
        assert!(stats.memory.rss <= stats.memory.working_set, "{stats:?}");
        assert!(stats.memory.working_set <= stats.memory.usage, "{stats:?}");
        assert!(stats.memory.available.unwrap() <= 64 << 20);
        assert_eq!(stats.pids, Some(1));
    }
    cgroup.kill().unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
    assert!(matches!(meter.read(), Err(Error::NotFound { .. })));
}

#[test]
fn counts_in_both_formats() {
    let check = |content: &str| {
        let (root, _) = directory_of(&[("events", content)]);
        MemoryEvents::read(fs::File::open(root.path().join("events")).unwrap().as_fd())
    };
    let events = |oom_kills, sum| MemoryEvents { oom_kills, sum };
    assert_eq!(check("low 0\nhigh 0\nmax 9\noom 1\noom_kill 3\noom_group_kill 0\n").unwrap(), events(3, 13));
    assert_eq!(check("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n").unwrap(), events(2, 2));
    assert!(check("under_oom 0\n").is_err());
    assert!(check("oom_kill no\n").is_err());
}
