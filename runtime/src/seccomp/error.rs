//! What can be wrong with a profile.

/// A profile that cannot become a filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The action needs something that Corten does not offer.
    #[error("seccomp entry {entry}: the action {action} is not supported")]
    Action {
        /// The entry, counted from 0, or `defaultAction`.
        entry: String,
        /// The action as the profile names it.
        action: String,
    },
    /// An argument rule that makes no sense.
    #[error("seccomp entry {entry}: argument {index} is not valid: {reason}")]
    Argument {
        /// The entry, counted from 0.
        entry: String,
        /// The index of the argument.
        index: usize,
        /// Why not.
        reason: &'static str,
    },
    /// A field of an entry that makes no sense.
    #[error("seccomp entry {entry}: {reason}")]
    Entry {
        /// The entry, counted from 0.
        entry: String,
        /// Why not.
        reason: String,
    },
    /// The JSON is not a profile.
    #[error("read seccomp profile")]
    Json(#[source] serde_json::Error),
    /// The compiled filter is longer than the kernel takes.
    #[error("compile seccomp profile: {instructions} instructions are more than the kernel's 4096")]
    TooLong {
        /// How many it would have.
        instructions: usize,
    },
    /// The profile is larger than Corten reads.
    #[error("read seccomp profile: {bytes} bytes are more than {limit}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many are read.
        limit: usize,
    },
}
