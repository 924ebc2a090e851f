//! Bad input: each gets an error with the right code that says what is wrong, and leaves nothing.

mod cgroups;
mod config;
mod disk_full;
mod images;
mod malformed;
mod network;
mod random;
mod requests;
