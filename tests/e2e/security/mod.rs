//! It confines what it runs, and no image or request reaches out of its place.

mod apparmor;
mod capabilities;
mod hostile;
mod identity;
mod layers;
mod paths;
mod privileges;
mod seccomp;
mod users;
