//! Why a layer was not unpacked: it is not acceptable, or the node could not do it.

use std::fmt::Write as _;
use std::io;

/// The end of an unpacking that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The compressed stream cannot be read or ends early.
    #[error("read the stream of the layer")]
    Input(#[source] io::Error),
    /// The layer asks for what it must not have.
    #[error("{entry}: {reason}")]
    Refused {
        /// The entry's name, or its place in the archive.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refuses.
    #[error("{operation} {entry}")]
    Write {
        /// What was tried.
        operation: &'static str,
        /// The entry's name.
        entry: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Failure {
    pub(super) fn refused(entry: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused { entry: entry.into(), reason: reason.into() }
    }

    /// Makes the adapter of a failed operation on `name`.
    pub(super) fn write<E: Into<io::Error>>(operation: &'static str, name: &[u8]) -> impl FnOnce(E) -> Self {
        let entry = shown(name);
        move |source| Self::Write { operation, entry, source: source.into() }
    }
}

/// Returns a name from an archive as text that is safe to show: escaped and cut.
pub(super) fn shown(name: &[u8]) -> String {
    const LIMIT: usize = 256;
    let mut text = String::new();
    for character in String::from_utf8_lossy(&name[..name.len().min(LIMIT)]).chars() {
        if character.is_control() || character == '\\' {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    if name.is_empty() {
        text.push_str("(the layer's root)");
    } else if name.len() > LIMIT && write!(text, "… ({} bytes)", name.len()).is_err() {
        text.push('…');
    }
    text
}
