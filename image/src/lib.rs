//! image
#![forbid(unsafe_code)]
