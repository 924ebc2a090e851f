//! It does what the CRI says. These tests hold for any CRI runtime, see `CRI_SOCKET`, and for any handler, see
//! `CRI_HANDLER`.

mod archives;
mod artifacts;
mod cli;
mod cli_streams;
mod containers;
mod events;
mod exec;
mod handlers;
mod image_volumes;
mod images;
mod layers;
mod limits;
mod logs;
mod metrics;
mod mounts;
mod network;
mod pods;
mod port_forward;
mod processes;
mod registries;
mod sandboxed;
mod server;
mod stats;
mod streaming;
mod streams;
