//! Real monitors with pause and containers, driven as the daemon drives them. They need root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod attach;
mod container;
mod cost;
mod exec;
mod external;
mod fixture;
mod log;
mod pod;
mod stop;
mod survival;
mod terminal;
