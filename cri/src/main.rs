//! Corten: the server of the Container Runtime Interface, and the command line for people.
#![forbid(unsafe_code)]

mod wire;

fn main() {}
