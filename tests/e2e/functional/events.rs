//! GetContainerEvents: what the kubelet's evented PLEG lives on.

use std::time::{Duration, Instant};

use anyhow::Context;
use corten_tests::cri::Cri;
use corten_tests::wait::slowness;
use corten_tests::{Container, Kubelet, Pod, Result, Setup, on_node, on_own_node, skip};
use k8s_cri::v1 as wire;
use k8s_cri::v1::ContainerEventType::{
    self, ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted,
    ContainerStartedEvent as Started, ContainerStoppedEvent as Stopped,
};
use tonic::Streaming;

type Stream = Streaming<wire::ContainerEventResponse>;

async fn listen(kubelet: &Kubelet) -> Result<Stream> {
    match kubelet.cri().runtime.get_container_events(wire::GetEventsRequest {}).await {
        Err(status) if status.code() == tonic::Code::Unimplemented => skip("GetContainerEvents is not there"),
        result => Ok(result?.into_inner()),
    }
}

/// The next events of one pod, the other tests' left out.
async fn next(stream: &mut Stream, pod: &str, count: usize) -> Result<Vec<wire::ContainerEventResponse>> {
    let mut events = Vec::new();
    while events.len() < count {
        let event = stream.message().await?.context("the stream ended")?;
        if event.pod_sandbox_status.as_ref().is_some_and(|status| status.id == pod) {
            events.push(event);
        }
    }
    Ok(events)
}

fn names(events: &[wire::ContainerEventResponse]) -> Vec<(String, ContainerEventType)> {
    events.iter().map(|event| (event.container_id.clone(), event.container_event_type())).collect()
}

async fn a_life<'a>(kubelet: &'a Kubelet, pod: &'a Pod<'a>) -> Result<Container<'a>> {
    let container = pod.container().sh("exit 3").start().await?;
    container.exited().await?;
    container.remove().await?;
    kubelet.remove_pod(&pod.id).await?;
    Ok(container)
}

#[test]
fn a_life_is_told_in_order_to_all_who_listen_with_the_state_of_each_moment() {
    on_node(async |kubelet| {
        let (mut one, mut other) = (listen(kubelet).await?, listen(kubelet).await?);
        let pod = kubelet.pod().run().await?;
        let container = a_life(kubelet, &pod).await?;
        let expected: Vec<(String, ContainerEventType)> = [
            (&pod.id, Created),
            (&pod.id, Started),
            (&container.id, Created),
            (&container.id, Started),
            (&container.id, Stopped),
            (&container.id, Deleted),
            (&pod.id, Stopped),
            (&pod.id, Deleted),
        ]
        .map(|(id, kind)| (id.clone(), kind))
        .into();
        let events = next(&mut one, &pod.id, expected.len()).await?;
        assert_eq!(names(&events), expected);
        // It reads late what the first one has read.
        assert_eq!(next(&mut other, &pod.id, expected.len()).await?, events);
        assert!(events.is_sorted_by(|one, next| one.created_at < next.created_at));
        let states: Vec<Vec<_>> = events
            .iter()
            .map(|event| event.containers_statuses.iter().map(wire::ContainerStatus::state).collect())
            .collect();
        use wire::ContainerState::{ContainerCreated, ContainerExited, ContainerRunning};
        let expected: [&[_]; 8] =
            [&[], &[], &[ContainerCreated], &[ContainerRunning], &[ContainerExited], &[], &[], &[]];
        assert_eq!(states, expected);
        let exited = &events[4].containers_statuses[0];
        assert_eq!((exited.exit_code, exited.reason.as_str()), (3, "Error"));
        let ready: Vec<bool> = events
            .iter()
            .filter_map(|event| event.pod_sandbox_status.as_ref())
            .map(|status| status.state() == wire::PodSandboxState::SandboxReady)
            .collect();
        assert_eq!(ready, [true, true, true, true, true, true, false, false]);
        Ok(())
    });
}

#[test]
fn a_pods_status_has_its_containers_and_the_time_between_events() {
    on_node(async |kubelet| {
        let mut stream = listen(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        let container = pod.container().create().await?;
        let request = wire::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
        let found = kubelet.cri().runtime.pod_sandbox_status(request).await?.into_inner();
        if found.timestamp == 0 {
            assert!(found.containers_statuses.is_empty());
            return skip("it has no time, so that nobody looks for the containers");
        }
        container.start().await?;
        let events = next(&mut stream, &pod.id, 4).await?;
        let ids: Vec<_> = found.containers_statuses.iter().map(|status| &status.id).collect();
        assert_eq!(ids, [&container.id]);
        assert_eq!(found.containers_statuses[0].state(), wire::ContainerState::ContainerCreated);
        assert!(events[2].created_at < found.timestamp, "the container was made before");
        assert!(found.timestamp < events[3].created_at, "and started after");
        Ok(())
    });
}

#[test]
fn a_reader_that_sleeps_is_cut_off_and_holds_nobody_up() {
    on_own_node(&Setup::default(), async |kubelet| {
        let mut sleeper = Cri::narrow(kubelet.node().socket())?.runtime;
        let mut asleep = sleeper.get_container_events(wire::GetEventsRequest {}).await?.into_inner();
        let mut awake = listen(kubelet).await?;
        // Events that are this large fill a connection soon.
        let note = ("note".to_owned(), "x".repeat(2048));
        let pod = kubelet.pod().with(|config| config.annotations.extend([note])).run().await?;
        let mut heard = names(&next(&mut awake, &pod.id, 2).await?).len();
        // Made, killed and removed: three events each, more than are kept and fit into a connection.
        let life = async || -> Result { Ok(pod.container().create().await?.remove().await?) };
        for _ in 0..95 {
            tokio::try_join!(life(), life(), life(), life())?;
            heard += next(&mut awake, &pod.id, 12).await?.len();
        }
        let mut read = 0;
        let status = loop {
            match asleep.message().await {
                Ok(Some(_)) => read += 1,
                Ok(None) => anyhow::bail!("the stream ended well after {read} events"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
        assert!(read < heard, "{read} of {heard}");
        // Whoever listens anew hears what is next.
        let mut anew = listen(kubelet).await?;
        let container = pod.container().create().await?;
        assert_eq!(names(&next(&mut anew, &pod.id, 1).await?), [(container.id, Created)]);
        Ok(())
    });
}

#[test]
fn a_daemon_that_stops_does_not_wait_for_those_who_listen() {
    on_own_node(&Setup::default(), async |kubelet| {
        let mut stream = listen(kubelet).await?;
        let began = Instant::now();
        let (stopped, end) = tokio::join!(kubelet.stop_daemon(), stream.message());
        stopped?;
        assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
        assert!(began.elapsed() < Duration::from_secs(8) * slowness(), "{:?}", began.elapsed());
        kubelet.node().start_daemon()?;
        listen(kubelet).await?;
        Ok(())
    });
}
