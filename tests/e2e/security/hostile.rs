//! Containers, images and requests that try what is known to have worked on other runtimes.
//!
//! The numbers in comments are those of the classes of known bugs: 1A, the runtime's own work in hostile trees; 1C,
//! the server as a confused deputy.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use corten_tests::{Result, host, on_node, skip};
use k8s_cri::v1 as wire;

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// 1A, CVE-2019-5736: whoever holds `/proc/PID/exe` of a process on its way in cannot write it.
#[test]
fn no_program_of_the_node_can_be_opened_for_writing_through_an_exec() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() {
            return skip("it looks at Corten's own programs");
        }
        let program = host::corten()?.with_file_name("corten-runtime");
        let before = fs::read(&program)?;
        let pod = kubelet
            .pod()
            .namespaces(|options| options.pid = wire::NamespaceMode::Pod.into())
            .privileged()
            .run()
            .await?;
        // With every capability, in the namespace that the processes come through.
        let script = "while :; do for exe in /proc/[0-9]*/exe; do \
            case $(readlink $exe) in *busybox*|'') ;; *) (: >> $exe) 2>/dev/null && echo opened $exe; esac; done; done";
        let attacker =
            pod.container().security(|security| security.privileged = true).sh(script).start().await?;
        let victim = pod.container().start().await?;
        for _ in 0..100 {
            victim.exec(["/proc/self/exe", "true"]).await?;
            victim.sh("true").await?;
        }
        assert_eq!(attacker.lines("stdout")?, Vec::<String>::new());
        assert!(before == fs::read(&program)?, "the program has changed");
        Ok(())
    });
}

/// 1A, CVE-2024-21626: a process has its three descriptors and the root for its working directory.
#[test]
fn a_process_holds_nothing_of_the_node() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        // Once it speaks, its libraries are loaded.
        let container = pod.container().sh("echo up; sleep 1000 & wait").start().await?;
        container.says("up").await?;
        let pid = container.pid().await?;
        let mut numbers: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        numbers.sort();
        assert_eq!(numbers, ["0", "1", "2"]);
        assert_eq!(
            container.sh("readlink /proc/1/cwd; readlink /proc/1/root; ls /proc/1/fd").await?,
            "/\n/\n0\n1\n2"
        );
        // The fourth is the directory that is read.
        assert_eq!(container.exec(["ls", "/proc/self/fd"]).await?.stdout, "0\n1\n2\n3\n");
        Ok(())
    });
}

/// 1A, CVE-2026-88265: standard input and output are never opened by a name of the container.
#[test]
fn a_file_of_the_node_in_the_place_of_the_null_device_is_left_alone() {
    on_node(async |kubelet| {
        let file = kubelet.node().dir().join(format!("precious-{}", kubelet.unique()));
        fs::write(&file, "precious")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640))?;
        let pod = kubelet.pod().run().await?;
        for name in ["/dev/null", "/dev/console", "/dev/tty"] {
            let request = pod
                .container()
                .user(1000)
                .mount(utf8(&file)?, name, |_| {})
                .security(|security| security.masked_paths = vec!["/proc/kcore".to_owned()])
                .request()
                .await?;
            // Refused or not: the file is what it was.
            if let Ok(container) = corten_tests::Container::create(&pod, request).await {
                drop(container.start().await);
                drop(container.exec(["true"]).await);
                container.remove().await?;
            }
            let found = fs::metadata(&file)?;
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 0, 0o640), "{name}");
            assert_eq!(fs::read_to_string(&file)?, "precious", "{name}");
        }
        Ok(())
    });
}

/// 1A, CVE-2022-0492: control groups are looked at and never changed.
#[test]
fn no_control_group_is_written_from_within() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let files = container
            .sh("find /sys/fs/cgroup -name cgroup.procs -o -name release_agent -o -name tasks")
            .await?;
        assert!(!files.is_empty());
        for file in files.lines() {
            let output = container.exec(["sh", "-c", &format!("echo 1 > {file}")]).await?;
            assert!(output.stderr.contains("Read-only file system"), "{file}: {output:?}");
        }
        let output = container.exec(["sh", "-c", "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x"]).await?;
        assert_ne!(output.code, 0, "{output:?}");
        assert!(!files.contains("release_agent"), "{files}");
        Ok(())
    });
}

