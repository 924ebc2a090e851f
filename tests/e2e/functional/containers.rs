//! Containers: their life, from made to removed, and how they end.

use std::time::{Duration, Instant};

use corten_tests::image::Image;
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::wait::slowness;
use corten_tests::{Container, Result, eventually, host, newest, on_node};
use k8s_cri::v1 as wire;
use tonic::Code;

#[test]
fn a_container_goes_from_created_to_running_to_exited() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .sh("exit 7")
            .with(|config| {
                config.labels.insert("label".to_owned(), "value".to_owned());
                config.annotations.insert("note".to_owned(), "kept".to_owned());
            })
            .create()
            .await?;
        let created = container.status().await?;
        assert_eq!(created.state(), wire::ContainerState::ContainerCreated);
        assert_eq!((created.started_at, created.finished_at), (0, 0));
        assert!(created.created_at > 0);
        container.start().await?;
        let exited = container.exited().await?;
        assert_eq!(exited.exit_code, 7);
        assert_eq!(exited.reason, "Error");
        assert!(exited.created_at <= exited.started_at && exited.started_at <= exited.finished_at);
        assert_eq!(exited.labels.get("label").map(String::as_str), Some("value"));
        assert_eq!(exited.annotations.get("note").map(String::as_str), Some("kept"));
        assert_eq!(exited.log_path, container.log_path().display().to_string());
        Ok(())
    });
}

#[test]
fn an_exit_without_an_error_is_completed() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().command(["true"]).start().await?;
        let exited = container.exited().await?;
        assert_eq!((exited.exit_code, exited.reason.as_str()), (0, "Completed"));
        Ok(())
    });
}

#[test]
fn an_end_by_a_signal_is_128_and_its_number() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh("trap 'exit 3' USR1; sleep 1000 & wait").start().await?;
        // PID 1 of its namespace dies of no signal that it does not handle, but of the host's KILL.
        let pid = nix::unistd::Pid::from_raw(container.pid().await?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        let exited = container.exited().await?;
        assert_eq!((exited.exit_code, exited.reason.as_str()), (137, "Error"));
        Ok(())
    });
}

#[test]
fn stop_asks_with_term_and_reports_the_answer() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container =
            pod.container().sh("trap 'echo asked; exit 42' TERM; echo up; sleep 1000 & wait").start().await?;
        container.says("up").await?;
        container.stop(Duration::from_secs(60)).await?;
        let exited = container.status().await?;
        assert_eq!(exited.state(), wire::ContainerState::ContainerExited);
        assert_eq!(exited.exit_code, 42);
        assert!(container.lines("stdout")?.contains(&"asked".to_owned()));
        container.stop(Duration::ZERO).await?;
        Ok(())
    });
}

#[test]
fn stop_kills_when_the_grace_is_over() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh("trap '' TERM; echo up; sleep 1000 & wait; wait").start().await?;
        container.says("up").await?;
        let began = Instant::now();
        container.stop(Duration::from_secs(2)).await?;
        assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
        assert_eq!(container.status().await?.exit_code, 137);
        Ok(())
    });
}

#[test]
fn a_later_stop_with_less_grace_shortens_the_first() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh("trap '' TERM; echo up; sleep 1000 & wait; wait").start().await?;
        container.says("up").await?;
        let began = Instant::now();
        let patient = container.stop(Duration::from_secs(100_000));
        let hasty = async {
            container.says("up").await?;
            container.stop(Duration::from_secs(1)).await?;
            Ok::<_, anyhow::Error>(())
        };
        let (patient, hasty) = tokio::join!(patient, hasty);
        patient?;
        hasty?;
        assert!(began.elapsed() < Duration::from_secs(20) * slowness(), "{:?}", began.elapsed());
        Ok(())
    });
}

/// An image whose containers are to be stopped by this signal, and the registry that has it.
fn image_with_stop_signal(signal: &str) -> Result<(Origin, String)> {
    let config = serde_json::json!({"StopSignal": signal, "Env": ["PATH=/bin:/usr/bin"]});
    let image = Image::on(BUSYBOX, &config, vec![])?;
    let origin = Origin::start()?;
    let reference = origin.offer("stopsignal", &image);
    Ok((origin, reference))
}

