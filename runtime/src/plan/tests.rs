//! What becomes of specs, and which are refused.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::steps::{Container, Exec, FilesystemName, Kind, Pid};
use super::{Error, Rootfs};
use crate::capabilities::Set;

fn rootfs() -> Rootfs {
    Rootfs {
        layers: PathBuf::from("/layers"),
        lowers: vec!["b".into(), "a".into()],
        upper: PathBuf::from("/c/upper"),
        work: PathBuf::from("/c/work"),
    }
}

fn spec() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "ro"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"] },
            { "destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "rslave", "rro"] },
        ],
        "linux": { "namespaces": [
            { "type": "mount" }, { "type": "cgroup" }, { "type": "pid" }, { "type": "uts", "path": "/x" }
        ] }
    })
}

fn compile(spec: &Value) -> Result<Container, Error> {
    let bytes = super::container(&serde_json::from_value(spec.clone()).unwrap(), &rootfs(), None)?;
    Ok(postcard::from_bytes(&bytes).unwrap())
}

/// The spec with the value at the JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = spec();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = spec.pointer_mut(parent).unwrap();
    match key.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[key] = value,
    }
    spec
}

fn refusal(pointer: &str, value: &Value) -> String {
    compile(&with(pointer, value.clone())).expect_err(pointer).to_string()
}

#[test]
fn a_spec_becomes_numbers() {
    let plan = compile(&spec()).unwrap();
    assert_eq!(plan.namespaces.pid, Pid::New);
    assert_eq!(plan.namespaces.join, libc::CLONE_NEWUTS.cast_unsigned());
    assert!(plan.namespaces.cgroup && plan.root.readonly);
    assert_eq!(plan.process.groups, [0]);
    assert_eq!(plan.process.capabilities.bounding, Set::EMPTY);
    let kinds: Vec<_> =
        plan.mounts.iter().map(|mount| (mount.target.to_str().unwrap(), &mount.kind)).collect();
    assert!(
        matches!(kinds[0], ("proc", Kind::Filesystem { name: FilesystemName::Proc, data }) if data.is_empty())
    );
    assert!(matches!(kinds[1], ("dev", Kind::Devices { data }) if data.len() == 1));
    assert!(matches!(kinds[3], ("data", Kind::Bind { recursive: true, .. })));
    let [proc, .., data] = plan.mounts.as_slice() else { panic!("mounts") };
    assert_eq!(proc.attributes.own, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY);
    assert_eq!(data.attributes.recursive, libc::MOUNT_ATTR_RDONLY);
    assert_eq!(data.attributes.propagation.unwrap().kind, libc::MS_SLAVE);
    let names: Vec<_> = plan.devices.iter().map(|device| device.path.to_str().unwrap()).collect();
    assert_eq!(names, ["null", "zero", "full", "random", "urandom", "tty"]);
}

#[test]
fn a_plan_is_small() {
    let bytes = super::container(&serde_json::from_value(spec()).unwrap(), &rootfs(), None).unwrap();
    assert!(bytes.len() < 512, "{}", bytes.len());
}

#[test]
fn a_spec_without_dev_gets_one_first() {
    let plan = compile(&with("/mounts", json!([]))).unwrap();
    assert!(matches!(plan.mounts.as_slice(), [mount] if matches!(mount.kind, Kind::Devices { .. })));
    let bind = json!([{ "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"] }]);
    let plan = compile(&with("/mounts", bind)).unwrap();
    assert!(matches!(plan.mounts.as_slice(), [mount] if matches!(mount.kind, Kind::Bind { .. })));
}

#[test]
fn an_exec_joins_what_the_container_does_not_share_with_the_host() {
    let spec: oci_spec::runtime::Spec = serde_json::from_value(spec()).unwrap();
    let bytes = super::exec(&spec, spec.process().as_ref().unwrap(), None).unwrap();
    let plan: Exec = postcard::from_bytes(&bytes).unwrap();
    let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;
    assert_eq!(plan.join, kinds.cast_unsigned());
}

