//! A profile resolved to numbers: what each system call of one ABI is answered with.
//!
//! As with runc and crun: a name that the ABI does not have says nothing; an entry without conditions wins over
//! entries with them, the first of several wins; conditions of one entry must all hold, but when two of them
//! speak of the same argument each is an entry of its own.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::Error;
use super::machine::{ARM_PRIVATE, Abi, Machine, X32_BIT};
use super::syscalls;

/// What the filter returns to the kernel, SECCOMP_RET_* of linux/seccomp.h.
pub(super) type Verdict = u32;

pub(super) const KILL_PROCESS: Verdict = 0x8000_0000;
const KILL_THREAD: Verdict = 0x0000_0000;
const TRAP: Verdict = 0x0003_0000;
const ERRNO: Verdict = 0x0005_0000;
const TRACE: Verdict = 0x7ff0_0000;
const LOG: Verdict = 0x7ffc_0000;
const ALLOW: Verdict = 0x7fff_0000;

/// The kernel's own limit of an error number.
const ERRNO_MAX: u32 = 4095;
const ENOSYS: Verdict = ERRNO | libc::ENOSYS.cast_unsigned();

/// What is done with a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Always the same.
    Fixed(Verdict),
    /// The first rule whose conditions all hold, else the verdict.
    ByArguments(Vec<Rule>, Verdict),
}

/// A verdict for some arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
}

/// A comparison of one argument, as an unsigned number of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// The bits of the mask are those of the value.
    Masked {
        mask: u64,
        value: u64,
    },
}

/// The answers to all numbers of one ABI.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) abi: Abi,
    /// Whether the numbers of x32 are answered as those of x86_64, and not by a kill.
    pub(super) with_x32: bool,
    /// From this number on, up to the next entry; the first is 0, neighbours differ.
    pub(super) ranges: Vec<(u32, Decision)>,
}

/// The policies of a profile, the machine's own ABI first.
pub(super) fn resolve(profile: &LinuxSeccomp, machine: Machine) -> Result<Vec<Policy>, Error> {
    let wants = |arch: Arch| profile.architectures().as_ref().is_some_and(|listed| listed.contains(&arch));
    let with_x32 = wants(Arch::ScmpArchX32) && machine.native() == Abi::X86_64;
    let default = verdict("defaultAction", profile.default_action(), profile.default_errno_ret())?;
    let entries = entries(profile)?;
    let (compatible, compatible_abi) = machine.compatible();
    let mut policies = vec![Policy::new(machine.native(), with_x32, &entries, default)];
    if wants(compatible) {
        policies.push(Policy::new(compatible_abi, false, &entries, default));
    }
    Ok(policies)
}

/// An entry of the profile that makes sense.
struct Entry<'a> {
    names: &'a [String],
    /// One of them has to match; without any the entry always does.
    alternatives: Vec<Vec<Condition>>,
    verdict: Verdict,
}

fn entries(profile: &LinuxSeccomp) -> Result<Vec<Entry<'_>>, Error> {
    let calls = profile.syscalls().as_deref().unwrap_or_default();
    let mut entries = Vec::with_capacity(calls.len());
    for (at, call) in calls.iter().enumerate() {
        let name = at.to_string();
        entries.push(Entry {
            names: call.names(),
            verdict: verdict(&name, call.action(), call.errno_ret())?,
            alternatives: alternatives(&name, call)?,
        });
    }
    Ok(entries)
}

fn verdict(entry: &str, action: LinuxSeccompAction, errno: Option<u32>) -> Result<Verdict, Error> {
    let data = |limit: u32| {
        let data = errno.unwrap_or(libc::EPERM.cast_unsigned());
        if data <= limit {
            return Ok(data);
        }
        let reason = format!("errnoRet {data} is more than {limit}");
        Err(Error::Entry { entry: entry.to_owned(), reason })
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => ERRNO | data(ERRNO_MAX)?,
        LinuxSeccompAction::ScmpActTrace => TRACE | data(u32::from(u16::MAX))?,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error::Action { entry: entry.to_owned(), action: action.to_string() });
        }
    })
}

fn alternatives(entry: &str, call: &LinuxSyscall) -> Result<Vec<Vec<Condition>>, Error> {
    let arguments = call.args().as_deref().unwrap_or_default();
    let parsed =
        arguments.iter().map(|argument| condition(entry, argument)).collect::<Result<Vec<_>, _>>()?;
    let is_repeated = |at: usize| parsed[..at].iter().any(|earlier| earlier.argument == parsed[at].argument);
    if parsed.is_empty() {
        Ok(Vec::new())
    } else if (0..parsed.len()).any(is_repeated) {
        Ok(parsed.into_iter().map(|one| vec![one]).collect())
    } else {
        Ok(vec![parsed])
    }
}

