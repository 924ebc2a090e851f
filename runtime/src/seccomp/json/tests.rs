//! Profiles as they come.

use super::*;

fn read_for(json: &str, capabilities: &[Capability], kernel: (u32, u32)) -> Result<LinuxSeccomp, Error> {
    Reader { capabilities, machine: Machine::X86_64, kernel }.read(json.as_bytes())
}

fn read(json: &str) -> Result<LinuxSeccomp, Error> {
    read_for(json, &[], (6, 1))
}

/// The first names of the entries that are left.
fn names(profile: &LinuxSeccomp) -> Vec<&str> {
    profile.syscalls().iter().flatten().map(|call| call.names()[0].as_str()).collect()
}

#[test]
fn reads_the_oci_form() {
    let json = r#"{
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_S390X", "SCMP_ARCH_NEWEST"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
             "args": [{"index": 0, "value": 38, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}
        ]
    }"#;
    let profile = read(json).unwrap();
    assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
    assert_eq!(profile.default_errno_ret(), Some(38));
    assert_eq!(profile.architectures().as_deref(), Some(&[Arch::ScmpArchX86_64, Arch::ScmpArchX86][..]));
    assert_eq!(profile.flags().as_ref().unwrap().len(), 1);
    assert_eq!(names(&profile), ["read", "socket"]);
    let socket = &profile.syscalls().as_ref().unwrap()[1];
    assert_eq!(socket.errno_ret(), Some(5));
    assert_eq!(socket.args().as_ref().unwrap()[0].value(), 38);
}

const DOCKER: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrno": "ENOSYS",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}
    ],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errno": "ENOSYS",
         "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["cacheflush"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["s390x"]}},
        {"name": "write", "action": "SCMP_ACT_ALLOW"}
    ]
}"#;

#[test]
fn reads_dockers_form() {
    let profile = read(DOCKER).unwrap();
    assert_eq!(names(&profile), ["read", "ptrace", "clone3", "arch_prctl", "clone", "write"]);
    assert_eq!(profile.default_errno_ret(), Some(38));
    assert_eq!(profile.syscalls().as_ref().unwrap()[2].errno_ret(), Some(38));
    let expected = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
    assert_eq!(profile.architectures().as_deref(), Some(&expected[..]));

    let profile = read_for(DOCKER, &[Capability::SysAdmin], (4, 7)).unwrap();
    assert_eq!(names(&profile), ["read", "mount", "arch_prctl", "clone", "write"]);
    let profile = read_for(DOCKER, &[Capability::SysAdmin, Capability::Bpf], (4, 8)).unwrap();
    assert_eq!(names(&profile), ["read", "ptrace", "mount", "bpf", "arch_prctl", "clone", "write"]);
}

#[test]
fn errors_name_the_entry() {
    let call = |call: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{call}]}}"#);
    let good = r#"{"names": ["read"], "action": "SCMP_ACT_KILL"}"#;
    let cases = [
        (r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#.to_owned(), "entry defaultAction: \"SCMP_ACT_MAYBE\""),
        (call(&format!(r#"{good}, {{"names": ["read"], "action": 5}}"#)), "entry 1: 5 is not known"),
        (call(r#"{"names": [], "action": "SCMP_ACT_KILL"}"#), "entry 0: it names no system call"),
        (call(r#"{"names": "read", "action": "SCMP_ACT_KILL"}"#), "entry 0: "),
        (call(r#"{"names": ["read"]}"#), "entry 0: missing field `action`"),
        (
            call(
                r#"{"names": ["a"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]}"#,
            ),
            "entry 0: ",
        ),
        (
            call(
                r#"{"names": ["a"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]}"#,
            ),
            "SCMP_CMP_LIKE",
        ),
        (
            call(r#"{"names": ["a"], "action": "SCMP_ACT_ERRNO", "errno": "EODD"}"#),
            "errno \"EODD\" is not known",
        ),
    ];
    for (json, expected) in cases {
        let text = read(&json).unwrap_err().to_string();
        assert!(text.contains(expected), "{json}: {text}");
    }
}

#[test]
fn sizes_are_bounded() {
    let large = vec![b' '; BYTES_MAX + 1];
    assert!(matches!(parse(&large, &[]), Err(Error::TooLarge { .. })));
    let one = r#"{"names":["a"],"action":"SCMP_ACT_KILL"}"#;
    let many = vec![one; ENTRIES_MAX + 1].join(",");
    let error = read(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{many}]}}"#)).unwrap_err();
    assert!(error.to_string().contains("4097 entries"), "{error}");
    for text in ["", "{}", "[]", "null", "{\"defaultAction\":", "\u{0}"] {
        assert!(matches!(read(text), Err(Error::Json(_))), "{text:?}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(read(&deep), Err(Error::Json(_))));
}

#[test]
fn the_default_profile_survives_the_trip() {
    let profile = super::super::default_profile(&[]);
    let read = parse(&serde_json::to_vec(&profile).unwrap(), &[]).unwrap();
    assert_eq!(super::super::compile(&read).unwrap(), super::super::compile(&profile).unwrap());
}

#[test]
fn reads_versions() {
    assert_eq!(version("4.8"), Some((4, 8)));
    assert_eq!(version("6.1.0-13-amd64\n"), Some((6, 1)));
    assert_eq!(version("6.12-rc1"), Some((6, 12)));
    assert_eq!(version("six"), None);
}
