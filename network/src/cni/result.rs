//! Results of ADD, in the formats of all versions.
//!
//! A result stays the JSON that the plugin wrote, fields unknown here included, and is only rewritten
//! where its version and the wanted one differ: 0.1 and 0.2 have `ip4` and `ip6`, 0.3 and 0.4 a list of
//! addresses each with its `version`, 1.0 and later the same list without.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::version::{UnknownVersion, Version};

/// A result of ADD.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AddResult {
    version: Version,
    object: Map<String, Value>,
}

/// Why a plugin's answer, or a cached one, is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultError {
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    #[error("result is not an object")]
    NotObject,
    #[error("{field} {value} is not {expect}")]
    Field { field: &'static str, value: String, expect: &'static str },
    #[error("result without an address cannot be written in version {0}")]
    NoAddress(Version),
    #[error("{0}")]
    Version(UnknownVersion),
}

/// How addresses are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `ip4` and `ip6`.
    Pair,
    /// `ips`, each with its `version`.
    Versioned,
    /// `ips`.
    Plain,
}

/// One entry of `ips`.
struct Address {
    ip: IpAddr,
    interface: Option<usize>,
}

// === impl AddResult ===

impl AddResult {
    /// Reads what a plugin answered that was called with `called`: the version that a result without one has.
    pub(crate) fn parse(bytes: &[u8], called: Version) -> Result<Self, ResultError> {
        Self::from_value(serde_json::from_slice(bytes).map_err(ResultError::Json)?, called)
    }

    /// Takes what has been read before.
    pub(crate) fn from_value(value: Value, called: Version) -> Result<Self, ResultError> {
        let mut object = match value {
            Value::Object(object) => object,
            // Some plugins say nothing at all in this way.
            Value::Null => Map::new(),
            _ => return Err(ResultError::NotObject),
        };
        let version = match object.get("cniVersion").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Version::parse(text).map_err(ResultError::Version)?,
            _ => called,
        };
        object.insert("cniVersion".to_owned(), json!(version.as_str()));
        let result = Self { version, object };
        result.addresses()?;
        Ok(result)
    }

    /// The result in the format of another version.
    pub(crate) fn convert(self, version: Version) -> Result<Self, ResultError> {
        let (from, to) = (Format::of(self.version), Format::of(version));
        let mut object = self.object;
        match (from, to) {
            (Format::Pair, Format::Versioned | Format::Plain) => pair_to_list(&mut object),
            (Format::Versioned | Format::Plain, Format::Pair) => list_to_pair(&mut object, version)?,
            _ => {}
        }
        match to {
            Format::Plain => each_address(&mut object, |_, address| {
                address.remove("version");
            })?,
            Format::Versioned => each_address(&mut object, |ip, address| {
                address.insert("version".to_owned(), json!(if ip.is_ipv4() { "4" } else { "6" }));
            })?,
            Format::Pair => {}
        }
        object.insert("cniVersion".to_owned(), json!(version.as_str()));
        Ok(Self { version, object })
    }

    /// The addresses of the pod's interface `name`, in the order of the result: those of other interfaces only
    /// when there are no such ones, those on the host never.
    pub(crate) fn ips(&self, name: &str) -> Result<Vec<IpAddr>, ResultError> {
        let interfaces = match self.object.get("interfaces") {
            Some(Value::Array(interfaces)) => interfaces.as_slice(),
            _ => &[],
        };
        let field = |address: &Address, key| {
            interfaces.get(address.interface?)?.get(key)?.as_str().filter(|text| !text.is_empty())
        };
        let addresses = self.addresses()?;
        let named = |address: &&Address| match address.interface {
            None => true,
            Some(_) => field(address, "sandbox").is_some() && field(address, "name") == Some(name),
        };
        let inside = |address: &&Address| field(address, "sandbox").is_some();
        let of = |pick: &dyn Fn(&&Address) -> bool| -> Vec<IpAddr> {
            addresses.iter().filter(|address| pick(address)).map(|address| address.ip).collect()
        };
        let ips = of(&named);
        Ok(if ips.is_empty() { of(&inside) } else { ips })
    }

    /// The result as JSON.
    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.object)
    }

    fn addresses(&self) -> Result<Vec<Address>, ResultError> {
        let mut object = self.object.clone();
        if Format::of(self.version) == Format::Pair {
            pair_to_list(&mut object);
        }
        let mut found = Vec::new();
        each_address(&mut object, |ip, address| {
            let interface = address
                .get("interface")
                .and_then(Value::as_u64)
                .and_then(|index| usize::try_from(index).ok());
            found.push(Address { ip, interface });
        })?;
        Ok(found)
    }
}

