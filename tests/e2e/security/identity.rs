//! Who a process is: its groups, its five sets of capabilities, and what an image's files cannot make of it.
//!
//! The numbers in comments are those of the classes of known bugs: 1B, identity and capabilities.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{Duration, Instant};

use anyhow::Context;
use corten_tests::image::{Image, Layer};
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::wait::slowness;
use corten_tests::{Container, Kubelet, Result, eventually, host, on_node};
use k8s_cri::v1 as wire;
use serde_json::json;

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
const CHOWN: u64 = 1 << 0;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
/// See `capabilities.rs`.
const DEFAULT: u64 = 0xa804_25fb;

/// The five sets of the container's first process.
async fn own_sets(container: &Container<'_>) -> Result<[u64; 5]> {
    let pid = container.pid().await?;
    eventually("the program runs", async || Ok((host::status_field(pid, "Name")? == "sleep").then_some(())))
        .await?;
    let mut sets = [0; 5];
    for (set, name) in sets.iter_mut().zip(SETS) {
        *set = u64::from_str_radix(&host::status_field(pid, name)?, 16)?;
    }
    Ok(sets)
}

/// The five sets of a further process.
async fn sets_of_exec(container: &Container<'_>) -> Result<[u64; 5]> {
    let text = container.sh("grep ^Cap /proc/self/status").await?;
    let mut sets = [0; 5];
    for (set, name) in sets.iter_mut().zip(SETS) {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        *set = u64::from_str_radix(line.context(name)?.trim(), 16)?;
    }
    Ok(sets)
}

fn capabilities(add: &[&str], drop: &[&str], ambient: &[&str]) -> wire::Capability {
    let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
    wire::Capability {
        add_capabilities: words(add),
        drop_capabilities: words(drop),
        add_ambient_capabilities: words(ambient),
    }
}

/// 1B, CVE-2022-24769, CVE-2022-29162, CVE-2025-27612.
#[test]
fn an_exec_has_the_capabilities_of_its_container_and_no_more() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().privileged().run().await?;
        let all = u64::from_str_radix(&host::status_field(std::process::id().try_into()?, "CapBnd")?, 16)?;
        let root = |permitted| [0, permitted, permitted, permitted, 0];
        let user = |bounding, ambient| [ambient, ambient, ambient, bounding, ambient];
        let bind = ["NET_BIND_SERVICE"];
        let cases = [
            (0, false, capabilities(&[], &[], &[]), root(DEFAULT)),
            (0, false, capabilities(&["NET_ADMIN"], &["CHOWN"], &[]), root((DEFAULT | NET_ADMIN) & !CHOWN)),
            (0, false, capabilities(&[], &["ALL"], &[]), root(0)),
            (0, false, capabilities(&["ALL"], &[], &[]), root(all)),
            (0, true, capabilities(&[], &[], &[]), root(all)),
            (1000, false, capabilities(&[], &[], &[]), user(DEFAULT, 0)),
            (1000, false, capabilities(&[], &["ALL"], &[]), user(0, 0)),
            (1000, false, capabilities(&["NET_ADMIN"], &["ALL"], &[]), user(NET_ADMIN, 0)),
            (1000, false, capabilities(&[], &["ALL"], &bind), user(NET_BIND_SERVICE, NET_BIND_SERVICE)),
            (1000, false, capabilities(&bind, &[], &bind), user(DEFAULT, NET_BIND_SERVICE)),
            (1000, true, capabilities(&[], &[], &[]), user(all, 0)),
        ];
        for (id, privileged, wanted, expected) in cases {
            let text = format!("{id} {privileged} {wanted:?}");
            let container = pod.container().user(id).security(|security| {
                security.privileged = privileged;
                security.capabilities = Some(wanted);
            });
            let container = container.start().await?;
            assert_eq!(own_sets(&container).await?, expected, "{text}");
            assert_eq!(sets_of_exec(&container).await?, expected, "exec: {text}");
        }
        Ok(())
    });
}

/// 1B, CVE-2022-36109, CVE-2023-25173: a group can be shut out of a file that all others may read.
#[test]
fn no_member_of_a_group_escapes_what_the_group_is_denied() {
    on_node(async |kubelet| {
        let dir = kubelet.node().dir().join(format!("denied-{}", kubelet.unique()));
        fs::create_dir(&dir)?;
        for group in [2000, 3000] {
            let file = dir.join(group.to_string());
            fs::write(&file, "text")?;
            chown(&file, Some(0), Some(group))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o604))?;
        }
        let pod = kubelet.pod().run().await?;
        for policy in [wire::SupplementalGroupsPolicy::Merge, wire::SupplementalGroupsPolicy::Strict] {
            let container = pod
                .container()
                .user(1000)
                .security(|security| {
                    security.run_as_group = Some(wire::Int64Value { value: 2000 });
                    security.supplemental_groups = vec![3000];
                    security.supplemental_groups_policy = policy.into();
                })
                .mount(dir.to_str().context("a path in UTF-8")?, "/denied", |_| {})
                .start()
                .await?;
            for group in ["2000", "3000"] {
                let output = container.exec(["cat", &format!("/denied/{group}")]).await?;
                assert!(output.stderr.contains("Permission denied"), "{policy:?} {group}: {output:?}");
            }
            let groups = container.sh("id -G").await?;
            assert_eq!(groups, "2000 3000", "{policy:?}");
            let user = container.status().await?.user.and_then(|user| user.linux).context("a user")?;
            assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 2000, vec![2000, 3000]));
        }
        Ok(())
    });
}

