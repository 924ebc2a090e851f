//! The pod network, through real CNI plugins.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use corten_tests::registry::NGINX;
use corten_tests::wait::slowness;
use corten_tests::{Kubelet, Result, Setup, eventually, on_node, on_own_node};
use k8s_cri::v1 as wire;
use serde_json::json;

/// The page at an address, fetched with as little HTTP as will do.
fn page(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10) * slowness()))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

async fn serves(address: &str) -> Result {
    eventually(&format!("{address} serves a page"), async || {
        Ok(page(address).ok().filter(|page| page.contains("<title>nginx in a pod</title>")))
    })
    .await?;
    Ok(())
}

#[test]
fn a_pod_has_an_address_that_the_host_reaches() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let ip = pod.ip().await?;
        assert!(!ip.is_empty());
        if kubelet.node().is_own() {
            assert!(ip.starts_with(&kubelet.node().network().prefix()), "{ip}");
            let network = pod.status().await?.network.context("a network")?;
            let more = network.additional_ips.first().context("a second address")?;
            assert!(more.ip.starts_with("fd00:77:"), "{}", more.ip);
        }
        pod.container().image(NGINX).start().await?;
        serves(&format!("{ip}:80")).await
    });
}

#[test]
fn two_containers_of_a_pod_share_its_network_and_two_pods_do_not() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        pod.container().image(NGINX).start().await?;
        serves(&format!("{}:80", pod.ip().await?)).await?;
        let neighbour = pod.container().start().await?;
        assert!(neighbour.sh("wget -q -O - http://127.0.0.1/").await?.contains("nginx in a pod"));
        let stranger_pod = kubelet.pod().run().await?;
        let stranger = stranger_pod.container().start().await?;
        assert_ne!(stranger.exec(["wget", "-q", "-O", "-", "http://127.0.0.1/"]).await?.code, 0);
        let url = format!("wget -q -O - http://{}/", pod.ip().await?);
        assert!(stranger.sh(&url).await?.contains("nginx in a pod"));
        Ok(())
    });
}

#[test]
fn the_loopback_interface_is_up() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let lines = pod.output("ip address show lo").await?.join("\n");
        assert!(lines.contains("LOOPBACK,UP"), "{lines}");
        assert!(lines.contains("127.0.0.1/8"), "{lines}");
        Ok(())
    });
}

#[test]
fn a_port_of_the_host_leads_to_the_pod() {
    on_node(async |kubelet| {
        let port = kubelet.node().network().first_port() + 1;
        let pod = kubelet.pod().port(port, 80).run().await?;
        pod.container().image(NGINX).start().await?;
        serves(&format!("127.0.0.1:{port}")).await?;
        pod.stop().await?;
        assert!(page(&format!("127.0.0.1:{port}")).is_err(), "the port still answers");
        Ok(())
    });
}

#[test]
fn the_network_of_a_stopped_pod_is_gone() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let netns = kubelet.node().dir().join("netns");
        assert_eq!(fs::read_dir(&netns)?.count(), 1);
        pod.stop().await?;
        assert_eq!(fs::read_dir(&netns)?.count(), 0);
        assert_eq!(kubelet.node().network().leftovers(), Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn a_pod_whose_namespace_is_lost_gives_its_addresses_back() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let netns = kubelet.node().dir().join("netns");
        let pin = fs::read_dir(&netns)?.next().context("a namespace")??.path();
        nix::mount::umount2(&pin, nix::mount::MntFlags::MNT_DETACH)?;
        fs::remove_file(&pin)?;
        pod.stop().await?;
        pod.remove().await?;
        // Without a namespace the bridge plugin keeps its rules for masquerading.
        kubelet.node().network().forget_rules();
        assert_eq!(kubelet.node().network().leftovers(), Vec::<String>::new());
        Ok(())
    });
}

