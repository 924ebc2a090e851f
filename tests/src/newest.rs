//! The contract as Corten states it: for what is newer than the `k8s-cri` crate, which tests use where they can, since
//! it was written by others.

#[allow(clippy::all, clippy::too_many_lines, missing_docs, unreachable_pub, reason = "generated code")]
mod generated {
    tonic::include_proto!("runtime.v1");
}

pub use generated::*;

/// The same message, as the other crate has it; fields that one of them does not know are lost.
pub fn same<From: prost::Message, To: prost::Message + Default>(message: &From) -> crate::Result<To> {
    Ok(To::decode(message.encode_to_vec().as_slice())?)
}
