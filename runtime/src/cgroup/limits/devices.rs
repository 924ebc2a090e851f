//! How device rules relate to each other.

use std::fmt;

use super::{DeviceAccess, DeviceKind, DeviceRule};

// === impl DeviceRule ===

impl DeviceRule {
    /// What every container may use, whatever its rules say before: making nodes, the harmless memory devices,
    /// and terminals.
    pub fn defaults() -> Vec<Self> {
        let rule = |kind, major, minor, access| Self { allow: true, kind, major, minor, access };
        let character = |major, minor| rule(DeviceKind::Char, Some(major), minor, DeviceAccess::ALL);
        let mknod = DeviceAccess { mknod: true, ..DeviceAccess::NONE };
        vec![
            rule(DeviceKind::Char, None, None, mknod),
            rule(DeviceKind::Block, None, None, mknod),
            character(1, Some(3)), // null
            character(1, Some(5)), // zero
            character(1, Some(7)), // full
            character(1, Some(8)), // random
            character(1, Some(9)), // urandom
            character(5, Some(0)), // tty
            character(5, Some(2)), // ptmx
            character(136, None),  // pts
        ]
    }

    /// Whether it speaks of every use of every device.
    pub fn is_all(&self) -> bool {
        self.kind == DeviceKind::All
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == DeviceAccess::ALL
    }

    pub(in crate::cgroup) fn same_devices(&self, other: &Self) -> bool {
        self.kind == other.kind && self.major == other.major && self.minor == other.minor
    }

    /// Whether some use of some device is meant by both.
    pub(in crate::cgroup) fn touches(&self, other: &Self) -> bool {
        let meet = |left: Option<u32>, right: Option<u32>| left.is_none() || right.is_none() || left == right;
        self.kind == other.kind
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
            && self.access.without(other.access) != self.access
    }

    /// Whether every device of the other is one of this.
    pub(in crate::cgroup) fn covers(&self, other: &Self) -> bool {
        let covers = |left: Option<u32>, right: Option<u32>| left.is_none() || left == right;
        self.kind == other.kind && covers(self.major, other.major) && covers(self.minor, other.minor)
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allow { "allow" } else { "deny" };
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{verb} {kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

// === impl DeviceAccess ===

impl DeviceAccess {
    /// Every use.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
    /// No use.
    pub const NONE: Self = Self { read: false, write: false, mknod: false };

    /// Reads `r`, `w` and `m` in any order.
    pub(in crate::cgroup) fn parse(letters: &str) -> Option<Self> {
        let mut access = Self::NONE;
        for letter in letters.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return None,
            }
        }
        (access != Self::NONE).then_some(access)
    }

    pub(in crate::cgroup) fn union(self, other: Self) -> Self {
        Self {
            read: self.read || other.read,
            write: self.write || other.write,
            mknod: self.mknod || other.mknod,
        }
    }

    pub(in crate::cgroup) fn without(self, other: Self) -> Self {
        Self {
            read: self.read && !other.read,
            write: self.write && !other.write,
            mknod: self.mknod && !other.mknod,
        }
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (given, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if given {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}
