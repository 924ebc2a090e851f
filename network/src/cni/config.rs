//! Network configurations: lists of plugins, and the older single ones, which become lists of one.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::version::{UnknownVersion, Version};

/// A network: the plugins that a pod is handed through.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NetworkConfig {
    /// The network's name; safe within a file name.
    pub(crate) name: String,
    /// The versions that it may be run with, ascending; never empty.
    pub(crate) versions: Vec<Version>,
    /// Whether CHECK is not to be called.
    pub(crate) disable_check: bool,
    /// Whether further plugins are to be looked for in a directory with the network's name.
    pub(crate) open_ended: bool,
    /// The chain, in the order of ADD.
    pub(crate) plugins: Vec<PluginConfig>,
    /// The whole as JSON: what is cached, so that DEL takes down what ADD made.
    bytes: Vec<u8>,
}

/// One plugin of a network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PluginConfig {
    /// The name of the program.
    pub(crate) program: String,
    /// What it can be told in `runtimeConfig`.
    pub(crate) capabilities: BTreeSet<String>,
    /// The configuration as it stands, unknown fields and all.
    pub(crate) object: Map<String, Value>,
}

/// Why a text is no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    #[error("{field} is not {expect}")]
    Field { field: &'static str, expect: &'static str },
    #[error("network name {0:?} is not alphanumeric (with _ . - after the first character)")]
    Name(String),
    #[error("no plugins")]
    NoPlugins,
    #[error("plugin type {0:?} is not a plain file name")]
    Program(String),
    #[error("{0}")]
    Version(UnknownVersion),
}

// === impl NetworkConfig ===

impl NetworkConfig {
    /// Reads a list, the content of a `.conflist` file.
    pub(crate) fn parse_list(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::from_object(parse_object(bytes)?)
    }

    /// Reads a single plugin's configuration, the content of a `.conf` or `.json` file, as a list of one.
    pub(crate) fn parse_single(bytes: &[u8]) -> Result<Self, ConfigError> {
        let plugin = parse_object(bytes)?;
        let mut list = Map::new();
        for key in ["name", "cniVersion"] {
            if let Some(value) = plugin.get(key) {
                list.insert(key.to_owned(), value.clone());
            }
        }
        list.insert("plugins".to_owned(), json!([plugin]));
        Self::from_object(list)
    }

    /// Adds plugins from other files. The result stands for itself: read again, it is the same chain.
    pub(crate) fn extend(mut self, plugins: Vec<PluginConfig>) -> Result<Self, ConfigError> {
        self.open_ended = false;
        self.plugins.extend(plugins);
        if self.plugins.is_empty() {
            return Err(ConfigError::NoPlugins);
        }
        let mut object = parse_object(&self.bytes)?;
        object.insert("loadOnlyInlinedPlugins".to_owned(), json!(true));
        let plugins = self.plugins.iter().map(|plugin| Value::Object(plugin.object.clone())).collect();
        object.insert("plugins".to_owned(), Value::Array(plugins));
        self.bytes = Value::Object(object).to_string().into_bytes();
        Ok(self)
    }

    /// The newest version that the network may be run with.
    pub(crate) fn newest(&self) -> Version {
        self.versions.last().copied().unwrap_or(Version::V010)
    }

    /// The network as JSON.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn from_object(object: Map<String, Value>) -> Result<Self, ConfigError> {
        let name = text(&object, "name")?.unwrap_or_default();
        if !is_name(name) {
            return Err(ConfigError::Name(name.to_owned()));
        }
        let open_ended = !flag(&object, "loadOnlyInlinedPlugins")?;
        let plugins = match object.get("plugins") {
            None if open_ended => Vec::new(),
            None => return Err(ConfigError::NoPlugins),
            Some(Value::Array(plugins)) if plugins.is_empty() => return Err(ConfigError::NoPlugins),
            Some(Value::Array(plugins)) => {
                plugins.iter().map(PluginConfig::from_value).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(ConfigError::Field { field: "plugins", expect: "a list" }),
        };
        Ok(Self {
            name: name.to_owned(),
            versions: versions(&object)?,
            disable_check: flag(&object, "disableCheck")?,
            open_ended,
            plugins,
            bytes: Value::Object(object).to_string().into_bytes(),
        })
    }
}

/// Whether a text fits in a network's name or a container's id, and so in a file name.
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// `cniVersion` and `cniVersions` together; those that are newer than Corten only count when there is no other.
fn versions(object: &Map<String, Value>) -> Result<Vec<Version>, ConfigError> {
    let single = text(object, "cniVersion")?;
    let several = match object.get("cniVersions") {
        None => Vec::new(),
        Some(Value::Array(versions)) => versions
            .iter()
            .map(|version| {
                version.as_str().ok_or(ConfigError::Field { field: "cniVersions", expect: "a list of texts" })
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(ConfigError::Field { field: "cniVersions", expect: "a list" }),
    };
    let mut unknown = None;
    let mut known = BTreeSet::new();
    for version in several.into_iter().chain(single) {
        match Version::parse(version) {
            Ok(version) => {
                known.insert(version);
            }
            Err(error) => unknown = Some(error),
        }
    }
    match unknown {
        Some(error) if known.is_empty() => Err(ConfigError::Version(error)),
        // A configuration without any version is of the time before there were versions.
        None if known.is_empty() => Ok(vec![Version::V010]),
        _ => Ok(known.into_iter().collect()),
    }
}

// === impl PluginConfig ===

impl PluginConfig {
    /// Reads one plugin of a chain.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::from_value(&Value::Object(parse_object(bytes)?))
    }

    fn from_value(value: &Value) -> Result<Self, ConfigError> {
        let Value::Object(object) = value else {
            return Err(ConfigError::Field { field: "plugins", expect: "a list of objects" });
        };
        let program = text(object, "type")?.unwrap_or_default();
        // A path here would execute any program of the host, see CVE-2021-20206.
        if program.is_empty() || program == "." || program == ".." || program.contains(['/', '\\', '\0']) {
            return Err(ConfigError::Program(program.to_owned()));
        }
        let capabilities = match object.get("capabilities") {
            None | Some(Value::Null) => BTreeSet::new(),
            Some(Value::Object(map)) => {
                map.iter().filter(|(_, on)| **on == Value::Bool(true)).map(|(key, _)| key.clone()).collect()
            }
            Some(_) => return Err(ConfigError::Field { field: "capabilities", expect: "an object" }),
        };
        Ok(Self { program: program.to_owned(), capabilities, object: object.clone() })
    }
}

// === fields ===

fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, ConfigError> {
    match serde_json::from_slice(bytes).map_err(ConfigError::Json)? {
        Value::Object(object) => Ok(object),
        _ => Err(ConfigError::Field { field: "configuration", expect: "an object" }),
    }
}

fn text<'a>(object: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, ConfigError> {
    match object.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ConfigError::Field { field, expect: "a text" }),
    }
}

/// Flags are written as booleans, and by some as texts.
fn flag(object: &Map<String, Value>, field: &'static str) -> Result<bool, ConfigError> {
    match object.get(field) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(ConfigError::Field { field, expect: "true or false" }),
    }
}

#[cfg(test)]
mod tests;
