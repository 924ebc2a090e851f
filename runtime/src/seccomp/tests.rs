//! The compiled programs against a plain reading of the profiles.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use proptest::prelude::*;

use super::default::default_for;
use super::machine::{ARM_PRIVATE, Abi, X32_BIT};
use super::policy::KILL_PROCESS;
use super::*;

const ABIS: [Abi; 4] = [Abi::Aarch64, Abi::Arm, Abi::X86, Abi::X86_64];
const MACHINES: [Machine; 2] = [Machine::Aarch64, Machine::X86_64];
const ENOSYS: u32 = 0x0005_0000 | 38;

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
struct Call {
    number: u32,
    architecture: u32,
    arguments: [u64; 6],
}

/// Runs the instructions that a seccomp filter may have.
fn run(program: &Program, call: Call) -> u32 {
    let mut accumulator = 0_u32;
    let mut at = 0;
    loop {
        let bytes: [u8; 8] = program.code()[at * 8..][..8].try_into().unwrap();
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let value = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let mut jump = |taken: bool| at += usize::from(if taken { bytes[2] } else { bytes[3] });
        match code {
            assemble::LOAD => accumulator = word(call, value),
            assemble::AND => accumulator &= value,
            assemble::JUMP => at += value as usize,
            assemble::JUMP_EQUAL => jump(accumulator == value),
            assemble::JUMP_GREATER => jump(accumulator > value),
            assemble::JUMP_GREATER_OR_EQUAL => jump(accumulator >= value),
            assemble::RETURN => return value,
            _ => panic!("instruction {code:#x}"),
        }
        at += 1;
    }
}

fn word(call: Call, offset: u32) -> u32 {
    let half =
        |value: u64, high: bool| u32::try_from(if high { value >> 32 } else { value & 0xffff_ffff }).unwrap();
    match offset {
        compile::NUMBER => call.number,
        compile::ARCHITECTURE => call.architecture,
        _ => {
            let offset = offset - compile::ARGUMENTS;
            half(call.arguments[offset as usize / 8], offset % 8 == 4)
        }
    }
}

/// A profile to be looked up by number, without any compiling.
struct Plain<'a> {
    profile: &'a LinuxSeccomp,
    machine: Machine,
    /// The entries that name a number, in order.
    named: BTreeMap<(Abi, u32), Vec<&'a LinuxSyscall>>,
    /// The highest number that is named and not x32's own.
    highest: BTreeMap<Abi, u32>,
}

impl<'a> Plain<'a> {
    fn new(profile: &'a LinuxSeccomp, machine: Machine) -> Self {
        let mut plain = Self { profile, machine, named: BTreeMap::new(), highest: BTreeMap::new() };
        for entry in profile.syscalls().iter().flatten() {
            for (name, abi) in entry.names().iter().flat_map(|name| ABIS.map(|abi| (name, abi))) {
                if let Some(number) = syscalls::number(abi, name) {
                    plain.named.entry((abi, number)).or_default().push(entry);
                    if number < ARM_PRIVATE {
                        let highest = plain.highest.entry(abi).or_insert(number);
                        *highest = number.max(*highest);
                    }
                }
                if let Some(own) = syscalls::x32_number(name)
                    && abi == Abi::X86_64
                    && lists(profile, Arch::ScmpArchX32)
                {
                    plain.named.entry((abi, own)).or_default().push(entry);
                }
            }
        }
        plain
    }

    /// What the profile says.
    fn evaluate(&self, call: Call) -> u32 {
        let (compatible, compatible_abi) = self.machine.compatible();
        let Some(abi) = ABIS.into_iter().find(|abi| abi.audit() == call.architecture) else {
            return KILL_PROCESS;
        };
        if abi != self.machine.native() && !(abi == compatible_abi && lists(self.profile, compatible)) {
            return KILL_PROCESS;
        }
        let mut number = call.number;
        if abi == Abi::X86_64 && lists(self.profile, Arch::ScmpArchX32) {
            number &= !X32_BIT;
        } else if abi == Abi::X86_64 && (X32_BIT..u32::MAX).contains(&number) {
            return KILL_PROCESS;
        }
        let arguments = |entry: &'a LinuxSyscall| entry.args().as_deref().unwrap_or_default();
        if let Some(entries) = self.named.get(&(abi, number)) {
            let always = entries.iter().find(|entry| arguments(entry).is_empty());
            let holds = |entry: &&&'a LinuxSyscall| holds(arguments(entry), abi, call.arguments);
            if let Some(entry) = always.or_else(|| entries.iter().find(holds)) {
                return entry.action().as_u32(entry.errno_ret());
            }
        } else if self.is_newer(abi, number) {
            return ENOSYS;
        }
        self.profile.default_action().as_u32(self.profile.default_errno_ret())
    }

