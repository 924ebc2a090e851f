//! The table of system call numbers.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::machine::Abi;

/// The numbers of one system call; none where an ABI does not have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Numbers {
    x86_64: Option<u32>,
    x86: Option<u32>,
    /// Only where it is not that of x86_64; without the bit that marks x32.
    x32: Option<u32>,
    aarch64: Option<u32>,
    arm: Option<u32>,
}

static TABLE: LazyLock<HashMap<&'static str, Numbers>> =
    LazyLock::new(|| include_str!("syscalls.txt").lines().filter_map(parse).collect());

/// The number of a system call; none for a name that the ABI does not have.
pub(super) fn number(abi: Abi, name: &str) -> Option<u32> {
    let numbers = TABLE.get(name)?;
    match abi {
        Abi::Aarch64 => numbers.aarch64,
        Abi::Arm => numbers.arm,
        Abi::X86 => numbers.x86,
        Abi::X86_64 => numbers.x86_64,
    }
}

/// The second number that x32 has for some system calls, without the bit that marks it.
pub(super) fn x32_number(name: &str) -> Option<u32> {
    TABLE.get(name)?.x32
}

fn parse(line: &'static str) -> Option<(&'static str, Numbers)> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = line.split_ascii_whitespace();
    let name = fields.next()?;
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    let numbers =
        Numbers { x86_64: number(), x86: number(), x32: number(), aarch64: number(), arm: number() };
    Some((name, numbers))
}

#[cfg(test)]
pub(super) fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = TABLE.keys().copied().collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: [Option<u32>; 4]) {
        let abis = [Abi::X86_64, Abi::X86, Abi::Aarch64, Abi::Arm];
        assert_eq!(abis.map(|abi| number(abi, name)), expected, "{name}");
    }

    #[test]
    fn knows_the_numbers() {
        check("read", [Some(0), Some(3), Some(63), Some(3)]);
        check("openat", [Some(257), Some(295), Some(56), Some(322)]);
        check("socketcall", [None, Some(102), None, None]);
        check("clone3", [Some(435); 4]);
        check("mseal", [Some(462); 4]);
        check("set_tls", [None, None, None, Some(0xf_0005)]);
        check("no_such_call", [None; 4]);
        assert_eq!(x32_number("execve"), Some(520));
        assert_eq!(x32_number("read"), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn agrees_with_libc() {
        let known = [
            ("execve", libc::SYS_execve),
            ("bpf", libc::SYS_bpf),
            ("seccomp", libc::SYS_seccomp),
            ("pidfd_getfd", libc::SYS_pidfd_getfd),
            ("futex_waitv", libc::SYS_futex_waitv),
            ("mount_setattr", libc::SYS_mount_setattr),
        ];
        for (name, expected) in known {
            assert_eq!(number(Abi::X86_64, name).map(i64::from), Some(expected), "{name}");
        }
    }

    #[test]
    fn no_number_has_two_names() {
        for abi in [Abi::X86_64, Abi::X86, Abi::Aarch64, Abi::Arm] {
            // The one call that has two: ARM renamed it.
            let names = names().into_iter().filter(|name| *name != "arm_sync_file_range");
            let mut numbers: Vec<u32> = names.filter_map(|name| number(abi, name)).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all, "{abi:?}");
            assert!(all > 300, "{abi:?}");
        }
    }
}
