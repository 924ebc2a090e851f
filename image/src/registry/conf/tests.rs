//! What the files mean, and which mistakes are named.

use super::*;

fn rules(text: &str) -> Result<Rules, String> {
    let mut rules = Rules::default();
    rules.merge(text, Path::new("/r.conf"))?;
    Ok(rules)
}

fn places(rules: &Rules, name: &str) -> Vec<String> {
    let places = rules.places(&name.parse().unwrap()).unwrap();
    places.iter().map(|p| format!("{}{}", p.name, if p.insecure { " insecure" } else { "" })).collect()
}

#[test]
fn the_example_of_the_man_page() {
    let rules = rules(
        r#"
        unqualified-search-registries = ["example.com"]
        [[registry]]
        prefix = "example.com/foo"
        location = "internal-registry-for-example.com/bar"
        [[registry.mirror]]
        location = "example-mirror-0.local/mirror-for-foo"
        [[registry.mirror]]
        location = "example-mirror-1.local/mirrors/foo"
        insecure = true
        [[registry]]
        location = "registry.com"
        [[registry.mirror]]
        location = "mirror.registry.com"
        "#,
    )
    .unwrap();
    assert_eq!(
        places(&rules, "example.com/foo/image:latest"),
        [
            "example-mirror-0.local/mirror-for-foo/image:latest",
            "example-mirror-1.local/mirrors/foo/image:latest insecure",
            "internal-registry-for-example.com/bar/image:latest",
        ]
    );
    assert_eq!(places(&rules, "example.com/foobar:1"), [""; 0]);
    assert_eq!(
        places(&rules, "registry.com/image:latest"),
        ["mirror.registry.com/image:latest", "registry.com/image:latest"]
    );
    assert_eq!(rules.names("img:1").unwrap()[0].to_string(), "example.com/img:1");
}

#[test]
fn the_longest_prefix_wins_and_wildcards_cover_subdomains() {
    let rules = rules(
        r#"
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry]]
        prefix = "a.example.com"
        location = "other.net/a"
        [[registry]]
        prefix = "a.example.com/secret"
        blocked = true
        [[registry]]
        prefix = "docker.io/library"
        location = "127.0.0.1:5000/hub"
        "#,
    )
    .unwrap();
    assert_eq!(places(&rules, "b.example.com/x:1"), ["b.example.com/x:1 insecure"]);
    assert_eq!(places(&rules, "c.b.example.com:5000/x:1"), ["c.b.example.com:5000/x:1 insecure"]);
    assert_eq!(places(&rules, "example.com/x:1"), [""; 0]);
    assert_eq!(places(&rules, "a.example.com/x:1"), ["other.net/a/x:1"]);
    assert_eq!(places(&rules, "busybox"), ["127.0.0.1:5000/hub/busybox:latest"]);
    let blocked = rules.places(&"a.example.com/secret/x".parse().unwrap());
    assert!(matches!(blocked, Err(Error::Blocked { rule, .. }) if rule.contains("a.example.com/secret")));
}

#[test]
fn mirrors_for_tags_and_digests() {
    let rules = rules(
        r#"
        [[registry]]
        location = "q.io"
        [[registry.mirror]]
        location = "digests.q.io"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.q.io"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "r.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.r.io"
        "#,
    )
    .unwrap();
    let digest = format!("@sha256:{}", "0".repeat(64));
    assert_eq!(places(&rules, "q.io/x:1"), ["tags.q.io/x:1", "q.io/x:1"]);
    let by_digest = places(&rules, &format!("q.io/x{digest}"));
    assert_eq!(by_digest, [format!("digests.q.io/x{digest}"), format!("q.io/x{digest}")]);
    assert_eq!(places(&rules, "r.io/x:1"), ["r.io/x:1"]);
    assert_eq!(places(&rules, &format!("r.io/x{digest}")).len(), 2);
}

