//! Who the process is in the end.

use std::fs;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};

use super::fixture::{Pod, alone};
use crate::capabilities::Set;
use crate::native::link::FailureKind;
use crate::sys::clone::{self, Cloned};

const STATUS: &str = "grep -E '^(Cap|NoNewPrivs|Groups|Uid|Gid|Seccomp:)' /proc/self/status";

/// The lines of `/proc/self/status` as name and value.
fn status(output: &str) -> Vec<(&str, String)> {
    let value = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    output.lines().filter_map(|line| line.split_once(':')).map(|(name, text)| (name, value(text))).collect()
}

fn field<'a>(status: &'a [(&str, String)], name: &str) -> &'a str {
    &status.iter().find(|(field, _)| *field == name).unwrap().1
}

fn bits(names: &[&str]) -> u64 {
    let all = names.iter().map(|name| Set::parse(name).unwrap()).fold(Set::EMPTY, |all, one| all | one);
    (all & Set::bounding()).bits()
}

/// Both ways to start a process must come to the same.
fn check(pod: &Pod, process: &Value, expected: [(&str, u64); 5]) {
    let mut spec = pod.spec("");
    spec["process"] = process.clone();
    let created = pod.output(&spec);
    let mut container = pod.create(&pod.spec("sleep 1000")).unwrap();
    container.start().unwrap();
    let (code, executed) = pod.exec(&container, process).unwrap();
    container.kill();
    assert_eq!(code, 0);
    for output in [created, executed] {
        let status = status(&output);
        for (name, bits) in expected {
            let got = u64::from_str_radix(field(&status, name), 16).unwrap();
            assert_eq!(got, bits, "{name} of {process}");
        }
    }
}

#[test]
fn capabilities_are_those_of_the_spec() {
    alone("identity::capabilities_are_those_of_the_spec", |pod| {
        const SOME: [&str; 3] = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"];
        let all: Vec<String> = Set::ALL.names().collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let none: &[&str] = &[];
        for uid in [0, 1000] {
            for no_new_privs in [true, false] {
                for (bounding, permitted, effective, inheritable, ambient) in [
                    (&SOME[..], &SOME[..], &SOME[..], none, none),
                    (&SOME[..], none, none, none, none),
                    (&SOME[..], &SOME[..], &SOME[..1], none, none),
                    (&SOME[..], &SOME[..], &SOME[..], &SOME[..2], &SOME[..2]),
                    (&all[..], &all[..], &all[..], none, none),
                    (none, none, none, none, none),
                ] {
                    let mut process = pod.spec(STATUS)["process"].clone();
                    process["user"] = json!({ "uid": uid, "gid": uid });
                    process["noNewPrivileges"] = json!(no_new_privs);
                    process["capabilities"] = json!({
                        "bounding": bounding, "permitted": permitted, "effective": effective,
                        "inheritable": inheritable, "ambient": ambient,
                    });
                    // execve(2) gives root what is in the bounding set, unless nothing may be gained by it, and
                    // others what is ambient.
                    let gained = match (uid, no_new_privs) {
                        (0, true) => bits(bounding) & bits(permitted),
                        (0, false) => bits(bounding),
                        _ => bits(ambient),
                    };
                    let expected = [
                        ("CapBnd", bits(bounding)),
                        ("CapInh", bits(inheritable)),
                        ("CapAmb", bits(ambient)),
                        ("CapPrm", gained),
                        ("CapEff", gained),
                    ];
                    check(pod, &process, expected);
                }
            }
        }
    });
}

#[test]
fn absent_capabilities_are_none() {
    alone("identity::absent_capabilities_are_none", |pod| {
        let mut process = pod.spec(STATUS)["process"].clone();
        process.as_object_mut().unwrap().remove("capabilities");
        let none = ["CapBnd", "CapInh", "CapAmb", "CapPrm", "CapEff"].map(|name| (name, 0));
        check(pod, &process, none);
    });
}

