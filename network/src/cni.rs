//! What libcni does: the runtime's side of the Container Network Interface, specification 1.1.0.
//!
//! `config` and `directory` find the network, `watch` follows the directory; `chain` calls the plugins
//! one after the other by `plugins` and `process`, with what `arguments` says of the pod, `result` reads
//! their answers and `cache` keeps the last one for the way back.

mod arguments;
mod cache;
mod chain;
mod config;
mod directory;
pub(crate) mod orphans;
mod plugins;
mod process;
mod result;
pub(crate) mod show;
mod status;
mod version;
mod watch;

pub(crate) use chain::Chain;
pub(crate) use status::Watched;
pub use version::{Verb, Version};
