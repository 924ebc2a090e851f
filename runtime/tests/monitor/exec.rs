//! Further processes in running containers, and their deadlines.

use std::time::{Duration, Instant};

use runtime::{Error, ExecExit, FailureKind, PidNamespace};

use crate::fixture::{Container, assert_is_in, node, until};

#[tokio::test]
async fn a_process_runs_in_the_container() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let (exit, output) = pod.exec(&id, "ps -o args= | head -n 1; cat /proc/self/cgroup; exit 9").await;
    assert_eq!(exit.unwrap(), ExecExit::Exited(9));
    // The shell that becomes it may have yet to.
    assert!(output.lines().next().unwrap().ends_with("sleep 1000"), "{output}");
    assert_is_in(&output, &id);
    let (exit, _) = pod.exec(&id, "kill -USR1 $$").await;
    assert_eq!(exit.unwrap(), ExecExit::Exited(128 + libc::SIGUSR1));
    pod.end().await;
}

#[tokio::test]
async fn a_command_that_is_not_there_is_an_error() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let output = std::fs::File::create("/dev/null").unwrap();
    let order = pod.exec_order(&id, &["nowhere-to-be-found"], output.into(), None);
    let Err(Error::Exec { source, .. }) = pod.monitor.exec(order).await else { panic!("it ran") };
    assert_eq!(source.kind, FailureKind::NotFound);
    assert!(source.to_string().contains("nowhere-to-be-found"), "{source}");
    pod.end().await;
}

#[tokio::test]
async fn nothing_runs_in_a_container_that_does_not() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("exit 0");
    let id = container.id.clone();
    pod.create(container).await.unwrap();
    assert!(matches!(pod.exec(&id, "true").await.0, Err(Error::WrongState { .. })));
    pod.monitor.start(&id).await.unwrap();
    pod.exit_of(&id).await;
    assert!(matches!(pod.exec(&id, "true").await.0, Err(Error::WrongState { .. })));
    pod.end().await;
}

#[tokio::test]
async fn many_run_at_a_time() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let all = (0..20).map(|code| {
        let (pod, id) = (&pod, &id);
        async move { (code, pod.exec(id, &format!("exit {code}")).await.0) }
    });
    for (code, exit) in futures(all).await {
        assert_eq!(exit.unwrap(), ExecExit::Exited(code));
    }
    pod.end().await;
}

/// Polls all of them at a time.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = all.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, result) in &mut pending {
            if result.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        match pending.iter().all(|(_, result)| result.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, result)| result).collect()
}

#[tokio::test]
async fn at_its_deadline_a_process_is_killed_with_its_family_and_no_one_else() {
    let node = node();
    let mut pod = node.pod().await;
    for mode in [PidNamespace::Own, PidNamespace::Host] {
        let id = pod.run(Container::new("sleep 2000 & exec sleep 1000").in_pid_namespace(mode)).await;
        until(|| pod.cgroup(&id).processes().unwrap().len() == 2).await;
        let mut before = pod.cgroup(&id).processes().unwrap();
        let script = "sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1001') & trap '' TERM; sleep 1002";
        let begin = Instant::now();
        let (exit, _) = pod.exec_for(&id, script, Some(Duration::from_millis(300))).await;
        assert_eq!(exit.unwrap(), ExecExit::TimedOut);
        assert!((0.3..5.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
        let mut after = pod.cgroup(&id).processes().unwrap();
        before.sort_unstable();
        after.sort_unstable();
        assert_eq!(before, after);
    }
    pod.end().await;
}

#[tokio::test]
async fn a_deadline_that_is_not_reached_changes_nothing() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let (exit, output) = pod.exec_for(&id, "echo quick", Some(Duration::from_secs(20))).await;
    assert_eq!((exit.unwrap(), output.as_str()), (ExecExit::Exited(0), "quick\n"));
    pod.end().await;
}

#[tokio::test]
async fn the_container_s_end_is_its_processes_end() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let end = async {
        until(|| pod.upper(&id).join("started").exists()).await;
        pod.monitor.kill(&id, libc::SIGKILL).await.unwrap();
    };
    let ((exit, _), ()) = tokio::join!(pod.exec(&id, "echo > /started; exec sleep 1000"), end);
    assert_eq!(exit.unwrap(), ExecExit::Exited(128 + libc::SIGKILL));
    pod.exit_of(&id).await;
    pod.end().await;
}

#[tokio::test]
async fn a_container_that_made_a_subtree_of_its_cgroup_can_be_entered() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("exec sleep 1000");
    let id = container.id.clone();
    let pid = pod.create(container).await.unwrap();
    pod.monitor.start(&id).await.unwrap();
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(std::path::Path::new);
    let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists()).unwrap();
    let path = pod.cgroup(&id).path().as_str().to_owned();
    let top = root.join(path.trim_start_matches('/'));
    std::fs::create_dir(top.join("init")).unwrap();
    std::fs::write(top.join("init/cgroup.procs"), pid.to_string()).unwrap();
    // With controllers passed on it takes no processes itself any more; a hybrid host has none to pass on.
    let controllers = std::fs::read_to_string(top.join("cgroup.controllers")).unwrap();
    let all: Vec<_> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    std::fs::write(top.join("cgroup.subtree_control"), all.join(" ")).unwrap();
    let (exit, output) = pod.exec(&id, "cat /proc/self/cgroup").await;
    assert_eq!(exit.unwrap(), ExecExit::Exited(0));
    let place = output.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    assert!(place.ends_with(&format!("{id}/init")) || (all.is_empty() && place.ends_with(&id)), "{place}");
    pod.end().await;
}
