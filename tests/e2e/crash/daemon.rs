//! `kill -9` of the daemon.

use std::time::{Duration, Instant};

use anyhow::Context;
use corten_tests::registry::BUSYBOX;
use corten_tests::wait::slowness;
use corten_tests::{Kubelet, Result, Setup, eventually, host, on_own_node};
use k8s_cri::v1 as wire;

#[test]
fn containers_and_their_output_go_on_without_the_daemon() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "i=0; while true; do i=$((i+1)); echo $i; usleep 20000; done";
        let container = pod.container().sh(script).start().await?;
        container.says("3").await?;
        let pid = container.pid().await?;
        kubelet.node().kill_daemon()?;
        assert!(host::is_alive(pid));
        let then = container.lines("stdout")?.len();
        eventually("the log grows while no daemon runs", async || {
            Ok((container.lines("stdout")?.len() > then + 20).then_some(()))
        })
        .await?;
        kubelet.node().start_daemon()?;
        let status = container.status().await?;
        assert_eq!(status.state(), wire::ContainerState::ContainerRunning);
        assert_eq!(container.pid().await?, pid);
        assert_eq!(pod.status().await?.state(), wire::PodSandboxState::SandboxReady);
        assert_eq!(container.sh("echo still here").await?, "still here");
        let lines = container.lines("stdout")?;
        assert!(lines.iter().enumerate().all(|(at, line)| *line == (at + 1).to_string()), "a line is lost");
        Ok(())
    });
}

#[test]
fn an_exit_while_no_daemon_runs_is_recorded_with_its_time() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let go = kubelet.node().dir().join("go");
        std::fs::create_dir(&go)?;
        let container = pod
            .container()
            .sh("while [ ! -e /go/now ]; do usleep 10000; done; exit 23")
            .mount(&go.display().to_string(), "/go", |mount| mount.selinux_relabel = true)
            .start()
            .await?;
        let record = kubelet.node().state().join("pods").join(&pod.id).join("exit").join(&container.id);
        kubelet.node().kill_daemon()?;
        std::fs::write(go.join("now"), "")?;
        eventually("its end is recorded", async || Ok(record.exists().then_some(()))).await?;
        let ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        kubelet.node().start_daemon()?;
        let status = container.status().await?;
        assert_eq!(status.state(), wire::ContainerState::ContainerExited);
        assert_eq!((status.exit_code, status.reason.as_str()), (23, "Error"));
        let finished = u128::try_from(status.finished_at)?;
        assert!(
            finished <= ended && finished + 5_000_000_000 * u128::from(slowness()) > ended,
            "{finished} and {ended}"
        );
        Ok(())
    });
}

#[test]
fn everything_is_adopted_at_once_with_what_was_said_of_it() {
    on_own_node(&Setup::default(), async |kubelet| {
        kubelet.image(BUSYBOX).await?;
        let pod = kubelet
            .pod()
            .with(|config| drop(config.labels.insert("label".to_owned(), "value".to_owned())))
            .run()
            .await?;
        let stopped = kubelet.pod().run().await?;
        stopped.stop().await?;
        let created = pod.container().create().await?;
        let running = pod.container().limits(|limits| limits.cpu_shares = 333).start().await?;
        let exited = pod.container().sh("exit 5").start().await?;
        exited.exited().await?;
        let statuses = async || -> Result<Vec<wire::ContainerStatus>> {
            Ok(vec![created.status().await?, running.status().await?, exited.status().await?])
        };
        let (before, pods) = (statuses().await?, (pod.status().await?, stopped.status().await?));
        let images = kubelet.cri().images.list_images(wire::ListImagesRequest::default()).await?.into_inner();
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        assert_eq!(statuses().await?, before);
        assert_eq!((pod.status().await?, stopped.status().await?), pods);
        let again = kubelet.cri().images.list_images(wire::ListImagesRequest::default()).await?.into_inner();
        assert_eq!(again, images);
        // What was made before can be gone on with after.
        created.start().await?;
        assert_eq!(created.sh("echo alive").await?, "alive");
        running.stop(Duration::ZERO).await?;
        assert_eq!(running.status().await?.exit_code, 137);
        Ok(())
    });
}

