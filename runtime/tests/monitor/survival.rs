//! What lives on when the daemon dies, and what must not when a monitor does.

use std::time::{Duration, Instant};

use runtime::{ContainerState, Error, Event, recorded_exit};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Container, node, open, until, until_gone};

#[tokio::test]
async fn a_daemon_that_comes_later_finds_everything() {
    let node = node();
    let mut pod = node.pod().await;
    let created = Container::new("true");
    let created_id = created.id.clone();
    pod.create(created).await.unwrap();
    let running =
        pod.run(Container::new("echo one; while test ! -e /go; do sleep 0.01; done; echo two; exit 5")).await;
    let exited = Container::new("exit 3");
    let exited_id = exited.id.clone();
    let exit = pod.finish(exited).await;
    let (pid, dir) = (pod.monitor.pid(), pod.dir());

    // The daemon goes, with its connection; output and exits go on.
    let next = open(node.dir.path());
    let (monitor, mut events, report) = next.adopt(&dir).await.unwrap();
    pod.monitor = monitor;
    assert_eq!((report.pid, pod.monitor.pid()), (pid, pid));
    assert_eq!(report.pause_pid, pod.monitor.pause_pid());
    let states: Vec<_> = report.containers.iter().map(|it| (it.id.as_str(), it.state)).collect();
    let expected = [
        (created_id.as_str(), ContainerState::Created),
        (running.as_str(), ContainerState::Running),
        (exited_id.as_str(), ContainerState::Exited(exit)),
    ];
    assert_eq!(states, expected);
    // The container may be quicker to end than this is.
    pod.exec(&running, "touch /go").await.0.unwrap();
    let Some(Event::Exited { id, exit }) = events.recv().await else { panic!("no exit") };
    assert_eq!((id.as_str(), exit.code), (running.as_str(), 5));
    assert_eq!(pod.log(&running), ["stdout F one", "stdout F two"]);
    pod.events = events;
    pod.end().await;
}

#[tokio::test]
async fn deadlines_hold_while_no_daemon_runs() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("trap '' TERM; echo ready; while :; do sleep 1000 & wait; done")).await;
    let other = pod.run(Container::new("exec sleep 1000")).await;
    until(|| !pod.log(&id).is_empty()).await;
    let output = std::fs::File::create("/dev/null").unwrap();
    let args = ["sh", "-c", "echo > /started; exec sleep 1000"];
    let order = pod.exec_order(&other, &args, output.into(), Some(Duration::from_millis(500)));
    let monitor = pod.monitor.clone();
    let exec = tokio::spawn(async move { monitor.exec(order).await });
    let (monitor, stopped) = (pod.monitor.clone(), id.clone());
    let stop =
        tokio::spawn(async move { monitor.stop(&stopped, libc::SIGTERM, Duration::from_millis(500)).await });
    until(|| pod.upper(&other).join("started").exists()).await;
    // All that the daemon had goes; on a slow machine the deadlines have passed by now.
    exec.abort();
    stop.abort();
    drop((exec.await, stop.await));
    let dir = pod.dir();
    let (adopted, events, _) = open(node.dir.path()).adopt(&dir).await.unwrap();
    (pod.monitor, pod.events) = (adopted, events);
    until(|| recorded_exit(&dir, &id).is_some()).await;
    assert_eq!(recorded_exit(&dir, &id).unwrap().code, 128 + libc::SIGKILL);
    until(|| pod.cgroup(&other).processes().unwrap().len() == 1).await;
    pod.end().await;
}

#[tokio::test]
async fn a_monitor_s_death_ends_its_pod() {
    let node = node();
    let mut sandbox = node.sandbox();
    sandbox.pid = runtime::NamespaceMode::Pod;
    let mut pod = node.launch(sandbox).await.unwrap();
    let own = pod.run(Container::new("exec sleep 1000")).await;
    let shared = Container::new("exec sleep 1000").in_pid_namespace(runtime::PidNamespace::Pod);
    let shared = pod.run(shared).await;
    let prepared = Container::new("true");
    let prepared_id = prepared.id.clone();
    pod.create(prepared).await.unwrap();
    let processes: Vec<i32> =
        [own, shared, prepared_id].iter().flat_map(|id| pod.cgroup(id).processes().unwrap()).collect();
    assert_eq!(processes.len(), 3);
    let begin = Instant::now();
    kill_process(Pid::from_raw(pod.monitor.pid()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(pod.events.recv().await, Some(Event::Lost));
    for pid in processes.into_iter().chain([pod.monitor.pause_pid(), pod.monitor.pid()]) {
        until_gone(pid).await;
    }
    // Milliseconds; a machine that is busy with other tests has its own.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(matches!(pod.monitor.end().await, Ok(())));
    assert!(matches!(pod.monitor.kill("x", 9).await, Err(Error::Lost { .. })));
    assert!(matches!(node.runtime.adopt(&pod.dir()).await, Err(Error::Adopt { .. })));
    pod.clean_up();
}

#[tokio::test]
async fn a_monitor_whose_directory_is_gone_goes_too() {
    let node = node();
    let pod = node.pod().await;
    let pid = pod.monitor.pid();
    std::fs::remove_dir_all(pod.dir()).unwrap();
    drop(pod);
    until_gone(pid).await;
}

#[tokio::test]
async fn a_socket_is_found_however_long_its_directory_s_name() {
    let node = node();
    let mut sandbox = node.sandbox();
    sandbox.dir = node.dir.path().join("x".repeat(200)).join("y".repeat(200));
    std::fs::create_dir_all(&sandbox.dir).unwrap();
    let dir = sandbox.dir.clone();
    let pod = node.launch(sandbox).await.unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&dir.join("monitor.sock").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (monitor, _, report) = node.runtime.adopt(&dir).await.unwrap();
    assert_eq!((monitor.pid(), report.containers), (pod.monitor.pid(), vec![]));
    pod.end().await;
    assert!(!dir.join("monitor.sock").exists());
}

#[tokio::test]
async fn what_is_not_a_monitor_is_not_adopted() {
    let node = node();
    let pod = node.pod().await;
    let other = node.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let refused = async |kind| match node.runtime.adopt(&other).await {
        Err(Error::Adopt { source, .. }) => assert_eq!(source.raw_os_error(), Some(kind), "{source}"),
        other => panic!("{other:?}"),
    };
    refused(libc::ENOENT).await;
    std::os::unix::fs::symlink(pod.dir().join("monitor.sock"), other.join("monitor.sock")).unwrap();
    refused(libc::ENOTSOCK).await;
    std::fs::remove_file(other.join("monitor.sock")).unwrap();
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(other.join("monitor.sock")).unwrap()).unwrap();
    // As a monitor that was killed leaves it: nobody listens.
    refused(libc::ECONNREFUSED).await;
    pod.end().await;
}
