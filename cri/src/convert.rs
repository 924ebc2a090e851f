//! Between the wire and the domain: requests are parsed into domain types, answers are made from them.
//!
//! This is the only reader of the wire's optional messages and numbers for enums. What the contract forbids, and
//! what Corten does not do yet, is refused here with the name of the field; what comes out is valid
//! (parse, don't validate). Whether it fits the node, the pod or the image is for the `pod` crate to say.

pub(crate) mod container;
mod field;
pub(crate) mod image;
pub(crate) mod metrics;
mod mount;
pub(crate) mod pod;
mod resources;
mod security;
pub(crate) mod shown;
mod signal;
pub(crate) mod stats;
mod stream;
mod users;

/// A field of a request that cannot be accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub(crate) struct Invalid {
    field: String,
    reason: String,
}

impl Invalid {
    fn new(field: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self { field: field.to_string(), reason: reason.into() }
    }
}

pub(crate) use field::{exec_timeout, id, stop_timeout};
pub(crate) use stream::{ports, stdio};

#[cfg(test)]
mod testing {
    use super::Invalid;

    /// Expects that a request is refused, and because of this field.
    #[track_caller]
    pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, Invalid>, field: &str) {
        match result {
            Err(error) => assert_eq!(error.field, field, "{error}"),
            Ok(accepted) => panic!("{field} was accepted: {accepted:?}"),
        }
    }
}