    fn is_newer(&self, abi: Abi, number: u32) -> bool {
        let passes = matches!(
            self.profile.default_action(),
            LinuxSeccompAction::ScmpActAllow
                | LinuxSeccompAction::ScmpActLog
                | LinuxSeccompAction::ScmpActTrace
        );
        let is_private = abi == Abi::Arm && number >= ARM_PRIVATE;
        !passes && !is_private && self.highest.get(&abi).is_some_and(|highest| number > *highest)
    }
}

fn lists(profile: &LinuxSeccomp, arch: Arch) -> bool {
    profile.architectures().as_ref().is_some_and(|listed| listed.contains(&arch))
}

fn holds(arguments: &[LinuxSeccompArg], abi: Abi, given: [u64; 6]) -> bool {
    let narrow = |value: u64| {
        if abi.is_narrow() && value >> 32 == 0xffff_ffff { value & 0xffff_ffff } else { value }
    };
    let test = |argument: &LinuxSeccompArg| {
        let actual = given[argument.index()];
        let value = narrow(argument.value());
        match argument.op() {
            LinuxSeccompOperator::ScmpCmpNe => actual != value,
            LinuxSeccompOperator::ScmpCmpLt => actual < value,
            LinuxSeccompOperator::ScmpCmpLe => actual <= value,
            LinuxSeccompOperator::ScmpCmpEq => actual == value,
            LinuxSeccompOperator::ScmpCmpGe => actual >= value,
            LinuxSeccompOperator::ScmpCmpGt => actual > value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                let mask = if abi.is_narrow() { argument.value() & 0xffff_ffff } else { argument.value() };
                actual & mask == argument.value_two().unwrap_or(0) & mask
            }
        }
    };
    let mut indexes: Vec<usize> = arguments.iter().map(LinuxSeccompArg::index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    if indexes.len() < arguments.len() { arguments.iter().any(test) } else { arguments.iter().all(test) }
}

/// Compares all numbers around those that are in use, for these values of the first argument.
fn compare_everywhere(profile: &LinuxSeccomp, machine: Machine, firsts: &[u64]) {
    let program = compile_for(profile, machine).unwrap();
    let plain = Plain::new(profile, machine);
    let odd = [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];
    let numbers = (0..600).chain(ARM_PRIVATE - 1..ARM_PRIVATE + 8).chain(X32_BIT..X32_BIT + 600).chain(odd);
    for number in numbers {
        for architecture in ABIS.map(Abi::audit).into_iter().chain([0, 0xc000_0016]) {
            for first in firsts {
                let is_narrow = ABIS.iter().any(|abi| abi.audit() == architecture && abi.is_narrow());
                let first = if is_narrow { first & 0xffff_ffff } else { *first };
                let call = Call { number, architecture, arguments: [first, 1, 2, 3, 4, 5] };
                assert_eq!(run(&program, call), plain.evaluate(call), "{machine:?} {call:x?}");
            }
        }
    }
}

#[test]
fn the_default_profile_is_compiled_as_it_reads() {
    let firsts = [
        0,
        2,
        8,
        17,
        37,
        38,
        39,
        40,
        41,
        45,
        46,
        0x100,
        0x2_0000,
        0x2_0008,
        0x1000_0000,
        0x7e02_0000,
        0xffff_ffff,
        0x1_0000_0026,
        0x1_0000_0000,
        u64::MAX,
    ];
    for machine in MACHINES {
        for capabilities in [&[][..], &[Capability::SysAdmin], &[Capability::SysPtrace, Capability::Syslog]] {
            compare_everywhere(&default_for(capabilities, machine), machine, &firsts);
        }
    }
}

