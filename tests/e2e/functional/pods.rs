//! Pods: their life, their namespaces, and what is said of them.

use std::collections::HashMap;

use anyhow::Context;
use corten_tests::kubelet::Kubelet;
use corten_tests::{Pod, Result, on_node};
use k8s_cri::v1 as wire;
use tonic::Code;

#[test]
fn a_pod_is_ready_at_once_and_tells_who_it_is() {
    on_node(async |kubelet| {
        let pod = kubelet
            .pod()
            .with(|config| {
                config.labels.insert("label".to_owned(), "a=b, c".to_owned());
                config.annotations.insert("note/it".to_owned(), "line\nline".to_owned());
            })
            .run()
            .await?;
        let status = pod.status().await?;
        assert_eq!(status.id, pod.id);
        assert_eq!(pod.id.len(), 64);
        assert!(pod.id.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
        assert_eq!(status.state(), wire::PodSandboxState::SandboxReady);
        assert_eq!(status.metadata, pod.config.metadata);
        assert_eq!(status.labels, pod.config.labels);
        assert_eq!(status.annotations, pod.config.annotations);
        assert!(status.created_at > 1_700_000_000_000_000_000);
        let namespaces = status.linux.and_then(|linux| linux.namespaces?.options).context("namespaces")?;
        assert_eq!(namespaces.network(), wire::NamespaceMode::Pod);
        Ok(())
    });
}

#[test]
fn a_stopped_pod_is_not_ready_and_a_removed_one_is_gone() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        pod.stop().await?;
        assert_eq!(pod.status().await?.state(), wire::PodSandboxState::SandboxNotready);
        assert_eq!(container.status().await?.state(), wire::ContainerState::ContainerExited);
        pod.stop().await?;
        pod.remove().await?;
        let request = wire::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
        let status = kubelet.cri().runtime.pod_sandbox_status(request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        let request = wire::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
        let status = kubelet.cri().runtime.container_status(request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        pod.remove().await?;
        Ok(())
    });
}

async fn found(kubelet: &Kubelet, filter: wire::PodSandboxFilter) -> Result<Vec<String>> {
    Ok(kubelet.pods(filter).await?.into_iter().map(|pod| pod.id).collect())
}

fn labelled(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn filters_of_a_list_must_all_hold() {
    on_node(async |kubelet| {
        let group = format!("filters-{}", kubelet.unique());
        let run = async |kind: &str| -> Result<Pod<'_>> {
            let labels = labelled(&[("group", &group), ("kind", kind)]);
            kubelet.pod().with(|config| config.labels = labels).run().await
        };
        let first = run("first").await?;
        let second = run("second").await?;
        let of_group = || labelled(&[("group", &group)]);
        let base = || wire::PodSandboxFilter { label_selector: of_group(), ..Default::default() };
        let ready = |state: wire::PodSandboxState| Some(wire::PodSandboxStateValue { state: state.into() });

        assert_eq!(found(kubelet, base()).await?.len(), 2);
        let by_id = wire::PodSandboxFilter { id: first.id.clone(), ..base() };
        assert_eq!(found(kubelet, by_id).await?, [first.id.as_str()]);
        let by_prefix = wire::PodSandboxFilter { id: first.id[..13].to_owned(), ..base() };
        assert_eq!(found(kubelet, by_prefix).await?, [first.id.as_str()]);
        second.stop().await?;
        let state = ready(wire::PodSandboxState::SandboxNotready);
        let filter = wire::PodSandboxFilter { state, ..base() };
        assert_eq!(found(kubelet, filter).await?, [second.id.as_str()]);
        let state = ready(wire::PodSandboxState::SandboxNotready);
        let both = wire::PodSandboxFilter { id: first.id.clone(), state, ..base() };
        assert!(found(kubelet, both).await?.is_empty());
        let label_selector = labelled(&[("group", &group), ("kind", "third")]);
        let none = wire::PodSandboxFilter { label_selector, ..Default::default() };
        assert!(found(kubelet, none).await?.is_empty());
        let unknown = wire::PodSandboxFilter { id: "f00d".repeat(16), ..Default::default() };
        assert!(found(kubelet, unknown).await?.is_empty());
        Ok(())
    });
}

#[test]
fn an_unknown_pod_is_stopped_and_removed_without_an_error() {
    on_node(async |kubelet| {
        kubelet.remove_pod(&"f00d".repeat(16)).await?;
        kubelet.remove_pod("3f2b9b3e-not-an-id").await?;
        Ok(())
    });
}

#[test]
fn a_pod_in_the_nodes_network_says_so_and_shares_it() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().host_network().run().await?;
        let status = pod.status().await?;
        let namespaces = status.linux.and_then(|linux| linux.namespaces?.options).context("namespaces")?;
        assert_eq!(namespaces.network(), wire::NamespaceMode::Node);
        let container = pod.container().start().await?;
        let inside = std::fs::read_link(format!("/proc/{}/ns/net", container.pid().await?))?;
        assert_eq!(inside, std::fs::read_link("/proc/self/ns/net")?);
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
        assert_eq!(container.sh("hostname").await?, host.trim());
        Ok(())
    });
}

#[test]
fn the_hostname_is_the_pods() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().with(|config| config.hostname = "weathering-steel".to_owned()).run().await?;
        assert_eq!(pod.output("hostname; cat /etc/hostname").await?, ["weathering-steel"; 2]);
        Ok(())
    });
}

