//! AppArmor profiles. Most of these tests need a kernel that has it on: hack/vm has.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use corten_tests::{Container, Kubelet, Result, Setup, host, on_node, on_own_node, skip};
use k8s_cri::v1 as wire;
use wire::security_profile::ProfileType;

const OWN: &str = "corten-default";

/// A loaded profile under which nothing can be written below `/tmp`; unloaded at its end.
struct Loaded {
    name: String,
}

impl Loaded {
    fn denying_writes(kubelet: &Kubelet) -> Result<Self> {
        let loaded = Self { name: format!("corten-test-{}-{}", std::process::id(), kubelet.unique()) };
        loaded.parse("--replace")?;
        Ok(loaded)
    }

    fn parse(&self, action: &str) -> Result {
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  network,\n  \
             signal,\n  ptrace,\n  mount,\n  umount,\n  deny /tmp/** w,\n}}\n",
            self.name
        );
        let mut parser = Command::new(host::program("apparmor_parser")?)
            .args([action, "--skip-cache", "--quiet"])
            .stdin(Stdio::piped())
            .spawn()
            .context("run apparmor_parser")?;
        parser.stdin.take().context("its standard input")?.write_all(text.as_bytes())?;
        ensure!(parser.wait()?.success(), "apparmor_parser {action} refuses {text}");
        Ok(())
    }

    fn unload(&self) -> Result {
        self.parse("--remove")
    }

    fn profile(&self) -> Option<wire::SecurityProfile> {
        localhost(&self.name)
    }

    fn enforced(&self) -> String {
        format!("{} (enforce)", self.name)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // One that a test has unloaded is no loss.
        self.unload().ok();
    }
}

fn profile(kind: ProfileType, name: &str) -> Option<wire::SecurityProfile> {
    Some(wire::SecurityProfile { profile_type: kind.into(), localhost_ref: name.to_owned() })
}

fn localhost(name: &str) -> Option<wire::SecurityProfile> {
    profile(ProfileType::Localhost, name)
}

/// What the kernel says that a process is confined to.
fn confinement(pid: i32) -> Result<String> {
    let path = format!("/proc/{pid}/attr/apparmor/current");
    Ok(fs::read_to_string(&path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

async fn of(container: &Container<'_>) -> Result<String> {
    confinement(container.pid().await?)
}

/// What a command in the container is confined to.
async fn of_exec(container: &Container<'_>) -> Result<String> {
    container.sh("cat /proc/self/attr/apparmor/current").await
}

fn on_apparmor(test: impl AsyncFnOnce(&Kubelet) -> Result) {
    on_node(async |kubelet| {
        if !host::has_apparmor() {
            return skip("this kernel has no AppArmor");
        }
        test(kubelet).await
    });
}

#[test]
fn a_profile_of_the_node_confines_the_command_and_what_is_executed_later() {
    on_apparmor(async |kubelet| {
        let loaded = Loaded::denying_writes(kubelet)?;
        let pod = kubelet.pod().run().await?;
        let written = pod
            .container()
            .sh("touch /root-file && touch /tmp/file")
            .security(|security| security.apparmor = loaded.profile())
            .start()
            .await?
            .exited()
            .await?;
        assert_ne!(written.exit_code, 0);
        let container =
            pod.container().security(|security| security.apparmor = loaded.profile()).start().await?;
        assert_eq!(of(&container).await?, loaded.enforced());
        assert_eq!(of_exec(&container).await?, loaded.enforced());
        container.sh("touch /elsewhere").await?;
        let refused = container.exec(["touch", "/tmp/file"]).await?;
        assert!(refused.code != 0 && refused.stderr.contains("denied"), "{refused:?}");
        Ok(())
    });
}

#[test]
fn what_names_no_profile_has_the_default_one() {
    on_apparmor(async |kubelet| {
        let pod = kubelet.pod().privileged().run().await?;
        let own = format!("{OWN} (enforce)");
        for (asked, privileged, expected) in [
            (None, false, own.as_str()),
            (profile(ProfileType::RuntimeDefault, ""), false, &own),
            (profile(ProfileType::Unconfined, ""), false, "unconfined"),
            (None, true, "unconfined"),
            (profile(ProfileType::RuntimeDefault, ""), true, "unconfined"),
        ] {
            let container = pod
                .container()
                .security(|security| (security.apparmor, security.privileged) = (asked.clone(), privileged))
                .start()
                .await?;
            assert_eq!(of(&container).await?, expected, "{asked:?} {privileged}");
            assert_eq!(of_exec(&container).await?, expected, "{asked:?} {privileged}");
        }
        Ok(())
    });
}

#[test]
fn under_the_default_profile_a_container_works_and_the_kernel_is_out_of_its_reach() {
    on_apparmor(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let add_capabilities = vec!["SYS_ADMIN".to_owned(), "SYS_PTRACE".to_owned()];
        let container = pod
            .container()
            .security(|security| {
                security.capabilities = Some(wire::Capability { add_capabilities, ..Default::default() });
            })
            .start()
            .await?;
        container.sh("echo x > /tmp/x && chmod 600 /tmp/x && ln /tmp/x /tmp/y && ls -l /proc/1/exe").await?;
        container.sh("(sleep 100 & kill $!); ping -c 1 127.0.0.1 >/dev/null").await?;
        for script in [
            "mount -t tmpfs none /mnt",
            "echo 1 > /proc/sys/kernel/panic",
            "echo /x > /proc/sys/kernel/modprobe",
            "cat /proc/sysrq-trigger",
            "cat /proc/kcore",
            "echo x > /sys/kernel/uevent_helper",
        ] {
            let output = container.exec(["sh", "-c", script]).await?;
            assert_ne!(output.code, 0, "{script}: {output:?}");
        }
        container.stop(std::time::Duration::from_secs(1)).await?;
        Ok(())
    });
}

#[test]
fn a_profile_that_is_not_loaded_makes_no_container() {
    on_apparmor(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let new = |context: &mut wire::LinuxContainerSecurityContext| {
            context.apparmor = localhost("no-such-profile");
        };
        #[expect(
            deprecated,
            reason = "the field that was replaced still counts where the new one is missing"
        )]
        let old = |context: &mut wire::LinuxContainerSecurityContext| {
            context.apparmor_profile = "localhost/no-such-profile".to_owned();
        };
        for refused in
            [pod.container().security(new).refused().await?, pod.container().security(old).refused().await?]
        {
            assert!(refused.message().contains("\"no-such-profile\" is not loaded"), "{refused}");
        }
        let of_pod = wire::ContainerFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
        assert_eq!(kubelet.containers(of_pod).await?.len(), 0);
        Ok(())
    });
}

#[test]
fn a_profile_that_was_unloaded_starts_nothing_and_executes_nothing() {
    on_apparmor(async |kubelet| {
        let loaded = Loaded::denying_writes(kubelet)?;
        let pod = kubelet.pod().run().await?;
        let with_profile = || pod.container().security(|security| security.apparmor = loaded.profile());
        let (created, running) = (with_profile().create().await?, with_profile().start().await?);
        loaded.unload()?;
        let refused = created.start().await.err().context("a container that started unconfined")?;
        assert!(refused.message().contains(&loaded.name), "{refused}");
        let refused = running.exec(["true"]).await.err().context("a command that ran unconfined")?;
        assert!(refused.message().contains(&loaded.name), "{refused}");
        Ok(())
    });
}

#[test]
fn what_a_container_has_mounted_on_proc_does_not_change_its_profile() {
    on_apparmor(async |kubelet| {
        let loaded = Loaded::denying_writes(kubelet)?;
        let fake = kubelet.node().dir().join(format!("fake-{}", kubelet.unique()));
        for name in ["self", "thread-self", "1", "1/task/1"] {
            for part in ["", "apparmor"] {
                let dir = fake.join(name).join("attr").join(part);
                fs::create_dir_all(&dir)?;
                for file in ["exec", "current"] {
                    fs::write(dir.join(file), "")?;
                }
            }
        }
        let fake = fake.to_str().context("a path in UTF-8")?;
        let pod = kubelet.pod().run().await?;
        for place in ["/proc", "/proc/1/attr", "/proc/thread-self/attr"] {
            let source = if place == "/proc" { fake.to_owned() } else { format!("{fake}/1/attr") };
            let container = pod
                .container()
                .security(|security| security.apparmor = loaded.profile())
                .mount(&source, place, |_| {})
                .start()
                .await;
            // Either it is refused for its mount, or it is confined.
            if let Ok(container) = container {
                assert_eq!(of(&container).await?, loaded.enforced(), "{place}");
                let refused = container.exec(["touch", "/tmp/file"]).await?;
                assert_ne!(refused.code, 0, "{place}");
            } else {
                assert_ne!(place, "/proc");
            }
        }
        Ok(())
    });
}

#[test]
fn a_profile_holds_in_a_user_namespace_with_no_new_privileges_and_in_any_pid_namespace() {
    on_apparmor(async |kubelet| {
        let loaded = Loaded::denying_writes(kubelet)?;
        let ids = wire::IdMapping { host_id: 400_000, container_id: 0, length: 65536 };
        let users =
            wire::UserNamespace { mode: wire::NamespaceMode::Pod.into(), uids: vec![ids], gids: vec![ids] };
        for (users, pid) in [
            (Some(users.clone()), wire::NamespaceMode::Container),
            (Some(users), wire::NamespaceMode::Pod),
            (None, wire::NamespaceMode::Pod),
            (None, wire::NamespaceMode::Node),
        ] {
            let what = format!("{users:?} {pid:?}");
            let namespaces = |options: &mut wire::NamespaceOption| {
                options.userns_options = users;
                options.set_pid(pid);
            };
            let pod = kubelet.pod().namespaces(namespaces).run().await?;
            let container = pod
                .container()
                .user(1000)
                .security(|security| {
                    security.apparmor = loaded.profile();
                    security.no_new_privs = true;
                })
                .start()
                .await?;
            assert_eq!(of(&container).await?, loaded.enforced(), "{what}");
            assert_eq!(of_exec(&container).await?, loaded.enforced(), "{what}");
        }
        Ok(())
    });
}

#[test]
fn another_runtime_is_told_the_profile() {
    if !host::has_apparmor() {
        return on_node(async |_| skip("this kernel has no AppArmor"));
    }
    let Ok(runc) = host::program("runc") else {
        return on_node(async |_| skip("runc is not installed"));
    };
    let setup = Setup { config: format!("[runtimes.other]\npath = {runc:?}\n") };
    on_own_node(&setup, async |kubelet| {
        let loaded = Loaded::denying_writes(kubelet)?;
        let pod = kubelet.pod().handler("other").run().await?;
        let container =
            pod.container().security(|security| security.apparmor = loaded.profile()).start().await?;
        assert_eq!(of(&container).await?, loaded.enforced());
        assert_eq!(of_exec(&container).await?, loaded.enforced());
        let container = pod.container().start().await?;
        assert_eq!(of(&container).await?, format!("{OWN} (enforce)"));
        Ok(())
    });
}

#[test]
fn where_apparmor_is_off_a_profile_is_refused_and_nothing_else() {
    on_node(async |kubelet| {
        if host::has_apparmor() {
            return skip("this kernel has AppArmor");
        }
        let pod = kubelet.pod().run().await?;
        for asked in [localhost("no-such-profile"), profile(ProfileType::RuntimeDefault, "")] {
            let refused = pod.container().security(|security| security.apparmor = asked).refused().await?;
            assert!(refused.message().contains("AppArmor is off"), "{refused}");
        }
        for asked in [None, profile(ProfileType::Unconfined, "")] {
            pod.container().security(|security| security.apparmor = asked).start().await?;
        }
        Ok(())
    });
}
