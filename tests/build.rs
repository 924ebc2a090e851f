//! Compiles the contract as Corten states it, for the fields and calls that are newer than the `k8s-cri` crate.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../cri/proto/api.proto");
    let descriptors = protox::compile(["api.proto"], ["../cri/proto"])?;
    tonic_prost_build::configure().build_server(false).btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