#[test]
fn later_words_win_but_take_nothing_from_a_source() {
    let options = |words: &[&str]| {
        let mount = json!([{ "destination": "/a", "type": "bind", "source": "/b", "options": words }]);
        compile(&with("/mounts", mount)).unwrap().mounts.pop().unwrap().attributes
    };
    assert_eq!(options(&["bind", "ro", "rw", "nosuid"]).own, libc::MOUNT_ATTR_NOSUID);
    assert_eq!(options(&["bind", "noatime", "strictatime"]).own, libc::MOUNT_ATTR_STRICTATIME);
    assert_eq!(options(&["bind", "rw", "dev", "suid", "exec"]).own, 0);
    assert_eq!(options(&["bind", "rshared", "private"]).propagation.unwrap().kind, libc::MS_PRIVATE);
}

#[test]
fn labels_are_one_line() {
    let label =
        |name: &str| compile(&with("/process/apparmorProfile", json!(name))).map(|plan| plan.process.labels);
    assert_eq!(label("a profile").unwrap().apparmor.as_deref(), Some(c"a profile"));
    assert_eq!(label("unconfined").unwrap().apparmor, None);
    assert_eq!(label("").unwrap().apparmor, None);
    for text in ["a\nb", "a\0", "\t", &"x".repeat(5000)] {
        assert!(label(text).unwrap_err().to_string().starts_with("process.apparmorProfile"), "{text:?}");
    }
    let plan = compile(&with("/process/selinuxLabel", json!("u:r:t:s0:c1,c2"))).unwrap();
    assert_eq!(plan.process.labels.selinux.as_deref(), Some(c"u:r:t:s0:c1,c2"));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let hook = json!({ "poststop": [{ "path": "/bin/true" }] });
    let mount = |kind: &str, option: &str| json!([{ "destination": "/a", "type": kind, "source": "/b", "options": [option] }]);
    for (pointer, value, text) in [
        ("/hooks", hook, "hooks is not supported"),
        ("/vm", json!({ "kernel": { "path": "/x" } }), "vm is not supported"),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 1 }),
            "process.ioPriority is not supported",
        ),
        ("/process/scheduler", json!({ "policy": "SCHED_OTHER" }), "process.scheduler is not supported"),
        ("/linux/intelRdt", json!({}), "linux.intelRdt is not supported"),
        ("/linux/personality", json!({ "domain": "LINUX32" }), "linux.personality is not supported"),
        ("/linux/namespaces/0/path", json!("/x"), "linux.namespaces mnt with a path is not supported"),
        (
            "/linux/namespaces/1",
            json!({ "type": "user" }),
            "linux.namespaces user without a path is not supported",
        ),
        ("/linux/namespaces/1", json!({ "type": "time" }), "linux.namespaces time is not supported"),
        ("/mounts", mount("ext4", "ro"), "mounts[0].type \"ext4\" is not supported"),
        ("/mounts", mount("overlay", "lowerdir=/"), "mounts[0].type \"overlay\" is not supported"),
        ("/mounts", mount("tmpfs", "tmpcopyup"), "mounts[0].options \"tmpcopyup\" is not supported"),
        ("/mounts", mount("bind", "idmap"), "mounts[0].options \"idmap\" is not supported"),
        ("/mounts", mount("bind", "z"), "mounts[0].options \"z\" of this mount is not supported"),
        ("/mounts", mount("bind", "remount"), "mounts[0].options \"remount\" is not supported"),
    ] {
        assert_eq!(refusal(pointer, &value), text);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let device = |kind: &str, path: &str, major: i64| json!([{ "path": path, "type": kind, "major": major, "minor": 1 }]);
    let mount = |target: &str, kind: &str, source: Option<&str>| json!([{ "destination": target, "type": kind, "source": source, "options": ["bind"] }]);
    for (pointer, value, text) in [
        ("/process/args", json!([]), "process.args is missing"),
        ("/process/args", json!(["a\0b"]), "process.args: it has a NUL byte"),
        ("/process/env", json!(["A=\0"]), "process.env: it has a NUL byte"),
        ("/process/cwd", json!("tmp"), "process.cwd: tmp is not an absolute path"),
        ("/process/user", json!({ "uid": u32::MAX, "gid": 0 }), "process.user.uid: 4294967295 is no id"),
        ("/process/user", json!({ "uid": 0, "gid": u32::MAX }), "process.user.gid: 4294967295 is no id"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: it is not between -1000 and 1000"),
        ("/linux/namespaces", json!([{ "type": "pid" }]), "linux.namespaces mount is missing"),
        ("/linux/namespaces/1", json!({ "type": "mount" }), "linux.namespaces: mnt is there twice"),
        ("/linux/devices", device("a", "/dev/x", 1), "linux.devices /dev/x: a node is of one type"),
        ("/linux/devices", device("c", "/dev", 1), "linux.devices /dev: a node cannot be there"),
        (
            "/linux/devices",
            device("c", "/dev/x", -1),
            "linux.devices /dev/x: the kernel has no such device number",
        ),
        (
            "/linux/sysctl",
            json!({ "kernel.core_pattern": "x" }),
            "linux.sysctl \"kernel.core_pattern\": it does not belong to a namespace of the container",
        ),
        (
            "/linux/sysctl",
            json!({ "net.ipv4.ip_forward": "1" }),
            "linux.sysctl \"net.ipv4.ip_forward\": the net namespace is the host's",
        ),
        (
            "/linux/sysctl",
            json!({ "kernel.domainname": "a\nb" }),
            "linux.sysctl \"kernel.domainname\": the value has more than one line",
        ),
        ("/linux/rootfsPropagation", json!("x"), "linux.rootfsPropagation: \"x\" is no kind of propagation"),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW" }),
            "linux.seccomp: the profile has not been compiled",
        ),
        ("/linux/maskedPaths", json!(["proc"]), "linux.maskedPaths: proc is not an absolute path"),
        (
            "/mounts",
            mount("/", "bind", Some("/x")),
            "mounts[0].destination: the root itself cannot be mounted over",
        ),
        (
            "/mounts",
            mount("/a/..", "bind", Some("/x")),
            "mounts[0].destination: the root itself cannot be mounted over",
        ),
        ("/mounts", mount("/a", "bind", Some("x")), "mounts[0].source: x is not an absolute path"),
        ("/mounts", mount("/a", "bind", None), "mounts[0].source: it is missing"),
    ] {
        assert_eq!(refusal(pointer, &value), text);
    }
}

