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

/// A call of the contract.
#[derive(Debug, Clone)]
pub struct Method {
    /// `/runtime.v1.RuntimeService/Version`
    pub path: String,
    /// What it takes.
    pub input: prost_reflect::MessageDescriptor,
    /// What it answers, once or several times.
    pub output: prost_reflect::MessageDescriptor,
}

/// All calls.
pub fn methods() -> Vec<Method> {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    let pool = prost_reflect::DescriptorPool::decode(bytes.as_slice()).unwrap_or_default();
    let method = |method: prost_reflect::MethodDescriptor| Method {
        path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
        input: method.input(),
        output: method.output(),
    };
    pool.services().flat_map(|service| service.methods().map(method).collect::<Vec<_>>()).collect()
}
