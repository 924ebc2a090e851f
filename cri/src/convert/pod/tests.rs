//! What RunPodSandbox and the filters accept and refuse, and what a status shows.

use std::path::Path;
use std::sync::Arc;

use super::super::testing::refused;
use super::*;

fn request() -> cri::RunPodSandboxRequest {
    let metadata = cri::PodSandboxMetadata {
        name: "web".to_owned(),
        uid: "u-1".to_owned(),
        namespace: "default".to_owned(),
        attempt: 2,
    };
    let config = cri::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
}

fn check(change: impl FnOnce(&mut cri::PodSandboxConfig)) -> Result<PodConfig, Invalid> {
    let mut request = request();
    change(request.config.as_mut().unwrap());
    parse(request)
}

fn metadata(change: impl FnOnce(&mut cri::PodSandboxMetadata)) -> Result<PodConfig, Invalid> {
    check(|config| change(config.metadata.as_mut().unwrap()))
}

fn linux(change: impl FnOnce(&mut cri::LinuxPodSandboxConfig)) -> Result<PodConfig, Invalid> {
    check(|config| change(config.linux.get_or_insert_default()))
}

fn ports(mappings: &[(i32, i32, i32, &str)]) -> Result<Vec<PortMapping>, Invalid> {
    let mapping = |&(protocol, container_port, host_port, host_ip): &(i32, i32, i32, &str)| {
        cri::PortMapping { protocol, container_port, host_port, host_ip: host_ip.to_owned() }
    };
    check(|config| config.port_mappings = mappings.iter().map(mapping).collect())
        .map(|config| config.port_mappings)
}

#[test]
fn the_least_is_a_name() {
    let config = check(|_| ()).unwrap();
    assert_eq!((config.metadata.name.as_str(), config.metadata.attempt), ("web", 2));
    assert_eq!((config.dns, config.cgroup_parent, config.log_directory), (None, None, None));
    refused(parse(cri::RunPodSandboxRequest::default()), "config");
    refused(check(|config| config.metadata = None), "config.metadata");
    refused(metadata(|m| m.name.clear()), "config.metadata.name");
    refused(metadata(|m| m.uid.clear()), "config.metadata.uid");
    refused(metadata(|m| m.namespace = "a;b".to_owned()), "config.metadata.namespace");
    refused(metadata(|m| m.name = "n".repeat(1000)), "config.metadata.name");
    refused(check(|config| config.windows = Some(cri::WindowsPodSandboxConfig::default())), "config.windows");
}

#[test]
fn a_pod_has_a_host_name() {
    let hostname =
        |given: &str| check(|config| config.hostname = given.to_owned()).map(|config| config.hostname);
    assert_eq!(hostname("db-0.example").unwrap(), "db-0.example");
    assert_eq!(hostname("").unwrap(), "web");
    let long = metadata(|m| m.name = format!("{}-x", "a".repeat(62))).unwrap();
    assert_eq!(long.hostname, "a".repeat(62));
    refused(hostname("a b"), "config.hostname");
    refused(hostname("a\nb"), "config.hostname");
    refused(hostname(&"a".repeat(65)), "config.hostname");
    let on_the_node = linux(|linux| {
        let options = cri::NamespaceOption { network: cri::NamespaceMode::Node.into(), ..Default::default() };
        linux.security_context.get_or_insert_default().namespace_options = Some(options);
    });
    assert_eq!(on_the_node.unwrap().hostname, "");
}

