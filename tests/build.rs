//! Compiles the contract as Corten states it, for the fields and calls that are newer than the `k8s-cri` crate.

use std::error::Error;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../cri/proto/api.proto");
    let descriptors = protox::compile(["api.proto"], ["../cri/proto"])?;
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_server(false).btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
