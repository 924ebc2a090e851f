//! Versions of the CNI specification, and what each of them can be asked to do.

use std::fmt;

/// A released version of the CNI specification that Corten speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The first one; also what a configuration without a version has.
    V010,
    /// Brought VERSION.
    V020,
    /// Brought chains and lists of addresses.
    V030,
    /// Corrected a slip of the pen in 0.3.0.
    V031,
    /// Brought CHECK and the previous result for DEL.
    V040,
    /// Removed the version of addresses.
    V100,
    /// Brought STATUS and GC.
    V110,
}

/// What a plugin is asked to do, `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Put the container into the network.
    Add,
    /// Look whether it is still as ADD left it.
    Check,
    /// Take it out.
    Del,
    /// Tell whether ADD would work.
    Status,
    /// Tell the versions that the plugin speaks.
    Version,
}

/// A text that is no version of the specification, or one that Corten does not speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CNI version {0:?} is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0")]
pub(crate) struct UnknownVersion(String);

// === impl Version ===

impl Version {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 7] =
        [Self::V010, Self::V020, Self::V030, Self::V031, Self::V040, Self::V100, Self::V110];

    /// The newest.
    pub(crate) const NEWEST: Self = Self::V110;

    /// Reads what configurations and results write; the empty text is 0.1.0, which had no version in them.
    pub(crate) fn parse(text: &str) -> Result<Self, UnknownVersion> {
        if text.is_empty() {
            return Ok(Self::V010);
        }
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| UnknownVersion(text.to_owned()))
    }

    /// Whether chains of this version can be asked to do it.
    pub(crate) fn has(self, verb: Verb) -> bool {
        match verb {
            Verb::Add | Verb::Del | Verb::Version => true,
            Verb::Check => self >= Self::V040,
            Verb::Status => self >= Self::V110,
        }
    }

    /// As configurations and results write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V010 => "0.1.0",
            Self::V020 => "0.2.0",
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Verb ===

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        })
    }
}