#[test]
fn names_of_files_are_absolute() {
    let logs = |path: &str| {
        check(|config| config.log_directory = path.to_owned()).map(|config| config.log_directory)
    };
    assert_eq!(logs("/var/log/pods/x").unwrap().as_deref(), Some(Path::new("/var/log/pods/x")));
    refused(logs("logs"), "config.log_directory");
    refused(logs("/var/../etc"), "config.log_directory");
    let parent =
        |path: &str| linux(|linux| linux.cgroup_parent = path.to_owned()).map(|config| config.cgroup_parent);
    assert_eq!(parent("/kubepods/burstable/podX").unwrap().as_deref(), Some("/kubepods/burstable/podX"));
    refused(parent("/kubepods/../x"), "config.linux.cgroup_parent");
    // Which of the two it has to be is the cgroup driver's to say.
    assert_eq!(parent("kubepods.slice").unwrap().as_deref(), Some("kubepods.slice"));
    refused(parent("kubepods\0.slice"), "config.linux.cgroup_parent");
    refused(parent("kubepods"), "config.linux.cgroup_parent");
}

#[test]
fn resolv_conf_is_words() {
    let dns = |server: &str| {
        let config = cri::DnsConfig { servers: vec![server.to_owned()], ..Default::default() };
        check(|pod| pod.dns_config = Some(config)).map(|config| config.dns)
    };
    assert_eq!(dns("10.0.0.10").unwrap().unwrap().servers, ["10.0.0.10"]);
    refused(dns("1.1.1.1\nsearch evil"), "config.dns_config.servers");
    refused(dns("1.1.1.1 2"), "config.dns_config.servers");
    refused(dns(""), "config.dns_config.servers");
    let nothing = check(|config| config.dns_config = Some(cri::DnsConfig::default())).unwrap();
    assert_eq!(nothing.dns, None, "an empty one is a copy of the host's");
}

#[test]
fn ports_lead_from_the_host_to_the_pod() {
    let expected =
        PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None };
    assert_eq!(ports(&[(0, 80, 8080, ""), (0, 81, 0, "")]).unwrap(), [expected]);
    assert!(ports(&[(0, 80, 8080, ""), (1, 80, 8080, ""), (0, 80, 8080, "::1")]).is_ok());
    refused(ports(&[(3, 80, 8080, "")]), "config.port_mappings[0].protocol");
    refused(ports(&[(0, -1, 8080, "")]), "config.port_mappings[0].container_port");
    refused(ports(&[(0, 0, 8080, "")]), "config.port_mappings[0].container_port");
    refused(ports(&[(0, 80, 65_536, "")]), "config.port_mappings[0].host_port");
    refused(ports(&[(0, 80, 8080, "localhost")]), "config.port_mappings[0].host_ip");
    refused(ports(&[(0, 80, 8080, ""), (0, 81, 8080, "")]), "config.port_mappings[1].host_port");
}

#[test]
fn filters_name_what_they_pick() {
    let by = |id: &str, state: Option<i32>| {
        let state = state.map(|state| cri::PodSandboxStateValue { state });
        filter(Some(cri::PodSandboxFilter { id: id.to_owned(), state, label_selector: [].into() }))
    };
    assert_eq!(filter(None).unwrap().id, None);
    assert_eq!(by("abc", Some(1)).unwrap().state, Some(PodState::NotReady));
    refused(by("a\n", None), "filter.id");
    refused(by("", Some(2)), "filter.state");
}

#[test]
fn a_status_shows_addresses_and_namespaces() {
    let show = |node: bool, ips: &[&str]| {
        let mut config = check(|_| ()).unwrap();
        if node {
            config.security.namespaces.network = PodOrNode::Node;
        }
        status(&PodStatus {
            id: "id".to_owned(),
            config: Arc::new(config),
            state: PodState::Ready,
            created_at_ns: 7,
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        })
    };
    let network = show(false, &["10.0.0.2", "fd00::2"]).network.unwrap();
    assert_eq!(network.ip, "10.0.0.2");
    assert_eq!(network.additional_ips, [cri::PodIp { ip: "fd00::2".to_owned() }]);
    assert_eq!(show(false, &[]).network, None);
    let on_the_node = show(true, &[]);
    assert_eq!(on_the_node.network.unwrap().ip, "");
    let options = on_the_node.linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(options.network(), cri::NamespaceMode::Node);
}
