//! Events as a listener hears them.

use super::*;
use crate::config::ContainerMetadata;
use crate::container::Container;
use crate::record::{ContainerRecord, Ending, PodRecord, Records};
use crate::status::{ContainerState, PodState, User};
use crate::testing;

struct Scene {
    records: Records,
    table: Arc<Table>,
    events: Arc<Events>,
    pod: Arc<Sandbox>,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let table = Arc::new(Table::default());
        let events = Arc::new(Events::new(&table));
        let record = PodRecord {
            id: "pod".into(),
            boot_id: "b".into(),
            config: Arc::new(testing::pod_config()),
            created_at_ns: 1,
            phase: PodPhase::Creating,
            netns: None,
            ips: Vec::new(),
            resized: None,
            enclosure: None,
            selinux: None,
        };
        let pod = Arc::new(Sandbox::new(record, dir.path().to_owned(), events.clone()));
        table.insert_pod(pod.clone()).unwrap();
        Self { records, table, events, pod, _dir: dir }
    }

    fn advance(&self, phase: PodPhase) {
        self.pod.update(&self.records, |record| record.phase = phase).unwrap();
    }

    fn container(&self, id: &str) -> Arc<Container> {
        let mut config = testing::container_config();
        config.metadata = ContainerMetadata { name: id.into(), attempt: 0 };
        let config = Arc::new(config);
        let record = ContainerRecord {
            id: id.into(),
            pod_id: "pod".into(),
            boot_id: "b".into(),
            config: config.clone(),
            created_at_ns: 2,
            started_at_ns: 0,
            phase: ContainerPhase::Creating,
            pid: 0,
            image_id: "sha256:0".into(),
            user: User::default(),
            resources: config.resources.clone(),
            stop_signal: "SIGTERM".into(),
            log_path: None,
            cgroup: "/x".into(),
            volume_images: Vec::new(),
        };
        let container = Arc::new(Container::new(record, config, self.pod.clone()));
        self.table.insert_container(container.clone()).unwrap();
        container
    }

    fn move_on(&self, container: &Container, phase: ContainerPhase) {
        container.update(&self.records, |record| record.phase = phase).unwrap();
    }
}

async fn heard(listener: &mut Listener) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    while !listener.events.is_empty() {
        events.extend(listener.next().await.unwrap());
    }
    events
}

fn names(events: &[Arc<Event>]) -> Vec<(&str, EventKind)> {
    events.iter().map(|event| (event.id.as_str(), event.kind)).collect()
}

#[tokio::test]
async fn a_life_is_told_in_order_with_the_state_of_each_moment() {
    use EventKind::{Created, Deleted, Started, Stopped};
    let scene = Scene::new();
    let (mut one, mut other) = (scene.events.listen(), scene.events.listen());
    scene.advance(PodPhase::Ready);
    let container = scene.container("c");
    scene.move_on(&container, ContainerPhase::Created);
    scene.move_on(&container, ContainerPhase::Running);
    // What changes nothing that anybody would see is no event.
    scene.move_on(&container, ContainerPhase::Running);
    scene.move_on(&container, ContainerPhase::Exited(Ending::unknown(9, "x")));
    scene.advance(PodPhase::Stopping);
    scene.advance(PodPhase::Stopped);
    scene.table.remove_container(&container);
    container.tell_deleted();
    scene.table.remove_pod(&scene.pod);
    scene.pod.tell_deleted();
    let events = heard(&mut one).await;
    let expected = [
        ("pod", Created),
        ("pod", Started),
        ("c", Created),
        ("c", Started),
        ("c", Stopped),
        ("pod", Stopped),
        ("c", Deleted),
        ("pod", Deleted),
    ];
    assert_eq!(names(&events), expected);
    assert_eq!(names(&heard(&mut other).await), expected);
    assert!(events.is_sorted_by(|one, next| one.at_ns < next.at_ns));
    let states: Vec<_> = events.iter().map(|event| event.pod.state).collect();
    assert_eq!(states[..5], [PodState::Ready; 5]);
    assert_eq!(states[5..], [PodState::NotReady; 3]);
    let containers: Vec<Vec<_>> =
        events.iter().map(|event| event.containers.iter().map(|one| one.state).collect()).collect();
    let (created, running, exited) =
        (vec![ContainerState::Created], vec![ContainerState::Running], vec![ContainerState::Exited]);
    assert_eq!(containers[..2], [vec![], vec![]]);
    assert_eq!(containers[2..6], [created, running, exited.clone(), exited]);
    assert_eq!(containers[6..], [vec![], vec![]]);
}

#[tokio::test]
async fn what_nobody_was_told_of_is_not_told_to_be_gone() {
    let scene = Scene::new();
    let mut listener = scene.events.listen();
    let container = scene.container("c");
    container.tell_deleted();
    scene.advance(PodPhase::Stopping);
    scene.pod.tell_deleted();
    assert!(heard(&mut listener).await.is_empty());
}

#[tokio::test]
async fn a_listener_that_is_too_slow_hears_so_and_nobody_waits_for_it() {
    let scene = Scene::new();
    let (mut slow, mut quick) = (scene.events.listen(), scene.events.listen());
    let container = scene.container("c");
    for _ in 0..BACKLOG + 5 {
        scene.events.tell(&[EventKind::Started], &container.id, &scene.pod);
        assert!(quick.next().await.unwrap().is_some());
    }
    assert_eq!(slow.next().await.unwrap_err(), Missed(5));
}

#[tokio::test]
async fn a_snapshot_stands_between_events() {
    let scene = Scene::new();
    let mut listener = scene.events.listen();
    scene.advance(PodPhase::Ready);
    let container = scene.container("c");
    scene.move_on(&container, ContainerPhase::Created);
    let snapshot = scene.events.snapshot(&scene.pod);
    scene.move_on(&container, ContainerPhase::Running);
    let times: Vec<_> = heard(&mut listener).await.iter().map(|event| event.at_ns).collect();
    assert!(times[2] < snapshot.at_ns && snapshot.at_ns < times[3], "{times:?}");
    assert_eq!(snapshot.containers[0].state, ContainerState::Created);
    assert_eq!(snapshot.pod.state, PodState::Ready);
}

#[tokio::test]
async fn listening_ends_with_the_daemon() {
    let scene = Scene::new();
    let mut listener = scene.events.listen();
    scene.advance(PodPhase::Ready);
    scene.events.close();
    assert!(listener.next().await.unwrap().is_some(), "what was told before is heard");
    assert!(listener.next().await.unwrap().is_some());
    assert!(listener.next().await.unwrap().is_none());
}
