//! It confines what it runs, and no image or request reaches out of its place.

mod apparmor;
mod capabilities;
mod daemon;
mod hostile;
mod identity;
mod layers;
mod mapped;
mod masks;
mod paths;
mod privileges;
mod races;
mod seccomp;
mod selinux;
mod trace;
mod users;
