//! Runtime handlers: pods that other OCI runtimes run, beside those of our own. That such pods do all that
//! others do is what the rest of the tests says, run with `CRI_HANDLER=runc`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use corten_tests::{Kubelet, Result, Setup, eventually, host, on_own_node};
use k8s_cri::v1 as wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program that answers `features` itself and leaves everything else to runc.
fn script(path: &Path, features: &str) -> Result {
    let runc = host::program("runc")?;
    let text = format!("#!/bin/sh\n[ \"$1\" = features ] && {features}\nexec {} \"$@\"\n", runc.display());
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Handlers of several kinds; `shy` knows no `features`, `bare` was built without some, and `old` has user namespaces
/// but no idmapped mounts, as runc has before 1.2.
fn setup() -> Result<(Setup, tempfile::TempDir)> {
    let runc = host::program("runc")?;
    let dir = tempfile::tempdir()?;
    let [shy, bare, old] = ["shy", "bare", "old"].map(|name| dir.path().join(name));
    script(&shy, "exit 1")?;
    let told = r#"{"linux":{"seccomp":{"enabled":false},"mountExtensions":{"idmap":{"enabled":true}}}}"#;
    script(&bare, &format!("echo '{told}' && exit 0"))?;
    script(&old, r#"echo '{"linux":{"namespaces":["user"]}}' && exit 0"#)?;
    let missing = dir.path().join("missing");
    let config = format!(
        "[runtimes.other]\npath = {runc:?}\n\n[runtimes.shy]\npath = {shy:?}\n\n[runtimes.bare]\n\
         path = {bare:?}\n\n[runtimes.old]\npath = {old:?}\n\n[runtimes.missing]\n\
         path = {missing:?}\ntype = \"oci\"\n\n[runtimes.own]\ntype = \"native\"\n"
    );
    Ok((Setup { config }, dir))
}

fn with_handlers(test: impl AsyncFnOnce(&Kubelet, &std::path::Path) -> Result) {
    let (setup, dir) = setup().expect("write the handlers");
    on_own_node(&setup, async |kubelet| test(kubelet, dir.path()).await);
}

/// What is mounted or written for containers of other runtimes.
fn bundles(kubelet: &Kubelet) -> Result<usize> {
    let state = kubelet.node().state();
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = mounts.lines().filter(|line| line.contains(&format!("{}/", state.display())));
    Ok(mounted.filter(|line| line.contains("/bundles/")).count())
}

#[test]
fn each_pod_has_the_handler_that_it_asks_for() {
    with_handlers(async |kubelet, _| {
        for (name, comm) in [("other", "runc"), ("own", "corten"), ("corten", "corten"), ("", "corten")] {
            let pod = kubelet.pod().handler(name).run().await?;
            let container = pod.container().sh("sleep 1000").create().await?;
            // What waits for the start is of the one or of the other.
            let program = fs::read_to_string(format!("/proc/{}/comm", container.pid().await?))?;
            assert!(program.contains(comm), "{name:?}: {program}");
            container.start().await?;
            assert_eq!(container.sh("echo in").await?, "in");
            assert_eq!(pod.status().await?.runtime_handler, name);
            assert_eq!(bundles(kubelet)?, usize::from(comm == "runc"), "{name:?}");
            pod.remove().await?;
            assert_eq!(bundles(kubelet)?, 0, "{name:?}");
        }
        Ok(())
    });
}

#[test]
fn features_are_those_that_a_runtime_tells() {
    with_handlers(async |kubelet, _| {
        let answer = kubelet.cri().runtime.status(wire::StatusRequest { verbose: true }).await?.into_inner();
        let recursive = |name: &str| {
            let handler = answer.runtime_handlers.iter().find(|handler| handler.name == name)?;
            Some(handler.features.as_ref()?.recursive_read_only_mounts)
        };
        assert_eq!(recursive("other"), Some(true));
        assert_eq!(recursive("shy"), Some(false));
        assert_eq!(recursive("missing"), Some(false));
        let users = |name: &str| {
            let handler = answer.runtime_handlers.iter().find(|handler| handler.name == name)?;
            Some(handler.features.as_ref()?.user_namespaces)
        };
        let program = host::program("runc")?;
        assert_eq!(users("other"), Some(users("own") == Some(true) && host::maps_users(&program)?));
        assert_eq!([users("shy"), users("old"), users("missing")], [Some(false); 3]);
        let told: serde_json::Value = serde_json::from_str(answer.info.get("handlers").context("handlers")?)?;
        assert_eq!(told["other"]["ready"], true);
        assert_eq!(told["missing"]["ready"], false, "{told}");
        assert!(told["missing"]["problem"].to_string().contains("No such file"), "{told}");
        let pod = kubelet.pod().handler("shy").run().await?;
        let dir = kubelet.node().dir().display().to_string();
        let refused = pod
            .container()
            .mount(&dir, "/data", |mount| {
                mount.readonly = true;
                mount.recursive_read_only = true;
            })
            .refused()
            .await?;
        assert!(refused.message().contains("RROUnsupported"), "{refused}");
        assert!(refused.message().contains("shy"), "{refused}");
        assert_eq!(pod.output("echo hi").await?, ["hi"]);
        Ok(())
    });
}

#[test]
fn what_a_runtime_does_not_have_is_refused_and_the_rest_runs() {
    with_handlers(async |kubelet, _| {
        for (name, lacked) in [
            ("shy", "linux.namespaces of its features"),
            ("bare", "linux.namespaces of its features"),
            ("old", "idmapped mounts"),
        ] {
            let ids = wire::IdMapping { host_id: 1 << 24, container_id: 0, length: 1 << 16 };
            let users = wire::UserNamespace {
                mode: wire::NamespaceMode::Pod.into(),
                uids: vec![ids],
                gids: vec![ids],
            };
            let pod = kubelet.pod().handler(name).namespaces(|it| it.userns_options = Some(users));
            let refused = pod.refused().await?;
            assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
            for part in [name, "user namespaces", lacked] {
                assert!(refused.message().contains(part), "{part}: {refused}");
            }
            let pod = kubelet.pod().handler(name).run().await?;
            let profile = wire::security_profile::ProfileType::RuntimeDefault.into();
            let profile = wire::SecurityProfile { profile_type: profile, localhost_ref: String::new() };
            let confined = pod.container().security(|security| security.seccomp = Some(profile));
            let refused = confined.create().await.err().map(|error| format!("{error:#}"));
            let is_expected = match &refused {
                Some(reason) => name == "bare" && reason.contains("seccomp"),
                None => name != "bare",
            };
            assert!(is_expected, "{name}: {refused:?}");
            assert_eq!(pod.output("echo runs").await?, ["runs"], "{name}");
        }
        Ok(())
    });
}

#[test]
fn a_handler_without_its_program_is_refused_until_it_is_there() {
    with_handlers(async |kubelet, dir| {
        let status = kubelet.pod().handler("missing").refused().await?;
        assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("missing"), "{status}");
        std::os::unix::fs::symlink(host::program("runc")?, dir.join("missing"))?;
        let pod = kubelet.pod().handler("missing").run().await?;
        assert_eq!(pod.output("echo there").await?, ["there"]);
        Ok(())
    });
}

#[test]
fn a_refusal_of_the_runtime_is_told_in_its_words() {
    with_handlers(async |kubelet, dir| {
        let pod = kubelet.pod().handler("other").run().await?;
        let status = pod.container().command(["/no/such/command"]).does_not_start().await?;
        assert!(status.message().contains("/no/such/command"), "{status}");
        assert!(status.message().contains("no such file or directory"), "{status}");
        // A file where the container has a directory.
        let file = dir.join("file");
        fs::write(&file, "")?;
        let status = pod.container().mount(&file.display().to_string(), "/etc", |_| {}).refused().await?;
        assert!(status.message().contains("not a directory"), "{status}");
        assert_eq!(bundles(kubelet)?, 0);
        Ok(())
    });
}

#[test]
fn a_handler_that_is_configured_no_more_leaves_nothing() {
    with_handlers(async |kubelet, dir| {
        let link = dir.join("missing");
        std::os::unix::fs::symlink(host::program("runc")?, &link)?;
        let pod = kubelet.pod().handler("missing").run().await?;
        let container = pod.container().sh("sleep 1000").start().await?;
        let pid = container.pid().await?;
        kubelet.node().kill_daemon()?;
        fs::remove_file(&link)?;
        kubelet.node().start_daemon()?;
        assert!(host::is_alive(pid));
        pod.remove().await?;
        assert!(!host::is_alive(pid));
        assert_eq!(bundles(kubelet)?, 0);
        Ok(())
    });
}

#[test]
fn a_container_of_another_runtime_ends_with_its_monitor() {
    with_handlers(async |kubelet, _| {
        let pod = kubelet.pod().handler("other").run().await?;
        let running = pod.container().sh("sleep 1000").start().await?;
        let waiting = pod.container().sh("sleep 1000").create().await?;
        let pids = [running.pid().await?, waiting.pid().await?];
        let monitor: i32 = host::status_field(pids[0], "PPid")?.parse()?;
        kubelet.node().kill_daemon()?;
        kill(Pid::from_raw(monitor), Signal::SIGKILL)?;
        for pid in pids {
            eventually("it ends with its monitor", async || Ok((!host::is_alive(pid)).then_some(()))).await?;
        }
        kubelet.node().start_daemon()?;
        let status = running.exited().await?;
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        assert_eq!(bundles(kubelet)?, 0);
        Ok(())
    });
}
