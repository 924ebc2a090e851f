//! Names inside of a layer.
//!
//! A [`Name`] is relative to the layer's root and holds only plain components: what an archive says is turned into
//! one at the door, so that nothing behind it meets `..`, an absolute name or a NUL.

/// A checked name: components joined by single slashes; empty for the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Name(Vec<u8>);

/// The longest name, one less than what the kernel takes with its NUL.
const MAX_BYTES: usize = 4095;

impl Name {
    /// Reads a name as tar does: a leading slash, empty components and `.` mean nothing. `..` is refused.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, &'static str> {
        if raw.contains(&0) {
            return Err("the name holds a NUL");
        }
        if raw.len() > MAX_BYTES {
            return Err("the name is longer than 4095 bytes");
        }
        let mut name = Vec::with_capacity(raw.len());
        for component in raw.split(|&b| b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err("the name holds `..`"),
                _ if component.len() > 255 => return Err("a component of the name is longer than 255 bytes"),
                _ => {}
            }
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(component);
        }
        Ok(Self(name))
    }

    /// Returns the whole name.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether this is the layer's root.
    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the directory part, empty for the root, and the last component.
    pub(crate) fn split(&self) -> (&[u8], &[u8]) {
        self.0.iter().rposition(|&b| b == b'/').map_or((&[], &self.0), |i| (&self.0[..i], &self.0[i + 1..]))
    }

    /// Returns the components in order.
    pub(crate) fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_tar_reads_them() {
        let check = |raw: &str, expected: Result<(&str, &str), ()>| {
            let name = Name::parse(raw.as_bytes());
            let parts = name.as_ref().map(Name::split).map_err(|_| ());
            assert_eq!(parts, expected.map(|(a, b)| (a.as_bytes(), b.as_bytes())), "{raw:?}");
        };
        check("a", Ok(("", "a")));
        check("a/b/c", Ok(("a/b", "c")));
        check("/etc//./passwd/", Ok(("etc", "passwd")));
        check("./", Ok(("", "")));
        check("", Ok(("", "")));
        check("..", Err(()));
        check("a/../b", Err(()));
        check("a/..", Err(()));
        check("...", Ok(("", "...")));
        check("a\0b", Err(()));
        check(&"x".repeat(256), Err(()));
        check(&"x/".repeat(2048), Err(()));
        assert!(Name::parse("x/".repeat(2047).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn a_name_has_only_plain_components(raw in "[a./\0é-]{0,40}") {
            if let Ok(name) = Name::parse(raw.as_bytes()) {
                prop_assert!(name.components().all(|c| !matches!(c, b"" | b"." | b"..") && !c.contains(&0)));
                prop_assert_eq!(Name::parse(name.as_bytes()), Ok(name.clone()));
            }
        }
    }
}
