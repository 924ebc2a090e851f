//! Images that the kubelet's garbage collection must leave alone.

use crate::Reference;

/// Names of images, whole or by their beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Pinned(Vec<Pattern>);

#[derive(Clone, Debug)]
enum Pattern {
    Name(String),
    Prefix(String),
}

impl Pinned {
    pub(super) fn new(patterns: &[String]) -> Self {
        let pattern = |text: &String| match text.strip_suffix('*') {
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Name(full(text).unwrap_or_else(|| text.clone())),
        };
        Self(patterns.iter().map(pattern).collect())
    }

    /// Tells whether one of an image's names is pinned.
    pub(super) fn covers<'a>(&self, mut names: impl Iterator<Item = &'a String>) -> bool {
        names.any(|name| {
            self.0.iter().any(|pattern| match pattern {
                Pattern::Name(pinned) => pinned == name,
                Pattern::Prefix(prefix) => name.starts_with(prefix),
            })
        })
    }
}

fn full(text: &str) -> Option<String> {
    let reference: Reference = text.parse().ok()?;
    match reference.digest() {
        Some(digest) => Some(reference.repo_digest(digest)),
        None => reference.repo_tag(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_and_beginnings() {
        let pinned = Pinned::new(&["busybox".into(), "registry.k8s.io/pause:*".into()]);
        let check = |name: &str, expected| {
            assert_eq!(pinned.covers([name.to_owned()].iter()), expected, "{name}");
        };
        check("docker.io/library/busybox:latest", true);
        check("docker.io/library/busybox:1", false);
        check("registry.k8s.io/pause:3.10", true);
        check("registry.k8s.io/pause2:3.10", false);
    }
}
