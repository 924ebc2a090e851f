//! It confines what it runs, and no image or request reaches out of its place.

mod capabilities;
mod layers;
mod paths;
mod privileges;
mod seccomp;
