//! Pods whose runtime makes a sandbox for each, with runsc: the pod is in it, and nothing of it on the node is
//! anything else. For whoever asks by the CRI they are pods like others.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use corten_tests::registry::BUSYBOX;
use corten_tests::streaming::Transport;
use corten_tests::{Kubelet, Pod, Result, Setup, eventually, host, on_own_node};
use k8s_cri::v1 as wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::port_forward;

/// runsc as the handler of that name, told of by a script that writes down what it is asked.
fn setup() -> Result<(Setup, tempfile::TempDir)> {
    let runsc = host::program("runsc")?;
    let dir = tempfile::tempdir()?;
    let (script, calls) = (dir.path().join("runsc"), dir.path().join("calls"));
    // Debian 12's knows the node's network by a file that kernels since 6.11 show in every network.
    let is_new =
        Command::new("unshare").args(["-n", "test", "-e", "/proc/sys/net/core/rmem_default"]).status()?;
    let flags = if is_new.success() { "--network=host" } else { "" };
    let text =
        format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} {flags} \"$@\"\n", calls.display(), runsc.display());
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let config = format!(
        "[runtimes.runsc]\npath = {script:?}\ntype = \"sandboxed\"\nannotations = [\"dev.gvisor.*\"]\n"
    );
    Ok((Setup { config }, dir))
}

fn with_sandboxes(test: impl AsyncFnOnce(&Kubelet, &Path) -> Result) {
    let (setup, dir) = setup().expect("write the handler");
    on_own_node(&setup, async |kubelet| test(kubelet, dir.path()).await);
}

/// The processes of runsc for the pods of this node, by what they do: of a sandbox, of a root file system, or waiting.
fn processes(kubelet: &Kubelet) -> Result<Vec<(i32, String)>> {
    let state = kubelet.node().state().display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
        // It may end meanwhile.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        if words.iter().any(|word| word.contains(&state)) && words[0].contains("runsc") {
            found.push((pid, words[0].clone().into_owned()));
        }
    }
    Ok(found)
}

/// What runsc was asked so far, its verbs alone.
fn calls(dir: &Path) -> Result<Vec<String>> {
    const VERBS: [&str; 8] = ["create", "start", "exec", "kill", "wait", "delete", "features", "events"];
    let text = fs::read_to_string(dir.join("calls"))?;
    let verb = |line: &str| line.split(' ').find(|word| VERBS.contains(word)).map(str::to_owned);
    Ok(text.lines().filter_map(verb).collect())
}

/// Nothing of runsc, and no mount of a bundle.
async fn nothing_is_left(kubelet: &Kubelet) -> Result {
    let state = kubelet.node().state().display().to_string();
    eventually("runsc is gone", async || Ok(processes(kubelet)?.is_empty().then_some(()))).await?;
    eventually("no bundle is mounted", async || {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut bundles = mounts.lines().filter(|line| line.contains(&state) && line.contains("/bundles/"));
        Ok(bundles.next().is_none().then_some(()))
    })
    .await
}

#[test]
fn a_pod_lives_in_a_sandbox_of_its_own() {
    with_sandboxes(async |kubelet, dir| {
        let pod = kubelet.pod().handler("runsc").run().await?;
        assert_eq!(pod.status().await?.runtime_handler, "runsc");
        let container = pod.container().sh("echo out; echo err >&2; exec sleep 1000").start().await?;
        container.says("out").await?;
        // The two streams are read apart, and neither waits for the other.
        let err = async || Ok((container.lines("stderr")? == ["err"]).then_some(()));
        eventually("the other stream says its line", err).await?;
        // Another kernel than the node's answers.
        assert_ne!(container.sh("cat /proc/version").await?, fs::read_to_string("/proc/version")?.trim());
        let output = container.exec(["sh", "-c", "echo in; echo bad >&2; exit 5"]).await?;
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (5, "in\n", "bad\n"));
        let name = pod.config.hostname.clone();
        assert_eq!(pod.output("echo second; hostname").await?, ["second".to_owned(), name]);
        let ended = pod.container().sh("exit 23").start().await?.exited().await?;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (23, "Error"));
        // One sandbox for all of them.
        let calls = calls(dir)?;
        assert_eq!(calls[..6], ["features", "create", "start", "create", "start", "wait"]);
        let sandboxes = processes(kubelet)?.into_iter().filter(|(_, name)| name == "runsc-sandbox");
        assert_eq!(sandboxes.count(), 1);
        pod.remove().await?;
        nothing_is_left(kubelet).await
    });
}

