//! Seccomp profiles.

use std::fs;

use anyhow::Context;
use corten_tests::{host, on_node};
use k8s_cri::v1 as wire;
use wire::security_profile::ProfileType;

fn profile(kind: ProfileType, path: &str) -> Option<wire::SecurityProfile> {
    Some(wire::SecurityProfile { profile_type: kind.into(), localhost_ref: path.to_owned() })
}

#[test]
fn the_default_profile_filters_and_unconfined_does_not() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for (kind, mode) in [(ProfileType::RuntimeDefault, "2"), (ProfileType::Unconfined, "0")] {
            let container =
                pod.container().security(|security| security.seccomp = profile(kind, "")).start().await?;
            assert_eq!(host::status_field(container.pid().await?, "Seccomp")?, mode, "{kind:?}");
        }
        let container = pod.container().start().await?;
        assert_eq!(host::status_field(container.pid().await?, "Seccomp")?, "0", "without a profile");
        Ok(())
    });
}

#[test]
fn the_default_profile_refuses_what_containers_must_not_do() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .security(|security| security.seccomp = profile(ProfileType::RuntimeDefault, ""))
            .start()
            .await?;
        for script in ["unshare -U true", "mount -t tmpfs x /tmp", "unshare -n true"] {
            let output = container.exec(["sh", "-c", script]).await?;
            assert_ne!(output.code, 0, "{script}: {output:?}");
        }
        container.sh("ls / >/dev/null; sleep 0; ping -c 1 127.0.0.1 >/dev/null; sync").await?;
        Ok(())
    });
}

#[test]
fn with_a_capability_the_default_profile_allows_what_belongs_to_it() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let add_capabilities = vec!["SYS_ADMIN".to_owned()];
        let container = pod
            .container()
            .security(|security| {
                security.seccomp = profile(ProfileType::RuntimeDefault, "");
                security.capabilities = Some(wire::Capability { add_capabilities, ..Default::default() });
            })
            .start()
            .await?;
        container.sh("hostname changed").await?;
        Ok(())
    });
}

#[test]
fn a_profile_of_the_node_is_applied() {
    on_node(async |kubelet| {
        let path = kubelet.node().dir().join(format!("profile-{}.json", kubelet.unique()));
        let json = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}],
        });
        fs::write(&path, json.to_string())?;
        let path = path.to_str().context("a path in UTF-8")?;
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .security(|security| security.seccomp = profile(ProfileType::Localhost, path))
            .start()
            .await?;
        let output = container.exec(["sh", "-c", "touch /file && chmod 0 /file"]).await?;
        assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
        Ok(())
    });
}

#[test]
fn a_missing_or_broken_profile_is_refused() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let dir = kubelet.node().dir();
        let broken = dir.join("broken.json");
        fs::write(&broken, "{\"defaultAction\": \"SCMP_ACT_SOMETIMES\"}")?;
        for path in [dir.join("absent.json"), broken] {
            let path = path.to_str().context("a path in UTF-8")?;
            pod.container()
                .security(|security| security.seccomp = profile(ProfileType::Localhost, path))
                .does_not_start()
                .await?;
        }
        Ok(())
    });
}

#[test]
fn a_privileged_container_is_not_filtered() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().privileged().run().await?;
        let container = pod
            .container()
            .security(|security| {
                security.privileged = true;
                security.seccomp = profile(ProfileType::RuntimeDefault, "");
            })
            .start()
            .await?;
        assert_eq!(host::status_field(container.pid().await?, "Seccomp")?, "0");
        Ok(())
    });
}
