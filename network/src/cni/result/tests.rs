//! Results of all versions, and from one to the other.

use proptest::prelude::*;

use super::*;

fn result(value: Value) -> AddResult {
    AddResult::from_value(value, Version::NEWEST).expect("valid")
}

fn pair() -> Value {
    json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
        "ip6": {"ip": "fd00::5/64", "routes": [{"dst": "::/0"}]},
        "dns": {"nameservers": ["10.1.0.1"]},
    })
}

fn plain() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0"}],
        "dns": {"nameservers": ["10.1.0.1"]},
    })
}

fn versioned() -> Value {
    let mut value = plain();
    value["cniVersion"] = json!("0.4.0");
    value["ips"][0]["version"] = json!("4");
    value["ips"][1]["version"] = json!("6");
    value
}

#[test]
fn formats_turn_into_each_other() {
    let all = [(pair(), Version::V020), (versioned(), Version::V040), (plain(), Version::V100)];
    for (from, _) in &all {
        for (to, version) in &all {
            let found = result(from.clone()).convert(*version).expect("converts");
            assert_eq!(&found.into_value(), to, "from {from} to {version}");
        }
    }
}

#[test]
fn within_a_format_only_the_version_changes() {
    let mut value = plain();
    value["custom"] = json!([1]);
    value["interfaces"] = json!([{"name": "eth0", "mtu": 1400}]);
    let found = result(value.clone()).convert(Version::V110).expect("converts").into_value();
    value["cniVersion"] = json!("1.1.0");
    assert_eq!(found, value);
}

#[test]
fn what_is_lost_on_the_way_to_a_pair() {
    let value = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "10.0.0.1/8", "interface": 0}, {"address": "10.0.0.2/8", "interface": 0}],
        "routes": [{"dst": "::/0"}],
    });
    let found = result(value).convert(Version::V010).expect("converts").into_value();
    assert_eq!(found, json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.0.0.1/8"}}));
    let none = result(json!({"cniVersion": "1.1.0"})).convert(Version::V020);
    assert!(matches!(none, Err(ResultError::NoAddress(Version::V020))));
}

#[test]
fn a_result_without_version_has_the_one_of_the_call() {
    for text in ["{}", "null", r#"{"cniVersion": ""}"#] {
        let found = AddResult::parse(text.as_bytes(), Version::V040).expect("valid");
        assert_eq!(found.into_value(), json!({"cniVersion": "0.4.0"}), "{text}");
    }
}

#[test]
fn addresses_of_the_pod() {
    let check = |value: Value, expect: &[&str]| {
        let ips = result(value.clone()).ips("eth0").expect("valid");
        let ips: Vec<_> = ips.iter().map(IpAddr::to_string).collect();
        assert_eq!(ips, expect, "{value}");
    };
    check(json!({}), &[]);
    check(pair(), &["10.1.0.5", "fd00::5"]);
    check(plain(), &["10.1.0.5", "fd00::5"]);
    let interfaces = json!([
        {"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}, {"name": "net1", "sandbox": "/run/netns/x"}
    ]);
    let with = |ips: Value| json!({"cniVersion": "1.0.0", "interfaces": interfaces.clone(), "ips": ips});
    check(
        with(json!([
            {"address": "10.9.0.1/16", "interface": 0},
            {"address": "fd00::7/64", "interface": 1},
            {"address": "10.8.0.1/16", "interface": 2},
            {"address": "10.7.0.1/16", "interface": 1},
            {"address": "10.6.0.1/16"},
            {"address": "10.5.0.1/16", "interface": 9},
        ])),
        &["fd00::7", "10.7.0.1", "10.6.0.1"],
    );
    check(with(json!([{"address": "10.9.0.1/16", "interface": 0}])), &[]);
    check(with(json!([{"address": "10.8.0.1/16", "interface": 2}])), &["10.8.0.1"]);
}

#[test]
fn what_is_refused() {
    let check = |text: &str, expect: &str| {
        let error = AddResult::parse(text.as_bytes(), Version::V100).expect_err(text);
        assert_eq!(error.to_string(), expect);
    };
    check("[]", "result is not an object");
    check(r#"{"ips": {}}"#, "ips {} is not a list");
    check(r#"{"ips": ["10.0.0.1/8"]}"#, "ips \"10.0.0.1/8\" is not a list of objects");
    for address in ["10.0.0.1", "10.0.0.1/33", "fd00::1/129", "pod/8", ""] {
        check(
            &format!(r#"{{"ips": [{{"address": "{address}"}}]}}"#),
            &format!("address {address:?} is not an address with its prefix length"),
        );
    }
    check(
        r#"{"cniVersion": "9.0.0"}"#,
        "CNI version \"9.0.0\" is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
    );
    let error = AddResult::parse(b"Segmentation fault", Version::V100).expect_err("not JSON");
    assert!(error.to_string().starts_with("not valid JSON: "));
}

fn any_version() -> impl Strategy<Value = Version> {
    prop::sample::select(Version::ALL.to_vec())
}

proptest! {
    #[test]
    fn one_address_a_family_survives_every_way(first: IpAddr, second: IpAddr, way in prop::collection::vec(any_version(), 1..6)) {
        prop_assume!(first.is_ipv4() && second.is_ipv6());
        let ips = [json!({"address": format!("{first}/24")}), json!({"address": format!("{second}/64")})];
        let mut found = result(json!({"cniVersion": "1.1.0", "ips": ips}));
        for version in way {
            found = found.convert(version).expect("converts");
        }
        prop_assert_eq!(found.ips("eth0").expect("valid"), [first, second]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, version in any_version()) {
        // Only that it returns matters here.
        let _read = AddResult::parse(&bytes, version);
    }
}
