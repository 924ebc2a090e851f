//! What containers and clients can do to the daemon: 1G and 1H of the classes of known bugs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;

use anyhow::Context;
use corten_tests::wait::slowness;
use corten_tests::{Result, Setup, eventually, host, on_node, on_own_node, skip};
use k8s_cri::v1 as wire;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// A line of /proc/PID/status in KiB.
fn kib(pid: i32, name: &str) -> Result<u64> {
    let text = host::status_field(pid, name)?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// CVE-2022-1708, CVE-2022-31030: all commands together say more than the daemon is willing to hold. Each still ends,
/// with its exit code and the beginning of what it said.
#[test]
fn many_talkative_commands_do_not_fill_the_daemons_memory() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let daemon = kubelet.node().daemon_pid()?;
        let before = kib(daemon, "VmRSS")?;
        let timeout = 80 * i64::from(slowness());
        let talk = "echo >>/up; until [ -e /go ]; do usleep 1000; done; head -c 20000000 /dev/zero; exit 3";
        let execs: Vec<_> = (0..24)
            .map(|_| {
                let mut runtime = kubelet.cri().runtime;
                let cmd = ["sh", "-c", talk].map(str::to_owned).into();
                let request = wire::ExecSyncRequest { container_id: container.id.clone(), cmd, timeout };
                tokio::spawn(async move { runtime.exec_sync(request).await })
            })
            .collect();
        // They share what there is only while they all run.
        container.sh(": >>/up; until [ $(wc -l </up) = 24 ]; do usleep 1000; done; : >/go").await?;
        for exec in execs {
            let answer = exec.await??.into_inner();
            assert_eq!(answer.exit_code, 3);
            assert!(answer.stdout.len() >= 64 << 10, "{}", answer.stdout.len());
        }
        let most = kib(daemon, "VmHWM")?;
        assert!(most < before + (256 << 10), "{before} KiB have become {most}");
        // What was taken is given back.
        let output = container.exec(["sh", "-c", "head -c 10000000 /dev/zero"]).await?;
        assert_eq!(output.stdout.len(), 10_000_000);
        Ok(())
    });
}

/// tonic's RUSTSEC-2024-0376: the end of descriptors is not the end of the server.
#[test]
fn the_server_lives_on_when_descriptors_run_out() {
    on_own_node(&Setup::default(), async |kubelet| {
        let daemon = kubelet.node().daemon_pid()?;
        let files = || Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{daemon}/fd"))?.count());
        let limit = files()? + 4;
        let bound = Some(u64::try_from(limit)?);
        let pid = Pid::from_raw(daemon).context("a number")?;
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: bound, maximum: bound })?;
        let clients: Vec<_> =
            (0..30).map(|_| UnixStream::connect(kubelet.node().socket())).collect::<Result<_, _>>()?;
        // It cannot have more, whatever it tries.
        eventually("there are no descriptors left", async || Ok((files()? + 1 >= limit).then_some(())))
            .await?;
        drop(clients);
        eventually("it answers again", async || {
            let version = kubelet.cri().runtime.version(wire::VersionRequest::default()).await;
            Ok(version.is_ok().then_some(()))
        })
        .await
    });
}

/// moby CVE-2024-41110: a request is looked at whole or not at all.
#[test]
fn a_request_that_is_too_large_is_refused_before_anybody_looks_at_it() {
    on_node(async |kubelet| {
        let large = "x".repeat(17 << 20);
        let before = kubelet.pods(wire::PodSandboxFilter::default()).await?.len();
        let refused =
            kubelet.pod().with(|config| drop(config.annotations.insert("large".to_owned(), large))).refused();
        let status = refused.await?;
        let codes = [tonic::Code::OutOfRange, tonic::Code::ResourceExhausted, tonic::Code::Internal];
        assert!(codes.contains(&status.code()), "{status}");
        assert!(kubelet.pods(wire::PodSandboxFilter::default()).await?.len() <= before + 8);
        kubelet.pod().run().await?;
        Ok(())
    });
}

/// 1H, CVE-2020-15257: no socket of ours can be reached by a name from the node's network.
#[test]
fn neither_daemon_nor_monitor_has_an_abstract_socket() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() {
            return skip("it looks at Corten's own processes");
        }
        let pod = kubelet.pod().host_network().run().await?;
        let container = pod.container().start().await?;
        let monitor = pod.info().await?["monitorPid"].as_i64().context("the monitor")?;
        let table = fs::read_to_string("/proc/net/unix")?;
        let mut fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let named = fields.by_ref().filter(|line| line.get(7).is_some_and(|name| name.starts_with('@')));
        let abstracts: BTreeSet<String> =
            named.filter_map(|line| Some(format!("socket:[{}]", line.get(6)?))).collect();
        for pid in [i64::from(kubelet.node().daemon_pid()?), monitor, container.pid().await?.into()] {
            for file in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
                let target = fs::read_link(file.path()).unwrap_or_default().display().to_string();
                assert!(!abstracts.contains(&target), "{pid} has {target}");
            }
        }
        Ok(())
    });
}
