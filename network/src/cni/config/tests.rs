//! Networks from texts.

use proptest::prelude::*;

use super::*;

fn list(text: &str) -> Result<NetworkConfig, String> {
    NetworkConfig::parse_list(text.as_bytes()).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, expect: &str) {
    assert_eq!(list(text).expect_err(text), expect);
}

#[test]
fn a_list() {
    let found = list(
        r#"{"cniVersion": "1.0.0", "name": "pods", "disableCheck": "True", "plugins": [
            {"type": "bridge", "ipam": {"type": "host-local"}},
            {"type": "portmap", "capabilities": {"portMappings": true, "other": false}}]}"#,
    )
    .expect("valid");
    assert_eq!(found.name, "pods");
    assert_eq!(found.versions, [Version::V100]);
    assert!(found.disable_check && found.open_ended);
    assert_eq!(found.plugins[0].program, "bridge");
    assert_eq!(found.plugins[0].object["ipam"]["type"], "host-local");
    assert_eq!(found.plugins[1].capabilities.iter().collect::<Vec<_>>(), ["portMappings"]);
}

#[test]
fn a_single_configuration_becomes_a_list_that_reads_the_same() {
    let text = br#"{"cniVersion": "0.2.0", "name": "old", "type": "ptp", "mtu": 1400}"#;
    let found = NetworkConfig::parse_single(text).expect("valid");
    assert_eq!((found.name.as_str(), found.newest()), ("old", Version::V020));
    assert_eq!(found.plugins[0].object["mtu"], 1400);
    assert_eq!(NetworkConfig::parse_list(found.bytes()).expect("valid"), found);
}

#[test]
fn versions_of_a_list() {
    let check = |fields: &str, expect: &[Version]| {
        let found =
            list(&format!(r#"{{"name": "n", {fields} "plugins": [{{"type": "p"}}]}}"#)).expect(fields);
        assert_eq!(found.versions, expect, "{fields}");
    };
    check("", &[Version::V010]);
    check(r#""cniVersion": "","#, &[Version::V010]);
    check(r#""cniVersion": "0.3.1","#, &[Version::V031]);
    check(
        r#""cniVersion": "1.0.0", "cniVersions": ["1.1.0", "0.4.0", "1.0.0"],"#,
        &[Version::V040, Version::V100, Version::V110],
    );
    check(r#""cniVersions": ["0.4.0", "7.0.0"],"#, &[Version::V040]);
    check(r#""cniVersion": "7.0.0", "cniVersions": ["1.1.0"],"#, &[Version::V110]);
}

#[test]
fn plugins_from_further_files_are_kept_in_the_text() {
    let further = PluginConfig::parse(br#"{"type": "tuning"}"#).expect("valid");
    let found =
        list(r#"{"name": "n"}"#).and_then(|found| found.extend(vec![further]).map_err(|e| e.to_string()));
    let found = found.expect("valid");
    assert_eq!(found.plugins[0].program, "tuning");
    assert_eq!(NetworkConfig::parse_list(found.bytes()).expect("valid"), found);
    let none = list(r#"{"name": "n"}"#).expect("valid").extend(Vec::new());
    assert!(matches!(none, Err(ConfigError::NoPlugins)));
}

#[test]
fn what_is_refused() {
    refused("[]", "configuration is not an object");
    refused(r#"{"name": 1, "plugins": []}"#, "name is not a text");
    refused(
        r#"{"plugins": [{"type": "p"}]}"#,
        "network name \"\" is not alphanumeric (with _ . - after the first character)",
    );
    refused(
        r#"{"name": "../x", "plugins": [{"type": "p"}]}"#,
        "network name \"../x\" is not alphanumeric (with _ . - after the first character)",
    );
    refused(r#"{"name": "n", "plugins": []}"#, "no plugins");
    refused(r#"{"name": "n", "loadOnlyInlinedPlugins": true}"#, "no plugins");
    refused(r#"{"name": "n", "plugins": {}}"#, "plugins is not a list");
    refused(r#"{"name": "n", "plugins": [{}]}"#, "plugin type \"\" is not a plain file name");
    for program in ["../../bin/sh", "/bin/sh", "..", ".", "a/b"] {
        refused(
            &format!(r#"{{"name": "n", "plugins": [{{"type": "{program}"}}]}}"#),
            &format!("plugin type {program:?} is not a plain file name"),
        );
    }
    refused(
        r#"{"name": "n", "disableCheck": 1, "plugins": [{"type": "p"}]}"#,
        "disableCheck is not true or false",
    );
    refused(
        r#"{"name": "n", "cniVersion": "2.0.0", "plugins": [{"type": "p"}]}"#,
        "CNI version \"2.0.0\" is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
    );
    assert!(list("{").expect_err("not JSON").starts_with("not valid JSON: "));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        prop_assert!(NetworkConfig::parse_list(&bytes).is_err());
        prop_assert!(NetworkConfig::parse_single(&bytes).is_err());
    }

    #[test]
    fn programs_never_leave_their_directory(program in "\\PC*") {
        let text = json!({"name": "n", "plugins": [{"type": program}]}).to_string();
        if let Ok(found) = list(&text) {
            let path = std::path::Path::new("/opt/cni/bin").join(&found.plugins[0].program);
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/opt/cni/bin")));
        }
    }
}
