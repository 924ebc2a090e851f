//! How the network and a pod's attachment are shown to people, in the words that containerd has for `crictl info` and
//! `crictl inspectp`, which scripts read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::config::NetworkConfig;
use crate::Config;
use crate::attachment::INTERFACE;

/// `cniconfig`: where the configuration and the plugins are, and the network in use.
pub(crate) fn configuration(config: &Config, network: Option<&NetworkConfig>) -> Value {
    let networks: Vec<Value> = network.map(show_network).into_iter().collect();
    json!({
        "PluginDirs": config.bin_dirs,
        "PluginConfDir": config.conf_dir,
        "PluginMaxConfNum": 1,
        "Prefix": INTERFACE.trim_end_matches(|c: char| c.is_ascii_digit()),
        "Networks": networks,
    })
}

fn show_network(network: &NetworkConfig) -> Value {
    let plugin = |object: &serde_json::Map<String, Value>| json!({ "Network": object, "Source": Value::from(object.clone()).to_string() });
    json!({
        "IFName": INTERFACE,
        "Config": {
            "Name": network.name,
            "CNIVersion": network.newest().to_string(),
            "Plugins": network.plugins.iter().map(|each| plugin(&each.object)).collect::<Vec<_>>(),
            "Source": String::from_utf8_lossy(network.bytes()),
        },
    })
}

/// `cniResult`: interfaces by name with their addresses, routes and name servers, from the result of ADD.
pub(crate) fn result(result: &Value) -> Value {
    let list = |key: &str| result.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |object: &Value, key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let named = list("interfaces");
    let mut interfaces: BTreeMap<String, Value> = named
        .iter()
        .map(|interface| {
            let about = json!({
                "Mac": text(interface, "mac"), "Sandbox": text(interface, "sandbox"), "IPConfigs": [],
            });
            (text(interface, "name"), about)
        })
        .collect();
    for address in list("ips") {
        let index = address.get("interface").and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
        let interface = index.and_then(|at| named.get(at));
        let name = interface.map_or_else(|| INTERFACE.to_owned(), |interface| text(interface, "name"));
        let about =
            interfaces.entry(name).or_insert_with(|| json!({ "Mac": "", "Sandbox": "", "IPConfigs": [] }));
        let with_prefix = text(&address, "address");
        let ip = with_prefix.split('/').next().unwrap_or_default();
        if let Some(configs) = about["IPConfigs"].as_array_mut() {
            configs.push(json!({ "IP": ip, "Gateway": text(&address, "gateway") }));
        }
    }
    let dns = result.get("dns").cloned().unwrap_or_else(|| json!({}));
    json!({ "Interfaces": interfaces, "Routes": list("routes"), "DNS": [dns] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_shown_by_interface() {
        let shown = result(&json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "br0", "mac": "aa"}, {"name": "eth0", "mac": "bb", "sandbox": "/run/netns/x"}],
            "ips": [
                {"address": "10.1.0.2/16", "gateway": "10.1.0.1", "interface": 1},
                {"address": "fd00::2/64", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0"}],
        }));
        assert_eq!(shown["Interfaces"]["br0"], json!({"Mac": "aa", "Sandbox": "", "IPConfigs": []}));
        let configs = json!([{"IP": "10.1.0.2", "Gateway": "10.1.0.1"}, {"IP": "fd00::2", "Gateway": ""}]);
        assert_eq!(shown["Interfaces"]["eth0"]["IPConfigs"], configs);
        assert_eq!(shown["Routes"], json!([{"dst": "0.0.0.0/0"}]));
        assert_eq!(result(&Value::Null)["Interfaces"], json!({}));
        // One without a list of interfaces means the pod's.
        let bare = result(&json!({"ips": [{"address": "10.1.0.2/16"}]}));
        assert_eq!(bare["Interfaces"]["eth0"]["IPConfigs"][0]["IP"], "10.1.0.2");
    }

    #[test]
    fn the_network_is_shown_with_its_plugins() {
        let text =
            br#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "bridge": "b"}]}"#;
        let network = NetworkConfig::parse_list(text).unwrap();
        let shown = configuration(&Config::default(), Some(&network));
        assert_eq!(shown["Networks"][0]["Config"]["Name"], "net");
        assert_eq!(shown["Networks"][0]["Config"]["Plugins"][0]["Network"]["type"], "bridge");
        assert_eq!(shown["Prefix"], "eth");
        assert_eq!(configuration(&Config::default(), None)["Networks"], json!([]));
    }
}
