//! Containers from their order to their exit.

use runtime::cgroup::Limits;
use runtime::{ContainerState, Error, FailureKind, NamespaceMode, PidNamespace, Stdin, recorded_exit};
use serde_json::json;

use crate::fixture::{Container, assert_is_in, children, node, until};

#[tokio::test]
async fn a_container_runs_and_its_exit_is_recorded() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("echo out; echo err >&2; exit 3");
    let id = container.id.clone();
    let pid = pod.create(container).await.unwrap();
    assert!(children(pod.monitor.pid()).is_superset(&[pod.monitor.pause_pid(), pid].into()));
    let started_at = pod.monitor.start(&id).await.unwrap();
    let exit = pod.exit_of(&id).await;
    assert!(exit.code == 3 && !exit.oom_killed && exit.at_ns >= started_at, "{exit:?}");
    assert_eq!(recorded_exit(&pod.dir(), &id), Some(exit));
    let mut log = pod.log(&id);
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out"]);
    pod.monitor.remove(&id).await.unwrap();
    assert_eq!(recorded_exit(&pod.dir(), &id), None);
    assert!(matches!(pod.monitor.remove(&id).await, Err(Error::NoContainer { .. })));
    pod.end().await;
}

#[tokio::test]
async fn a_prepared_container_waits_in_its_cgroup() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("exec sleep 1000");
    let id = container.id.clone();
    let pid = pod.create(container).await.unwrap();
    assert!(matches!(pod.monitor.kill(&id, libc::SIGTERM).await, Err(Error::WrongState { .. })));
    assert!(matches!(pod.monitor.remove(&id).await, Err(Error::WrongState { .. })));
    pod.monitor.start(&id).await.unwrap();
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_is_in(&cgroups, &id);
    assert_eq!(pod.cgroup(&id).processes().unwrap(), [pid]);
    assert!(matches!(pod.monitor.start(&id).await, Err(Error::WrongState { .. })));
    pod.monitor.kill(&id, libc::SIGKILL).await.unwrap();
    assert_eq!(pod.exit_of(&id).await.code, 128 + libc::SIGKILL);
    pod.end().await;
}

#[tokio::test]
async fn one_id_is_one_container() {
    let node = node();
    let mut pod = node.pod().await;
    let (mut first, mut second) = (Container::new("true"), Container::new("true"));
    first.id.clone_into(&mut second.id);
    first.limits = Limits::default();
    let id = pod.run(first).await;
    pod.exit_of(&id).await;
    assert!(matches!(pod.create(second).await, Err(Error::ContainerExists { .. })));
    pod.end().await;
}

#[tokio::test]
async fn a_command_that_is_not_there_is_said_not_to_be() {
    let node = node();
    let mut pod = node.pod().await;
    let mut container = Container::new("");
    container.spec["process"]["args"] = json!(["/no/such/command"]);
    let id = container.id.clone();
    let created = pod.create(container).await;
    let failure = match created {
        Err(Error::Create { source, .. }) => source,
        Ok(_) => {
            let Err(Error::Start { source, .. }) = pod.monitor.start(&id).await else { panic!("it started") };
            let exit = pod.exit_of(&id).await;
            assert_eq!(exit.code, 128);
            source
        }
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.to_string().contains("/no/such/command"), "{failure}");
    pod.end().await;
}

#[tokio::test]
async fn a_container_that_cannot_be_built_leaves_nothing() {
    let node = node();
    let mut pod = node.pod().await;
    let mut container = Container::new("true");
    // A mount whose target is a file of the image.
    let mount = json!({ "destination": "/bin/busybox/x", "type": "tmpfs", "source": "tmpfs", "options": [] });
    container.spec["mounts"].as_array_mut().unwrap().push(mount);
    let id = container.id.clone();
    let error = pod.create(container).await.unwrap_err();
    let Error::Create { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind, FailureKind::Setup);
    assert_eq!(children(pod.monitor.pid()), [pod.monitor.pause_pid()].into());
    assert!(matches!(pod.monitor.start(&id).await, Err(Error::NoContainer { .. })));
    pod.end().await;
}