async fn network_condition(kubelet: &Kubelet) -> Result<wire::RuntimeCondition> {
    let request = wire::StatusRequest { verbose: false };
    let status = kubelet.cri().runtime.status(request).await?.into_inner().status.context("a status")?;
    let mut conditions = status.conditions.into_iter();
    conditions.find(|condition| condition.r#type == "NetworkReady").context("the network's condition")
}

#[test]
fn readiness_of_the_network_follows_the_configuration() {
    on_own_node(&Setup::default(), async |kubelet| {
        let network = kubelet.node().network();
        let ready = async |wanted: bool| {
            eventually(&format!("NetworkReady is {wanted}"), async || {
                Ok(Some(network_condition(kubelet).await?).filter(|condition| condition.status == wanted))
            })
            .await
        };
        ready(true).await?;
        fs::remove_file(network.conf_dir().join("10-bridge.conflist"))?;
        let condition = ready(false).await?;
        assert!(!condition.reason.is_empty() && !condition.message.is_empty(), "{condition:?}");
        let refused = kubelet.pod().refused().await?;
        assert!(refused.message().contains("network"), "{refused}");
        // Pods that need no network run all the same.
        kubelet.pod().host_network().run().await?;

        fs::remove_dir_all(network.conf_dir())?;
        fs::create_dir(network.conf_dir())?;
        network.write("20-again.conflist", &network.bridge())?;
        ready(true).await?;
        kubelet.pod().run().await?;
        Ok(())
    });
}

#[test]
fn a_plugin_gets_the_pod_and_what_it_can_do() {
    on_own_node(&Setup::default(), async |kubelet| {
        let network = kubelet.node().network();
        let record = kubelet.node().dir().join("asked");
        let script = format!(
            "{{ env | grep ^CNI_; cat; echo; }} >> {}\n\
             [ $CNI_COMMAND = ADD ] && echo '{{\"cniVersion\":\"1.0.0\",\"ips\":[{{\"address\":\"10.9.8.7/24\"}}]}}'\n\
             [ $CNI_COMMAND = VERSION ] && echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}}'\nexit 0",
            record.display()
        );
        network.write_script("05-record.conflist", "record", &script)?;
        let capabilities = json!({"portMappings": true, "bandwidth": true, "dns": true});
        let plugin = json!({"type": "record", "capabilities": capabilities});
        let list = json!({"cniVersion": "1.0.0", "name": network.name(), "plugins": [plugin]});
        network.write("05-record.conflist", &list)?;
        let pod = eventually("the new configuration is used", async || {
            let dns = wire::DnsConfig { servers: vec!["10.1.1.1".to_owned()], ..Default::default() };
            let pod = kubelet
                .pod()
                .port(network.first_port(), 80)
                .with(|config| {
                    config.dns_config = Some(dns);
                    let limit = ("kubernetes.io/ingress-bandwidth".to_owned(), "1M".to_owned());
                    config.annotations.extend([limit]);
                })
                .run()
                .await?;
            let used = pod.ip().await? == "10.9.8.7";
            if !used {
                pod.remove().await?;
            }
            Ok(used.then_some(pod))
        })
        .await?;
        pod.stop().await?;
        let text = fs::read_to_string(&record)?;
        let metadata = pod.config.metadata.context("metadata")?;
        for part in [
            &format!("K8S_POD_NAME={}", metadata.name),
            &format!("K8S_POD_NAMESPACE={}", metadata.namespace),
            &format!("K8S_POD_UID={}", metadata.uid),
            &format!("K8S_POD_INFRA_CONTAINER_ID={}", pod.id),
            &format!("CNI_CONTAINERID={}", pod.id),
            "CNI_IFNAME=eth0",
            "\"portMappings\"",
            "\"ingressRate\":1000000",
            "10.1.1.1",
            "CNI_COMMAND=ADD",
            "CNI_COMMAND=DEL",
            "\"prevResult\"",
        ] {
            ensure!(text.contains(part), "{part} is not in what the plugin was asked:\n{text}");
        }
        Ok(())
    });
}