#[test]
fn dns_comes_from_the_request() {
    on_node(async |kubelet| {
        let dns = wire::DnsConfig {
            servers: vec!["10.1.2.3".to_owned(), "fd00::53".to_owned()],
            searches: vec!["a.example".to_owned(), "b.example".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        let pod = kubelet.pod().with(|config| config.dns_config = Some(dns)).run().await?;
        let lines = pod.output("cat /etc/resolv.conf").await?;
        let expected =
            ["search a.example b.example", "nameserver 10.1.2.3", "nameserver fd00::53", "options ndots:5"];
        for line in expected {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:?}");
        }
        Ok(())
    });
}

#[test]
fn without_dns_the_hosts_resolv_conf_is_copied() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let lines = pod.output("cat /etc/resolv.conf").await?.join("\n");
        // A node without one has pods with an empty one.
        let of_host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        assert_eq!(lines.trim(), of_host.trim());
        Ok(())
    });
}

#[test]
fn shared_memory_is_the_pods() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let writer = pod.container().sh("echo shared > /dev/shm/it; sleep 1000").start().await?;
        let size = writer.sh("df -k /dev/shm | tail -1 | awk '{print $2}'").await?;
        assert_eq!(size, "65536");
        let reader = pod.container().start().await?;
        corten_tests::eventually("the file is there", async || {
            Ok(reader.exec(["cat", "/dev/shm/it"]).await.ok().filter(|output| output.stdout == "shared\n"))
        })
        .await?;
        let other = kubelet.pod().run().await?;
        assert!(other.output("ls -A /dev/shm").await?.is_empty());
        Ok(())
    });
}

#[test]
fn sysctls_are_set_in_the_pod_alone() {
    on_node(async |kubelet| {
        let host = std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl")?;
        let pod = kubelet
            .pod()
            .sysctl("net.ipv4.ip_default_ttl", "77")
            .sysctl("kernel/shm_rmid_forced", "1")
            .sysctl("fs.mqueue.msg_max", "100")
            .run()
            .await?;
        let script = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shm_rmid_forced \
                      /proc/sys/fs/mqueue/msg_max";
        assert_eq!(pod.output(script).await?, ["77", "1", "100"]);
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl")?, host);
        Ok(())
    });
}

#[test]
fn a_user_may_listen_on_low_ports_and_ping() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range";
        let lines = pod.output(script).await?;
        assert_eq!(lines[0], "0");
        let range: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(range, ["0", "2147483647"]);
        Ok(())
    });
}

#[test]
fn containers_have_process_namespaces_of_their_own_or_share_the_pods() {
    on_node(async |kubelet| {
        let apart = kubelet.pod().run().await?;
        assert_eq!(apart.output("echo $$").await?, ["1"]);

        let shared =
            kubelet.pod().namespaces(|options| options.pid = wire::NamespaceMode::Pod.into()).run().await?;
        let sleeper = shared.container().command(["sleep", "54321"]).start().await?;
        let lines = shared.output("echo $$; ps -o args").await?;
        assert_ne!(lines[0], "1");
        assert!(lines.iter().any(|line| line.contains("sleep 54321")), "{lines:?}");
        assert!(sleeper.sh("cat /proc/1/cmdline").await? != "sleep");
        Ok(())
    });
}

#[test]
fn a_container_can_join_the_processes_of_another() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let target = pod.container().command(["sleep", "54322"]).start().await?;
        let guest = pod
            .container()
            .sh("tr '\\0' ' ' < /proc/1/cmdline; echo")
            .security(|security| {
                let options = security.namespace_options.get_or_insert_default();
                options.pid = wire::NamespaceMode::Target.into();
                options.target_id = target.id.clone();
            })
            .start()
            .await?;
        guest.exited().await?;
        assert_eq!(guest.lines("stdout")?, ["sleep 54322 "]);
        Ok(())
    });
}

#[test]
fn a_pod_with_the_nodes_ipc_and_processes_shares_them() {
    on_node(async |kubelet| {
        let pod = kubelet
            .pod()
            .namespaces(|options| {
                options.ipc = wire::NamespaceMode::Node.into();
                options.pid = wire::NamespaceMode::Node.into();
            })
            .run()
            .await?;
        let container = pod.container().start().await?;
        let pid = container.pid().await?;
        for namespace in ["ipc", "pid"] {
            let inside = std::fs::read_link(format!("/proc/{pid}/ns/{namespace}"))?;
            assert_eq!(inside, std::fs::read_link(format!("/proc/self/ns/{namespace}"))?);
        }
        container.stop(std::time::Duration::ZERO).await?;
        assert!(!corten_tests::host::is_alive(pid));
        Ok(())
    });
}

#[test]
fn a_name_is_free_again_once_its_pod_is_removed() {
    on_node(async |kubelet| {
        let request = kubelet.pod().request().await?;
        let first = Pod::run(kubelet, request.clone()).await?;
        first.remove().await?;
        let second = Pod::run(kubelet, request).await?;
        assert_ne!(first.id, second.id);
        Ok(())
    });
}

#[test]
fn removing_a_running_pod_by_force_ends_its_containers() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let pid = container.pid().await?;
        pod.remove().await?;
        assert!(!corten_tests::host::is_alive(pid));
        Ok(())
    });
}

#[test]
fn many_pods_at_once_all_run() {
    on_node(async |kubelet| {
        let mut runs = Vec::new();
        for _ in 0..8 {
            let request = kubelet.pod().request().await?;
            let mut runtime = kubelet.cri().runtime;
            runs.push(tokio::spawn(async move { runtime.run_pod_sandbox(request).await }));
        }
        let mut ids = std::collections::BTreeSet::new();
        for run in runs {
            ids.insert(run.await??.into_inner().pod_sandbox_id);
        }
        assert_eq!(ids.len(), 8);
        for id in &ids {
            kubelet.remove_pod(id).await?;
        }
        Ok(())
    });
}