/// An image of busybox with these files of users and groups; none is there without its contents.
fn image(kubelet: &Kubelet, passwd: Option<&str>, group: Option<&str>) -> Result<String> {
    let mut layer = Layer::new();
    for (path, text) in [("etc/passwd", passwd), ("etc/group", group)] {
        layer = match text {
            Some(text) => layer.file(path, text.as_bytes()),
            None => layer.whiteout(path),
        };
    }
    let image = Image::on(BUSYBOX, &json!({"Env": ["PATH=/bin:/usr/bin"]}), vec![layer])?;
    Ok(Origin::start()?.offer(&format!("users{}", kubelet.unique()), &image))
}

#[test]
fn groups_come_from_the_images_files_as_the_policy_says_and_are_reported() {
    use wire::SupplementalGroupsPolicy::{Merge, Strict};
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let named = image(kubelet, Some("ann:x:500:501::/:\n"), Some("a:x:600:ann\nb:x:601:bob\n"))?;
        let unnamed = image(kubelet, Some("bob:x:1:2::/:\n"), Some("a:x:600:ann\n"))?;
        let bare = image(kubelet, None, None)?;
        for (image, policy, gid, expected) in [
            (&named, Merge, 501, vec![501, 600]),
            (&named, Strict, 501, vec![501]),
            (&unnamed, Merge, 0, vec![0]),
            (&bare, Merge, 0, vec![0]),
            (&bare, Strict, 0, vec![0]),
        ] {
            let container = pod
                .container()
                .image(image)
                .command(["sleep", "1000"])
                .user(500)
                .security(|security| security.supplemental_groups_policy = policy.into())
                .start()
                .await?;
            let text = expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            assert_eq!(container.sh("id -G").await?, text, "{policy:?}");
            let user = container.status().await?.user.and_then(|user| user.linux).context("a user")?;
            assert_eq!((user.uid, user.gid, user.supplemental_groups), (500, gid, expected), "{policy:?}");
        }
        Ok(())
    });
}

/// 1B, CRI-O CVE-2025-4437, containerd CVE-2026-47262.
#[test]
fn files_of_users_that_never_end_are_refused_at_once() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let long = format!("x{}:x:1:1::/:\n", "y".repeat(3 << 20));
        let layers = [
            Layer::new().whiteout("etc/passwd").symlink("etc/passwd", "/dev/zero"),
            Layer::new().whiteout("etc/passwd").symlink("etc/passwd", "/proc/self/fd/0"),
            Layer::new().whiteout("etc/passwd").dir("etc/passwd/", 0o755),
            Layer::new().whiteout("etc/passwd").entry("etc/passwd", tar::EntryType::Fifo, |_| {}, b""),
            Layer::new().file("etc/passwd", long.as_bytes()),
        ];
        for (number, layer) in layers.into_iter().enumerate() {
            let image = Image::on(BUSYBOX, &json!({"Env": ["PATH=/bin:/usr/bin"]}), vec![layer])?;
            let image = Origin::start()?.offer(&format!("endless{}", kubelet.unique()), &image);
            let builder = pod.container().image(&image).command(["id"]);
            let builder = builder.security(|security| security.run_as_username = "somebody".to_owned());
            let request = builder.request().await?;
            let begun = Instant::now();
            let refused = Container::create(&pod, request).await.is_err();
            assert!(refused, "{number}");
            assert!(
                begun.elapsed() < Duration::from_secs(10) * slowness(),
                "{number}: {:?}",
                begun.elapsed()
            );
        }
        Ok(())
    });
}

/// 1B, CRI-O CVE-2022-4318: the environment is the environment and never becomes a line of a file.
#[test]
fn no_word_of_a_request_becomes_a_line_in_the_files_of_users() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let evil = "/home\nevil:x:0:0::/:/bin/sh";
        let envs = [("HOME", evil), ("USER", "evil:x:0:0")]
            .map(|(key, value)| wire::KeyValue { key: key.to_owned(), value: value.to_owned() });
        let request = pod.container().user(4321).with(|config| config.envs.extend(envs)).request().await?;
        // Refused or only an environment: both are safe.
        let Ok(container) = Container::create(&pod, request).await else { return Ok(()) };
        container.start().await?;
        let found = container.exec(["grep", "-r", "evil", "/etc"]).await?;
        assert_eq!(found.stdout, "");
        Ok(())
    });
}