/// 1A, CVE-2026-115521: what is read-only is so from the beginning, with what is mounted below it.
#[test]
fn what_is_read_only_cannot_be_made_writable_without_the_right_to_mount() {
    on_node(async |kubelet| {
        let dir = kubelet.node().dir().join(format!("read-only-{}", kubelet.unique()));
        fs::create_dir(&dir)?;
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .mount(utf8(&dir)?, "/data", |mount| mount.readonly = true)
            .security(|security| {
                security.readonly_paths = ["/proc/sys", "/proc/irq"].map(str::to_owned).into();
                security.readonly_rootfs = true;
            })
            .start()
            .await?;
        let table = container.sh("cat /proc/self/mountinfo").await?;
        for place in ["/", "/data", "/proc/sys", "/proc/irq", "/sys"] {
            let line = table.lines().find(|line| line.split(' ').nth(4) == Some(place)).context(place)?;
            let options = line.split(' ').nth(5).unwrap_or_default();
            assert!(options.split(',').any(|option| option == "ro"), "{line}");
            let output = container.exec(["mount", "-o", "remount,rw,bind", place]).await?;
            assert_ne!(output.code, 0, "{place}: {output:?}");
        }
        Ok(())
    });
}

/// What containers have unmasked when the kubelet says so (`procMount: Unmasked`): its lists are empty then.
#[test]
fn without_masked_and_read_only_paths_proc_is_all_there() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let mounts = "grep -c ' /proc' /proc/self/mountinfo";
        let container = pod.container().start().await?;
        assert_eq!(container.sh(mounts).await?, "1");
        let masked = pod.container().security(|security| {
            security.masked_paths = vec!["/proc/keys".to_owned()];
            security.readonly_paths = vec!["/proc/sys".to_owned()];
        });
        assert_eq!(masked.start().await?.sh(mounts).await?, "3");
        Ok(())
    });
}

/// 1C, CVE-2022-0811 and GHSA-w2j5-3rcx-vx7x.
#[test]
fn parameters_of_the_node_stay_what_they_are() {
    on_node(async |kubelet| {
        let node = || fs::read_to_string("/proc/sys/kernel/core_pattern");
        let before = node()?;
        for (name, value) in [
            ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
            ("net/../kernel/core_pattern", "|/x"),
            ("net.ipv4.ip_forward", "1\nkernel.core_pattern=|/x"),
            ("kernel.core_pattern", "|/x"),
        ] {
            kubelet.pod().sysctl(name, value).refused().await?;
        }
        kubelet.pod().host_network().sysctl("net.ipv4.ip_forward", "0").refused().await?;
        let shared = |options: &mut wire::NamespaceOption| options.ipc = wire::NamespaceMode::Node.into();
        kubelet.pod().namespaces(shared).sysctl("kernel.shm_rmid_forced", "1").refused().await?;
        assert_eq!(node()?, before);
        Ok(())
    });
}

/// 1C, CRI-O CVE-2025-0750 and its like: logs are made below the pod's directory and through no link.
#[test]
fn logs_stay_in_the_pods_directory() {
    on_node(async |kubelet| {
        let outside = kubelet.node().dir().join(format!("outside-log-{}", kubelet.unique()));
        fs::write(&outside, "untouched")?;
        let pod = kubelet.pod().run().await?;
        for log_path in ["../escaped.log", "/escaped.log", "a/../../escaped.log"] {
            pod.container().with(|config| config.log_path = log_path.to_owned()).refused().await?;
        }
        std::os::unix::fs::symlink(&outside, pod.log_directory().join("link.log"))?;
        pod.container().with(|config| config.log_path = "link.log".to_owned()).refused().await?;
        assert_eq!(fs::read_to_string(&outside)?, "untouched");
        Ok(())
    });
}

/// 1A and 1B, CVE-2021-41103, CVE-2024-25621: who is not root on the node finds nothing of ours.
#[test]
fn the_nodes_directories_are_closed_to_others() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() {
            return skip("it looks at Corten's own directories");
        }
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let (root, state) = (kubelet.node().root(), kubelet.node().state());
        for dir in [
            root.join("containers"),
            root.join("pods"),
            root.join("layers"),
            state.join("pods"),
            state.join("pods").join(&pod.id),
            root.join("containers").join(&container.id),
        ] {
            let closed = dir.ancestors().take_while(|dir| dir.starts_with(&root) || dir.starts_with(&state));
            let modes: Vec<_> =
                closed.map(|dir| Ok(fs::metadata(dir)?.mode() & 0o7)).collect::<Result<_>>()?;
            assert!(modes.contains(&0), "{}: {modes:?}", dir.display());
        }
        Ok(())
    });
}
