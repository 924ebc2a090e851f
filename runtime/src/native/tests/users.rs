//! Containers whose root is nobody on the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::{Value, json};

use super::fixture::{Pod, alone};
use crate::IdMap;

const IDS: IdMap = IdMap { host: 300_000, length: 65536 };

/// A bind that shows the files of the source with the pod's ids.
fn mapped(target: &str, source: &std::path::Path) -> Value {
    let ids = json!([{ "containerID": 0, "hostID": IDS.host, "size": IDS.length }]);
    json!({
        "destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate"],
        "uidMappings": ids, "gidMappings": ids
    })
}

fn add(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn root_in_the_pod_is_nobody_outside() {
    alone("users::root_in_the_pod_is_nobody_outside", |_| {
        let pod = Pod::with_ids(IDS);
        let script = "id -u; id -G; cat /proc/self/uid_map /proc/self/gid_map; hostname; echo $$; \
            stat -c '%n %u:%g' / /bin /dev /dev/null /dev/fd /dev/pts /dev/shm /proc /sys";
        let output = pod.output(&pod.spec(script));
        let words: Vec<&str> = output.split_whitespace().collect();
        assert_eq!(words[..10], ["0", "0", "0", "300000", "65536", "0", "300000", "65536", "pod", "1"]);
        for pair in words[10..].chunks(2) {
            // These two have the host's root as their owner everywhere.
            let expected = if ["/proc", "/sys"].contains(&pair[0]) { "65534:65534" } else { "0:0" };
            assert_eq!(pair[1], expected, "{output}");
        }
    });
}

#[test]
fn all_namespaces_of_the_container_belong_to_the_pods_user_namespace() {
    alone("users::all_namespaces_of_the_container_belong_to_the_pods_user_namespace", |_| {
        let pod = Pod::with_ids(IDS);
        let mut spec =
            pod.spec("mount -t tmpfs x /tmp && hostname other && ip link set lo up && echo $(hostname)");
        for set in ["bounding", "permitted", "effective"] {
            let set = spec["process"]["capabilities"][set].as_array_mut().unwrap();
            set.extend([json!("CAP_SYS_ADMIN"), json!("CAP_NET_ADMIN")]);
        }
        assert_eq!(pod.output(&spec), "other\n");
    });
}

#[test]
fn files_of_the_image_and_of_the_container_have_the_pods_ids() {
    alone("users::files_of_the_image_and_of_the_container_have_the_pods_ids", |_| {
        let pod = Pod::with_ids(IDS);
        fs::write(pod.image("etc/secret"), "x").unwrap();
        fs::set_permissions(pod.image("etc/secret"), fs::Permissions::from_mode(0o600)).unwrap();
        chown(pod.image("tmp"), Some(7), Some(8)).unwrap();
        let script =
            "cat /etc/secret; echo y > /etc/secret; stat -c %u:%g /tmp; mkdir /tmp/new; chmod 700 /bin";
        assert_eq!(pod.output(&pod.spec(script)), "x7:8\n");
        let upper = pod.path("containers/0/upper");
        for (name, uid) in [("etc/secret", IDS.host), ("tmp", IDS.host + 7), ("tmp/new", IDS.host)] {
            assert_eq!(fs::metadata(upper.join(name)).unwrap().uid(), uid, "{name}");
        }
        assert_eq!(fs::metadata(pod.image("etc/secret")).unwrap().uid(), 0);
    });
}

#[test]
fn mounts_with_mappings_have_the_pods_ids_and_others_do_not() {
    alone("users::mounts_with_mappings_have_the_pods_ids_and_others_do_not", |_| {
        let pod = Pod::with_ids(IDS);
        let volume = pod.path("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("file"), "text").unwrap();
        fs::set_permissions(volume.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        let script =
            "cat /vol/file; echo new > /vol/new; stat -c %u /vol/file /plain/file; cat /plain/file || true";
        let mut spec = pod.spec(script);
        add(&mut spec, mapped("/vol", &volume));
        add(
            &mut spec,
            json!({ "destination": "/plain", "type": "bind", "source": volume, "options": ["rbind"] }),
        );
        add(&mut spec, json!({ "destination": "/own", "type": "volume", "source": pod.path("own") }));
        let output = pod.output(&spec);
        assert!(output.starts_with("text0\n65534\n") && output.contains("Permission denied"), "{output}");
        assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), 0);
    });
}

#[test]
fn a_file_system_without_idmapped_mounts_is_named() {
    alone("users::a_file_system_without_idmapped_mounts_is_named", |_| {
        let pod = Pod::with_ids(IDS);
        let mut spec = pod.spec("true");
        add(&mut spec, mapped("/vol", std::path::Path::new("/proc/sys")));
        let (what, _, _) = pod.create(&spec).err().unwrap();
        let expected =
            "bind /proc/sys to /vol: map the ids of /proc/sys: its file system (proc) has no idmapped mounts";
        assert_eq!(what, expected);
    });
}

#[test]
fn a_further_process_is_in_the_user_namespace_too() {
    alone("users::a_further_process_is_in_the_user_namespace_too", |_| {
        let pod = Pod::with_ids(IDS);
        let mut container = pod.create(&pod.spec("sleep 1000")).unwrap();
        container.start().unwrap();
        let script = "id -u; cat /proc/self/uid_map; echo x > /dev/stdout; grep -E '^(Cap(Prm|Bnd|Amb)|Seccomp:)' /proc/self/status";
        let mut process = pod.spec(script)["process"].clone();
        process["user"] = json!({ "uid": 33, "gid": 34, "additionalGids": [5] });
        let (code, output) = pod.exec(&container, &process).unwrap();
        let words: Vec<&str> = output.split_whitespace().collect();
        assert_eq!((code, &words[..5]), (0, ["33", "0", "300000", "65536", "x"].as_slice()), "{output}");
        let host = fs::metadata(format!("/proc/{}", container.pid)).unwrap();
        assert_eq!(host.uid(), IDS.host);
        container.kill();
    });
}

#[test]
fn a_terminal_belongs_to_the_user() {
    alone("users::a_terminal_belongs_to_the_user", |_| {
        let pod = Pod::with_ids(IDS);
        let mut spec =
            pod.spec("test $(stat -c %u:%g $(tty)) = 33:5 && test $(stat -c %u /dev/console) = 33 && exit 7");
        spec["process"]["terminal"] = json!(true);
        spec["process"]["user"] = json!({ "uid": 33, "gid": 34 });
        let mut container = pod.create(&spec).unwrap();
        container.start().unwrap();
        assert_eq!(container.wait().0, 7);
    });
}

#[test]
fn a_container_can_live_in_the_pods_pid_namespace() {
    alone("users::a_container_can_live_in_the_pods_pid_namespace", |_| {
        let pod = Pod::with_ids(IDS);
        let mut spec = pod.spec("test $$ != 1 && test -e /proc/1/status && id -u");
        spec["linux"]["namespaces"][0]["path"] = json!("/proc/1/ns/pid");
        assert_eq!(pod.output(&spec), "0\n");
    });
}

#[test]
fn devices_of_the_host_keep_their_owners() {
    alone("users::devices_of_the_host_keep_their_owners", |_| {
        let pod = Pod::with_ids(IDS);
        let mut spec = pod.spec(
            "stat -c '%u:%g %t:%T' /dev/mine /dev/hosts /dev/null; echo x > /dev/mine; echo x > /dev/hosts",
        );
        spec["linux"]["devices"] = json!([
            { "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 0, "gid": 0 },
            { "path": "/dev/hosts", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 },
        ]);
        let (_, output) = pod.run(&spec).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[..3], ["0:0 1:3", "65534:65534 1:3", "0:0 1:3"]);
        assert!(lines[3].contains("/dev/hosts: Permission denied"), "{output}");
    });
}

#[test]
fn many_layers_work_with_ids_too() {
    alone("users::many_layers_work_with_ids_too", |_| {
        let pod = Pod::with_ids(IDS);
        // The second name is longer than a single word for the kernel may be: all go into one page then.
        let long = format!("{}/{}", "x".repeat(200), "y".repeat(200));
        for first in ["layer", long.as_str()] {
            let mut rootfs = pod.rootfs();
            for number in 0..20 {
                let name = if number == 0 { first.to_owned() } else { format!("layer-{number}") };
                fs::create_dir_all(pod.path("layers").join(&name)).unwrap();
                fs::write(pod.path("layers").join(&name).join(format!("f{number}")), "").unwrap();
                rootfs.lowers.insert(0, name);
            }
            let spec = pod.spec("stat -c %u /f0 /f19 /bin; touch /f0 /new; stat -c %u /f0 /new");
            let mut container = pod.create_with(&spec, &rootfs, None).unwrap();
            container.start().unwrap();
            assert_eq!(container.wait(), (0, "0\n".repeat(5)), "{first}");
        }
    });
}

#[test]
fn the_stage_that_waits_belongs_to_the_pod_and_cannot_be_looked_into() {
    alone("users::the_stage_that_waits_belongs_to_the_pod_and_cannot_be_looked_into", |_| {
        let pod = Pod::with_ids(IDS);
        let mut waiting = pod.create(&pod.spec("true")).unwrap();
        // Seen from a container of the same pod, with all that a root there has.
        let mut spec = pod.spec("sleep 1000");
        spec["linux"]["namespaces"][0]["path"] = json!("/proc/1/ns/pid");
        let mut other = pod.create(&spec).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", waiting.pid)).unwrap();
        assert!(status.contains(&format!("\nUid:\t{0}\t{0}\t{0}\t{0}\n", IDS.host)), "{status}");
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", waiting.pid)).unwrap();
        assert!(
            !table.contains("/vda") || !table.contains(" /root"),
            "nothing of the host is mounted: {table}"
        );
        // Its memory belongs to the host's namespace: that of /proc/PID/exe is the host's root.
        let exe = fs::symlink_metadata(format!("/proc/{}/fd", waiting.pid)).unwrap();
        assert_eq!(exe.uid(), 0, "not dumpable");
        waiting.start().unwrap();
        assert_eq!(waiting.wait().0, 0);
        other.kill();
    });
}
