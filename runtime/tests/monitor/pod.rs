//! Pods without containers: the monitor and pause themselves.

use std::fs;
use std::path::Path;
use std::process::Command;

use runtime::{Error, Event, IdMap, Launched, NamespaceMode, Network};

use crate::fixture::{children, node, open, until, until_gone};

fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

fn namespace(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

fn own_namespace(kind: &str) -> String {
    namespace(std::process::id().cast_signed(), kind)
}

/// Runs a program in some of a process' namespaces.
fn within(pid: i32, command: &[&str]) -> String {
    let output = Command::new("nsenter")
        .args(["-n", "-u", "-i", "-t", &pid.to_string()])
        .args(command)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_monitor_keeps_to_itself() {
    let node = node();
    let pod = node.pod().await;
    let pid = pod.monitor.pid();
    let proc = |name: &str| format!("/proc/{pid}/{name}");
    assert_eq!(fs::read_link(proc("cwd")).unwrap(), Path::new("/"));
    assert!(fs::read_link(proc("exe")).unwrap().starts_with("/memfd:corten-runtime (deleted)"));
    let arguments = fs::read(proc("cmdline")).unwrap();
    assert_eq!(arguments, format!("corten-runtime\0monitor\0{}\0", pod.id).as_bytes());
    assert_eq!(fs::read(proc("environ")).unwrap(), b"");
    // A session of its own, so that no terminal's end is its end.
    let stat = fs::read_to_string(proc("stat")).unwrap();
    assert_eq!(stat.split_whitespace().nth(5).unwrap(), pid.to_string());
    for fd in 0..3 {
        assert_eq!(fs::read_link(proc(&format!("fd/{fd}"))).unwrap(), Path::new("/dev/null"));
    }
    let fds: Vec<_> =
        fs::read_dir(proc("fd")).unwrap().map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
    // Beside those three: connection, directory, listener, epoll, signals, pause's pidfd.
    assert_eq!(fds.len(), 9, "{fds:?}");
    let cgroups = fs::read_to_string(proc("cgroup")).unwrap();
    let monitors = node.runtime.cgroups().monitors().unwrap();
    for hierarchy in ["0:", "cpu:", "memory:", "pids:"] {
        let line = cgroups.lines().find(|line| line.contains(hierarchy));
        assert!(line.is_none_or(|line| line.ends_with(monitors.as_str())), "{line:?}");
    }
    assert_eq!(status(pid, "Threads"), "1");
    assert_eq!(status(pid, "SigBlk"), format!("{:016x}", 1 << (libc::SIGCHLD - 1)));
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts", "user"] {
        assert_eq!(namespace(pid, kind), own_namespace(kind), "{kind}");
    }
    pod.end().await;
}

#[tokio::test]
async fn the_namespaces_of_a_pod_belong_to_its_user_namespace() {
    let node = node();
    let mut sandbox = node.sandbox();
    sandbox.network = Network::New;
    sandbox.pid = NamespaceMode::Pod;
    sandbox.users = Some(IdMap { host: 200_000, length: 1000 });
    sandbox.sysctls = vec![
        ("net.ipv4.ip_unprivileged_port_start".into(), "0".into()),
        ("net/ipv4/ping_group_range".into(), "0 999".into()),
        ("kernel.shm_rmid_forced".into(), "1".into()),
    ];
    let Launched { monitor, network, .. } = node.runtime.launch(sandbox).await.unwrap();
    let pause = monitor.pause_pid();
    let network = rustix::fs::fstat(network.unwrap()).unwrap().st_ino;
    assert_eq!(namespace(pause, "net"), format!("net:[{network}]"));
    for kind in ["ipc", "mnt", "net", "pid", "user", "uts"] {
        assert_ne!(namespace(pause, kind), own_namespace(kind), "{kind}");
    }
    let map = fs::read_to_string(format!("/proc/{pause}/uid_map")).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "200000", "1000"]);
    // There is no 65535 among its ids.
    assert_eq!(status(pause, "Uid"), "200000 200000 200000 200000");
    assert_eq!((status(pause, "CapEff"), status(pause, "Groups")), ("0".repeat(16), String::new()));
    let script = "hostname; cat /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/shm_rmid_forced; \
        echo 80 > /proc/sys/net/ipv4/ip_unprivileged_port_start && ip link set lo up && stat -f -c %T /dev/mqueue; \
        mount -t mqueue x /mnt && stat -c %u:%g /mnt";
    let output = Command::new("nsenter")
        .args(["-t", &pause.to_string(), "-U", "-n", "-i", "-u", "unshare", "-m", "sh", "-c", script])
        .output()
        .unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(stdout.starts_with("pod\n0\t999\n1\n") && stdout.ends_with("\n0:0\n"), "{stdout}{stderr}");
    let pid = monitor.pid();
    monitor.end().await.unwrap();
    until_gone(pid).await;
}

#[tokio::test]
async fn ids_that_the_kernel_refuses_end_the_launch() {
    let node = node();
    let mut sandbox = node.sandbox();
    let id = sandbox.id.clone();
    sandbox.users = Some(IdMap { host: u32::MAX - 1, length: 10 });
    let Err(Error::Sandbox { source, .. }) = node.runtime.launch(sandbox).await else { panic!("it runs") };
    assert!(source.to_string().starts_with("make the user namespace"), "{source}");
    nothing_is_left(&id).await;
}