#[test]
fn the_images_stop_signal_is_used() {
    on_node(async |kubelet| {
        let (_origin, reference) = image_with_stop_signal("SIGUSR2")?;
        let pod = kubelet.pod().run().await?;
        let script = "trap 'exit 5' USR2; trap 'exit 6' TERM; echo up; sleep 1000 & wait";
        let container = pod.container().image(&reference).sh(script).start().await?;
        container.says("up").await?;
        container.stop(Duration::from_secs(30)).await?;
        assert_eq!(container.status().await?.exit_code, 5);
        Ok(())
    });
}

#[test]
fn the_requests_stop_signal_goes_over_the_images() {
    on_node(async |kubelet| {
        let (_origin, reference) = image_with_stop_signal("SIGUSR2")?;
        let pod = kubelet.pod().run().await?;
        let script = "trap 'exit 4' USR1; trap 'exit 5' USR2; echo up; sleep 1000 & wait";
        let request = pod.container().image(&reference).sh(script).request().await?;
        let mut request: newest::CreateContainerRequest = newest::same(&request)?;
        request.config.get_or_insert_default().stop_signal = newest::Signal::Sigusr1.into();
        let container = Container::create_newest(&pod, request).await?;
        container.start().await?;
        assert_eq!(container.newest_status().await?.stop_signal(), newest::Signal::Sigusr1);
        container.says("up").await?;
        container.stop(Duration::from_secs(30)).await?;
        assert_eq!(container.status().await?.exit_code, 4);
        Ok(())
    });
}

#[test]
fn a_paused_container_is_running_and_is_thawed_to_be_stopped() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done";
        let container = pod.container().sh(script).start().await?;
        container.says("up").await?;
        container.cgroup().await?.freeze()?;
        assert_eq!(container.status().await?.state(), wire::ContainerState::ContainerRunning);
        let began = Instant::now();
        container.stop(Duration::from_secs(100_000)).await?;
        assert!(began.elapsed() < Duration::from_secs(30) * slowness(), "{:?}", began.elapsed());
        assert_eq!(container.status().await?.exit_code, 3);
        let container = pod.container().sh(script).start().await?;
        container.cgroup().await?.freeze()?;
        container.stop(Duration::ZERO).await?;
        assert_eq!(container.status().await?.exit_code, 137);
        Ok(())
    });
}

#[test]
fn processes_that_a_container_leaves_end_with_it() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh("sleep 1234567 & echo $!; sleep 1000").start().await?;
        let pid = container.pid().await?;
        container.says("").await?;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child: i32 = children.split_whitespace().next().unwrap_or_default().parse()?;
        container.stop(Duration::ZERO).await?;
        assert!(!host::is_alive(child));
        assert!(!host::is_alive(pid));
        Ok(())
    });
}

#[test]
fn a_stop_goes_on_without_its_caller() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "trap 'echo asked' TERM; echo up; while true; do usleep 10000; done";
        let container = pod.container().sh(script).start().await?;
        container.says("up").await?;
        let request = wire::StopContainerRequest { container_id: container.id.clone(), timeout: 2 };
        let mut runtime = kubelet.cri().runtime;
        let stop = tokio::spawn(async move { runtime.stop_container(request).await });
        container.says("asked").await?;
        stop.abort();
        assert_eq!(container.exited().await?.exit_code, 137);
        Ok(())
    });
}

/// Where the container's first process is not PID 1 of a namespace, nobody ends the others for us.
#[test]
fn processes_that_a_container_leaves_end_with_it_in_a_shared_namespace_too() {
    on_node(async |kubelet| {
        for mode in [wire::NamespaceMode::Pod, wire::NamespaceMode::Node] {
            let pod = kubelet.pod().namespaces(|options| options.pid = mode.into()).run().await?;
            let mark = format!("9{:06}", kubelet.unique());
            let script = format!("setsid sleep {mark} & echo up; read line");
            let container = pod.container().sh(&script).with(|config| config.stdin = true).start().await?;
            container.says("up").await?;
            let there = || -> Result<bool> {
                let output = std::process::Command::new("ps").args(["-eo", "args"]).output()?;
                Ok(String::from_utf8_lossy(&output.stdout).contains(&format!("sleep {mark}")))
            };
            eventually("it runs", async || Ok(there()?.then_some(()))).await?;
            container.stop(Duration::ZERO).await?;
            eventually("it ends", async || Ok((!there()?).then_some(()))).await?;
        }
        Ok(())
    });
}

