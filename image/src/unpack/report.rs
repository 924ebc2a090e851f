//! What the store and the unpacking process say to each other: one line of JSON before the layer, one after it.
//!
//! The store takes the report for what it is, the words of a process that read a stranger's archive: names are
//! checked anew, and numbers only serve for accounting.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::layer::Written;
use super::name::Name;
use crate::Digest;

/// The longest report: the names of implied directories, escaped.
pub(crate) const MAX_REPORT_BYTES: u64 = 32 << 20;

/// The longest order.
const MAX_ORDER_BYTES: u64 = 4096;

/// What the process is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The digest that the uncompressed archive should have; its algorithm is the one to hash with.
    pub(crate) diff_id: Digest,
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The layer is written.
    Unpacked(Unpacked),
    /// The layer cannot be accepted.
    Refused(String),
    /// The node could not write it.
    Failed(String),
}

/// What was written.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    /// The digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Names made.
    pub(crate) inodes: u64,
    /// Device nodes left out.
    pub(crate) skipped: u64,
    /// Bytes of the uncompressed archive.
    pub(crate) archive_bytes: u64,
    /// Directories that no entry described; each byte of a name as the character of that number.
    implied: Vec<String>,
    /// Directories that hide what the layers below have in them, in the same form.
    opaque: Vec<String>,
}

impl Order {
    pub(crate) fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads the order, and nothing behind it.
    pub(crate) fn read(input: &mut impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        input.take(MAX_ORDER_BYTES).read_until(b'\n', &mut line)?;
        Ok(serde_json::from_slice(&line)?)
    }
}

impl Report {
    /// Makes the report of an unpacking.
    pub(super) fn new(outcome: Result<(Digest, Written), Failure>) -> Self {
        match outcome {
            Ok((diff_id, written)) => Self::Unpacked(Unpacked {
                diff_id,
                bytes: written.bytes,
                inodes: written.inodes,
                skipped: written.skipped,
                archive_bytes: written.archive_bytes,
                implied: texts(&written.marked.implied),
                opaque: texts(&written.marked.opaque),
            }),
            Err(e @ Failure::Write { .. }) => Self::Failed(chain(&e)),
            Err(e) => Self::Refused(chain(&e)),
        }
    }

    pub(crate) fn write(&self, mut output: impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        output.write_all(&line)?;
        output.flush()
    }
}

impl Unpacked {
    /// Returns the directories that no entry described, the root among them. Names that are none are passed over.
    pub(crate) fn implied(&self) -> impl Iterator<Item = Name> {
        names(&self.implied)
    }

    /// Returns the directories that hide what the layers below have in them. Names that are none are passed over.
    pub(crate) fn opaque(&self) -> impl Iterator<Item = Name> {
        names(&self.opaque)
    }
}

fn texts(names: &[Vec<u8>]) -> Vec<String> {
    names.iter().map(|name| name.iter().copied().map(char::from).collect()).collect()
}

fn names(texts: &[String]) -> impl Iterator<Item = Name> {
    texts.iter().filter_map(|text| {
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
        Name::parse(&bytes?).ok()
    })
}

/// Tells a failure with all its causes.
pub(super) fn chain(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut source = std::error::Error::source(failure);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
