//! Corten as its users meet it: the built daemon, over its socket, on this machine's kernel.
//!
//! The directories are named after what they promise. Everything here needs root; `hack/test` builds
//! what is needed and runs it.

mod crash;
mod errors;
mod functional;
mod security;
