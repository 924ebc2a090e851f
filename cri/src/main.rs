//! Corten: the server of the Container Runtime Interface, and the command line for people.
#![forbid(unsafe_code)]

mod config;
mod convert;
mod wire;

fn main() {}