#[tokio::test]
async fn pid_namespaces_are_own_or_shared() {
    let node = node();
    let mut sandbox = node.sandbox();
    sandbox.pid = NamespaceMode::Pod;
    let mut pod = node.launch(sandbox).await.unwrap();
    let own = pod.run(Container::new("echo pid $$; exec sleep 1000")).await;
    let script = "echo pid $$; ls /proc/1/root; cat /proc/1/maps; echo denied all; exec sleep 1000";
    let shared = pod.run(Container::new(script).in_pid_namespace(PidNamespace::Pod)).await;
    let target = PidNamespace::Target(own.clone());
    let joined =
        pod.finish(Container::new("kill -9 1; ls -d /proc/1 && exit 5").in_pid_namespace(target)).await;
    let host = pod.finish(Container::new("exit $(($$ > 1))").in_pid_namespace(PidNamespace::Host)).await;
    assert_eq!((joined.code, host.code), (5, 1));
    // The init of a namespace is out of reach of those within.
    pod.exec(&own, "true").await.0.unwrap();
    until(|| pod.log(&own) == ["stdout F pid 1"]).await;
    until(|| pod.log(&shared).iter().any(|line| line.ends_with("denied all"))).await;
    let shared_log = pod.log(&shared);
    assert!(shared_log[0] != "stdout F pid 1", "{shared_log:?}");
    assert!(
        shared_log[1..].iter().all(|line| line.contains("denied")),
        "pause gave something away: {shared_log:?}"
    );
    pod.end().await;
}

#[tokio::test]
async fn what_a_container_leaves_in_a_shared_namespace_is_killed_with_it() {
    let node = node();
    let mut sandbox = node.sandbox();
    sandbox.pid = NamespaceMode::Pod;
    let mut pod = node.launch(sandbox).await.unwrap();
    for mode in [PidNamespace::Pod, PidNamespace::Host] {
        let container = Container::new("setsid sleep 1000 & exit 4").in_pid_namespace(mode);
        let id = container.id.clone();
        assert_eq!(pod.finish(container).await.code, 4);
        crate::fixture::until(|| pod.cgroup(&id).processes().unwrap().is_empty()).await;
    }
    // Orphans are reaped, by pause or by the monitor.
    let monitor = pod.monitor.pid();
    let pause = pod.monitor.pause_pid();
    crate::fixture::until(|| children(monitor) == [pause].into() && children(pause).is_empty()).await;
    pod.end().await;
}

#[tokio::test]
async fn a_terminal_is_all_standard_output() {
    let node = node();
    let mut pod = node.pod().await;
    let mut container = Container::new("tty; echo err >&2; test -t 0 && echo in");
    container.spec["process"]["terminal"] = json!(true);
    let id = container.id.clone();
    assert_eq!(pod.finish(container).await.code, 0);
    assert_eq!(pod.log(&id), ["stdout F /dev/pts/0", "stdout F err", "stdout F in"]);
    pod.end().await;
}

#[tokio::test]
async fn standard_input_is_closed_or_kept_open() {
    let node = node();
    let mut pod = node.pod().await;
    assert_eq!(pod.finish(Container::new("cat; exit 6")).await.code, 6);
    let mut open = Container::new("cat; exit 6");
    open.stdin = Stdin::Open;
    let id = pod.run(open).await;
    let report = node.runtime.adopt(&pod.dir()).await.unwrap().2;
    assert!(report.containers.iter().any(|it| it.id == id && it.state == ContainerState::Running));
    pod.end().await;
}

#[tokio::test]
async fn memory_that_ran_out_is_told() {
    let node = node();
    let mut pod = node.pod().await;
    let mut greedy = Container::new(
        "head -c 100m /dev/zero | sort > /dev/null; dd if=/dev/zero of=/dev/null bs=100M count=1",
    );
    greedy.limits.memory_limit = Some(16 << 20);
    let exit = pod.finish(greedy).await;
    assert!(exit.oom_killed && exit.code != 0, "{exit:?}");
    pod.end().await;
}
