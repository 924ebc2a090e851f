//! From policies to a program.
//!
//! A binary tree over the ranges of numbers, so that the kernel, which runs the filter once for every number
//! when it is installed, and each call later, takes some ten steps instead of hundreds.

use super::assemble::{
    AND, Assembler, Instruction, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, Target,
};
use super::machine::X32_BIT;
use super::policy::{Condition, Decision, KILL_PROCESS, Policy, Rule, Test};

// Offsets in `struct seccomp_data`; an argument is 64 bits, the low word first.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// Compiles policies of different ABIs, the machine's own first; every other ABI is killed.
pub(super) fn compile(policies: &[Policy]) -> Vec<Instruction> {
    let mut compiler = Compiler { assembler: Assembler::default(), written: Vec::new() };
    let mut sections: Vec<(u32, Target)> = Vec::new();
    for policy in policies.iter().rev() {
        sections.push((policy.abi.audit(), compiler.section(policy)));
    }
    let mut first = Target::Return(KILL_PROCESS);
    for (audit, section) in sections {
        first = compiler.assembler.branch(JUMP_EQUAL, audit, section, first);
    }
    let first = compiler.assembler.before(LOAD, ARCHITECTURE, first);
    compiler.assembler.finish(Target::Label(first))
}

struct Compiler<'a> {
    assembler: Assembler,
    /// Rules are long, so each list of them is written once.
    written: Vec<(&'a Decision, Target)>,
}

/// A leaf of the tree: a range, or one with a single number taken out.
#[derive(Debug, Clone, Copy)]
struct Leaf<'a> {
    start: u32,
    decision: &'a Decision,
    except: Option<(u32, &'a Decision)>,
}

impl<'a> Compiler<'a> {
    fn section(&mut self, policy: &'a Policy) -> Target {
        let tree = self.tree(&leaves(&policy.ranges));
        let tree =
            if policy.with_x32 { Target::Label(self.assembler.before(AND, !X32_BIT, tree)) } else { tree };
        Target::Label(self.assembler.before(LOAD, NUMBER, tree))
    }

    fn tree(&mut self, leaves: &[Leaf<'a>]) -> Target {
        match leaves {
            [] => Target::Return(KILL_PROCESS),
            [leaf] => self.leaf(leaf),
            _ => {
                let (low, high) = leaves.split_at(leaves.len() / 2);
                let start = high[0].start;
                let high = self.tree(high);
                let low = self.tree(low);
                self.assembler.branch(JUMP_GREATER_OR_EQUAL, start, high, low)
            }
        }
    }

    fn leaf(&mut self, leaf: &Leaf<'a>) -> Target {
        let all = self.decision(leaf.decision);
        match leaf.except {
            Some((number, decision)) => {
                let one = self.decision(decision);
                self.assembler.branch(JUMP_EQUAL, number, one, all)
            }
            None => all,
        }
    }

    fn decision(&mut self, decision: &'a Decision) -> Target {
        let (rules, otherwise) = match decision {
            Decision::Fixed(verdict) => return Target::Return(*verdict),
            Decision::ByArguments(rules, otherwise) => (rules, *otherwise),
        };
        if let Some((_, target)) = self.written.iter().find(|(known, _)| *known == decision) {
            return *target;
        }
        let mut next = Target::Return(otherwise);
        for rule in rules.iter().rev() {
            next = self.rule(rule, next);
        }
        self.written.push((decision, next));
        next
    }

    fn rule(&mut self, rule: &Rule, next: Target) -> Target {
        let mut target = Target::Return(rule.verdict);
        for condition in rule.conditions.iter().rev() {
            target = self.condition(*condition, target, next);
        }
        target
    }

    fn condition(&mut self, Condition { argument, test }: Condition, yes: Target, no: Target) -> Target {
        let words = (ARGUMENTS + 8 * u32::from(argument), ARGUMENTS + 8 * u32::from(argument) + 4);
        match test {
            Test::Equal(value) => self.masked(words, (u64::MAX, value), yes, no),
            Test::NotEqual(value) => self.masked(words, (u64::MAX, value), no, yes),
            Test::Masked { mask, value } => self.masked(words, (mask, value), yes, no),
            Test::Greater(value) => self.ordered(words, (JUMP_GREATER, value), yes, no),
            Test::LessOrEqual(value) => self.ordered(words, (JUMP_GREATER, value), no, yes),
            Test::GreaterOrEqual(value) => self.ordered(words, (JUMP_GREATER_OR_EQUAL, value), yes, no),
            Test::Less(value) => self.ordered(words, (JUMP_GREATER_OR_EQUAL, value), no, yes),
        }
    }

    fn masked(&mut self, words: (u32, u32), (mask, value): (u64, u64), yes: Target, no: Target) -> Target {
        let (mask_low, mask_high) = halves(mask);
        let (low, high) = halves(value);
        let target = self.word(words.0, (mask_low, low), yes, no);
        self.word(words.1, (mask_high, high), target, no)
    }

    fn word(&mut self, word: u32, (mask, value): (u32, u32), yes: Target, no: Target) -> Target {
        if mask == 0 {
            return yes;
        }
        let test = self.assembler.branch(JUMP_EQUAL, value, yes, no);
        let test =
            if mask == u32::MAX { test } else { Target::Label(self.assembler.before(AND, mask, test)) };
        Target::Label(self.assembler.before(LOAD, word, test))
    }

    /// Decided by the high words, unless they are the same.
    fn ordered(&mut self, words: (u32, u32), (code, value): (u16, u64), yes: Target, no: Target) -> Target {
        let (low, high) = halves(value);
        let test = self.assembler.branch(code, low, yes, no);
        let test = Target::Label(self.assembler.before(LOAD, words.0, test));
        let test = self.assembler.branch(JUMP_EQUAL, high, test, no);
        let test = self.assembler.branch(JUMP_GREATER, high, yes, test);
        Target::Label(self.assembler.before(LOAD, words.1, test))
    }
}

/// Low and high word.
#[allow(clippy::cast_possible_truncation, reason = "each half is meant to lose the other")]
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

/// Takes single numbers between equal ranges together with them: one test instead of two.
fn leaves(ranges: &[(u32, Decision)]) -> Vec<Leaf<'_>> {
    let mut leaves = Vec::new();
    let mut rest = ranges;
    while let [(start, decision), after @ ..] = rest {
        rest = after;
        let mut leaf = Leaf { start: *start, decision, except: None };
        if let [(number, one), (next, same), after @ ..] = after
            && number.checked_add(1) == Some(*next)
            && same == decision
        {
            leaf.except = Some((*number, one));
            rest = after;
        }
        leaves.push(leaf);
    }
    leaves
}
