//! The readers of registries' files, for `crate::fuzzing`.

use std::path::Path;

use super::conf::Rules;
use super::hosts;

/// Names that some rule may be about.
const NAMES: [&str; 4] = ["busybox", "q.io/team/app:1", "a.b.example.com:5000/x", "localhost/x"];

pub(crate) fn registries_conf(text: &str) {
    let Ok(rules) = Rules::parse(text) else { return };
    for name in NAMES {
        for name in rules.names(name).into_iter().flatten() {
            let places = rules.places(&name).unwrap_or_default();
            assert!(places.iter().all(|place| !place.name.registry().is_empty()), "a place is somewhere");
        }
    }
}

pub(crate) fn hosts_toml(text: &str, directory: &Path) {
    let Ok(endpoints) = hosts::parse(text, directory) else { return };
    assert!(!endpoints.is_empty(), "the registry itself is always there");
    assert!(endpoints.iter().all(|endpoint| !endpoint.host.contains(['/', '@'])), "a host is a host");
}