#[test]
fn signals_reach_what_is_in_a_sandbox() {
    with_sandboxes(async |kubelet, _| {
        let pod = kubelet.pod().handler("runsc").run().await?;
        let script = "trap 'echo term; exit 9' TERM; echo ready; while true; do sleep 0.1; done";
        let polite = pod.container().sh(script).start().await?;
        let stubborn = pod.container().sh("trap '' TERM; echo ready; while true; do sleep 0.1; done");
        let stubborn = stubborn.start().await?;
        let waiting = pod.container().create().await?;
        polite.says("ready").await?;
        stubborn.says("ready").await?;
        polite.stop(Duration::from_secs(60)).await?;
        assert_eq!(polite.status().await?.exit_code, 9);
        assert_eq!(polite.lines("stdout")?.last().map(String::as_str), Some("term"));
        let began = Instant::now();
        stubborn.stop(Duration::from_secs(2)).await?;
        assert!(began.elapsed() >= Duration::from_secs(2));
        assert_eq!(stubborn.status().await?.exit_code, 128 + 9);
        waiting.stop(Duration::from_secs(60)).await?;
        assert_eq!(waiting.status().await?.state(), wire::ContainerState::ContainerExited);
        let container = pod.container().start().await?;
        let refused = container.exec_for(Duration::from_secs(1), ["sleep", "777"]).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::DeadlineExceeded);
        eventually("the command over its deadline is gone from the sandbox", async || {
            Ok((!container.sh("ps").await?.contains("sleep 777")).then_some(()))
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_sandbox_outlives_the_daemon_and_not_its_monitor() {
    with_sandboxes(async |kubelet, _| {
        let pod = kubelet.pod().handler("runsc").run().await?;
        let running = pod.container().sh("while true; do date +%s%N; sleep 0.1; done").start().await?;
        let ending = pod.container().sh("while [ ! -e /end ]; do sleep 0.05; done; exit 7").start().await?;
        let waiting = pod.container().sh("echo started; sleep 1000").create().await?;
        running.says("1").await?;
        let (pid, before) = (running.pid().await?, running.lines("stdout")?.len());
        let monitor: i32 = host::status_field(pid, "PPid")?.parse()?;
        ending.exec(["sh", "-c", "(sleep 1; touch /end) > /dev/null 2>&1 &"]).await?;
        kubelet.node().kill_daemon()?;
        eventually("it writes on", async || Ok((running.lines("stdout")?.len() > before + 10).then_some(())))
            .await?;
        kubelet.node().start_daemon()?;
        assert_eq!(ending.exited().await?.exit_code, 7);
        assert_eq!(pod.status().await?.state(), wire::PodSandboxState::SandboxReady);
        assert_eq!(running.sh("echo still").await?, "still");
        waiting.start().await?;
        waiting.says("started").await?;
        kill(Pid::from_raw(monitor), Signal::SIGKILL)?;
        for container in [&running, &waiting] {
            let status = container.exited().await?;
            assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        }
        nothing_is_left(kubelet).await?;
        pod.remove().await?;
        Ok(())
    });
}

#[test]
fn a_pod_ends_with_its_sandbox() {
    with_sandboxes(async |kubelet, _| {
        let pod = kubelet.pod().handler("runsc").run().await?;
        let container = pod.container().start().await?;
        let all = processes(kubelet)?;
        let sandbox = all.iter().find(|(_, name)| name == "runsc-sandbox").context("the sandbox")?;
        kill(Pid::from_raw(sandbox.0), Signal::SIGKILL)?;
        let status = container.exited().await?;
        assert_ne!(status.exit_code, 0);
        eventually("the pod is not ready", async || {
            Ok((pod.status().await?.state() == wire::PodSandboxState::SandboxNotready).then_some(()))
        })
        .await?;
        nothing_is_left(kubelet).await?;
        pod.remove().await?;
        Ok(())
    });
}

#[test]
fn what_a_sandbox_was_begun_for_and_not_finished_is_taken_down() {
    with_sandboxes(async |kubelet, _| {
        kubelet.image(BUSYBOX).await?;
        for wait in [20, 100, 200, 300, 400] {
            let request = kubelet.pod().handler("runsc").request().await?;
            let begun = Pod::run(kubelet, request);
            let killed = async {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                kubelet.node().kill_daemon()
            };
            let (_, killed) = tokio::join!(begun, killed);
            killed?;
            kubelet.node().start_daemon()?;
            let pods = kubelet.cri().runtime.list_pod_sandbox(wire::ListPodSandboxRequest::default()).await?;
            for pod in pods.into_inner().items {
                kubelet.remove_pod(&pod.id).await?;
            }
            nothing_is_left(kubelet).await?;
        }
        Ok(())
    });
}

#[test]
fn the_pods_share_what_they_ask_for() {
    with_sandboxes(async |kubelet, dir| {
        let data = dir.join("data");
        fs::create_dir(&data)?;
        let pod = kubelet
            .pod()
            .handler("runsc")
            .namespaces(|options| options.pid = wire::NamespaceMode::Pod.into())
            .with(|config| drop(config.annotations.insert("dev.gvisor.test".into(), "told".into())))
            .run()
            .await?;
        let first = pod.container().mount(&data.display().to_string(), "/data", |_| {}).start().await?;
        let second = pod.container().sh("sleep 4321").start().await?;
        first.sh("echo from within > /data/file; ps | grep -q 'sleep 4321'").await?;
        assert_eq!(fs::read_to_string(data.join("file"))?, "from within\n");
        assert_eq!(second.exec(["id", "-u"]).await?.stdout, "0\n");
        let bundles = kubelet.node().state().join("pods").join(&pod.id).join("bundles");
        for (id, kind) in [(&pod.id, "sandbox"), (&first.id, "container")] {
            let text = fs::read(bundles.join(id).join("config.json"))?;
            let annotations = &serde_json::from_slice::<serde_json::Value>(&text)?["annotations"];
            assert_eq!(annotations["io.kubernetes.cri.container-type"], kind);
            assert_eq!(annotations["io.kubernetes.cri.sandbox-id"], *pod.id);
            assert_eq!(annotations["dev.gvisor.test"], "told");
        }
        let refused = pod.container().mount("/tmp", "/tmp", |mount| {
            mount.propagation = wire::MountPropagation::PropagationHostToContainer.into();
        });
        let refused = refused.refused().await?;
        assert!(refused.message().contains("mount propagation"), "{refused}");
        let host_pid = kubelet.pod().handler("runsc");
        let host_pid = host_pid.namespaces(|options| options.pid = wire::NamespaceMode::Node.into());
        let refused = host_pid.refused().await?;
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("PID namespace"), "{refused}");
        Ok(())
    });
}

#[test]
fn a_port_of_the_nodes_network_is_reached_through_a_sandbox_that_uses_it() {
    with_sandboxes(async |kubelet, _| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let server = std::thread::spawn(move || -> Result {
            let (mut client, _) = listener.accept()?;
            client.read_exact(&mut [0; 5])?;
            Ok(client.write_all(b"from the node")?)
        });
        let pod = kubelet.pod().handler("runsc");
        let pod = pod.namespaces(|options| options.network = wire::NamespaceMode::Node.into()).run().await?;
        let mut spdy = port_forward::connect(Transport::Spdy, &pod).await?;
        let (said, error) = port_forward::page(&mut spdy, port, 0).await?;
        assert_eq!((said.as_str(), error.as_str()), ("from the node", ""));
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    });
}

#[test]
fn mistakes_in_a_sandbox_are_told() {
    with_sandboxes(async |kubelet, _| {
        let pod = kubelet.pod().handler("runsc").run().await?;
        let status = pod.container().command(["/no/such/command"]).does_not_start().await?;
        assert!(status.message().contains("/no/such/command"), "{status}");
        let container = pod.container().start().await?;
        let output = container.exec(["/no/such/command"]).await;
        let told = format!("{output:?}");
        assert!(told.contains("/no/such/command"), "{told}");
        assert_eq!(container.sh("echo on").await?, "on");
        Ok(())
    });
}
