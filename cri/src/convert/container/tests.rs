//! What CreateContainer and its relatives accept and refuse, and what a status shows.

use std::path::Path;
use std::sync::Arc;

use pod::status::User;

use super::super::testing::refused;
use super::*;

fn request() -> cri::CreateContainerRequest {
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "web".to_owned(), attempt: 1 }),
        image: Some(cri::ImageSpec { image: "sha256:abc".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    cri::CreateContainerRequest {
        pod_sandbox_id: "pod".to_owned(),
        config: Some(config),
        sandbox_config: None,
    }
}

fn check(change: impl FnOnce(&mut cri::ContainerConfig)) -> Result<ContainerConfig, Invalid> {
    let mut request = request();
    change(request.config.as_mut().unwrap());
    parse(request).map(|(_, config)| config)
}

fn env_of(key: &str, value: &[u8]) -> Result<Vec<(String, String)>, Invalid> {
    let variable = cri::KeyValue { key: key.to_owned(), value: value.to_vec() };
    check(|config| config.envs = vec![variable]).map(|config| config.envs)
}

#[test]
fn the_least_is_a_pod_a_name_and_an_image() {
    let (pod, config) = parse(request()).unwrap();
    assert_eq!(
        (pod.as_str(), config.metadata.name.as_str(), config.image.as_str()),
        ("pod", "web", "sha256:abc")
    );
    assert_eq!((config.working_dir, config.log_path, config.stop_signal), (None, None, None));
    refused(parse(cri::CreateContainerRequest { config: None, ..request() }), "config");
    refused(
        parse(cri::CreateContainerRequest { pod_sandbox_id: String::new(), ..request() }),
        "pod_sandbox_id",
    );
    refused(check(|config| config.metadata = None), "config.metadata");
    refused(check(|config| config.metadata.as_mut().unwrap().name.clear()), "config.metadata.name");
    refused(check(|config| config.image = None), "config.image");
    refused(check(|config| config.image.as_mut().unwrap().image.clear()), "config.image.image");
}

#[test]
fn what_is_not_done_yet_is_refused() {
    let device = cri::CdiDevice { name: "vendor.com/gpu=0".to_owned() };
    refused(check(|config| config.cdi_devices = vec![device]), "config.CDI_devices");
    refused(check(|config| config.windows = Some(cri::WindowsContainerConfig::default())), "config.windows");
    let archive = "/var/lib/kubelet/checkpoints/x.tar".to_owned();
    refused(check(|config| config.image.as_mut().unwrap().image = archive), "config.image.image");
}

#[test]
fn arguments_are_any_text_without_zero() {
    let script = "echo a\n\techo b".to_owned();
    let config =
        check(|config| config.command = vec!["sh".to_owned(), "-c".to_owned(), script.clone()]).unwrap();
    assert_eq!(config.command[2], script);
    refused(check(|config| config.command = vec!["a\0b".to_owned()]), "config.command[0]");
    refused(check(|config| config.args = vec![String::new(), "\0".to_owned()]), "config.args[1]");
    refused(parse_command(vec![]), "cmd");
    refused(parse_command(vec!["a".to_owned(), "\0".to_owned()]), "cmd[1]");
}

#[test]
fn variables_have_names() {
    assert_eq!(env_of("A", b"b=c\n").unwrap(), [("A".to_owned(), "b=c\n".to_owned())]);
    refused(env_of("", b"x"), "config.envs[0].key");
    refused(env_of("A=B", b"x"), "config.envs[0].key");
    refused(env_of("A\n", b"x"), "config.envs[0].key");
    refused(env_of("A", b"x\0y"), "config.envs[0].value");
    refused(env_of("A", b"\xff"), "config.envs[0].value");
}

#[test]
fn paths_are_checked() {
    let log = |path: &str| check(|config| config.log_path = path.to_owned()).map(|config| config.log_path);
    assert_eq!(log("web/0.log").unwrap().as_deref(), Some(Path::new("web/0.log")));
    refused(log("../0.log"), "config.log_path");
    refused(log("/0.log"), "config.log_path");
    refused(log("a\n.log"), "config.log_path");
    let cwd =
        |path: &str| check(|config| config.working_dir = path.to_owned()).map(|config| config.working_dir);
    assert_eq!(cwd("/srv//www/").unwrap().as_deref(), Some("/srv/www"));
    refused(cwd("srv"), "config.working_dir");
    refused(cwd("/srv/../.."), "config.working_dir");
    refused(check(|config| config.stop_signal = 99), "config.stop_signal");
}

#[test]
fn an_update_needs_limits() {
    let update = |linux: Option<cri::LinuxContainerResources>| {
        parse_update(cri::UpdateContainerResourcesRequest {
            container_id: "c".to_owned(),
            linux,
            ..Default::default()
        })
    };
    let limits = cri::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
    assert_eq!(update(Some(limits)).unwrap().1.cpu_shares, Some(512));
    refused(update(None), "linux");
    refused(
        update(Some(cri::LinuxContainerResources { cpu_quota: -5, ..Default::default() })),
        "linux.cpu_quota",
    );
    refused(parse_update(cri::UpdateContainerResourcesRequest::default()), "container_id");
}

#[test]
fn filters_name_what_they_pick() {
    let by = |pod: &str, state: i32| {
        filter(Some(cri::ContainerFilter {
            pod_sandbox_id: pod.to_owned(),
            state: Some(cri::ContainerStateValue { state }),
            ..Default::default()
        }))
    };
    assert_eq!(by("abc", 2).unwrap().state, Some(ContainerState::Exited));
    assert_eq!(by("abc", 2).unwrap().pod_id.as_deref(), Some("abc"));
    refused(by("", 4), "filter.state");
    refused(by("a\0", 0), "filter.pod_sandbox_id");
    assert_eq!(stats_filter(None).unwrap().labels, [].into());
}

#[test]
fn a_status_says_what_the_kubelet_reads() {
    let config = check(|config| {
        config.image.as_mut().unwrap().user_specified_image = "busybox:1".to_owned();
        config.labels.insert("a".to_owned(), "b".to_owned());
    });
    let container = ContainerStatus {
        id: "id".to_owned(),
        pod_id: "pod".to_owned(),
        config: Arc::new(config.unwrap()),
        state: ContainerState::Exited,
        created_at_ns: 1,
        started_at_ns: 2,
        finished_at_ns: 3,
        exit_code: 137,
        reason: "OOMKilled".to_owned(),
        message: String::new(),
        image_id: "sha256:abc".to_owned(),
        volume_images: Vec::new(),
        log_path: Some("/var/log/pods/x/web/0.log".into()),
        resources: Resources { cpu_shares: Some(2), ..Default::default() },
        user: User { uid: 1, gid: 2, supplemental_groups: vec![2, 3] },
        stop_signal: "SIGTERM".to_owned(),
    };
    let shown = status(&container, None);
    assert_eq!((shown.image_id.as_str(), shown.image_ref.as_str()), ("sha256:abc", "sha256:abc"));
    assert_eq!(shown.image.as_ref().unwrap().image, "busybox:1");
    assert_eq!(shown.resources.as_ref().unwrap().linux.as_ref().unwrap().cpu_shares, 2);
    assert_eq!(shown.user.as_ref().unwrap().linux.as_ref().unwrap().supplemental_groups, [2, 3]);
    assert_eq!((shown.stop_signal(), shown.exit_code), (cri::Signal::Sigterm, 137));
    assert_eq!(shown.state(), cri::ContainerState::ContainerExited);
    let listed = listed(&container);
    assert_eq!((listed.image_ref.as_str(), listed.image_id.as_str()), ("sha256:abc", "sha256:abc"));
    assert_eq!((listed.pod_sandbox_id.as_str(), listed.labels), ("pod", shown.labels));
}
