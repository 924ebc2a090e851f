//! What the process in a container is started with: arguments, environment, directory, user.

use anyhow::Context;
use corten_tests::image::{Image, Layer};
use corten_tests::origin::Origin;
use corten_tests::registry::{BUSYBOX, STAGING};
use corten_tests::{Kubelet, Result, on_node};
use k8s_cri::v1 as wire;
use serde_json::json;

/// The first line that a container of an image with this configuration writes.
async fn said(
    kubelet: &Kubelet,
    config: serde_json::Value,
    command: &[&str],
    args: &[&str],
) -> Result<String> {
    let mut config = config;
    config["Env"] = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "FROM=image", "BOTH=image"]);
    let origin = Origin::start()?;
    let reference =
        origin.offer(&format!("process{}", kubelet.unique()), &Image::on(BUSYBOX, &config, vec![])?);
    let pod = kubelet.pod().run().await?;
    let container = pod
        .container()
        .image(&reference)
        .with(|config| {
            config.command = command.iter().map(|&word| word.to_owned()).collect();
            config.args = args.iter().map(|&word| word.to_owned()).collect();
        })
        .start()
        .await?;
    container.exited().await?;
    let lines = container.lines("stdout")?;
    pod.remove().await?;
    lines.into_iter().next().context("a line of output")
}

#[test]
fn entry_point_and_command_follow_the_image_rules() {
    on_node(async |kubelet| {
        let image = || json!({"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]});
        let cases: [(&[&str], &[&str], &str); 4] = [
            (&[], &[], "entry cmd"),
            (&[], &["args"], "entry args"),
            (&["echo", "command"], &[], "command"),
            (&["echo", "command"], &["args"], "command args"),
        ];
        for (command, args, expected) in cases {
            assert_eq!(said(kubelet, image(), command, args).await?, expected, "{command:?} {args:?}");
        }
        let only_command = json!({"Cmd": ["echo", "only"]});
        assert_eq!(said(kubelet, only_command, &[], &[]).await?, "only");
        Ok(())
    });
}

#[test]
fn the_working_directory_is_the_images_or_the_requests() {
    on_node(async |kubelet| {
        let image = json!({"WorkingDir": "/var/log"});
        assert_eq!(said(kubelet, image, &["pwd"], &[]).await?, "/var/log");
        let made = json!({"WorkingDir": "/not/there/yet"});
        assert_eq!(said(kubelet, made, &["pwd"], &[]).await?, "/not/there/yet");
        let pod = kubelet.pod().run().await?;
        let container =
            pod.container().command(["pwd"]).with(|config| config.working_dir = "/usr/bin".into());
        let container = container.start().await?;
        container.exited().await?;
        assert_eq!(container.lines("stdout")?, ["/usr/bin"]);
        Ok(())
    });
}

#[test]
fn the_environment_is_the_images_and_then_the_requests() {
    on_node(async |kubelet| {
        let script = "echo $FROM $BOTH $HOSTNAME";
        let hostname = said(kubelet, json!({}), &["sh", "-c", script], &[]).await?;
        assert!(hostname.starts_with("image image pod-"), "{hostname}");
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .command(["env"])
            .with(|config| {
                for (key, value) in [("ONE", "1"), ("SPACED", "a b=c"), ("PATH", "/bin:/usr/bin")] {
                    config.envs.push(wire::KeyValue { key: key.to_owned(), value: value.to_owned() });
                }
            })
            .start()
            .await?;
        container.exited().await?;
        let lines = container.lines("stdout")?;
        for expected in ["ONE=1", "SPACED=a b=c", "PATH=/bin:/usr/bin", "HOME=/root"] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:?}");
        }
        Ok(())
    });
}

#[test]
fn the_user_is_the_images_by_id_or_by_name() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let cases = [
            ("test-image-user-uid", "1002 0"),
            ("test-image-user-username", "33 33"),
            ("test-image-user-uid-group", "1003 1004"),
            ("test-image-user-username-group", "33 1004"),
        ];
        for (image, expected) in cases {
            let image = format!("{STAGING}/{image}");
            let container = pod.container().image(&image).sh("echo $(id -u) $(id -g)").start().await?;
            container.exited().await?;
            assert_eq!(container.lines("stdout")?, [expected], "{image}");
        }
        Ok(())
    });
}