/// What the default profile answers on x86_64.
fn answer(capabilities: &[Capability], name: &str, first: u64) -> u32 {
    let program = compile_for(&default_for(capabilities, Machine::X86_64), Machine::X86_64).unwrap();
    let (abi, name) = name.strip_prefix("x86:").map_or((Abi::X86_64, name), |name| (Abi::X86, name));
    let number = syscalls::number(abi, name).unwrap();
    run(&program, Call { number, architecture: abi.audit(), arguments: [first, 0, 0, 0, 0, 0] })
}

#[test]
fn the_default_profile_keeps_the_dangerous_out() {
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    let denied = [
        ("mount", 0),
        ("unshare", 0),
        ("setns", 0),
        ("bpf", 0),
        ("perf_event_open", 0),
        ("userfaultfd", 0),
        ("keyctl", 0),
        ("add_key", 0),
        ("request_key", 0),
        ("io_uring_setup", 0),
        ("io_uring_enter", 0),
        ("kexec_load", 0),
        ("pivot_root", 0),
        ("open_by_handle_at", 0),
        ("chroot", 0),
        ("socket", 38),
        ("socket", 40),
        ("socket", 46),
        ("socket", 0x1_0000_0026),
        ("clone", 0x1000_0000),
        ("personality", 0x40000),
        ("x86:socketcall", 1),
        ("x86:socket", 38),
        ("x86:mount", 0),
    ];
    for (name, first) in denied {
        assert_eq!(answer(&[], name, first), EPERM, "{name} {first:#x}");
    }
    let allowed =
        [("read", 0), ("socket", 2), ("socket", 16), ("clone", 0x11), ("personality", 8), ("x86:socket", 1)];
    for (name, first) in allowed {
        assert_eq!(answer(&[], name, first), ALLOW, "{name} {first:#x}");
    }
    assert_eq!(answer(&[], "clone3", 0), ENOSYS);
    for name in ["clone3", "mount", "unshare", "bpf"] {
        assert_eq!(answer(&[Capability::SysAdmin], name, 0x1000_0000), ALLOW, "{name}");
    }
    assert_eq!(answer(&[Capability::SysAdmin], "socket", 38), EPERM);
    assert_eq!(answer(&[Capability::SysChroot], "chroot", 0), ALLOW);
    assert_eq!(answer(&[Capability::DacReadSearch], "open_by_handle_at", 0), ALLOW);
}

#[test]
fn the_default_profile_is_short() {
    for machine in MACHINES {
        let program = compile_for(&default_for(&[], machine), machine).unwrap();
        eprintln!("{machine:?}: {} instructions", program.len());
        assert!(program.len() < 450, "{}", program.len());
    }
}

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

#[test]
fn an_empty_profile_is_its_default() {
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"] {
        let profile = profile(&format!(r#"{{"defaultAction": "{action}"}}"#));
        compare_everywhere(&profile, Machine::X86_64, &[0]);
        compare_everywhere(&profile, Machine::Aarch64, &[0]);
    }
}

#[test]
fn far_jumps_arrive() {
    // Each entry is a rule list of its own, so that the program is much longer than a jump reaches.
    let names = syscalls::names();
    let entries: Vec<String> = names
        .iter()
        .take(300)
        .enumerate()
        .map(|(at, name)| {
            format!(
                r#"{{"names": ["{name}"], "action": "SCMP_ACT_ALLOW",
                     "args": [{{"index": 0, "value": {at}, "op": "SCMP_CMP_GE"}}]}}"#
            )
        })
        .collect();
    let profile = profile(&format!(
        r#"{{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
             "syscalls": [{}]}}"#,
        entries.join(",")
    ));
    assert!(compile(&profile).unwrap().len() > 2000);
    compare_everywhere(&profile, Machine::X86_64, &[0, 100, 200, u64::MAX]);
}

