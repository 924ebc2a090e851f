//! Compiles the wire contracts under `proto/` with protox, so that building needs no protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["api.proto", "corten.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Maps keep an order, so that answers and records are the same each time.
        .btree_map(".")
        // It holds passwords; `wire.rs` writes the Debug that does not show them.
        .skip_debug([".runtime.v1.AuthConfig"])
        .compile_fds(descriptors)?;
    Ok(())
}
