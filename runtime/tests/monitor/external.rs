//! Containers that runc makes: for whoever asks the monitor they are like our own.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use runtime::external::{Bundle, Handler, Kind};
use runtime::{Error, ExecExit, FailureKind, recorded_exit};
use serde_json::json;

use crate::fixture::{Container, Pod, assert_is_in, children, node, until, until_gone};

/// Debian's package.
const RUNC: &str = "/usr/sbin/runc";

pub(crate) fn container(script: &str) -> Container {
    assert!(Path::new(RUNC).exists(), "Debian's package runc is installed");
    let mut container =
        Container { handler: Some(Handler::new(RUNC, Kind::Plain)), ..Container::new(script) };
    // The fixture's path is for people: ours joins pause's, and runc takes it at its word.
    container.spec["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }]);
    container
}

/// What the daemon does when a container has ended.
async fn release(pod: &Pod<'_>, id: &str) {
    let dir = pod.dir().join("bundles").join(id);
    assert!(dir.exists());
    Handler::new(RUNC, Kind::Plain).delete(&Bundle::new(pod.dir(), id)).await.unwrap();
    assert!(!dir.exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(id), "{mounts}");
    assert!(!pod.dir().join("runtime").join(id).exists());
}

#[tokio::test]
async fn a_container_of_runc_runs_and_its_exit_is_recorded() {
    let node = node();
    let mut pod = node.pod().await;
    let container = container("echo out; echo err >&2; exit 3");
    let id = container.id.clone();
    let pid = pod.create(container).await.unwrap();
    assert!(children(pod.monitor.pid()).is_superset(&[pod.monitor.pause_pid(), pid].into()));
    assert_is_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap(), &id);
    pod.monitor.start(&id).await.unwrap();
    let exit = pod.exit_of(&id).await;
    assert!(exit.code == 3 && !exit.oom_killed, "{exit:?}");
    assert_eq!(recorded_exit(&pod.dir(), &id), Some(exit));
    let mut log = pod.log(&id);
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out"]);
    release(&pod, &id).await;
    pod.end().await;
}

#[tokio::test]
async fn commands_that_end_before_runc_does_have_their_codes() {
    let node = node();
    let mut pod = node.pod().await;
    for code in [0, 7] {
        let container = container(&format!("exit {code}"));
        let id = container.id.clone();
        assert_eq!(pod.finish(container).await.code, code);
        release(&pod, &id).await;
    }
    pod.end().await;
}

#[tokio::test]
async fn a_command_that_is_not_there_is_told_at_the_start() {
    let node = node();
    let mut pod = node.pod().await;
    let mut container = container("");
    container.spec["process"]["args"] = json!(["/no/such/command"]);
    let id = container.id.clone();
    pod.create(container).await.unwrap();
    let Err(Error::Start { source, .. }) = pod.monitor.start(&id).await else { panic!("it started") };
    assert!(source.kind == FailureKind::NotFound && source.what.contains("/no/such/command"), "{source:?}");
    assert_eq!(pod.exit_of(&id).await.code, 128);
    release(&pod, &id).await;
    pod.end().await;
}

#[tokio::test]
async fn a_container_that_runc_refuses_is_refused_in_its_words() {
    let node = node();
    let mut pod = node.pod().await;
    let mut container = container("");
    container.spec["linux"]["namespaces"] =
        json!([{ "type": "mount" }, { "type": "ipc", "path": "/no/such/namespace" }]);
    let id = container.id.clone();
    let Err(Error::Create { source, .. }) = pod.create(container).await else { panic!("it was created") };
    assert!(source.what.contains("/no/such/namespace"), "{source:?}");
    release(&pod, &id).await;
    pod.end().await;
}