#[test]
fn short_names() {
    let text = r#"
        unqualified-search-registries = ["a.io", "b.io:5000"]
        [aliases]
        "app" = "q.io/team/app"
    "#;
    let mut rules = rules(text).unwrap();
    let names = |rules: &Rules, text: &str| -> Vec<String> {
        rules.names(text).unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&rules, "x:1"), ["a.io/x:1", "b.io:5000/x:1"]);
    assert_eq!(names(&rules, "app:2"), ["q.io/team/app:2"]);
    assert_eq!(names(&rules, "docker.io/x"), ["docker.io/library/x:latest"]);
    assert_eq!(names(&Rules::default(), "x"), ["docker.io/library/x:latest"]);
    rules
        .merge("short-name-mode = \"enforcing\"\n[aliases]\napp = \"\"", Path::new("/r.conf.d/a.conf"))
        .unwrap();
    assert!(rules.names("app:2").is_err());
}

#[test]
fn mistakes_are_named() {
    let check = |text: &str, part: &str| {
        let error = rules(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    };
    check("[[registry]]\ninsecure = true", "needs a prefix");
    check("[[registry]]\nprefix = \"*.a.com/foo\"", "wildcard is written");
    check("[[registry]]\nprefix = \"a.*.com\"", "no host name");
    check("[[registry]]\nlocation = \"https://a.io\"", "without a scheme");
    check("[[registry]]\nlocation = \"team/app\"", "begin with a host");
    check("[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]", "location of a mirror");
    check(
        "[[registry]]\nlocation=\"a.io\"\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation=\"b.io\"\npull-from-mirror=\"all\"",
        "cannot set pull-from-mirror",
    );
    check("[registries.search]\nregistries = ['a.io']", "version 1");
    check("short-name-mode = \"sometimes\"", "unknown variant");
    check("\n[[registry]]\nlocation = \"a.io\"\n[[registry]]\ninsecure = true", "line 4: ");
    check("[[registry]]\nlocation = \"a.io\"\npull-from-mirror = \"all\"", "setting of a mirror");
    check(
        "[[registry]]\nlocation = \"a.io\"\n[[registry]]\nprefix = \"b.io\"\nlocation = \"a.io\"\ninsecure = true",
        "in one table and not in another",
    );
    check("[aliases]\n\"a.io/x\" = \"b.io/x\"", "alias");
}

#[test]
fn files_are_read_again_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registries.conf");
    let conf = Conf::open(&path).unwrap();
    assert_eq!(*conf.current(), Rules::default());

    std::fs::write(&path, "[[registry]]\nlocation = \"a.io\"\ninsecure = true").unwrap();
    std::fs::create_dir(dir.path().join("registries.conf.d")).unwrap();
    let drop_in = dir.path().join("registries.conf.d/10.conf");
    std::fs::write(&drop_in, "[[registry]]\nlocation = \"a.io\"\nblocked = true").unwrap();
    std::fs::write(dir.path().join("registries.conf.d/readme"), "not = [toml").unwrap();
    assert!(conf.current().places(&"a.io/x".parse().unwrap()).is_err());

    std::fs::write(&drop_in, "no toml at all").unwrap();
    assert!(conf.current().places(&"a.io/x".parse().unwrap()).is_err(), "the old rules go on");
    assert!(Conf::open(&path).is_err());

    std::fs::remove_file(&drop_in).unwrap();
    assert_eq!(places(&conf.current(), "a.io/x:1"), ["a.io/x:1 insecure"]);
}

#[test]
fn reasons_name_file_and_line() {
    let text = "unqualified-search-registries = [\"s.io\"]\n\n[[registry]]\nlocation = \"q.io\"\n\
        [[registry.mirror]]\nlocation = \"m.io\"\n[aliases]\napp = \"q.io/app\"\n";
    let rules = rules(text).unwrap();
    let why: Vec<_> =
        rules.places(&"q.io/x".parse().unwrap()).unwrap().into_iter().map(|place| place.why).collect();
    assert_eq!(
        why,
        [
            "mirror 1 of [[registry]] \"q.io\" in /r.conf line 3",
            "location of [[registry]] \"q.io\" in /r.conf line 3"
        ]
    );
    assert_eq!(rules.named("app").unwrap().1, "alias \"app\" in /r.conf");
    assert_eq!(rules.named("other").unwrap().1, "unqualified-search-registries in /r.conf");
}

#[test]
fn credential_helpers_have_an_order() {
    assert_eq!(Rules::default().helpers(), [AUTH_FILE_HELPER]);
    assert_eq!(rules("credential-helpers = [\"ecr-login\"]").unwrap().helpers(), ["ecr-login"]);
}
