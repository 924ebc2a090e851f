//! It survives: the daemon may be killed at any line, and a monitor takes its pod with it.

mod daemon;
mod monitor;
mod reboot;
mod residue;
mod sessions;
