//! The fixture of Corten's integration tests.
//!
//! A [`Node`] is one daemon on scratch directories with a registry, a CNI network and cgroups of its
//! own. A [`Kubelet`] talks to it as the kubelet does, through the client of the `k8s-cri` crate,
//! which states the wire contract independently of Corten, and removes what a test made. Tests are
//! written as `on_node(async |kubelet| { ... })`.
//!
//! With `CRI_SOCKET=/path/of/a/socket` the functional tests run against any other CRI runtime that
//! reaches the stand-in images (see `hack/images conf`), which keeps the tests themselves honest. With
//! `CRI_HANDLER=runc` the pods of a test that names no handler are for that one.

pub mod bus;
pub mod census;
pub mod cgroup;
pub mod container;
pub mod cri;
pub mod distribution;
pub mod host;
pub mod image;
pub mod kubelet;
pub mod log;
pub mod network;
pub mod newest;
pub mod node;
pub mod origin;
pub mod pod;
pub mod proxy;
pub mod random;
pub mod registry;
pub mod run;
pub mod slice;
pub mod streaming;
pub mod tokens;
pub mod wait;

pub use container::Container;
pub use kubelet::Kubelet;
pub use node::Node;
pub use pod::Pod;
pub use run::{Setup, on_node, on_own_node, skip};
pub use wait::{eventually, rounds};

/// What a test returns; what a single call returns has the call's status for an error.
pub type Result<T = (), E = anyhow::Error> = std::result::Result<T, E>;
