//! Chains of plugins that succeed, fail, hang and talk nonsense.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use network::{Error, NotReady, PluginError, Version};
use serde_json::json;

use crate::node::{Node, pod};

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [
    {"type": "first", "custom": [1]}, {"type": "second", "capabilities": {"portMappings": true, "mac": true}}]}"#;
const ADDS: &str = r#"test $CNI_COMMAND = ADD || exit 0
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}, {"address": "fd00::5/64"}], "custom": 7}'"#;
/// Hands on what came before, as plugins do that add nothing.
const PASSES: &str = r#"test $CNI_COMMAND = ADD || exit 0
printf %s "$input" | sed 's/.*"prevResult"://; s/,"runtimeConfig".*//; s/,"type".*//'"#;
const FAILS: &str = r#"echo '{"code": 100, "msg": "out of luck"}'; exit 1"#;

/// A namespace that is one: the test's own.
fn namespace() -> &'static Path {
    Path::new("/proc/self/ns/net")
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn node(second: &str) -> Node {
    with_plugins(Node::new(LIST), second)
}

fn with_plugins(node: Node, second: &str) -> Node {
    node.plugin("first", ADDS);
    node.plugin("second", second);
    node
}

#[tokio::test]
async fn plugins_are_told_what_the_specification_says() {
    let node = node(PASSES);
    let attached = node.network.attach(&pod(Some(namespace()))).await.expect("attached");
    let ips: Vec<_> = attached.ips.iter().map(ToString::to_string).collect();
    assert_eq!((attached.network.as_str(), ips), ("pods", vec!["10.1.0.5".into(), "fd00::5".into()]));
    assert_eq!(attached.result["custom"], 7);
    assert_eq!(node.log(), ["first ADD /proc/self/ns/net", "second ADD /proc/self/ns/net"]);
    let first = json!({"cniVersion": "1.0.0", "name": "pods", "type": "first", "custom": [1]});
    assert_eq!(node.input("first", "ADD"), first);
    let second = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "second", "prevResult": attached.result,
        "capabilities": {"portMappings": true, "mac": true},
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
    });
    assert_eq!(node.input("second", "ADD"), second);
    let path = std::env::var("PATH").expect("set");
    let expect = [
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;\
         K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=u-1"
            .to_owned(),
        "CNI_COMMAND=ADD".into(),
        "CNI_CONTAINERID=c0ffee".into(),
        "CNI_IFNAME=eth0".into(),
        "CNI_NETNS=/proc/self/ns/net".into(),
        format!("CNI_PATH={}:{}", node.path("none").display(), node.path("bin").display()),
        format!("PATH={path}"),
    ];
    assert_eq!(node.environment("first", "ADD"), expect);
}

#[tokio::test]
async fn del_goes_backwards_with_the_result_and_forgets_it() {
    let node = node(PASSES);
    let attached = node.network.attach(&pod(Some(namespace()))).await.expect("attached");
    assert_eq!(node.cached().len(), 1);
    node.log();
    node.network.detach(&pod(Some(namespace()))).await.expect("detached");
    assert_eq!(node.log(), ["second DEL /proc/self/ns/net", "first DEL /proc/self/ns/net"]);
    assert_eq!(node.input("first", "DEL")["prevResult"], attached.result);
    assert_eq!(node.cached().len(), 0);
    // Once more, as the kubelet does: nothing is known any more, so the plugins are asked to make sure.
    node.network.detach(&pod(Some(namespace()))).await.expect("detached");
    assert_eq!(node.log(), ["second DEL /proc/self/ns/net", "first DEL /proc/self/ns/net"]);
    assert_eq!(node.input("first", "DEL").get("prevResult"), None);
}

#[tokio::test]
async fn del_takes_the_chain_that_added_and_no_namespace_that_is_gone() {
    let node = node(PASSES);
    let pin = node.path("gone");
    node.network.attach(&pod(Some(&pin))).await.expect("attached");
    node.log();
    fs::write(node.path("conf/0.conflist"), LIST.replace("pods", "new").replace("first", "third"))
        .expect("written");
    // What is left of a pin after a reboot.
    fs::write(&pin, "").expect("written");
    let mut now = pod(Some(&pin));
    now.ports.clear();
    node.network.detach(&now).await.expect("detached");
    assert_eq!(node.log(), ["second DEL", "first DEL"]);
    // The arguments are those of then, too.
    assert_eq!(node.input("second", "DEL")["runtimeConfig"]["portMappings"][0]["hostPort"], 8080);
}

#[tokio::test]
async fn del_without_any_configuration() {
    let node = node(PASSES);
    node.network.attach(&pod(None)).await.expect("attached");
    node.log();
    fs::remove_dir_all(node.path("conf")).expect("removed");
    node.network.detach(&pod(None)).await.expect("detached");
    assert_eq!(node.log(), ["second DEL", "first DEL"]);
}

