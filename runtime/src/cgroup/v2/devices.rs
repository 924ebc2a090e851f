//! Device rules as a program that the kernel asks at each open(2) and mknod(2) of a device node.
//!
//! Rules are tried from the last to the first, each use (read, write, mknod) on its own: the last rule that
//! speaks of a use decides it, and what no rule allows is denied. Follows bpf(2) and cgroup-v2.rst.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::cgroup::directory::Directory;
use crate::cgroup::{CgroupPath, DeviceAccess, DeviceKind, DeviceRule, Error};
use crate::sys::bpf;

/// The rules of a cgroup that has none yet.
pub(in crate::cgroup) fn set(
    path: &CgroupPath,
    directory: &Directory,
    rules: &[DeviceRule],
) -> Result<(), Error> {
    // No program allows everything too, and costs nothing.
    if allows_everything(rules) {
        return Ok(());
    }
    attach(directory, rules, None).map_err(|failure| failure.of(path))
}

fn allows_everything(rules: &[DeviceRule]) -> bool {
    let mut decisive = rules.iter().rev().filter(|rule| !rule.allow || rule.is_all());
    decisive.next().is_some_and(|rule| rule.allow)
}

/// Puts new rules in the place of the old ones in one step.
pub(in crate::cgroup) fn replace(
    path: &CgroupPath,
    directory: &Directory,
    rules: &[DeviceRule],
) -> Result<(), Error> {
    let cgroup = open(directory).map_err(|failure| failure.of(path))?;
    let attached = bpf::attached_device_programs(cgroup.as_fd())
        .map_err(|source| Failure("list the device programs", source).of(path))?;
    let old = match attached.as_slice() {
        [] => None,
        [one] => Some(
            bpf::program_by_id(*one)
                .map_err(|source| Failure("open the old device program", source).of(path))?,
        ),
        // Which of them to replace cannot be told.
        _ => {
            let busy = io::Error::from_raw_os_error(libc::EBUSY);
            return Err(Failure("more than one device program is attached", busy).of(path));
        }
    };
    attach(directory, rules, old).map_err(|failure| failure.of(path))
}

fn attach(directory: &Directory, rules: &[DeviceRule], old: Option<OwnedFd>) -> Result<(), Failure> {
    let cgroup = open(directory)?;
    let program =
        bpf::load_device_program(&compile(rules)).map_err(|source| Failure("load the program", source))?;
    bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), old.as_ref().map(AsFd::as_fd))
        .map_err(|source| Failure("attach the program", source))
}

fn open(directory: &Directory) -> Result<OwnedFd, Failure> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(directory.path(), flags, Mode::empty()).map_err(|errno| Failure("open it", errno.into()))
}

/// What was tried, and the kernel's answer.
struct Failure(&'static str, io::Error);

impl Failure {
    fn of(self, path: &CgroupPath) -> Error {
        Error::Devices { path: path.clone(), operation: self.0, source: self.1 }
    }
}

// The program. Registers: r1 the context, r2 the uses that are not yet allowed, r3 the kind of device,
// r4 and r5 its numbers, r6 scratch, r0 the answer.

const LOAD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_K: u8 = 0xb7;
const AND_K: u8 = 0x54;
const SHIFT_RIGHT_K: u8 = 0x74;
const JUMP_EQUAL_K: u8 = 0x16;
const JUMP_NOT_EQUAL_K: u8 = 0x56;
const EXIT: u8 = 0x95;

const KIND_BLOCK: u32 = 1;
const KIND_CHAR: u32 = 2;
const ACCESS_MKNOD: u32 = 1;
const ACCESS_READ: u32 = 2;
const ACCESS_WRITE: u32 = 4;

/// `struct bpf_insn` as a number.
fn instruction(code: u8, registers: (u8, u8), offset: i16, value: u32) -> u64 {
    let (to, from) = registers;
    u64::from(code)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(value) << 32
}

fn compile(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD, (2, 1), 0, 0),
        instruction(MOVE, (3, 2), 0, 0),
        instruction(AND_K, (3, 0), 0, 0xffff),
        instruction(SHIFT_RIGHT_K, (2, 0), 0, 16),
        instruction(LOAD, (4, 1), 4, 0),
        instruction(LOAD, (5, 1), 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(test(rule));
        if rule.is_all() {
            // What follows could not be reached, which the verifier refuses.
            return program;
        }
    }
    program.extend(answer(false));
    program
}

fn answer(allow: bool) -> [u64; 2] {
    [instruction(MOVE_K, (0, 0), 0, u32::from(allow)), instruction(EXIT, (0, 0), 0, 0)]
}

/// Answers, or falls through to what comes next.
fn test(rule: &DeviceRule) -> Vec<u64> {
    let mut conditions: Vec<(u8, u32)> = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => conditions.push((3, KIND_BLOCK)),
        DeviceKind::Char => conditions.push((3, KIND_CHAR)),
    }
    conditions.extend(rule.major.map(|major| (4, major)));
    conditions.extend(rule.minor.map(|minor| (5, minor)));

    let mut body: Vec<u64> = Vec::new();
    let bits = bits(rule.access);
    if rule.access != DeviceAccess::ALL {
        if rule.allow {
            body.push(instruction(AND_K, (2, 0), 0, !bits));
            body.push(instruction(JUMP_NOT_EQUAL_K, (2, 0), 2, 0));
        } else {
            body.push(instruction(MOVE, (6, 2), 0, 0));
            body.push(instruction(AND_K, (6, 0), 0, bits));
            body.push(instruction(JUMP_EQUAL_K, (6, 0), 2, 0));
        }
    }
    body.extend(answer(rule.allow));

    let mut program = Vec::new();
    let total = conditions.len() + body.len();
    for (at, (register, value)) in conditions.into_iter().enumerate() {
        // At most 3 conditions and 5 more: it fits.
        let over = i16::try_from(total - at - 1).unwrap_or(i16::MAX);
        program.push(instruction(JUMP_NOT_EQUAL_K, (register, 0), over, value));
    }
    program.extend(body);
    program
}

fn bits(access: DeviceAccess) -> u32 {
    let bit = |given, bit| if given { bit } else { 0 };
    bit(access.mknod, ACCESS_MKNOD) | bit(access.read, ACCESS_READ) | bit(access.write, ACCESS_WRITE)
}

#[cfg(test)]
mod tests;
