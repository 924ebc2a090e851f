//! Containers that are built for real, by stages that are clones of the test.
//!
//! A stage may only be cloned where no other thread holds a lock. Each test therefore runs its body in a
//! process of its own ([`fixture::alone`]). All need root.

mod fixture;
mod hostile;
mod identity;
mod joining;
mod rootfs;
mod users;
