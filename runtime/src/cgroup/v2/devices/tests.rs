//! The program's decisions against a plain reading of the rules.

use proptest::prelude::*;

use super::*;

/// Runs the few instructions that the compiler uses.
fn run(program: &[u64], context: [u32; 3]) -> bool {
    // No value in it is wider.
    let mut registers = [0_u32; 10];
    let mut at = 0;
    loop {
        let instruction = program[at];
        let code = (instruction & 0xff) as u8;
        let to = (instruction >> 8 & 0xf) as usize;
        let from = (instruction >> 12 & 0xf) as usize;
        let offset = (instruction >> 16 & 0xffff) as usize;
        let value = (instruction >> 32) as u32;
        at += 1;
        match code {
            LOAD => registers[to] = context[offset / 4],
            MOVE => registers[to] = registers[from],
            MOVE_K => registers[to] = value,
            AND_K => registers[to] &= value,
            SHIFT_RIGHT_K => registers[to] >>= value,
            JUMP_EQUAL_K if registers[to] == value => at += offset,
            JUMP_NOT_EQUAL_K if registers[to] != value => at += offset,
            JUMP_EQUAL_K | JUMP_NOT_EQUAL_K => {}
            EXIT => return registers[0] == 1,
            _ => panic!("instruction {instruction:#x}"),
        }
    }
}

/// The last rule that speaks of a use decides it.
fn evaluate(rules: &[DeviceRule], kind: u32, (major, minor): (u32, u32), access: u32) -> bool {
    let matches = |rule: &&DeviceRule| {
        let kinds = match rule.kind {
            DeviceKind::All => true,
            DeviceKind::Block => kind == KIND_BLOCK,
            DeviceKind::Char => kind == KIND_CHAR,
        };
        kinds && rule.major.is_none_or(|m| m == major) && rule.minor.is_none_or(|m| m == minor)
    };
    [ACCESS_MKNOD, ACCESS_READ, ACCESS_WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let decides = |rule: &&DeviceRule| bits(rule.access) & bit != 0;
        rules.iter().rev().filter(matches).find(decides).is_some_and(|rule| rule.allow)
    })
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let kind = prop_oneof![Just(DeviceKind::All), Just(DeviceKind::Block), Just(DeviceKind::Char)];
    let number = || proptest::option::of(prop_oneof![0_u32..3, Just(u32::MAX)]);
    (any::<bool>(), kind, number(), number(), 1_u8..8).prop_map(|(allow, kind, major, minor, access)| {
        DeviceRule {
            allow,
            kind,
            major,
            minor,
            access: DeviceAccess { read: access & 1 != 0, write: access & 2 != 0, mknod: access & 4 != 0 },
        }
    })
}

proptest! {
    #[test]
    fn decides_as_the_rules_say(rules in proptest::collection::vec(any_rule(), 0..8)) {
        let program = compile(&rules);
        for kind in [KIND_BLOCK, KIND_CHAR] {
            for major in [0, 1, 2, 3, u32::MAX] {
                for minor in [0, 1, 2, 3, u32::MAX] {
                    for access in 1..8 {
                        let expected = evaluate(&rules, kind, (major, minor), access);
                        let got = run(&program, [access << 16 | kind, major, minor]);
                        prop_assert_eq!(got, expected, "{} {}:{} {}", kind, major, minor, access);
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_is_allowed_without_a_rule() {
    assert!(!run(&compile(&[]), [ACCESS_READ << 16 | KIND_CHAR, 1, 3]));
}

#[test]
fn knows_when_no_rule_denies() {
    let all = |allow| DeviceRule {
        allow,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        access: DeviceAccess::ALL,
    };
    let with_defaults = |rules: &[DeviceRule]| [rules, &DeviceRule::defaults()].concat();
    assert!(allows_everything(&with_defaults(&[all(false), all(true)])));
    assert!(!allows_everything(&with_defaults(&[all(true), all(false)])));
    assert!(!allows_everything(&with_defaults(&[all(true), DeviceRule { major: Some(8), ..all(false) }])));
    assert!(!allows_everything(&DeviceRule::defaults()));
    assert!(!allows_everything(&[]));
}