#[test]
fn a_removed_container_is_gone_and_removing_it_again_is_no_error() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let created = pod.container().create().await?;
        let running = pod.container().start().await?;
        let stopped = pod.container().start().await?;
        stopped.stop(Duration::ZERO).await?;
        for container in [&created, &running, &stopped] {
            let (one, other) = tokio::join!(container.remove(), container.remove());
            one.and(other)?;
            container.remove().await?;
            assert!(container.log_path().exists(), "the log is the kubelet's");
            let request = wire::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
            let status = kubelet.cri().runtime.container_status(request).await.unwrap_err();
            assert_eq!(status.code(), Code::NotFound);
        }
        Ok(())
    });
}

#[test]
fn an_unknown_container_is_stopped_and_removed_without_an_error() {
    on_node(async |kubelet| {
        let container_id = "f00d".repeat(16);
        let mut runtime = kubelet.cri().runtime;
        let request = wire::StopContainerRequest { container_id: container_id.clone(), timeout: 1 };
        runtime.stop_container(request).await?;
        runtime.remove_container(wire::RemoveContainerRequest { container_id }).await?;
        Ok(())
    });
}

#[test]
fn containers_are_listed_by_id_state_pod_and_labels_together() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let running = pod.container().with(|config| drop(config.labels.insert("k".into(), "a".into())));
        let running = running.start().await?;
        let created = pod.container().with(|config| drop(config.labels.insert("k".into(), "b".into())));
        let created = created.create().await?;
        let base = || wire::ContainerFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
        let ids = async |filter| -> corten_tests::Result<Vec<String>> {
            let mut ids: Vec<_> = kubelet.containers(filter).await?.into_iter().map(|one| one.id).collect();
            ids.sort_unstable();
            Ok(ids)
        };
        let mut both = vec![running.id.clone(), created.id.clone()];
        both.sort_unstable();
        assert_eq!(ids(base()).await?, both);
        let state = Some(wire::ContainerStateValue { state: wire::ContainerState::ContainerRunning.into() });
        assert_eq!(ids(wire::ContainerFilter { state, ..base() }).await?, [running.id.as_str()]);
        let by_id = wire::ContainerFilter { id: created.id[..16].to_owned(), ..base() };
        assert_eq!(ids(by_id).await?, [created.id.as_str()]);
        let label_selector = [("k".to_owned(), "b".to_owned())].into();
        let filter = wire::ContainerFilter { label_selector, ..base() };
        assert_eq!(ids(filter).await?, [created.id.as_str()]);
        let filter = wire::ContainerFilter { id: running.id.clone(), state, ..base() };
        assert_eq!(ids(filter).await?, [running.id.as_str()]);
        let filter = wire::ContainerFilter { id: created.id.clone(), state, ..base() };
        assert!(ids(filter).await?.is_empty());
        Ok(())
    });
}

#[test]
fn a_container_starts_only_once() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        assert!(container.start().await.is_err());
        assert_eq!(container.status().await?.state(), wire::ContainerState::ContainerRunning);
        Ok(())
    });
}

#[test]
fn the_writable_layer_lasts_as_long_as_the_container() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let first = pod.container().start().await?;
        first.sh("echo hello > /written; rm /bin/ls; ln -s x /linked").await?;
        assert_eq!(first.sh("cat /written; readlink /linked").await?, "hello\nx");
        let second = pod.container().start().await?;
        let output = second.exec(["sh", "-c", "ls /bin/ls; cat /written"]).await?;
        assert_eq!(output.stdout, "/bin/ls\n");
        Ok(())
    });
}

#[test]
fn a_container_of_the_next_attempt_takes_the_name() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let request = pod.container().sh("exit 1").request().await?;
        let first = corten_tests::Container::create(&pod, request.clone()).await?;
        first.start().await?;
        first.exited().await?;
        let mut again = request;
        again.config.get_or_insert_default().metadata.get_or_insert_default().attempt = 1;
        let second = corten_tests::Container::create(&pod, again).await?;
        second.start().await?;
        assert_ne!(first.id, second.id);
        Ok(())
    });
}
