//! Why a stage ends early: operation and object in words, the error number beside them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::link::{self, FailureKind, FromStage, PACKET_BYTES};
use crate::sys::clone;

/// What the monitor is told.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    pub(super) what: String,
    /// 0 when `what` says it all.
    pub(super) errno: i32,
    pub(super) kind: FailureKind,
}

impl Failure {
    /// A failure that no system call reported.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), errno: 0, kind: FailureKind::Setup }
    }

    /// The same, said of a part of something greater.
    pub(super) fn within(self, what: impl std::fmt::Display) -> Self {
        Self { what: format!("{what}: {}", self.what), ..self }
    }

    pub(super) fn of_kind(self, kind: FailureKind) -> Self {
        Self { kind, ..self }
    }

    /// Tells the monitor and ends the process, dropping nothing.
    pub(super) fn end(mut self, link: &OwnedFd) -> ! {
        // Room is left for the packet's other fields.
        let end = (0..=PACKET_BYTES - 64).rev().find(|end| self.what.is_char_boundary(*end));
        self.what.truncate(end.unwrap_or(0));
        let failed = FromStage::Failed { what: self.what, errno: self.errno, kind: self.kind };
        // A monitor that is gone needs no telling.
        link::send(link, &failed, None).ok();
        clone::exit(1)
    }
}

impl From<Failure> for crate::Failure {
    fn from(failure: Failure) -> Self {
        Self { what: failure.what, errno: failure.errno, kind: failure.kind.into() }
    }
}

/// Adds to a failed call what it was for.
pub(super) trait Context<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Number> Context<T> for Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure { what: what(), errno: error.number(), kind: FailureKind::Setup })
    }
}

/// Errors that are an error number.
pub(super) trait Number {
    fn number(&self) -> i32;
}

impl Number for Errno {
    fn number(&self) -> i32 {
        self.raw_os_error()
    }
}

impl Number for io::Error {
    fn number(&self) -> i32 {
        self.raw_os_error().unwrap_or(libc::EIO)
    }
}

impl Number for nix::Error {
    fn number(&self) -> i32 {
        *self as i32
    }
}
