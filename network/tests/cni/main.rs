//! The network as the daemon uses it: against plugins that behave in every way, and against Debian's real ones.

mod debian;
mod fake;
mod node;
