//! Random messages of the contract, made from its description.

use std::path::Path;

use prost::Message;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::newest::Method;
use crate::{Node, Result};

/// How deep messages are filled by chance.
const DEPTH: usize = 6;
/// Ids that are remembered from answers.
const KNOWN: usize = 64;

/// Makes requests; the same seed makes the same ones as long as the server answers the same.
#[derive(Debug)]
pub struct Generator {
    state: u64,
    /// Below which everything is made that a request names.
    dir: String,
    cgroups: [String; 2],
    /// Ids and names that answers contained.
    known: Vec<String>,
    pod: Vec<u8>,
    container: Vec<u8>,
}

impl Generator {
    /// `good` are requests to run a pod and to create a container that the server fulfils.
    pub fn new(
        seed: u64,
        node: &Node,
        good: (&k8s_cri::v1::RunPodSandboxRequest, &k8s_cri::v1::CreateContainerRequest),
    ) -> Result<Self> {
        let dir: &Path = node.dir();
        Ok(Self {
            // Zero would stay zero.
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            dir: dir.join("random").display().to_string(),
            cgroups: ["random", "other/below"].map(|uid| node.pod_cgroup(uid)),
            known: vec![good.1.pod_sandbox_id.clone()],
            pod: good.0.encode_to_vec(),
            container: good.1.encode_to_vec(),
        })
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        // xorshift64*, Vigna 2016.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let number = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or_default() % end.max(1)
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let index = self.below(list.len());
        list.get(index).copied().unwrap_or_default()
    }

    /// A request of this method, encoded.
    pub fn request(&mut self, method: &Method) -> Vec<u8> {
        let good = match method.path.rsplit('/').next() {
            Some("RunPodSandbox") => self.pod.clone(),
            Some("CreateContainer") => self.container.clone(),
            _ => Vec::new(),
        };
        let mut message = DynamicMessage::decode(method.input.clone(), good.as_slice())
            .unwrap_or_else(|_| DynamicMessage::new(method.input.clone()));
        if good.is_empty() || self.one_in(3) {
            self.fill(&mut message, 0);
        } else {
            for _ in 0..=self.below(3) {
                self.change(&mut message);
            }
            if method.path.ends_with("RunPodSandbox") {
                self.rename(&mut message);
            }
        }
        message.encode_to_vec()
    }

    /// Keeps the words of an answer that look like ids or names.
    pub fn learn(&mut self, method: &Method, answer: &[u8]) {
        let Ok(answer) = DynamicMessage::decode(method.output.clone(), answer) else { return };
        for (_, value) in answer.fields() {
            if let Value::String(text) = value
                && !text.is_empty()
                && text.len() < 100
            {
                if self.known.len() >= KNOWN {
                    let index = self.below(KNOWN);
                    self.known.swap_remove(index);
                }
                self.known.push(text.clone());
            }
        }
    }

    /// Sets fields by chance, a few of each message.
    fn fill(&mut self, message: &mut DynamicMessage, depth: usize) {
        let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
        for field in fields {
            if depth < DEPTH && !self.one_in(3) {
                let value = self.value(&field, depth);
                message.set_field(&field, value);
            }
        }
    }

    /// Changes one field somewhere in the message.
    fn change(&mut self, message: &mut DynamicMessage) {
        let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
        let index = self.below(fields.len());
        let Some(field) = fields.get(index) else { return };
        let plain = !field.is_list() && !field.is_map();
        if plain && matches!(field.kind(), Kind::Message(_)) && message.has_field(field) && !self.one_in(5) {
            if let Value::Message(inner) = message.get_field_mut(field) {
                self.change(inner);
            }
            return;
        }
        let value = self.value(field, DEPTH - 2);
        message.set_field(field, value);
    }

    /// Gives a pod a name of its own, most of the time.
    fn rename(&mut self, message: &mut DynamicMessage) {
        let number = self.below(1_000_000);
        let attempt = u32::try_from(number).unwrap_or_default();
        if let Some(Value::Message(config)) = message.get_field_by_name_mut("config")
            && let Some(Value::Message(metadata)) = config.get_field_by_name_mut("metadata")
            && !self.one_in(5)
        {
            metadata.set_field_by_name("attempt", Value::U32(attempt));
        }
    }