fn condition(entry: &str, argument: &LinuxSeccompArg) -> Result<Condition, Error> {
    let index = argument.index();
    let Some(index) = u8::try_from(index).ok().filter(|index| *index < 6) else {
        let reason = "a system call has arguments 0 to 5";
        return Err(Error::Argument { entry: entry.to_owned(), index, reason });
    };
    let value = argument.value();
    let test = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        // Here the value is the mask and the second value what is compared with.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Test::Masked { mask: value, value: argument.value_two().unwrap_or(0) & value }
        }
    };
    Ok(Condition { argument: index, test })
}

// === impl Decision ===

impl Decision {
    fn of_rules(rules: Vec<Rule>, default: Verdict) -> Self {
        if rules.iter().all(|rule| rule.verdict == default) {
            Self::Fixed(default)
        } else {
            Self::ByArguments(rules, default)
        }
    }
}

// === impl Policy ===

impl Policy {
    fn new(abi: Abi, with_x32: bool, entries: &[Entry<'_>], default: Verdict) -> Self {
        let mut always: BTreeMap<u32, Verdict> = BTreeMap::new();
        let mut sometimes: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
        for entry in entries {
            for name in entry.names {
                let own = with_x32.then(|| syscalls::x32_number(name)).flatten();
                for number in syscalls::number(abi, name).into_iter().chain(own) {
                    if entry.alternatives.is_empty() {
                        always.entry(number).or_insert(entry.verdict);
                    }
                    let rules = sometimes.entry(number).or_default();
                    rules.extend(entry.alternatives.iter().map(|conditions| Rule {
                        conditions: conditions.iter().map(|one| one.of(abi)).collect(),
                        verdict: entry.verdict,
                    }));
                }
            }
        }
        let mut decisions: BTreeMap<u32, Decision> = sometimes
            .into_iter()
            .map(|(number, rules)| (number, Decision::of_rules(rules, default)))
            .collect();
        decisions.extend(always.into_iter().map(|(number, verdict)| (number, Decision::Fixed(verdict))));
        let mut policy = Self { abi, with_x32, ranges: Vec::new() };
        policy.fill(decisions, default, highest_named(abi, entries));
        policy
    }

    /// Lays the decisions over the answers to numbers that the profile does not name.
    fn fill(&mut self, decisions: BTreeMap<u32, Decision>, default: Verdict, highest: Option<u32>) {
        let mut rest = vec![(0, default)];
        // A call that is newer than the profile is one that this kernel does not have. An action that lets
        // calls through is meant for new ones too.
        if let Some(highest) = highest.filter(|_| !matches!(default & 0xffff_0000, ALLOW | LOG | TRACE)) {
            rest.push((highest + 1, ENOSYS));
            if self.abi == Abi::Arm {
                rest.push((ARM_PRIVATE, default));
            }
        }
        if self.abi == Abi::X86_64 && !self.with_x32 {
            let above = rest.last().map_or(default, |(_, verdict)| *verdict);
            rest.push((X32_BIT, KILL_PROCESS));
            // No call at all: how a tracer has one skipped.
            rest.push((u32::MAX, above));
        }
        for (at, (start, verdict)) in rest.iter().enumerate() {
            let end = rest.get(at + 1).map_or(u32::MAX, |(next, _)| next - 1);
            let mut next = Some(*start);
            for (number, decision) in decisions.range(*start..=end) {
                if let Some(gap) = next.filter(|next| next < number) {
                    self.push(gap, Decision::Fixed(*verdict));
                }
                self.push(*number, decision.clone());
                next = number.checked_add(1);
            }
            if let Some(gap) = next.filter(|next| *next <= end) {
                self.push(gap, Decision::Fixed(*verdict));
            }
        }
    }

    fn push(&mut self, start: u32, decision: Decision) {
        if self.ranges.last().is_none_or(|(_, last)| *last != decision) {
            self.ranges.push((start, decision));
        }
    }
}

/// The numbers that are x32's own or the architecture's do not grow with new calls.
fn highest_named(abi: Abi, entries: &[Entry<'_>]) -> Option<u32> {
    let names = entries.iter().flat_map(|entry| entry.names);
    names.filter_map(|name| syscalls::number(abi, name)).filter(|number| *number < ARM_PRIVATE).max()
}

// === impl Condition ===

impl Condition {
    /// Where arguments have 32 bits, a negative value that was written with 64 is meant with 32.
    fn of(self, abi: Abi) -> Self {
        const SIGN: u64 = 0xffff_ffff_0000_0000;
        let narrow = |value: u64| if value & SIGN == SIGN { value & !SIGN } else { value };
        if !abi.is_narrow() {
            return self;
        }
        let test = match self.test {
            Test::Equal(value) => Test::Equal(narrow(value)),
            Test::NotEqual(value) => Test::NotEqual(narrow(value)),
            Test::Less(value) => Test::Less(narrow(value)),
            Test::LessOrEqual(value) => Test::LessOrEqual(narrow(value)),
            Test::Greater(value) => Test::Greater(narrow(value)),
            Test::GreaterOrEqual(value) => Test::GreaterOrEqual(narrow(value)),
            Test::Masked { mask, value } => Test::Masked { mask: mask & !SIGN, value: value & !SIGN },
        };
        Self { test, ..self }
    }
}
