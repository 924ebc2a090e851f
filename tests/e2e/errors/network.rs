//! CNI plugins that fail, hang, or do not answer as they should.

use std::fs;
use std::time::{Duration, Instant};

use corten_tests::wait::slowness;
use corten_tests::{Kubelet, Result, Setup, eventually, on_own_node};
use k8s_cri::v1 as wire;

/// Puts a plugin of these lines in the place of the bridge and runs a pod, which is refused.
async fn refused(kubelet: &Kubelet, script: &str) -> Result<tonic::Status> {
    let network = kubelet.node().network();
    network.write_script("20-test.conflist", "broken", script)?;
    fs::remove_file(network.conf_dir().join("10-bridge.conflist"))?;
    // Pods run until the new configuration is seen.
    let status = eventually("the plugin is used", async || {
        let request = kubelet.pod().request().await?;
        match corten_tests::Pod::run(kubelet, request).await {
            Err(status) => Ok(Some(status)),
            Ok(pod) => {
                pod.remove().await?;
                Ok(None)
            }
        }
    })
    .await?;
    assert_eq!(fs::read_dir(kubelet.node().dir().join("netns"))?.count(), 0, "a network namespace is left");
    Ok(status)
}

#[test]
fn a_plugin_that_fails_is_quoted_and_undone() {
    on_own_node(&Setup::default(), async |kubelet| {
        let asked = kubelet.node().dir().join("asked");
        let script = format!(
            "echo $CNI_COMMAND >> {}\n[ $CNI_COMMAND = ADD ] || exit 0\n\
             echo '{{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"no address is free\"}}'\nexit 1",
            asked.display()
        );
        let status = refused(kubelet, &script).await?;
        assert!(status.message().contains("no address is free"), "{status}");
        assert!(status.message().contains("broken"), "the plugin is not named: {status}");
        let asked = fs::read_to_string(asked)?;
        assert!(asked.lines().any(|line| line == "DEL"), "a failed ADD is not undone: {asked}");
        Ok(())
    });
}

#[test]
fn a_plugin_that_hangs_is_ended() {
    let setup = Setup { config: "[cni]\nplugin_timeout_seconds = 2\n".to_owned() };
    on_own_node(&setup, async |kubelet| {
        let began = Instant::now();
        let status = refused(kubelet, "[ $CNI_COMMAND = DEL ] && exit 0\nsleep 87654 & sleep 87654").await?;
        assert!(began.elapsed() < Duration::from_secs(30) * slowness(), "{:?}", began.elapsed());
        assert!(status.message().contains("broken"), "{status}");
        eventually("the plugin is gone", async || {
            let ps = std::process::Command::new("ps").args(["-eo", "args"]).output()?;
            Ok((!String::from_utf8_lossy(&ps.stdout).contains("sleep 87654")).then_some(()))
        })
        .await
    });
}

#[test]
fn while_a_plugin_hangs_lists_answer_and_show_no_half_made_pod() {
    on_own_node(&Setup::default(), async |kubelet| {
        refused(kubelet, "[ $CNI_COMMAND = ADD ] || exit 0\nexit 1").await?;
        let (asked, go) = (kubelet.node().dir().join("asked"), kubelet.node().dir().join("go"));
        let script = format!(
            "[ $CNI_COMMAND = ADD ] || exit 0\ntouch {}\nwhile [ ! -e {} ]; do sleep 0.02; done\nexit 1",
            asked.display(),
            go.display()
        );
        kubelet.node().network().write_script("20-test.conflist", "broken", &script)?;
        let (request, mut runtime) = (kubelet.pod().request().await?, kubelet.cri().runtime);
        let running = tokio::spawn(async move { runtime.run_pod_sandbox(request).await });
        eventually("the plugin is asked", async || Ok(asked.exists().then_some(()))).await?;
        assert_eq!(kubelet.pods(wire::PodSandboxFilter::default()).await?, []);
        let request = wire::ListPodSandboxStatsRequest::default();
        assert_eq!(kubelet.cri().runtime.list_pod_sandbox_stats(request).await?.into_inner().stats, []);
        assert!(!running.is_finished(), "nobody asked while the plugin hung");
        fs::write(&go, "")?;
        assert!(running.await?.is_err());
        Ok(())
    });
}

#[test]
fn a_plugin_that_answers_nonsense_is_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        let status = refused(kubelet, "echo 'certainly!'").await?;
        assert!(status.message().contains("broken"), "{status}");
        Ok(())
    });
}

#[test]
fn a_plugin_that_is_missing_is_named() {
    on_own_node(&Setup::default(), async |kubelet| {
        let network = kubelet.node().network();
        network.write_script("20-test.conflist", "absent-plugin", "exit 0")?;
        fs::remove_file(network.bin_dir().join("absent-plugin"))?;
        fs::remove_file(network.conf_dir().join("10-bridge.conflist"))?;
        let status = eventually("the new configuration is used", async || {
            let request = kubelet.pod().request().await?;
            Ok(corten_tests::Pod::run(kubelet, request).await.err())
        })
        .await?;
        assert!(status.message().contains("absent-plugin"), "{status}");
        // What could not be undone without the plugin is listed, so that the kubelet tries again.
        network.write_script("20-test.conflist", "absent-plugin", "exit 0")?;
        for pod in kubelet.pods(wire::PodSandboxFilter::default()).await? {
            kubelet.remove_pod(&pod.id).await?;
        }
        Ok(())
    });
}

#[test]
fn a_configuration_that_is_no_json_does_not_hide_a_good_one() {
    on_own_node(&Setup::default(), async |kubelet| {
        fs::write(kubelet.node().network().conf_dir().join("05-broken.conflist"), "{not json")?;
        let pod = kubelet.pod().run().await?;
        assert!(pod.ip().await?.starts_with(&kubelet.node().network().prefix()));
        Ok(())
    });
}