#[tokio::test]
async fn pause_holds_namespaces_and_gives_nothing_away() {
    let node = node();
    let netns = tempfile::NamedTempFile::new().unwrap();
    let bind = Command::new("unshare").arg(format!("--net={}", netns.path().display())).arg("true").status();
    assert!(bind.unwrap().success());
    let mut sandbox = node.sandbox();
    sandbox.network = Network::Made(fs::File::open(netns.path()).unwrap().into());
    sandbox.pid = NamespaceMode::Pod;
    sandbox.sysctls = vec![
        ("net.ipv4.ip_unprivileged_port_start".into(), "0".into()),
        ("net/ipv4/ping_group_range".into(), "0 2147483647".into()),
        ("kernel.shm_rmid_forced".into(), "1".into()),
    ];
    let pod = node.launch(sandbox).await.unwrap();
    let pause = pod.monitor.pause_pid();
    let proc = |name: &str| format!("/proc/{pause}/{name}");
    assert_eq!(fs::read(proc("cmdline")).unwrap(), b"/pause\0");
    assert_eq!(children(pod.monitor.pid()), [pause].into());
    for kind in ["ipc", "mnt", "net", "pid", "uts"] {
        assert_ne!(namespace(pause, kind), own_namespace(kind), "{kind}");
    }
    assert_eq!(status(pause, "NSpid"), format!("{pause} 1"));
    assert_eq!(within(pause, &["hostname"]), "pod");
    let sysctl = |name: &str| within(pause, &["cat", &format!("/proc/sys/{name}")]);
    assert_eq!(sysctl("net/ipv4/ip_unprivileged_port_start"), "0");
    assert_eq!(sysctl("net/ipv4/ping_group_range"), "0\t2147483647");
    assert_eq!(sysctl("kernel/shm_rmid_forced"), "1");
    // Its root is empty and cannot be written to, it has no rights, and its memory is its own few pages.
    assert_eq!(fs::read_dir(proc("root")).unwrap().count(), 0);
    assert!(fs::write(proc("root/file"), "").is_err());
    assert_eq!(fs::read_to_string(proc("mountinfo")).unwrap().lines().count(), 1);
    assert_eq!(status(pause, "Uid"), "65535 65535 65535 65535");
    assert_eq!(status(pause, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(pause, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pause, "NoNewPrivs"), "1");
    let maps = fs::read_to_string(proc("maps")).unwrap();
    assert!(!maps.contains("corten-runtime") && !maps.contains("[heap]"), "{maps}");
    assert_eq!(fs::read_dir(proc("fd")).unwrap().count(), 3);
    // SIGCHLD is ignored, and the reaping of orphans with it the kernel's business.
    let ignored = u64::from_str_radix(&status(pause, "SigIgn"), 16).unwrap();
    assert_eq!(ignored, 1 << (libc::SIGCHLD - 1));
    // Not to be traced by others of its kind: its own files belong to root.
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(proc("mem")).unwrap()), 0);
    pod.end().await;
    assert!(Command::new("umount").arg("--lazy").arg(netns.path()).status().unwrap().success());
}

#[tokio::test]
async fn a_pod_of_the_node_shares_what_it_is_told_to() {
    let node = node();
    let mut sandbox = node.sandbox();
    sandbox.ipc = NamespaceMode::Node;
    let pod = node.launch(sandbox).await.unwrap();
    for kind in ["ipc", "net", "pid", "uts"] {
        assert_eq!(namespace(pod.monitor.pause_pid(), kind), own_namespace(kind), "{kind}");
    }
    pod.end().await;
}

#[tokio::test]
async fn a_sysctl_that_cannot_be_set_is_named_and_nothing_is_left() {
    let node = node();
    let mut sandbox = node.sandbox();
    let id = sandbox.id.clone();
    sandbox.sysctls = vec![("kernel.no_such_thing".into(), "7".into())];
    let error = node.launch(sandbox).await.err().unwrap();
    let Error::Sandbox { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().starts_with("set sysctl kernel.no_such_thing to \"7\": "), "{source}");
    nothing_is_left(&id).await;
}

/// Waits until nothing of a pod that could not be launched is left: neither its monitor nor a child without a command
/// line, which is one that has ended and is not reaped. Other tests launch monitors, too.
async fn nothing_is_left(pod: &str) {
    let is_other = |child: &i32| {
        let arguments = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        !arguments.is_empty() && !arguments.contains(pod)
    };
    until(|| children(std::process::id().cast_signed()).iter().all(is_other)).await;
}

#[tokio::test]
async fn without_pause_there_is_no_pod() {
    let node = node();
    let mut pod = node.pod().await;
    let pause = rustix::process::Pid::from_raw(pod.monitor.pause_pid()).unwrap();
    rustix::process::kill_process(pause, rustix::process::Signal::KILL).unwrap();
    assert_eq!(pod.events.recv().await, Some(Event::Lost));
    assert!(matches!(pod.monitor.kill("x", 9).await, Err(Error::Lost { .. })));
    until_gone(pod.monitor.pid()).await;
}

#[tokio::test]
async fn the_cgroup_of_the_monitors_goes_with_the_last() {
    let node = node();
    let pod = node.pod().await;
    let path = node.runtime.cgroups().monitors().unwrap();
    assert!(node.runtime.cgroups().open(&path).populated().unwrap());
    pod.end().await;
    // Other tests may have monitors in it; what counts is that it is no error.
    node.runtime.close().unwrap();
    assert!(matches!(node.runtime.launch(node.sandbox()).await, Err(Error::Spawn { .. })));
}

/// Each takes the empty cgroup with it when it leaves, also from under one that has just made sure of it.
#[tokio::test]
async fn daemons_that_come_and_go_at_once_find_the_cgroup_of_the_monitors() {
    let come_and_go = || {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..50 {
            open(dir.path()).close().unwrap();
        }
    };
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(come_and_go))));
}
