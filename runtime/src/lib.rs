//! Corten's OCI runtime: the monitor beside each pod, the stages of container processes, control groups, seccomp.

pub mod apparmor;
pub mod capabilities;
pub mod cgroup;
mod client;
mod error;
pub mod external;
pub mod host;
pub mod jail;
mod launch;
pub mod monitor;
pub mod mount;
mod native;
mod order;
mod pause;
pub mod plan;
mod processes;
mod seal;
pub mod seccomp;
pub mod selinux;
pub mod sys;
mod terminal;

pub use client::{Events, Monitor};
pub use error::{Error, Failure, FailureKind};
pub use launch::{Config, Launched, Placeholder, Runtime};
pub use order::{
    AttachOrder, ContainerOrder, ContainerReport, ContainerState, Detachment, Event, ExecExit, ExecOrder,
    ExecStdio, Executor, Exit, IdMap, NamespaceMode, Network, PidNamespace, Report, Sandbox, Stdin,
    recorded_exit,
};
pub use processes::Processes;
pub use terminal::{Handover, Terminal};