#[tokio::test]
async fn a_failed_add_is_taken_down() {
    let node = node(&format!("test $CNI_COMMAND = DEL && exit 0\n{FAILS}"));
    let error = node.network.attach(&pod(Some(namespace()))).await.expect_err("fails");
    assert_eq!(
        chain(&error),
        "add pod c0ffee to network pods: CNI plugin second, ADD in network pods: out of luck (code 100)"
    );
    let calls = ["first ADD", "second ADD", "second DEL", "first DEL"];
    assert_eq!(node.log(), calls.map(|call| format!("{call} /proc/self/ns/net")));
    // It is told what the plugins before the failed one have made.
    assert_eq!(node.input("first", "DEL")["prevResult"]["ips"][0]["address"], "10.1.0.5/16");
    assert_eq!(node.cached().len(), 0);
}

#[tokio::test]
async fn errors_of_add_and_del_are_both_kept_and_del_can_be_tried_again() {
    let node = node(FAILS);
    let error = node.network.attach(&pod(None)).await.expect_err("fails");
    assert_eq!(
        chain(&error),
        "add pod c0ffee to network pods (and clean up: CNI plugin second, DEL in network pods: out of luck \
         (code 100)): CNI plugin second, ADD in network pods: out of luck (code 100)"
    );
    // The first plugin was not passed over for that.
    assert_eq!(node.log(), ["first ADD", "second ADD", "second DEL", "first DEL"]);
    assert_eq!(node.cached().len(), 1);
    let error = node.network.detach(&pod(None)).await.expect_err("fails");
    assert!(matches!(&error, Error::Delete { errors, .. } if errors.len() == 1), "{error}");
    node.plugin("second", PASSES);
    node.network.detach(&pod(None)).await.expect("detached");
    assert_eq!(node.input("first", "DEL")["prevResult"]["ips"][0]["address"], "10.1.0.5/16");
    assert_eq!(node.cached().len(), 0);
}

#[tokio::test]
async fn nonsense_hangs_and_no_address() {
    let check = async |behaviour: &str, expect: fn(&Error) -> bool| {
        let node = Node::with_limit(LIST, 3);
        let node = with_plugins(node, &format!("test $CNI_COMMAND = DEL && exit 0\n{behaviour}"));
        let error = node.network.attach(&pod(None)).await.expect_err(behaviour);
        let Error::Add { source, cleanup, .. } = &error else { panic!("{error}") };
        assert!(cleanup.is_empty() && expect(source), "{behaviour}: {}", chain(&error));
        assert_eq!(node.log(), ["first ADD", "second ADD", "second DEL", "first DEL"], "{behaviour}");
    };
    fn plugin(error: &Error) -> &PluginError {
        match error {
            Error::Plugin { source, .. } => source,
            other => panic!("{other}"),
        }
    }
    check("exit 0", |error| matches!(plugin(error), PluginError::Garbage { .. })).await;
    check(
        "echo oops; echo why >&2",
        |error| matches!(plugin(error), PluginError::Garbage { stderr, .. } if stderr == "why"),
    )
    .await;
    check("exec sleep 1000", |error| matches!(plugin(error), PluginError::TimedOut { .. })).await;
    check("exec cat /dev/zero", |error| matches!(plugin(error), PluginError::TooMuchOutput { .. })).await;
    check("echo '{\"ips\": []}'", |error| matches!(error, Error::NoAddress { .. })).await;
}

#[tokio::test]
async fn a_plugin_that_is_not_there() {
    let node = Node::new(LIST);
    node.plugin("first", ADDS);
    let error = node.network.attach(&pod(None)).await.expect_err("fails");
    assert!(chain(&error).ends_with(&format!(
        "CNI plugin second, ADD in network pods: not found in {}, {}",
        node.path("none").display(),
        node.path("bin").display()
    )));
    assert_eq!(node.log(), ["first ADD", "first DEL"]);
}

