//! Protobuf messages as JSON and back (protobuf's JSON mapping), with the contract's own descriptors.

use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, anyhow};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::Value;

static DESCRIPTORS: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_slice();
    DescriptorPool::decode(bytes).map_err(|error| error.to_string())
});

/// The message as JSON; `name` is its name in `runtime.v1`.
pub(crate) fn to_json<M: Message>(name: &str, message: &M) -> anyhow::Result<Value> {
    let dynamic = DynamicMessage::decode(descriptor(name)?, message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new().skip_default_fields(false);
    Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// The message as JSON in Go's manner, as containerd shows configurations: fields by their names in the contract, enums
/// as numbers, and nothing that is at its default.
pub(crate) fn to_plain_json<M: Message>(name: &str, message: &M) -> anyhow::Result<Value> {
    let dynamic = DynamicMessage::decode(descriptor(name)?, message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .use_enum_numbers(true)
        .stringify_64_bit_integers(false);
    Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// Reads a file with the message as JSON or YAML, fields named as in the contract or in lower camel case.
pub(crate) fn from_file<M: Message + Default>(name: &str, path: &Path) -> anyhow::Result<M> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    from_text(name, &text).with_context(|| format!("read {}", path.display()))
}

fn from_text<M: Message + Default>(name: &str, text: &str) -> anyhow::Result<M> {
    // YAML contains JSON.
    let value: Value = serde_norway::from_str(text)?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor(name)?, value, &options)?;
    Ok(dynamic.transcode_to()?)
}

fn descriptor(name: &str) -> anyhow::Result<MessageDescriptor> {
    let pool = DESCRIPTORS.as_ref().map_err(|error| anyhow!("{error}"))?;
    pool.get_message_by_name(&format!("runtime.v1.{name}")).with_context(|| format!("no message {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cri::PodSandboxConfig;

    #[test]
    fn files_for_crictl_are_understood() {
        for text in [
            r#"{"metadata": {"name": "a", "uid": "u", "attempt": 1}, "log_directory": "/l",
                "linux": {"security_context": {"namespace_options": {"network": 2}}}}"#,
            "metadata:\n  name: a\n  uid: u\n  attempt: 1\nlog_directory: /l\n\
             linux:\n  security_context:\n    namespace_options:\n      network: NODE\n",
        ] {
            let config: PodSandboxConfig = from_text("PodSandboxConfig", text).unwrap();
            assert_eq!(config.metadata.unwrap().attempt, 1);
            assert_eq!(config.log_directory, "/l");
            let security = config.linux.unwrap().security_context.unwrap();
            assert_eq!(security.namespace_options.unwrap().network, 2);
        }
        let unknown = from_text::<PodSandboxConfig>("PodSandboxConfig", "metdata: {}").unwrap_err();
        assert!(format!("{unknown:#}").contains("metdata"), "{unknown:#}");
    }

    #[test]
    fn messages_are_shown_whole() {
        let json = to_json("PodSandboxConfig", &PodSandboxConfig::default()).unwrap();
        assert_eq!(json["hostname"], "");
        assert_eq!(json["logDirectory"], "");
    }
}
