//! Unpacking of one layer, in a process of its own.

use std::io::{Read, Write};
use std::process::ExitCode;

/// Unpacks the compressed layer that `input` gives into the working directory, and writes one line of JSON about it.
pub fn main(_input: impl Read + Send, _report: impl Write) -> ExitCode {
    ExitCode::FAILURE
}