#[test]
fn the_user_of_the_request_wins_by_id_name_and_group() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "echo $(id -u) $(id -g)";
        let by_id = pod.container().sh(script).user(1234).start().await?;
        let by_name = pod.container().sh(script).security(|security| {
            security.run_as_username = "www-data".to_owned();
        });
        let by_name = by_name.start().await?;
        let with_group = pod.container().sh(script).user(1234).security(|security| {
            security.run_as_group = Some(wire::Int64Value { value: 4321 });
        });
        let with_group = with_group.start().await?;
        for (container, expected) in [(by_id, "1234 0"), (by_name, "33 33"), (with_group, "1234 4321")] {
            container.exited().await?;
            assert_eq!(container.lines("stdout")?, [expected]);
        }
        Ok(())
    });
}

#[test]
fn groups_of_the_image_are_merged_or_left_out() {
    on_node(async |kubelet| {
        let image = format!("{STAGING}/test-image-predefined-group");
        let pod = kubelet.pod().run().await?;
        for (policy, expected) in [
            (wire::SupplementalGroupsPolicy::Merge, vec!["1000", "1234", "50000"]),
            (wire::SupplementalGroupsPolicy::Strict, vec!["1000", "1234"]),
        ] {
            let container = pod
                .container()
                .image(&image)
                .command(["id", "-G"])
                .user(1000)
                .security(|security| {
                    security.run_as_group = Some(wire::Int64Value { value: 1000 });
                    security.supplemental_groups = vec![1234];
                    security.supplemental_groups_policy = policy.into();
                })
                .start()
                .await?;
            container.exited().await?;
            let lines = container.lines("stdout")?;
            let mut groups: Vec<&str> = lines[0].split_whitespace().collect();
            groups.sort_unstable();
            groups.dedup();
            assert_eq!(groups, expected, "{policy:?}");
            if let Some(user) = container.status().await?.user {
                let user = user.linux.context("the Linux user")?;
                assert_eq!((user.uid, user.gid), (1000, 1000));
            }
        }
        Ok(())
    });
}

#[test]
fn volumes_of_the_image_are_writable_and_hold_what_the_image_has() {
    on_node(async |kubelet| {
        let config = json!({"Volumes": {"/data": {}}, "Env": ["PATH=/bin:/usr/bin"]});
        let layer = Layer::new().dir("data/", 0o755).file("data/seed", b"from the image");
        let image = Image::on(BUSYBOX, &config, vec![layer])?;
        let reference = Origin::start()?.offer(&format!("volumes{}", kubelet.unique()), &image);
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .image(&reference)
            .sh("cat /data/seed; echo; echo x > /data/new && ls /data; grep -c ' /data ' /proc/mounts")
            .security(|security| security.readonly_rootfs = true)
            .start()
            .await?;
        container.exited().await?;
        assert_eq!(container.lines("stdout")?, ["from the image", "new", "seed", "1"]);
        Ok(())
    });
}

#[test]
fn standard_input_is_empty_and_a_terminal_is_one() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let plain = pod.container().sh("wc -c; test -t 1 || echo none").start().await?;
        plain.exited().await?;
        assert_eq!(plain.lines("stdout")?, ["0", "none"]);
        let terminal = pod
            .container()
            .sh("test -t 0 && test -t 1 && tty")
            .with(|config| config.tty = true)
            .start()
            .await?;
        terminal.exited().await?;
        assert!(terminal.lines("stdout")?[0].starts_with("/dev/"), "{:?}", terminal.lines("stdout"));
        Ok(())
    });
}

#[test]
fn a_container_has_three_open_files_and_no_more() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        // Once it speaks, its libraries are loaded.
        let container = pod.container().sh("echo up; sleep 1000 & wait").start().await?;
        container.says("up").await?;
        let mut files: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", container.pid().await?))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        files.sort_unstable();
        assert_eq!(files, ["0", "1", "2"]);
        Ok(())
    });
}