    fn value(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return Value::Map(Default::default()) };
            let mut map = std::collections::HashMap::new();
            for _ in 0..self.below(3) {
                let key = MapKey::String(self.text(field.name()));
                map.insert(key, self.single(&entry.map_entry_value_field(), depth));
            }
            return Value::Map(map);
        }
        if field.is_list() {
            return Value::List((0..self.below(4)).map(|_| self.single(field, depth)).collect());
        }
        self.single(field, depth)
    }

    fn single(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        match field.kind() {
            Kind::Bool => Value::Bool(self.one_in(2)),
            Kind::String => Value::String(self.text(field.name())),
            Kind::Bytes => Value::Bytes(self.text(field.name()).into_bytes().into()),
            Kind::Enum(values) => {
                let count = values.values().count();
                let number = if self.one_in(6) { 99 } else { self.below(count) };
                Value::EnumNumber(i32::try_from(number).unwrap_or_default())
            }
            Kind::Message(inner) => Value::Message(self.message(inner, depth + 1)),
            Kind::Double => Value::F64(0.5),
            Kind::Float => Value::F32(0.5),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                Value::I32(i32::try_from(self.number()).unwrap_or(i32::MIN))
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.number()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(u32::try_from(self.number()).unwrap_or(u32::MAX)),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(u64::try_from(self.number()).unwrap_or(u64::MAX)),
        }
    }

    fn message(&mut self, descriptor: MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor);
        self.fill(&mut message, depth);
        message
    }

    fn number(&mut self) -> i64 {
        const EDGES: [i64; 14] =
            [0, 1, 2, -1, 3, 80, 1000, 65_535, 65_536, 1 << 31, 1 << 32, i64::MAX, i64::MIN, 64 << 20];
        let index = self.below(EDGES.len());
        EDGES.get(index).copied().unwrap_or_default()
    }

    /// A text that fits the field, or a hostile one. What could change the machine stays below the test's directory and
    /// cgroup.
    fn text(&mut self, field: &str) -> String {
        if self.one_in(6) {
            let hostile =
                ["", "\0", "..", "../..", "a\nb", "\u{202e}", "%s%n", "-1", "a b;c=d", "\u{7f}", "{}"];
            return self.pick(&hostile).to_owned();
        }
        if self.one_in(40) {
            return "x".repeat(9000);
        }
        let (dir, cgroups) = (self.dir.clone(), self.cgroups.clone());
        match field {
            "cgroup_parent" => self.pick(&[&cgroups[0], &cgroups[1]]).to_owned(),
            "host_path" => match self.pick(&["", "file", "device", "none", "usr"]) {
                "usr" => "/usr".to_owned(),
                "device" => "/dev/null".to_owned(),
                name => format!("{dir}/{name}"),
            },
            "log_directory" => format!("{dir}/logs"),
            "log_path" => self.pick(&["a.log", "b/0.log"]).to_owned(),
            "container_path" | "working_dir" | "masked_paths" | "readonly_paths" => {
                self.pick(&["/data", "/proc", "/etc/hosts", "/dev/x", "/data/below", "/tmp"]).to_owned()
            }
            "image_sub_path" => self.pick(&["etc", "bin/sh", "no"]).to_owned(),
            "permissions" => self.pick(&["rwm", "r", "x"]).to_owned(),
            "cmd" | "command" | "args" => self.pick(&["true", "sh", "sleep", "3", "/no/such"]).to_owned(),
            "cpuset_cpus" | "cpuset_mems" => self.pick(&["0", "0-1", "77"]).to_owned(),
            "page_size" => self.pick(&["2MB", "1GB", "3MB"]).to_owned(),
            "sysctls" => self.pick(&["net.ipv4.ip_default_ttl", "kernel.shm_rmid_forced", "x.y"]).to_owned(),
            "unified" => self.pick(&["memory.high", "pids.max", "x.max"]).to_owned(),
            "runtime_handler" => self.pick(&["", "corten", "no"]).to_owned(),
            "image" => self.image(),
            "hostname" | "name" | "namespace" | "uid" => self.pick(&["a", "b", "pod-1"]).to_owned(),
            _ => self.familiar(),
        }
    }

    fn image(&mut self) -> String {
        let names = [
            "registry.k8s.io/e2e-test-images/busybox:1.29-2",
            "registry.k8s.io/e2e-test-images/busybox:1.36.1-1",
            "busybox",
            "registry.k8s.io/no:such",
        ];
        if self.one_in(2) { self.familiar() } else { self.pick(&names).to_owned() }
    }

    fn familiar(&mut self) -> String {
        let index = self.below(self.known.len());
        self.known.get(index).cloned().unwrap_or_default()
    }
}

/// Messages as bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        let mut bytes = vec![0; length];
        bytes::Buf::copy_to_slice(buffer, &mut bytes);
        Ok(Some(bytes))
    }
}
