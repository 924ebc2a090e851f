//! What libcni does: the runtime's side of the Container Network Interface.

mod version;

pub use version::{Verb, Version};
