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

#[test]
fn a_profiles_arguments_and_error_numbers_count() {
    on_node(async |kubelet| {
        let path = kubelet.node().dir().join(format!("arguments-{}.json", kubelet.unique()));
        let mode = |index: u32| serde_json::json!([{"index": index, "value": 0, "op": "SCMP_CMP_EQ"}]);
        let json = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
            "syscalls": [
                {"names": ["chmod", "fchmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": mode(1)},
                {"names": ["fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": mode(2)},
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122},
            ],
        });
        fs::write(&path, json.to_string())?;
        let path = path.to_str().context("a path in UTF-8")?;
        let pod = kubelet.pod().run().await?;
        let container =
            pod.container().security(|security| security.seccomp = profile(ProfileType::Localhost, path));
        let container = container.start().await?;
        let output = container.exec(["sh", "-c", "touch /file; chmod 1 /file && chmod 0 /file"]).await?;
        assert!(output.stderr.contains("No space left"), "{output:?}");
        let output = container.exec(["mkdir", "/directory"]).await?;
        assert!(output.stderr.contains("Disk quota exceeded"), "{output:?}");
        Ok(())
    });
}

/// 1C, CVE-2023-2431 and its like: a profile is applied in every kind of container, and to what is run in it.
#[test]
fn a_profile_is_never_dropped_silently() {
    on_node(async |kubelet| {
        let dir = kubelet.node().dir();
        let file = |name: &str, text: &str| -> corten_tests::Result<String> {
            let path = dir.join(name);
            fs::write(&path, text)?;
            Ok(path.to_str().context("a path in UTF-8")?.to_owned())
        };
        let good = file(
            "good.json",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]}"#,
        )?;
        let notify = file(
            "notify.json",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_NOTIFY"}]}"#,
        )?;
        let huge = file(
            "huge.json",
            &format!("{{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"x\": \"{}\"}}", "x".repeat(8 << 20)),
        )?;
        let empty = file("empty.json", "")?;
        let ids = vec![wire::IdMapping { host_id: 500_000, container_id: 0, length: 65536 }];
        let users =
            wire::UserNamespace { mode: wire::NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids };
        let pods = [
            kubelet.pod().run().await?,
            kubelet.pod().namespaces(|options| options.userns_options = Some(users)).run().await?,
        ];
        for pod in &pods {
            for (kind, path) in [(ProfileType::RuntimeDefault, ""), (ProfileType::Localhost, good.as_str())] {
                let container = pod.container().security(|security| security.seccomp = profile(kind, path));
                let container = container.start().await?;
                assert_eq!(host::status_field(container.pid().await?, "Seccomp")?, "2", "{kind:?}");
                assert_eq!(
                    container.sh("grep ^Seccomp: /proc/self/status | tr -d '\\t'").await?,
                    "Seccomp:2"
                );
            }
            for path in ["", empty.as_str(), huge.as_str(), notify.as_str()] {
                let container = pod
                    .container()
                    .security(|security| security.seccomp = profile(ProfileType::Localhost, path));
                let status = container.refused().await?;
                assert!(status.message().contains("seccomp"), "{path:?}: {status}");
                assert!(path != notify || status.message().contains("SCMP_ACT_NOTIFY"), "{status}");
            }
        }
        Ok(())
    });
}
