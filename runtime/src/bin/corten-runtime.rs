//! corten-runtime
fn main() {}