#[test]
fn names_belong_to_a_namespace_of_the_containers_own() {
    assert_eq!(compile(&with("/hostname", json!("x"))).unwrap().hostname, None);
    let mut own = with("/hostname", json!("x"));
    own["linux"]["namespaces"][3] = json!({ "type": "uts" });
    assert_eq!(compile(&own).unwrap().hostname.as_deref(), Some(c"x"));
    own["linux"]["namespaces"][3] = json!({ "type": "ipc" });
    assert_eq!(compile(&own).unwrap_err().to_string(), "hostname: the UTS namespace is the host's");
}

#[test]
fn layers_are_names_below_their_directory() {
    let spec = serde_json::from_value(spec()).unwrap();
    for name in ["", "/abs", "../up", "a/../../b"] {
        let rootfs = Rootfs { lowers: vec![name.into()], ..rootfs() };
        assert!(matches!(super::container(&spec, &rootfs, None), Err(Error::Invalid { .. })), "{name:?}");
    }
    let none = Rootfs { lowers: Vec::new(), ..rootfs() };
    assert!(matches!(super::container(&spec, &none, None), Err(Error::Missing(_))));
}

#[test]
fn a_terminal_needs_terminals() {
    let mut spec = with("/process/terminal", json!(true));
    assert!(compile(&spec).unwrap().process.terminal.is_some());
    spec["mounts"] = json!([]);
    let text = compile(&spec).unwrap_err().to_string();
    assert_eq!(text, "process.terminal: a terminal needs a devpts mount at /dev/pts");
}
