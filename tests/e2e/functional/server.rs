//! What the server says of itself, and how it starts and ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context, ensure};
use corten_tests::registry::BUSYBOX;
use corten_tests::wait::slowness;
use corten_tests::{Result, Setup, eventually, on_node, on_own_node};
use k8s_cri::v1 as wire;
use tonic::Code;

#[test]
fn version_names_the_runtime_with_numeric_versions() {
    on_node(async |kubelet| {
        let request = wire::VersionRequest { version: String::new() };
        let version = kubelet.cri().runtime.version(request).await?.into_inner();
        assert!(!version.version.is_empty());
        assert!(!version.runtime_name.is_empty());
        assert_eq!(version.runtime_api_version, "v1");
        let numeric = version.runtime_version.trim_start_matches('v').split(['.', '-', '~', '+']).next();
        numeric.context("a first number")?.parse::<u32>().context("a numeric version")?;
        Ok(())
    });
}

#[test]
fn status_reports_the_runtime_and_the_network_ready() {
    on_node(async |kubelet| {
        let request = wire::StatusRequest { verbose: true };
        let answer = kubelet.cri().runtime.status(request).await?.into_inner();
        for name in ["RuntimeReady", "NetworkReady"] {
            let conditions = &answer.status.as_ref().context("a status")?.conditions;
            let condition = conditions.iter().find(|condition| condition.r#type == name);
            let condition = condition.with_context(|| format!("the condition {name}"))?;
            assert!(condition.status, "{condition:?}");
        }
        for (key, value) in &answer.info {
            ensure!(
                serde_json::from_str::<serde_json::Value>(value).is_ok() || !value.is_empty(),
                "{key} is neither JSON nor text"
            );
        }
        Ok(())
    });
}

#[test]
fn runtime_config_names_the_cgroup_driver() {
    on_node(async |kubelet| {
        let config = kubelet.cri().runtime.runtime_config(wire::RuntimeConfigRequest {}).await?.into_inner();
        config.linux.context("the Linux part")?;
        // The other way there is nothing to say: addresses are the plugins' business.
        let request =
            wire::UpdateRuntimeConfigRequest { runtime_config: Some(wire::RuntimeConfig::default()) };
        kubelet.cri().runtime.update_runtime_config(request).await?;
        Ok(())
    });
}

#[test]
fn handlers_tell_their_features_and_one_is_the_default() {
    on_node(async |kubelet| {
        let answer = kubelet.cri().runtime.status(wire::StatusRequest { verbose: false }).await?.into_inner();
        let mut names: Vec<_> = answer.runtime_handlers.iter().map(|handler| handler.name.as_str()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a handler is named twice");
        assert!(names.contains(&""), "no handler is the default");
        assert!(answer.features.context("features")?.supplemental_groups_policy);
        Ok(())
    });
}

#[test]
fn the_socket_is_for_root_and_its_group_alone() {
    on_own_node(&Setup::default(), async |kubelet| {
        let socket = kubelet.node().socket();
        assert_eq!(fs::metadata(socket)?.permissions().mode() & 0o777, 0o660);
        let dir = socket.parent().context("a directory")?;
        assert_eq!(fs::metadata(dir)?.permissions().mode() & 0o777, 0o711);
        assert_eq!(fs::metadata(kubelet.node().root())?.permissions().mode() & 0o077, 0);
        Ok(())
    });
}

#[test]
fn what_is_not_built_answers_unimplemented() {
    on_own_node(&Setup::default(), async |kubelet| {
        let request = wire::CheckpointContainerRequest { container_id: "x".to_owned(), ..Default::default() };
        let status = kubelet.cri().runtime.checkpoint_container(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        Ok(())
    });
}

#[test]
fn readiness_is_told_to_systemd() {
    on_own_node(&Setup::default(), async |kubelet| {
        let node = kubelet.node();
        kubelet.stop_daemon().await?;
        let path = node.dir().join("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_secs(20) * slowness()))?;
        let mut serve = node.serve()?;
        let mut child = serve.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "150000").spawn()?;
        let receive = || -> Result<String> {
            let mut text = [0; 1024];
            let length = socket.recv(&mut text).context("a message to systemd")?;
            Ok(String::from_utf8_lossy(&text[..length]).into_owned())
        };
        // Ready, and then, again and again, alive.
        let told: Result<Vec<_>> = (0..3).map(|_| receive()).collect();
        child.kill()?;
        child.wait()?;
        assert_eq!(told?, ["READY=1\n", "WATCHDOG=1\n", "WATCHDOG=1\n"]);
        node.start_daemon()?;
        Ok(())
    });
}

#[test]
fn the_default_configuration_is_a_valid_one() {
    on_own_node(&Setup::default(), async |kubelet| {
        let text = kubelet.node().cli(&["config", "default"])?.output()?;
        assert!(text.status.success());
        let path = kubelet.node().dir().join("default.toml");
        fs::write(&path, &text.stdout)?;
        let path = path.to_str().context("a path in UTF-8")?;
        let check = kubelet.node().cli(&["config", "check", path])?.output()?;
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        Ok(())
    });
}

#[test]
fn a_stopped_daemon_ends_well_and_leaves_its_pods_running() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let pid = container.pid().await?;
        kubelet.stop_daemon().await?;
        assert!(corten_tests::host::is_alive(pid));
        kubelet.node().start_daemon()?;
        assert_eq!(container.status().await?.state(), wire::ContainerState::ContainerRunning);
        assert_eq!(container.pid().await?, pid);
        Ok(())
    });
}

#[test]
fn sighup_reads_the_configuration_again_and_a_bad_one_changes_nothing() {
    on_own_node(&Setup::default(), async |kubelet| {
        let node = kubelet.node();
        let drop_in = node.dir().join("config.toml.d/60-again.toml");
        let pid = nix::unistd::Pid::from_raw(node.daemon_pid()?);
        let read_again = async |text: &str, word: &str| -> Result {
            let position = node.log_position();
            fs::write(&drop_in, text)?;
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP)?;
            eventually(&format!("the log says {word:?}"), async || {
                Ok(node.log_since(position).contains(word).then_some(()))
            })
            .await
        };
        let image = kubelet.image(BUSYBOX).await?;
        let pinned =
            async || -> Result<bool> { Ok(kubelet.image_status(&image).await?.context("the image")?.pinned) };
        let pod = kubelet.pod().run().await?;
        let limit = async || -> Result<_> { pod.container().start().await?.sh("ulimit -n").await };
        assert!(!pinned().await?);

        // Both the same: runc's own program raises the one to the other, and may be late to take that back.
        let good =
            "[pod]\nrlimits = { RLIMIT_NOFILE = [1111, 1111] }\n[image]\npinned = [\"registry.k8s.io/*\"]\n";
        read_again(good, "was read again").await?;
        assert!(pinned().await?);
        assert_eq!(limit().await?, "1111");
        let answer = kubelet.cri().runtime.status(wire::StatusRequest { verbose: true }).await?.into_inner();
        let config: serde_json::Value = serde_json::from_str(&answer.info["config"])?;
        assert_eq!(config.pointer("/pod/rlimits/RLIMIT_NOFILE/0"), Some(&1111.into()), "the status tells");

        read_again("[pod]\nrlimits = 7\n", "rlimits").await?;
        assert_eq!(limit().await?, "1111");
        read_again("[cni]\nconf_dir = \"/elsewhere\"\n", "a restart has to change cni.conf_dir").await?;
        assert!(!pinned().await?, "what the file no longer says is the default again");
        assert_eq!(pid.as_raw(), node.daemon_pid()?);
        Ok(())
    });
}
