//! The OCI form, as JSON.

use super::*;

fn limits(json: &str) -> Result<Limits, Error> {
    Limits::from_spec(&serde_json::from_str(json).unwrap())
}

#[test]
fn takes_what_the_kubelet_sends() {
    let limits = limits(
        r#"{
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0-1", "mems": ""},
            "memory": {"limit": 1048576, "swap": 1048576, "reservation": 0, "checkBeforeUpdate": true},
            "pids": {"limit": 100},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "unified": {"memory.oom.group": "1"},
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}]
            }
        }"#,
    )
    .unwrap();
    let expected = Limits {
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpuset_cpus: Some("0-1".into()),
        memory_limit: Some(1 << 20),
        memory_swap: Some(1 << 20),
        pids: Some(100),
        hugepages: vec![HugepageLimit { size: "2MB".into(), limit: 0 }],
        unified: BTreeMap::from([("memory.oom.group".into(), "1".into())]),
        io_limits: vec![IoLimit {
            major: 8,
            minor: 0,
            read_bps: Some(5),
            write_bps: None,
            read_iops: None,
            write_iops: Some(7),
        }],
        ..Limits::default()
    };
    assert_eq!(limits, expected);
}

#[test]
fn empty_is_nothing() {
    assert_eq!(limits("{}").unwrap(), Limits::default());
    let zeros = r#"{"cpu": {"shares": 0, "quota": 0, "period": 0}, "memory": {"limit": 0, "swap": 0}}"#;
    assert_eq!(limits(zeros).unwrap(), Limits::default());
}

#[test]
fn devices_end_with_the_defaults() {
    let rules = limits(
        r#"{"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"},
            {"allow": true, "type": "b", "major": 8, "minor": -1, "access": ""}
        ]}"#,
    )
    .unwrap()
    .devices
    .unwrap();
    let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
    assert_eq!(texts[..3], ["deny a *:* rwm", "allow c 10:200 rw", "allow b 8:* rwm"]);
    assert_eq!(rules[3..], DeviceRule::defaults());
    assert_eq!(limits("{}").unwrap().devices, None);
}

#[test]
fn refuses_by_name() {
    let cases = [
        (r#"{"cpu": {"idle": 1}}"#, "cpu.idle"),
        (r#"{"cpu": {"realtimeRuntime": 5}}"#, "cpu.realtimeRuntime"),
        (r#"{"cpu": {"cpus": "0;1"}}"#, "cpu.cpus"),
        (r#"{"cpu": {"mems": "../x"}}"#, "cpu.mems"),
        (r#"{"memory": {"swappiness": 5}}"#, "memory.swappiness"),
        (r#"{"memory": {"disableOOMKiller": true}}"#, "memory.disableOOMKiller"),
        (r#"{"hugepageLimits": [{"pageSize": "../../x", "limit": 0}]}"#, "hugepageLimits"),
        (r#"{"hugepageLimits": [{"pageSize": "MB", "limit": 0}]}"#, "hugepageLimits"),
        (r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": -1}]}"#, "hugepageLimits"),
        (r#"{"devices": [{"allow": true, "type": "p"}]}"#, "devices"),
        (r#"{"devices": [{"allow": true, "access": "x"}]}"#, "devices"),
        (r#"{"devices": [{"allow": true, "major": -2}]}"#, "devices"),
        (r#"{"blockIO": {"leafWeight": 5}}"#, "blockIO.leafWeight"),
        (
            r#"{"blockIO": {"throttleReadBpsDevice": [{"major": -8, "minor": 0, "rate": 5}]}}"#,
            "blockIO.throttle",
        ),
        (r#"{"network": {"classID": 5}}"#, "network"),
        (r#"{"rdma": {"mlx": {"hcaHandles": 5}}}"#, "rdma"),
    ];
    for (json, name) in cases {
        let text = limits(json).unwrap_err().to_string();
        assert!(text.contains(name), "{json}: {text}");
    }
}
