//! The jail of the process that unpacks layers.