#[test]
fn a_stop_under_way_ends_on_time_without_the_daemon() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .sh("trap 'echo asked' TERM; echo up; while true; do usleep 10000; done")
            .start()
            .await?;
        container.says("up").await?;
        let pid = container.pid().await?;
        let mut runtime = kubelet.cri().runtime;
        let request = wire::StopContainerRequest { container_id: container.id.clone(), timeout: 2 };
        let began = Instant::now();
        let stop = tokio::spawn(async move { runtime.stop_container(request).await });
        container.says("asked").await?;
        kubelet.node().kill_daemon()?;
        assert!(stop.await?.is_err(), "the call died with the daemon");
        assert!(host::is_alive(pid));
        eventually("the container is killed", async || Ok((!host::is_alive(pid)).then_some(()))).await?;
        assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
        kubelet.node().start_daemon()?;
        assert_eq!(container.status().await?.exit_code, 137);
        Ok(())
    });
}

#[test]
fn an_exec_over_its_time_is_ended_without_the_daemon() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let mut runtime = kubelet.cri().runtime;
        let cmd = ["sh", "-c", "echo $$ > /exec; exec sleep 1000"].map(str::to_owned).into();
        let request = wire::ExecSyncRequest { container_id: container.id.clone(), cmd, timeout: 2 };
        let exec = tokio::spawn(async move { runtime.exec_sync(request).await });
        let inner = eventually("the exec runs", async || {
            let output = container.exec(["cat", "/exec"]).await?;
            Ok(Some(output.stdout.trim().to_owned()).filter(|pid| !pid.is_empty()))
        })
        .await?;
        kubelet.node().kill_daemon()?;
        assert!(exec.await?.is_err());
        kubelet.node().start_daemon()?;
        eventually("the exec is ended", async || {
            let output = container.exec(["test", "-e", &format!("/proc/{inner}")]).await?;
            Ok((output.code != 0).then_some(()))
        })
        .await?;
        Ok(())
    });
}

/// Kills the daemon a little later each time, in the middle of one whole life of a pod.
async fn killed_after(kubelet: &Kubelet, delay: Duration) -> Result {
    let request = kubelet.pod().request().await?;
    let life = async {
        let pod = corten_tests::Pod::run(kubelet, request.clone()).await?;
        let create = pod.container().request().await?;
        let container = corten_tests::Container::create(&pod, create).await?;
        container.start().await?;
        container.exec(["true"]).await?;
        container.stop(Duration::ZERO).await?;
        pod.remove().await?;
        Ok::<_, anyhow::Error>(())
    };
    // The calls fail when the daemon dies under them.
    tokio::time::timeout(delay, life).await.ok();
    kubelet.node().kill_daemon()?;
    kubelet.node().start_daemon()?;
    let uid = request.config.as_ref().and_then(|config| config.metadata.clone()).context("metadata")?.uid;
    for pod in kubelet.pods(wire::PodSandboxFilter::default()).await? {
        if pod.metadata.as_ref().is_some_and(|metadata| metadata.uid == uid) {
            kubelet.remove_pod(&pod.id).await?;
        }
    }
    Ok(())
}

#[test]
fn killed_at_any_moment_of_a_pods_life_it_leaves_nothing_behind() {
    on_own_node(&Setup::default(), async |kubelet| {
        kubelet.image(BUSYBOX).await?;
        for step in 0..24 {
            killed_after(kubelet, Duration::from_millis(5 + step * 13)).await?;
        }
        let left = kubelet.pods(wire::PodSandboxFilter::default()).await?;
        assert!(left.is_empty(), "{left:?}");
        // The node's end counts what is left: mounts, processes, cgroups, addresses, files.
        Ok(())
    });
}

#[test]
fn a_pull_that_was_cut_off_is_begun_anew() {
    on_own_node(&Setup::default(), async |kubelet| {
        let origin = corten_tests::origin::Origin::start()?;
        let layer = corten_tests::image::Layer::new().file("big", &vec![7; 1 << 20]);
        let image = corten_tests::image::Image::new(&serde_json::json!({}), vec![layer])?;
        let reference = origin.offer("cut", &image);
        origin.spoil_blob("cut", &image.blobs[0].0, corten_tests::origin::Fault::Stalled);
        let mut images = kubelet.cri().images;
        let request = wire::PullImageRequest {
            image: Some(corten_tests::kubelet::spec(&reference)),
            ..Default::default()
        };
        let pull = tokio::spawn(async move { images.pull_image(request).await });
        eventually("the layer is asked for", async || {
            Ok((origin.fetches(&image.blobs[0].0) > 0).then_some(()))
        })
        .await?;
        kubelet.node().kill_daemon()?;
        assert!(pull.await?.is_err());
        kubelet.node().start_daemon()?;
        assert_eq!(kubelet.image_status(&reference).await?, None);
        origin.release();
        kubelet.pull(&reference).await?;
        assert!(kubelet.image_status(&reference).await?.is_some());
        Ok(())
    });
}