// === impl Format ===

impl Format {
    fn of(version: Version) -> Self {
        if version < Version::V030 {
            Self::Pair
        } else if version < Version::V100 {
            Self::Versioned
        } else {
            Self::Plain
        }
    }
}

// === formats ===

/// Turns `ip4` and `ip6` into `ips` and `routes`.
fn pair_to_list(object: &mut Map<String, Value>) {
    let (mut ips, mut routes) = (Vec::new(), Vec::new());
    for key in ["ip4", "ip6"] {
        let Some(Value::Object(mut family)) = object.remove(key) else { continue };
        if let Some(Value::Array(found)) = family.remove("routes") {
            routes.extend(found);
        }
        if let Some(address) = family.remove("ip") {
            family.insert("address".to_owned(), address);
        }
        ips.push(Value::Object(family));
    }
    object.insert("ips".to_owned(), Value::Array(ips));
    object.insert("routes".to_owned(), Value::Array(routes));
}

/// Turns `ips` and `routes` into `ip4` and `ip6`, of which there is one each: further addresses are lost, and
/// the interfaces with them, as there is no place for them.
fn list_to_pair(object: &mut Map<String, Value>, version: Version) -> Result<(), ResultError> {
    let mut pair: [Option<Map<String, Value>>; 2] = [None, None];
    each_address(object, |ip, address| {
        let family = &mut pair[usize::from(ip.is_ipv6())];
        if family.is_none() {
            let pick = |from: &str, to: &str| address.get(from).map(|value| (to.to_owned(), value.clone()));
            *family =
                Some([pick("address", "ip"), pick("gateway", "gateway")].into_iter().flatten().collect());
        }
    })?;
    if pair.iter().all(Option::is_none) {
        return Err(ResultError::NoAddress(version));
    }
    object.remove("ips");
    object.remove("interfaces");
    let routes = match object.remove("routes") {
        Some(Value::Array(routes)) => routes,
        _ => Vec::new(),
    };
    for route in routes {
        let to = network(route.get("dst").unwrap_or(&Value::Null), "routes.dst")?;
        if let Some(family) = &mut pair[usize::from(to.is_ipv6())]
            && let Value::Array(routes) = family.entry("routes").or_insert_with(|| json!([]))
        {
            routes.push(route);
        }
    }
    for (key, family) in ["ip4", "ip6"].into_iter().zip(pair) {
        if let Some(family) = family {
            object.insert(key.to_owned(), Value::Object(family));
        }
    }
    Ok(())
}

/// Calls `work` with each entry of `ips`.
fn each_address(
    object: &mut Map<String, Value>,
    mut work: impl FnMut(IpAddr, &mut Map<String, Value>),
) -> Result<(), ResultError> {
    let ips = match object.get_mut("ips") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(ips)) => ips,
        Some(other) => {
            return Err(ResultError::Field { field: "ips", value: other.to_string(), expect: "a list" });
        }
    };
    for entry in ips {
        let Value::Object(address) = entry else {
            return Err(ResultError::Field {
                field: "ips",
                value: entry.to_string(),
                expect: "a list of objects",
            });
        };
        let ip = network(address.get("address").unwrap_or(&Value::Null), "address")?;
        work(ip, address);
    }
    Ok(())
}

/// The address of a text like `10.1.0.5/16`.
fn network(value: &Value, field: &'static str) -> Result<IpAddr, ResultError> {
    let parse = |text: &str| {
        let (ip, length) = text.split_once('/')?;
        let (ip, length) = (ip.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
        (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some(ip)
    };
    value.as_str().and_then(parse).ok_or_else(|| ResultError::Field {
        field,
        value: value.to_string(),
        expect: "an address with its prefix length",
    })
}

#[cfg(test)]
mod tests;
