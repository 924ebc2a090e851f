//! Requests that cannot be fulfilled.

use std::time::Duration;

use anyhow::Context;
use corten_tests::image::{Image, Layer};
use corten_tests::origin::Origin;
use corten_tests::{Container, Pod, Setup, on_node, on_own_node, skip};
use k8s_cri::v1 as wire;
use serde_json::json;
use tonic::Code;

#[test]
fn an_unknown_runtime_handler_is_refused_by_name() {
    on_node(async |kubelet| {
        let status = kubelet.pod().handler("no-such-handler").refused().await?;
        assert!(status.message().contains("no-such-handler"), "{status}");
        if kubelet.node().is_own() {
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        }
        Ok(())
    });
}

#[test]
fn a_container_without_a_command_is_refused() {
    on_node(async |kubelet| {
        let image = Image::new(&json!({}), vec![Layer::new().file("file", b"")])?;
        let reference = Origin::start()?.offer("commandless", &image);
        let pod = kubelet.pod().run().await?;
        let status = pod.container().image(&reference).refused().await?;
        assert!(status.message().contains("command"), "{status}");
        if kubelet.node().is_own() {
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        }
        Ok(())
    });
}

#[test]
fn a_command_that_the_image_lacks_fails_at_the_start_and_is_reported() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for (command, word) in [
            ("/no/such/command", "no such file or directory"),
            ("no-such-command", "not found"),
            ("/etc/passwd", "permission denied"),
        ] {
            let container = pod.container().command([command]).create().await?;
            let status = container.start().await.unwrap_err();
            let message = status.message().to_lowercase();
            assert!(message.contains(word) && message.contains(command), "{status}");
            let ended = container.status().await?;
            assert_eq!(ended.state(), wire::ContainerState::ContainerExited);
            assert_eq!((ended.exit_code, ended.reason.as_str()), (128, "StartError"));
            assert!(ended.message.contains(command), "{}", ended.message);
        }
        Ok(())
    });
}

#[test]
fn numbers_that_are_no_users_are_refused() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        if !kubelet.node().is_own() {
            return skip("other runtimes take such a number for a name");
        }
        for user in ["4294967296", "-1", "99999999999999999999", "0x0", "1000:-5"] {
            let image = Image::on(
                corten_tests::registry::BUSYBOX,
                &json!({"User": user, "Cmd": ["id"], "Env": ["PATH=/bin"]}),
                vec![Layer::new().file("etc/passwd", format!("{user}:x:0:0::/:/bin/sh\n").as_bytes())],
            );
            let reference = Origin::start()?.offer(&format!("user{}", kubelet.unique()), &image?);
            let status = pod.container().image(&reference).refused().await.context(user)?;
            assert_eq!(status.code(), Code::InvalidArgument, "{user}: {status}");
        }
        Ok(())
    });
}

#[test]
fn a_user_that_the_image_does_not_have_is_named() {
    on_own_node(&Setup::default(), async |kubelet| {
        let image = Image::on(
            corten_tests::registry::BUSYBOX,
            &json!({"User": "stranger", "Cmd": ["id"], "Env": ["PATH=/bin"]}),
            vec![],
        )?;
        let reference = Origin::start()?.offer("stranger", &image);
        let pod = kubelet.pod().run().await?;
        let status = pod.container().image(&reference).refused().await?;
        assert!(status.message().contains("stranger"), "{status}");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        Ok(())
    });
}

#[test]
fn the_same_asked_for_twice_at_once_is_made_once() {
    on_own_node(&Setup::default(), async |kubelet| {
        let request = kubelet.pod().request().await?;
        let (first, second) = tokio::join!(Pod::run(kubelet, request.clone()), Pod::run(kubelet, request));
        let (pod, second) = (first?, second?);
        assert_eq!(pod.id, second.id);
        let request = pod.container().request().await?;
        let (first, second) =
            tokio::join!(Container::create(&pod, request.clone()), Container::create(&pod, request));
        assert_eq!(first?.id, second?.id);
        assert_eq!(kubelet.containers(wire::ContainerFilter::default()).await?.len(), 1);
        Ok(())
    });
}

#[test]
fn a_name_in_use_is_refused_with_the_id_that_has_it() {
    on_own_node(&Setup::default(), async |kubelet| {
        let mut request = kubelet.pod().request().await?;
        let pod = Pod::run(kubelet, request.clone()).await?;
        request.config.get_or_insert_default().hostname = "another".to_owned();
        let status = Pod::run(kubelet, request).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        assert!(status.message().contains(&pod.id), "{status}");

        let mut request = pod.container().request().await?;
        let container = Container::create(&pod, request.clone()).await?;
        request.config.get_or_insert_default().command = vec!["true".to_owned()];
        let status = Container::create(&pod, request).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        assert!(status.message().contains(&container.id), "{status}");
        Ok(())
    });
}

