//! Instructions of classic BPF, written from the last to the first.
//!
//! Jumps of classic BPF lead forward only, and conditional ones at most 255 instructions far. Written
//! backwards, every target is known when a jump to it is written; one that is too far away is copied (a
//! return) or reached by a stepping stone (a long jump) nearby. Follows filter.rst and seccomp_filter.rst.

use std::collections::HashMap;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) if_true: u8,
    pub(super) if_false: u8,
    pub(super) value: u32,
}

/// Loads a word of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// Where a jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The end, with this verdict.
    Return(u32),
    /// An instruction that is written already.
    Label(Label),
}

/// A written instruction, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program that grows at its beginning.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The copy of each return that is nearest to the beginning.
    returns: HashMap<u32, Label>,
}

/// As far as a conditional jump leads, less the stepping stones that one jump may need for its other target.
const NEAR: usize = 255 - 2;

// === impl Assembler ===

impl Assembler {
    /// An instruction that goes on to the one written before it, which has to be `next`.
    pub(super) fn before(&mut self, code: u16, value: u32, next: Target) -> Label {
        let next = self.near(next);
        if next.0 + 1 != self.reversed.len() {
            self.long_jump(next);
        }
        self.push(Instruction { code, if_true: 0, if_false: 0, value })
    }

    /// A conditional jump.
    pub(super) fn branch(&mut self, code: u16, value: u32, if_true: Target, if_false: Target) -> Target {
        if if_true == if_false {
            return if_true;
        }
        let if_true = self.near(if_true);
        let if_false = self.near(if_false);
        let distance = |label: Label| u8::try_from(self.distance(label)).unwrap_or(u8::MAX);
        let (if_true, if_false) = (distance(if_true), distance(if_false));
        Target::Label(self.push(Instruction { code, if_true, if_false, value }))
    }

    /// The program from its beginning.
    pub(super) fn finish(mut self, first: Target) -> Vec<Instruction> {
        let first = self.near(first);
        if first.0 + 1 != self.reversed.len() {
            self.long_jump(first);
        }
        self.reversed.reverse();
        self.reversed
    }

    /// An instruction close enough for a jump from the next one that is written, or from the one after that.
    fn near(&mut self, target: Target) -> Label {
        match target {
            Target::Label(label) if self.distance(label) <= NEAR => label,
            Target::Label(label) => self.long_jump(label),
            Target::Return(verdict) => {
                let known = self.returns.get(&verdict).copied();
                if let Some(label) = known.filter(|label| self.distance(*label) <= NEAR) {
                    return label;
                }
                let label = self.push(Instruction { code: RETURN, if_true: 0, if_false: 0, value: verdict });
                self.returns.insert(verdict, label);
                label
            }
        }
    }

    fn long_jump(&mut self, label: Label) -> Label {
        // A program that is long enough for this not to fit is refused for its length.
        let value = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
        self.push(Instruction { code: JUMP, if_true: 0, if_false: 0, value })
    }

    /// How many instructions a jump from the next one that is written passes over.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0 - 1
    }

    fn push(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }
}

// === impl Instruction ===

impl Instruction {
    /// As it lies in memory.
    pub(super) fn to_bytes(self) -> [u8; 8] {
        let [c0, c1] = self.code.to_ne_bytes();
        let [v0, v1, v2, v3] = self.value.to_ne_bytes();
        [c0, c1, self.if_true, self.if_false, v0, v1, v2, v3]
    }
}