#[tokio::test]
async fn plugins_of_the_first_versions() {
    let node = Node::new(r#"{"cniVersion": "0.2.0", "name": "pods", "plugins": [{"type": "first"}]}"#);
    node.plugin("first", r#"test $CNI_COMMAND = ADD || exit 0; echo '{"ip4": {"ip": "10.1.0.5/16"}}'"#);
    let attached = node.network.attach(&pod(None)).await.expect("attached");
    assert_eq!(attached.result, json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.5/16"}}));
    assert_eq!(attached.ips[0].to_string(), "10.1.0.5");
    let error = node.network.check(&pod(None)).await.expect_err("too old");
    assert!(matches!(error, Error::CheckUnsupported { version: Version::V020, .. }), "{error}");
    node.network.detach(&pod(None)).await.expect("detached");
    assert_eq!(node.input("first", "DEL").get("prevResult"), None);
}

#[tokio::test]
async fn the_newest_version_that_all_speak() {
    let list = r#"{"cniVersions": ["0.3.1", "0.4.0", "1.0.0"], "name": "pods",
        "plugins": [{"type": "first"}, {"type": "second"}]}"#;
    let node = Node::new(list);
    let speaks = |versions: &str, then: &str| {
        format!(
            "test $CNI_COMMAND = VERSION && {{ echo '{{\"cniVersion\": \"1.0.0\", \
             \"supportedVersions\": [{versions}]}}'; exit; }}\n{then}"
        )
    };
    node.plugin("first", &speaks(r#""0.3.1", "0.4.0", "1.0.0", "9.0.0""#, ADDS));
    node.plugin("second", &speaks(r#""0.3.1", "0.4.0""#, PASSES));
    let attached = node.network.attach(&pod(None)).await.expect("attached");
    // The first plugin answered in its own version: the next one gets what it understands.
    let address = json!({"address": "10.1.0.5/16", "version": "4"});
    assert_eq!((&attached.result["cniVersion"], &attached.result["ips"][0]), (&json!("0.4.0"), &address));
    node.network.detach(&pod(None)).await.expect("detached");
    assert_eq!(node.input("second", "DEL")["cniVersion"], "0.4.0");
    let calls = node.log();
    assert_eq!(calls.iter().filter(|call| call.contains("VERSION")).count(), 2, "{calls:?}");
    // Another program in the same place is asked again.
    node.plugin("second", &speaks(r#""0.2.0""#, PASSES));
    let error = node.network.attach(&pod(None)).await.expect_err("nothing in common");
    assert_eq!(
        chain(&error),
        "CNI plugin second, VERSION in network pods: supports CNI versions 0.2.0, \
         the network has 0.3.1, 0.4.0, 1.0.0"
    );
}

#[tokio::test]
async fn check_passes_the_result_to_all() {
    let node = node(PASSES);
    let attached = node.network.attach(&pod(Some(namespace()))).await.expect("attached");
    node.log();
    node.network.check(&pod(Some(namespace()))).await.expect("as it was");
    assert_eq!(node.log(), ["first CHECK /proc/self/ns/net", "second CHECK /proc/self/ns/net"]);
    assert_eq!(node.input("second", "CHECK")["prevResult"], attached.result);
    node.plugin("first", FAILS);
    let error = node.network.check(&pod(Some(namespace()))).await.expect_err("not as it was");
    assert!(matches!(error, Error::Plugin { .. }), "{error}");
}

#[tokio::test]
async fn check_is_left_out_where_the_configuration_says_so() {
    let node = Node::new(&LIST.replacen('{', r#"{"disableCheck": true, "#, 1));
    node.plugin("first", ADDS);
    node.plugin("second", PASSES);
    node.network.attach(&pod(None)).await.expect("attached");
    node.log();
    node.network.check(&pod(None)).await.expect("not asked");
    assert_eq!(node.log(), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_before_anything_happens() {
    let node = node(PASSES);
    for bad in ["../../etc", "", "a b", "x/y"] {
        let mut attachment = pod(None);
        attachment.id = bad.into();
        for error in [
            node.network.attach(&attachment).await.expect_err(bad),
            node.network.detach(&attachment).await.expect_err(bad),
        ] {
            assert!(matches!(error, Error::Argument { field: "id", .. }), "{error}");
        }
    }
    assert_eq!(node.log(), [""; 0]);
}

#[tokio::test]
async fn no_network() {
    let node = Node::new("{");
    let error = node.network.attach(&pod(None)).await.expect_err("no network");
    assert!(matches!(error, Error::NotReady(NotReady::NoConfig { .. })), "{error}");
    let status = node.network.status().expect_err("no network").to_string();
    assert!(
        status.starts_with(&format!("no CNI configuration in {} (", node.path("conf").display())),
        "{status}"
    );
    node.network.detach(&pod(None)).await.expect("nothing to do");
}

#[tokio::test]
async fn many_pods_at_once() {
    static NODE: OnceLock<Node> = OnceLock::new();
    let node = NODE.get_or_init(|| node(PASSES));
    let mut pods = tokio::task::JoinSet::new();
    for number in 0..16 {
        let mut attachment = pod(None);
        attachment.id = format!("pod{number}");
        pods.spawn(async move {
            node.network.attach(&attachment).await.map(drop)?;
            node.network.detach(&attachment).await
        });
    }
    while let Some(ended) = pods.join_next().await {
        ended.expect("joined").expect("attached and detached");
    }
    assert_eq!(node.cached().len(), 0);
}
