//! Signals, deadlines, and the kill at the end of them.

use std::time::{Duration, Instant};

use runtime::{Error, PidNamespace};

use crate::fixture::{Container, node, until};

const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 1000 & wait; done";

#[tokio::test]
async fn a_container_that_listens_goes_by_itself() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")).await;
    until(|| !pod.log(&id).is_empty()).await;
    let exit = pod.monitor.stop(&id, libc::SIGTERM, Duration::from_secs(600)).await.unwrap();
    assert_eq!(exit.code, 7);
    assert_eq!(pod.exit_of(&id).await, exit);
    // Who comes late is told the same.
    assert_eq!(pod.monitor.stop(&id, libc::SIGTERM, Duration::ZERO).await.unwrap(), exit);
    pod.end().await;
}

#[tokio::test]
async fn one_that_does_not_is_killed_with_all_it_has() {
    let node = node();
    let mut pod = node.pod().await;
    for mode in [PidNamespace::Own, PidNamespace::Host] {
        let id = pod.run(Container::new(STUBBORN).in_pid_namespace(mode)).await;
        until(|| !pod.log(&id).is_empty()).await;
        let begin = Instant::now();
        let exit = pod.monitor.stop(&id, libc::SIGTERM, Duration::from_millis(200)).await.unwrap();
        assert_eq!(exit.code, 128 + libc::SIGKILL);
        assert!((0.2..5.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
        until(|| pod.cgroup(&id).processes().unwrap().is_empty()).await;
        pod.exit_of(&id).await;
    }
    pod.end().await;
}

#[tokio::test]
async fn a_later_deadline_can_only_be_nearer() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new(STUBBORN)).await;
    until(|| !pod.log(&id).is_empty()).await;
    let stop = |grace| {
        let (monitor, id) = (pod.monitor.clone(), id.clone());
        tokio::spawn(async move { monitor.stop(&id, libc::SIGTERM, grace).await.unwrap() })
    };
    let begin = Instant::now();
    let patient = stop(Duration::from_secs(600));
    let nearer = stop(Duration::from_millis(300));
    let farther = stop(Duration::from_secs(500));
    let exits = (patient.await.unwrap(), nearer.await.unwrap(), farther.await.unwrap());
    assert!(exits.0 == exits.1 && exits.1 == exits.2, "{exits:?}");
    assert!((0.3..20.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
    pod.end().await;
}

#[tokio::test]
async fn without_a_grace_nobody_is_asked() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("trap 'exit 7' TERM; while :; do sleep 0.01; done")).await;
    let exit = pod.monitor.stop(&id, libc::SIGTERM, Duration::ZERO).await.unwrap();
    assert_eq!(exit.code, 128 + libc::SIGKILL);
    pod.end().await;
}

#[tokio::test]
async fn one_that_was_never_started_goes_at_once() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("true");
    let id = container.id.clone();
    pod.create(container).await.unwrap();
    let exit = pod.monitor.stop(&id, libc::SIGTERM, Duration::from_secs(600)).await.unwrap();
    assert_eq!(exit.code, 128 + libc::SIGKILL);
    pod.monitor.remove(&id).await.unwrap();
    assert!(matches!(
        pod.monitor.stop(&id, libc::SIGTERM, Duration::ZERO).await,
        Err(Error::NoContainer { .. })
    ));
    pod.end().await;
}

#[tokio::test]
async fn real_time_signals_have_numbers_only() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("trap 'exit 8' 37; echo ready; while :; do sleep 0.01; done")).await;
    until(|| !pod.log(&id).is_empty()).await;
    pod.monitor.kill(&id, 37).await.unwrap();
    assert_eq!(pod.exit_of(&id).await.code, 8);
    pod.end().await;
}
