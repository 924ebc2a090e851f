//! Unpacking of one layer, in a process of its own.
//!
//! The process reads an order and the compressed layer, writes the layer into its working directory, what else the
//! archive consists of into a file (`skeleton`), and says in one line how it went. It is closed in before [`main`]
//! runs; that, too, is why it does not share the server's process. Even without the jail no operation here leaves the
//! directory: see `tree`.

mod archive;
mod compare;
mod deferred;
mod failure;
mod header;
mod layer;
mod limits;
mod list;
mod name;
mod pax;
mod remove;
mod report;
mod skeleton;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod tree;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use rustix::fs::{CWD, Mode};

use self::archive::Archive;
use self::failure::Failure;
use self::layer::{Layer, Written};
use self::limits::Limits;
use self::skeleton::Skeleton;
use self::stream::Stream;
use crate::Digest;

pub(crate) use self::compare::compare;
pub use self::list::{Member, list};
pub(crate) use self::name::Name;
pub(crate) use self::remove::tree as remove_tree;
pub(crate) use self::report::{MAX_REPORT_BYTES, Order, Report, Unpacked};
pub(crate) use self::skeleton::Rebuilt;
pub(crate) use self::tree::{is_whiteout, mark_opaque, open_directory};

/// Unpacks the layer that `input` gives into the working directory, writes into `skeleton` what it takes to make the
/// archive again, and to `report` one line of JSON.
///
/// The process should end when this returns: on a failure a thread may still wait for input.
pub fn main(input: impl Read + Send + 'static, report: impl Write, skeleton: File) -> ExitCode {
    // The modes of files are exactly those of the archive.
    rustix::process::umask(Mode::empty());
    let outcome = open_directory(CWD, b"")
        .map_err(Failure::write("open the working directory of", b""))
        .and_then(|root| {
            let skeleton = Skeleton::create(skeleton).map_err(Failure::write("keep the headers of", b""))?;
            unpack(root, BufReader::with_capacity(256 << 10, input), Limits::default(), Some(skeleton))
        });
    let success = outcome.is_ok();
    match Report::new(outcome).write(report) {
        Ok(()) if success => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Writes the report of a process that could not even begin.
pub fn failed(reason: String, report: impl Write) -> ExitCode {
    // Whoever reads the report sees at least that the process failed.
    Report::Failed(reason).write(report).map_or(ExitCode::FAILURE, |()| ExitCode::FAILURE)
}

/// Unpacks into `root`, which is empty.
fn unpack(
    root: OwnedFd,
    mut input: impl BufRead + Send + 'static,
    limits: Limits,
    skeleton: Option<Skeleton>,
) -> Result<(Digest, Written), Failure> {
    let order = Order::read(&mut input).map_err(Failure::Input)?;
    let stream = Stream::start(input, order.diff_id.algorithm(), limits.clone()).map_err(Failure::Input)?;
    let mut archive = Archive::new(stream, skeleton);
    let written = Layer::new(root, &limits).write(&mut archive)?;
    let diff_id = archive.finish()?.digest().map_err(Failure::Input)?;
    Ok((diff_id, written))
}