#[test]
fn a_pod_whose_caller_left_is_had_by_asking_again() {
    on_own_node(&Setup::default(), async |kubelet| {
        let network = kubelet.node().network();
        // The bridge, after a while.
        let plugin = "[ $CNI_COMMAND = ADD ] && sleep 1\nexec /usr/lib/cni/bridge";
        std::fs::create_dir_all(network.bin_dir())?;
        network.write_script("99-unused.conflist", "slow", plugin)?;
        let mut list = network.bridge();
        list["plugins"][0]["type"] = json!("slow");
        network.write("10-bridge.conflist", &list)?;
        let request = kubelet.pod().request().await?;
        let took = corten_tests::eventually("the slow plugin is used", async || {
            let began = std::time::Instant::now();
            kubelet.pod().run().await?.remove().await?;
            Ok((began.elapsed() > Duration::from_secs(1)).then(|| began.elapsed()))
        })
        .await?;
        let hasty =
            tokio::time::timeout(Duration::from_millis(200), Pod::run(kubelet, request.clone())).await;
        assert!(hasty.is_err(), "it took {took:?} before, and nothing now");
        let pod = Pod::run(kubelet, request).await?;
        let listed = kubelet.pods(wire::PodSandboxFilter::default()).await?;
        assert_eq!(listed.iter().map(|one| &one.id).collect::<Vec<_>>(), [&pod.id]);
        Ok(())
    });
}

#[test]
fn ids_that_do_not_exist_are_not_found() {
    on_node(async |kubelet| {
        let id = "0badcafe".repeat(8);
        let mut runtime = kubelet.cri().runtime;
        let codes = [
            runtime
                .pod_sandbox_status(wire::PodSandboxStatusRequest {
                    pod_sandbox_id: id.clone(),
                    verbose: true,
                })
                .await
                .map(drop),
            runtime
                .container_status(wire::ContainerStatusRequest { container_id: id.clone(), verbose: true })
                .await
                .map(drop),
            runtime.start_container(wire::StartContainerRequest { container_id: id.clone() }).await.map(drop),
            runtime
                .exec_sync(wire::ExecSyncRequest {
                    container_id: id.clone(),
                    cmd: vec!["x".into()],
                    timeout: 1,
                })
                .await
                .map(drop),
            runtime.container_stats(wire::ContainerStatsRequest { container_id: id.clone() }).await.map(drop),
            runtime
                .reopen_container_log(wire::ReopenContainerLogRequest { container_id: id.clone() })
                .await
                .map(drop),
            runtime
                .update_container_resources(wire::UpdateContainerResourcesRequest {
                    container_id: id.clone(),
                    linux: Some(wire::LinuxContainerResources { cpu_shares: 2, ..Default::default() }),
                    ..Default::default()
                })
                .await
                .map(drop),
        ];
        for (call, result) in codes.into_iter().enumerate() {
            let status = result.unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "call {call}: {status}");
            assert!(status.message().contains(&id), "call {call}: {status}");
        }
        let pod = kubelet.pod().run().await?;
        let mut request = pod.container().request().await?;
        request.pod_sandbox_id = id;
        let status = Container::create(&pod, request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        Ok(())
    });
}

#[test]
fn a_stopped_pod_takes_no_new_container() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let created = pod.container().create().await?;
        pod.stop().await?;
        pod.container().refused().await?;
        assert!(created.start().await.is_err());
        Ok(())
    });
}

#[test]
fn requests_that_lack_what_they_need_are_invalid_arguments() {
    on_own_node(&Setup::default(), async |kubelet| {
        let mut runtime = kubelet.cri().runtime;
        let empty = wire::RunPodSandboxRequest::default();
        assert_eq!(runtime.run_pod_sandbox(empty).await.unwrap_err().code(), Code::InvalidArgument);
        let status = kubelet.pod().with(|config| config.metadata = None).refused().await?;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let pod = kubelet.pod().run().await?;
        let bad: [fn(&mut wire::ContainerConfig); 6] = [
            |config| config.metadata = None,
            |config| config.image = None,
            |config| config.log_path = "../outside.log".to_owned(),
            |config| config.mounts.push(wire::Mount { host_path: "/tmp".into(), ..Default::default() }),
            |config| config.working_dir = "relative".to_owned(),
            |config| config.envs.push(wire::KeyValue { key: "A=B\0".into(), value: String::new() }),
        ];
        for (number, change) in bad.into_iter().enumerate() {
            let mut request = pod.container().request().await?;
            change(request.config.get_or_insert_default());
            let status = Container::create(&pod, request).await.map(|one| one.id).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "case {number}: {status}");
        }
        Ok(())
    });
}

#[test]
fn sysctls_that_are_not_the_pods_are_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
        for (name, value) in [
            ("kernel.core_pattern", "|/x"),
            ("vm.swappiness", "1"),
            ("net/../kernel/core_pattern", "|/x"),
            ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x"),
            ("fs.file-max", "1"),
        ] {
            let status = kubelet.pod().sysctl(name, value).refused().await?;
            assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status}");
        }
        let shared = kubelet.pod().host_network().sysctl("net.ipv4.ip_default_ttl", "9").refused().await?;
        assert_eq!(shared.code(), Code::InvalidArgument, "{shared}");
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern")?, pattern);
        Ok(())
    });
}

#[test]
fn what_is_not_honoured_yet_is_refused_by_name() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let device = wire::CdiDevice { name: "vendor.example/gpu=0".to_owned() };
        let status = pod.container().with(|config| config.cdi_devices.push(device)).refused().await?;
        assert!(status.message().to_lowercase().contains("cdi"), "{status}");
        Ok(())
    });
}

#[test]
fn a_start_that_fails_leaves_a_container_that_can_be_removed() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().command(["/no/such/command"]).create().await?;
        container.start().await.unwrap_err();
        container.stop(Duration::ZERO).await?;
        container.remove().await?;
        assert!(kubelet.containers(wire::ContainerFilter::default()).await?.is_empty());
        Ok(())
    });
}