#[test]
fn refuses_what_the_kernel_would_not_take() {
    let names = syscalls::names();
    let entries: Vec<String> = (0..3000)
        .map(|at| {
            let name = names[at % names.len()];
            format!(
                r#"{{"names": ["{name}"], "action": "SCMP_ACT_ALLOW",
                     "args": [{{"index": 1, "value": {at}, "op": "SCMP_CMP_EQ"}}]}}"#
            )
        })
        .collect();
    let long =
        profile(&format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{}]}}"#, entries.join(",")));
    assert!(matches!(compile(&long), Err(Error::TooLong { instructions }) if instructions > 4096));
}

#[test]
fn refuses_by_entry() {
    let cases = [
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "entry defaultAction: the action SCMP_ACT_NOTIFY"),
        (
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#,
            "entry defaultAction: errnoRet 4096",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            "entry 1: the action SCMP_ACT_NOTIFY",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_KILL",
                 "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
            "entry 0: argument 6",
        ),
    ];
    for (json, expected) in cases {
        let text = compile(&profile(json)).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn takes_the_flags() {
    let flags = |flags: &str| {
        let json = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "flags": [{flags}]}}"#);
        compile(&profile(&json)).unwrap().flags()
    };
    assert_eq!(flags(""), 0);
    assert_eq!(flags(r#""SECCOMP_FILTER_FLAG_LOG""#), 2);
    assert_eq!(flags(r#""SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW""#), 6);
    assert_eq!(flags(r#""SECCOMP_FILTER_FLAG_TSYNC""#), 0);
}

#[test]
fn keeps_through_serialization() {
    let program = compile(&default_profile(&[])).unwrap();
    let bytes = postcard::to_stdvec(&program).unwrap();
    assert_eq!(postcard::from_bytes::<Program>(&bytes).unwrap(), program);
    assert_eq!(program.code().len(), program.len() * 8);
}

// Random profiles, as the JSON that they would come as.

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_ALLOW",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const ARCHITECTURES: [&str; 6] = [
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_S390X",
];

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        Just(0x1_0000_0001),
        Just(0xffff_ffff_0000_0001),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn any_argument() -> impl Strategy<Value = serde_json::Value> {
    (0_usize..3, any_value(), any_value(), prop::sample::select(&OPERATORS[..])).prop_map(
        |(index, value, two, op)| serde_json::json!({"index": index, "value": value, "valueTwo": two, "op": op}),
    )
}

fn any_entry() -> impl Strategy<Value = serde_json::Value> {
    let names = prop::collection::vec(prop::sample::select(syscalls::names()), 1..12);
    let arguments = prop_oneof![Just(Vec::new()), prop::collection::vec(any_argument(), 1..4)];
    (names, prop::sample::select(&ACTIONS[..]), 0_u32..4096, arguments).prop_map(|(names, action, errno, args)| {
        serde_json::json!({"names": names, "action": action, "errnoRet": errno, "args": args})
    })
}

fn any_profile() -> impl Strategy<Value = LinuxSeccomp> {
    let entries = prop::collection::vec(any_entry(), 0..25);
    let architectures = prop::sample::subsequence(&ARCHITECTURES[..], 0..6);
    (prop::sample::select(&ACTIONS[..]), architectures, entries).prop_map(
        |(action, architectures, entries)| {
            let json = serde_json::json!({
                "defaultAction": action, "architectures": architectures, "syscalls": entries
            });
            serde_json::from_value(json).unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_profile_is_compiled_as_it_reads(
        profile in any_profile(),
        arguments in prop::array::uniform3(any_value()),
        random in any::<u32>(),
    ) {
        for machine in MACHINES {
            let program = compile_for(&profile, machine).unwrap();
            let plain = Plain::new(&profile, machine);
            let numbers = (0..560).chain(X32_BIT..X32_BIT + 560).chain([ARM_PRIVATE + 2, random, u32::MAX]);
            for number in numbers {
                for abi in ABIS {
                    let width = if abi.is_narrow() { 0xffff_ffff } else { u64::MAX };
                    let [a, b, c] = arguments.map(|argument| argument & width);
                    let call = Call { number, architecture: abi.audit(), arguments: [a, b, c, 0, 0, 0] };
                    prop_assert_eq!(run(&program, call), plain.evaluate(call), "{:?}", call);
                }
            }
        }
    }
}
