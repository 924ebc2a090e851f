//! ExecSync: probes and lifecycle hooks.

use std::time::{Duration, Instant};

use corten_tests::wait::slowness;
use corten_tests::{host, on_node};
use k8s_cri::v1 as wire;
use tonic::Code;

#[test]
fn exec_gives_both_streams_and_the_exit_code() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let output = container.exec(["sh", "-c", "echo out; echo err >&2; exit 3"]).await?;
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (3, "out\n", "err\n"));
        let output = container.exec(["true"]).await?;
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "", ""));
        let output = container.exec(["sh", "-c", "kill -9 $$"]).await?;
        assert_eq!(output.code, 137);
        Ok(())
    });
}

#[test]
fn exec_runs_as_the_container_does() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .user(1234)
            .with(|config| {
                config.working_dir = "/var/log".to_owned();
                config.envs.push(wire::KeyValue { key: "MINE".to_owned(), value: "yes".to_owned() });
            })
            .security(|security| security.supplemental_groups = vec![7777])
            .start()
            .await?;
        let script = "id -u; id -G | tr ' ' '\\n' | grep 7777; pwd; echo $MINE; hostname";
        let hostname = &pod.config.hostname;
        assert_eq!(container.sh(script).await?, format!("1234\n7777\n/var/log\nyes\n{hostname}"));
        let pid = container.pid().await?;
        for field in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"] {
            let inside = container.sh(&format!("grep {field}: /proc/self/status | cut -f2")).await?;
            assert_eq!(inside, host::status_field(pid, field)?, "{field}");
        }
        let own = container.sh("cd /proc/self/ns; readlink net; readlink mnt; readlink pid").await?;
        let init = ["net", "mnt", "pid"].map(|name| {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}"));
            link.map(|link| link.display().to_string()).unwrap_or_default()
        });
        assert_eq!(own, init.join("\n"));
        Ok(())
    });
}

#[test]
fn exec_shares_the_cgroups_of_the_container() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let cgroup = container.cgroup().await?;
        let sleeper = tokio::spawn({
            let mut runtime = kubelet.cri().runtime;
            let cmd = ["sleep", "65432"].map(str::to_owned).into();
            let request = wire::ExecSyncRequest { container_id: container.id.clone(), cmd, timeout: 60 };
            async move { runtime.exec_sync(request).await }
        });
        let find = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q '^sleep 65432' && \
                    cat $p/cgroup; done; true";
        let text = corten_tests::eventually("the exec runs", async || {
            Ok(Some(container.sh(find).await?).filter(|text| !text.is_empty()))
        })
        .await?;
        // Inside, v2 paths are relative to the cgroup namespace; the last component tells enough.
        let memory = cgroup.path("memory")?;
        let leaf = memory.rsplit('/').next().unwrap_or_default();
        assert!(text.contains(leaf) || text.lines().all(|line| line.ends_with(":/")), "{text} has no {leaf}");
        container.stop(Duration::ZERO).await?;
        // The exec ends with its container, whatever it answers.
        drop(sleeper.await?);
        Ok(())
    });
}

#[test]
fn exec_over_its_time_is_deadline_exceeded_and_leaves_no_process() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let began = Instant::now();
        let command = ["sh", "-c", "sleep 76543 & sleep 76543; echo no"];
        let status = container.exec_for(Duration::from_secs(1), command).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(began.elapsed() < Duration::from_secs(10) * slowness(), "{:?}", began.elapsed());
        corten_tests::eventually("the whole tree of the exec is gone", async || {
            let left = container.exec(["sh", "-c", "ps -o args | grep -c '[s]leep 76543'"]).await?;
            Ok((left.stdout == "0\n").then_some(()))
        })
        .await?;
        assert_eq!(container.status().await?.state(), wire::ContainerState::ContainerRunning);
        Ok(())
    });
}

#[test]
fn exec_does_not_wait_for_a_child_in_the_background() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let began = Instant::now();
        // The child holds standard output open.
        let output = container.exec(["sh", "-c", "sleep 100000 & echo started"]).await?;
        assert_eq!((output.code, output.stdout.as_str()), (0, "started\n"));
        assert!(began.elapsed() < Duration::from_secs(30) * slowness(), "{:?}", began.elapsed());
        Ok(())
    });
}

#[test]
fn exec_caps_its_output_and_lets_the_command_finish() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let script = "dd if=/dev/zero bs=1M count=40 2>/dev/null; exit 9";
        let output = container.exec_for(Duration::from_secs(60), ["sh", "-c", script]).await?;
        assert_eq!(output.code, 9);
        assert!(output.stdout.len() > 1 << 20 && output.stdout.len() <= 16 << 20, "{}", output.stdout.len());
        Ok(())
    });
}

#[test]
fn many_execs_at_once_all_answer_their_own() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let execs: Vec<_> = (0..20)
            .map(|number| {
                let mut runtime = kubelet.cri().runtime;
                let cmd = vec!["echo".to_owned(), number.to_string()];
                let container_id = container.id.clone();
                let request = wire::ExecSyncRequest { container_id, cmd, timeout: 60 };
                tokio::spawn(async move { runtime.exec_sync(request).await })
            })
            .collect();
        for (number, exec) in execs.into_iter().enumerate() {
            let answer = exec.await??.into_inner();
            assert_eq!(String::from_utf8_lossy(&answer.stdout), format!("{number}\n"));
        }
        Ok(())
    });
}

#[test]
fn exec_of_an_absent_command_is_an_error_that_names_it() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let status = container.exec(["/no/such/command"]).await.unwrap_err();
        assert!(status.message().contains("/no/such/command"), "{status}");
        assert!(status.message().to_lowercase().contains("no such file or directory"), "{status}");
        Ok(())
    });
}

#[test]
fn exec_needs_a_running_container() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().create().await?;
        assert!(container.exec(["true"]).await.is_err());
        container.start().await?;
        container.exec(["true"]).await?;
        container.stop(Duration::ZERO).await?;
        assert!(container.exec(["true"]).await.is_err());
        let container_id = "f00d".repeat(16);
        let request = wire::ExecSyncRequest { container_id, cmd: vec!["true".to_owned()], timeout: 5 };
        let status = kubelet.cri().runtime.exec_sync(request).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        Ok(())
    });
}
