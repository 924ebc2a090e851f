//! What the directories mean, and which mistakes are named.

use super::super::place::Scheme;
use super::*;

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> (tempfile::TempDir, Hosts) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let hosts = Hosts::new(Some(dir.path()));
    (dir, hosts)
}

fn places(hosts: &Hosts, name: &str) -> Vec<Place> {
    hosts.places(&name.parse().unwrap()).unwrap()
}

fn names(hosts: &Hosts, name: &str) -> Vec<String> {
    places(hosts, name).iter().map(|place| place.name.to_string()).collect()
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    file::parse(text, Path::new("/hosts/q.io")).map(|mut all| all.remove(0).0)
}

#[test]
fn hosts_are_tried_in_the_order_of_the_file() {
    let text = r#"
        server = "https://registry-1.docker.io"
        [host."https://z.mirror.io"]
        capabilities = ["pull"]
        [host."http://a.mirror.io:5000/hub"]
        skip_verify = true
        ca = "ca.pem"
        [host."https://b.mirror.io/v2/proxy"]
        override_path = true
        dial_timeout = "1m0.5s"
        ca = ["/x/1.crt", "2.crt"]
        client = [["c.cert", "c.key"], "both.pem"]
        [host."https://b.mirror.io/v2/proxy".header]
        x-custom = ["one", "two"]
        authorization = "canary"
    "#;
    let (dir, hosts) = directory(&[("docker.io/hosts.toml", text)]);
    let places = places(&hosts, "busybox:1");
    let names: Vec<_> = places.iter().map(|place| (place.name.to_string(), place.role)).collect();
    assert_eq!(
        names,
        [
            ("z.mirror.io/library/busybox:1".to_owned(), Role::Mirror),
            ("a.mirror.io:5000/library/busybox:1".to_owned(), Role::Mirror),
            ("b.mirror.io/library/busybox:1".to_owned(), Role::Mirror),
            ("docker.io/library/busybox:1".to_owned(), Role::Primary),
        ]
    );
    let endpoints: Vec<_> = places.iter().map(|place| place.endpoint.clone().unwrap()).collect();
    assert_eq!((endpoints[0].pulls, endpoints[0].resolves), (true, false));
    assert_eq!((endpoints[1].pulls, endpoints[1].resolves, endpoints[1].skip_verify), (true, true, true));
    assert_eq!((endpoints[1].scheme, endpoints[1].path.as_str()), (Some(Scheme::Http), "/hub/v2"));
    assert_eq!(endpoints[1].tls.roots, [dir.path().join("docker.io/ca.pem")]);
    assert_eq!(endpoints[2].path, "/v2/proxy");
    assert_eq!(endpoints[2].connect, Some(std::time::Duration::from_millis(60_500)));
    assert_eq!(endpoints[2].tls.roots, [PathBuf::from("/x/1.crt"), dir.path().join("docker.io/2.crt")]);
    assert_eq!(endpoints[2].tls.pairs[1].0, endpoints[2].tls.pairs[1].1);
    assert_eq!(endpoints[2].headers.get_all("x-custom").iter().count(), 2);
    assert!(!format!("{:?}", endpoints[2]).contains("canary"));
    assert_eq!((endpoints[3].host.as_str(), endpoints[3].path.as_str()), ("registry-1.docker.io", "/v2"));
    assert!(places[0].why.contains("[host.\"https://z.mirror.io\"] in "), "{}", places[0].why);
}

#[test]
fn directories_have_three_forms() {
    let (_dir, hosts) = directory(&[
        ("q.io_5000_/hosts.toml", "server = \"https://under.io\""),
        ("q.io:5000/hosts.toml", "server = \"https://colon.io\""),
        ("r.io:5000/hosts.toml", "server = \"https://colon.io\""),
        ("_default/hosts.toml", "[host.\"https://mirror.io\"]"),
    ]);
    assert_eq!(names(&hosts, "q.io:5000/x:1"), ["under.io/x:1"]);
    assert_eq!(names(&hosts, "r.io:5000/x:1"), ["colon.io/x:1"]);
    assert_eq!(names(&hosts, "s.io/x:1"), ["mirror.io/x:1", "s.io/x:1"]);
    let (_dir, none) = directory(&[("q.io/hosts.toml", "")]);
    assert_eq!(names(&none, "s.io/x:1"), [""; 0]);
    assert_eq!(names(&Hosts::new(None), "s.io/x:1"), [""; 0]);
}

#[test]
fn a_directory_may_hold_certificates_alone() {
    let (dir, hosts) = directory(&[("q.io/ca.crt", ""), ("q.io/client.cert", ""), ("q.io/client.key", "")]);
    let places = places(&hosts, "q.io/x:1");
    let tls = &places[0].endpoint.as_ref().unwrap().tls;
    assert_eq!(tls.roots, [dir.path().join("q.io/ca.crt")]);
    assert_eq!(tls.pairs, [(dir.path().join("q.io/client.cert"), dir.path().join("q.io/client.key"))]);
    assert_eq!(places[0].role, Role::Primary);
}

#[test]
fn settings_at_the_top_are_the_servers() {
    let endpoint = endpoint("skip_verify = true\nca = \"ca.crt\"").unwrap();
    assert!(endpoint.skip_verify && endpoint.host.is_empty() && endpoint.scheme.is_none());
    assert_eq!(endpoint.tls.roots, [PathBuf::from("/hosts/q.io/ca.crt")]);
}

#[test]
fn mistakes_are_named() {
    let check = |text: &str, part: &str| {
        let error = endpoint(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    };
    check("server = \"ftp://q.io\"", "scheme is \"ftp\"");
    check("server = \"https://u:p@q.io\"", "host alone");
    check(
        "\n[host.\"https://q.io\"]\ncapabilities = [\"fly\"]",
        "line 2: [host.\"https://q.io\"]: capability",
    );
    check("server = \"q.io\"\ndial_timeout = \"3\"", "dial_timeout");
    check("server = \"q.io\"\n[header]\n\"a b\" = \"canary\"", "header \"a b\" cannot be sent");
    check("server = 7", "invalid type");
    check("[host", "TOML parse error");
}

#[test]
fn files_are_read_again_when_they_change() {
    let (dir, hosts) = directory(&[("q.io/hosts.toml", "server = \"https://one.io\"")]);
    let write = |text: &str| std::fs::write(dir.path().join("q.io/hosts.toml"), text).unwrap();
    assert_eq!(names(&hosts, "q.io/x:1"), ["one.io/x:1"]);
    // Of another length: not every kernel's times tell two writes apart.
    write("server = \"https://three.io\"");
    assert_eq!(names(&hosts, "q.io/x:1"), ["three.io/x:1"]);
    write("no toml at all");
    assert_eq!(names(&hosts, "q.io/x:1"), ["three.io/x:1"], "the old hosts go on");
    let error = Hosts::new(Some(dir.path())).places(&"q.io/x:1".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("q.io/hosts.toml"), "{error}");
    std::fs::remove_dir_all(dir.path().join("q.io")).unwrap();
    assert_eq!(names(&hosts, "q.io/x:1"), [""; 0]);
}