#[test]
fn user_and_groups_are_those_of_the_spec() {
    alone("identity::user_and_groups_are_those_of_the_spec", |pod| {
        let mut spec = pod.spec(&format!("{STATUS}; umask; touch /tmp/x; echo text > /dev/stdout"));
        spec["process"]["user"] =
            json!({ "uid": 1000, "gid": 2000, "additionalGids": [5, 2000, 6], "umask": 0o027 });
        fs::set_permissions(pod.image("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        let output = pod.output(&spec);
        let status = status(&output);
        assert_eq!(field(&status, "Uid"), "1000 1000 1000 1000");
        assert_eq!(field(&status, "Gid"), "2000 2000 2000 2000");
        assert_eq!(field(&status, "Groups"), "5 6 2000");
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        assert!(output.ends_with("0027\ntext\n"), "{output}");
    });
}

#[test]
fn limits_are_clamped_to_what_is_allowed() {
    alone("identity::limits_are_clamped_to_what_is_allowed", |pod| {
        let mut spec = pod.spec("ulimit -Sn; ulimit -Hn; ulimit -Sc; cat /proc/self/oom_score_adj");
        spec["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX },
            { "type": "RLIMIT_MEMLOCK", "soft": u64::MAX, "hard": u64::MAX },
        ]);
        assert_eq!(pod.output(&spec), "100\n200\n0\n500\n");
        spec["process"]["oomScoreAdj"] = json!(-999);
        assert!(pod.run(&spec).is_ok(), "a score that may not be set is no error");
    });
}

#[test]
fn a_missing_command_is_told_apart() {
    alone("identity::a_missing_command_is_told_apart", |pod| {
        fs::write(pod.image("plain"), "text").unwrap();
        fs::write(pod.image("garbage"), "\u{1}\u{2}").unwrap();
        fs::write(pod.image("script"), "#!/no/such/interpreter\n").unwrap();
        fs::write(pod.image("secret"), "").unwrap();
        for (name, mode) in [("plain", 0o644), ("garbage", 0o755), ("script", 0o755), ("secret", 0o700)] {
            fs::set_permissions(pod.image(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let cases = [
            ("foo", "exec: \"foo\": executable file not found in $PATH", 0, FailureKind::NotFound),
            ("", "exec: \"\": executable file not found in $PATH", 0, FailureKind::NotFound),
            ("/no/such", "exec: \"/no/such\": stat /no/such", libc::ENOENT, FailureKind::NotFound),
            ("/plain", "exec: \"/plain\"", libc::EACCES, FailureKind::NotExecutable),
            ("/tmp", "exec: \"/tmp\"", libc::EISDIR, FailureKind::NotExecutable),
            ("/secret", "exec: \"/secret\"", libc::EACCES, FailureKind::NotExecutable),
            ("/garbage", "exec /garbage", libc::ENOEXEC, FailureKind::NotExecutable),
            ("/script", "exec /script", libc::ENOENT, FailureKind::NotFound),
        ];
        let mut container = pod.create(&pod.spec("sleep 1000")).unwrap();
        container.start().unwrap();
        for (command, what, errno, kind) in cases {
            let mut spec = pod.spec("");
            spec["process"]["args"] = json!([command]);
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            spec["process"]["capabilities"] = json!({});
            let expected = (what.to_owned(), errno, kind);
            assert_eq!(pod.run(&spec).unwrap_err(), expected);
            assert_eq!(pod.exec(&container, &spec["process"]).unwrap_err(), expected);
        }
        container.kill();
    });
}

/// A filter that answers ENOSYS to chroot(2), as it is encoded: flags, then the instructions.
fn without_chroot() -> crate::seccomp::Program {
    let chroot = u32::try_from(libc::SYS_chroot).unwrap();
    let load_number = (0x20_u16, 0_u8, 0_u8, 0_u32);
    let unless_chroot = (0x15, 0, 1, chroot);
    let refuse = (0x06, 0, 0, 0x0005_0000 | libc::ENOSYS.cast_unsigned());
    let allow = (0x06, 0, 0, 0x7fff_0000);
    let mut code = Vec::new();
    for (operation, yes, no, operand) in [load_number, unless_chroot, refuse, allow] {
        code.extend(operation.to_ne_bytes());
        code.extend([yes, no]);
        code.extend(operand.to_ne_bytes());
    }
    postcard::from_bytes(&postcard::to_stdvec(&(0_u32, code)).unwrap()).unwrap()
}

#[test]
fn a_filter_is_in_place_with_and_without_new_privileges() {
    alone("identity::a_filter_is_in_place_with_and_without_new_privileges", |pod| {
        let filter = without_chroot();
        for (no_new_privs, uid) in [(true, 0), (false, 0), (true, 1000), (false, 1000)] {
            let mut spec = pod.spec(&format!("{STATUS}; chroot / true 2>&1"));
            spec["process"]["noNewPrivileges"] = json!(no_new_privs);
            spec["process"]["user"] = json!({ "uid": uid, "gid": uid });
            let mut container = pod.create_with(&spec, &pod.rootfs(), Some(&filter)).unwrap();
            container.start().unwrap();
            let (_, output) = container.wait();
            let fields = status(&output);
            assert_eq!(field(&fields, "Seccomp"), "2", "{output}");
            assert!(output.contains("Function not implemented"), "{output}");
            assert_eq!(field(&fields, "NoNewPrivs"), if no_new_privs { "1" } else { "0" });
            let kept = u64::from_str_radix(field(&fields, "CapPrm"), 16).unwrap();
            assert_eq!(kept & Set::SYS_ADMIN.bits(), 0, "{output}");
        }
    });
}

#[test]
fn a_container_dies_with_its_monitor() {
    alone("identity::a_container_dies_with_its_monitor", |pod| {
        for started in [false, true] {
            let rootfs = pod.rootfs();
            let (mine, theirs) = rustix::net::socketpair(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::SEQPACKET,
                rustix::net::SocketFlags::CLOEXEC,
                None,
            )
            .unwrap();
            let monitor = match clone::fork(0, None).unwrap() {
                Cloned::Child => {
                    let mut spec = pod.spec("sleep 1000");
                    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
                    let mut container = pod.create_with(&spec, &rootfs, None).unwrap();
                    if started {
                        container.start().unwrap();
                    }
                    crate::native::link::send(&theirs, &1_u8, Some(container.pidfd.as_fd())).unwrap();
                    clone::exit(0)
                }
                Cloned::Parent { pidfd, .. } => pidfd,
            };
            drop(theirs);
            let (_, pidfd) = crate::native::link::receive::<u8>(&mine).unwrap().unwrap();
            let pidfd = pidfd.unwrap();
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1), "started: {started}");
            drop(monitor);
        }
    });
}