#[tokio::test]
async fn commands_run_in_a_container_of_runc() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(container("exec sleep 1000")).await;
    let (exit, output) = pod.exec(&id, "echo hi; echo $$; exit 5").await;
    assert_eq!(exit.unwrap(), ExecExit::Exited(5));
    assert!(output.starts_with("hi\n"), "{output}");
    let null = || File::open("/dev/null").unwrap().into();
    let order = pod.exec_order(&id, &["/no/such/command"], null(), None);
    let Err(Error::Exec { source, .. }) = pod.monitor.exec(order).await else { panic!("it ran") };
    assert!(source.kind == FailureKind::NotFound && source.what.contains("/no/such"), "{source:?}");
    // A daemon's worth of them at once.
    let orders: Vec<_> = (0..4)
        .map(|code| {
            let script = format!("exit {code}");
            let order = pod.exec_order(&id, &["sh", "-c", &script], null(), None);
            let monitor = pod.monitor.clone();
            tokio::spawn(async move { monitor.exec(order).await.unwrap() })
        })
        .collect();
    for (code, task) in orders.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), ExecExit::Exited(i32::try_from(code).unwrap()));
    }
    pod.monitor.kill(&id, libc::SIGKILL).await.unwrap();
    assert_eq!(pod.exit_of(&id).await.code, 128 + libc::SIGKILL);
    release(&pod, &id).await;
    pod.end().await;
}

#[tokio::test]
async fn a_command_over_its_deadline_is_killed_with_its_children() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(container("exec sleep 1000")).await;
    let before = pod.cgroup(&id).processes().unwrap();
    let script = "sleep 2000 & setsid sleep 2001 & sleep 2002";
    let (exit, _) = pod.exec_for(&id, script, Some(Duration::from_secs(5))).await;
    assert_eq!(exit.unwrap(), ExecExit::TimedOut);
    assert_eq!(pod.cgroup(&id).processes().unwrap(), before);
    pod.end().await;
}

#[tokio::test]
async fn a_stop_is_a_signal_and_then_a_kill() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(container("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")).await;
    until(|| !pod.log(&id).is_empty()).await;
    let exit = pod.monitor.stop(&id, libc::SIGTERM, Duration::from_secs(20)).await.unwrap();
    assert_eq!(exit.code, 9);
    pod.exit_of(&id).await;
    let id = pod.run(container("trap '' TERM; echo ready; while :; do sleep 0.05; done")).await;
    until(|| !pod.log(&id).is_empty()).await;
    let began = Instant::now();
    let exit = pod.monitor.stop(&id, libc::SIGTERM, Duration::from_millis(300)).await.unwrap();
    assert!(exit.code == 128 + libc::SIGKILL && began.elapsed() >= Duration::from_millis(300), "{exit:?}");
    pod.exit_of(&id).await;
    // One that was never started.
    let waiting = container("true");
    let id = waiting.id.clone();
    pod.create(waiting).await.unwrap();
    let exit = pod.monitor.stop(&id, libc::SIGTERM, Duration::from_secs(20)).await.unwrap();
    assert_eq!(exit.code, 128 + libc::SIGKILL);
    pod.exit_of(&id).await;
    release(&pod, &id).await;
    pod.end().await;
}

#[tokio::test]
async fn a_terminal_of_runc_is_the_monitors() {
    let node = node();
    let mut pod = node.pod().await;
    let mut container = container("tty; echo done");
    container.spec["process"]["terminal"] = json!(true);
    let id = container.id.clone();
    assert_eq!(pod.finish(container).await.code, 0);
    assert_eq!(pod.log(&id), ["stdout F /dev/pts/0", "stdout F done"]);
    release(&pod, &id).await;
    pod.end().await;
}

#[tokio::test]
async fn nothing_of_a_pod_of_runc_outlives_its_end() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(container("sleep 1000 & exec sleep 1001")).await;
    let processes = pod.cgroup(&id).processes().unwrap();
    let waiting = container("true");
    pod.create(waiting).await.unwrap();
    let (children, dir) = (children(pod.monitor.pid()), pod.dir());
    pod.end().await;
    for pid in processes.into_iter().chain(children) {
        until_gone(pid).await;
    }
    runtime::external::release_all(&dir).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
}
