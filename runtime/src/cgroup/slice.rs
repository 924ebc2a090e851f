//! The names that systemd gives to cgroups, systemd.slice(5) and systemd.scope(5).
//!
//! A slice's name says where it is: `a-b.slice` is below `a.slice`, and `-.slice` is the root.

use super::{CgroupPath, Error};

/// What a scope of Corten's is named after, as cAdvisor and the kubelet know it of others: PREFIX-ID.scope.
const PREFIX: &str = "corten";

/// A container's cgroup below its scope, and that of who holds the scope.
const CONTAINER: &str = "container";
pub(super) const HOLDER: &str = "holder";

const SCOPE: &str = ".scope";

const SUFFIX: &str = ".slice";

/// The scope that a cgroup is, or is in; none of one that Corten made itself.
pub(super) fn scope_of(path: &CgroupPath) -> Option<CgroupPath> {
    let is_scope = |path: &CgroupPath| path.as_str().ends_with(SCOPE);
    if is_scope(path) { Some(path.clone()) } else { path.parent().filter(is_scope) }
}

/// A slice, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice(String);

impl Slice {
    /// Takes a slice's name, or its path as the kubelet gives it.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason| Error::InvalidPath { path: text.to_owned(), reason };
        let path = text.trim_end_matches('/');
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let Some(stem) = name.strip_suffix(SUFFIX) else {
            return Err(refuse("with the systemd driver it is a slice: give a name that ends in .slice"));
        };
        if stem == "-" {
            return Err(refuse("it is the root slice"));
        }
        let is_word = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_.:\\@".contains(c))
        };
        if !stem.split('-').all(is_word) {
            return Err(refuse("it is no name of a slice, systemd.slice(5)"));
        }
        let slice = Self(name.to_owned());
        // A path that says something else than the name would be ignored by systemd.
        if path.contains('/') && path.trim_start_matches('/') != slice.relative() {
            return Err(refuse("it is not where systemd has the slice of this name"));
        }
        Ok(slice)
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// The cgroup of a container in it.
    pub(super) fn scope(&self, id: &str) -> Result<CgroupPath, Error> {
        CgroupPath::parse(&format!("/{}/{PREFIX}-{id}.scope", self.relative()))
    }

    /// The cgroup of a container in it whose runtime wants one that nobody is in.
    pub(super) fn below_scope(&self, id: &str) -> Result<CgroupPath, Error> {
        self.scope(id)?.join(CONTAINER)
    }

    /// Its own cgroup.
    pub(super) fn path(&self) -> Result<CgroupPath, Error> {
        CgroupPath::parse(&format!("/{}", self.relative()))
    }

    /// `a-b.slice` is at `a.slice/a-b.slice`.
    fn relative(&self) -> String {
        let stem = self.0.strip_suffix(SUFFIX).unwrap_or(&self.0);
        let parents = stem.match_indices('-').map(|(at, _)| format!("{}{SUFFIX}/", &stem[..at]));
        parents.chain([self.0.clone()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_knows_its_scope() {
        let slice = Slice::parse("a-b.slice").unwrap();
        let (scope, below) = (slice.scope("c").unwrap(), slice.below_scope("c").unwrap());
        assert_eq!(below.as_str(), "/a.slice/a-b.slice/corten-c.scope/container");
        assert_eq!(scope_of(&scope), Some(scope.clone()));
        assert_eq!(scope_of(&below), Some(scope));
        assert_eq!(scope_of(&below.join("deeper").unwrap()), None);
        assert_eq!(scope_of(&slice.path().unwrap()), None);
    }

    #[test]
    fn a_name_says_where_a_slice_is() {
        let pod = "kubepods-burstable-pod1234_5.slice";
        let path = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234_5.slice";
        for text in [pod, path, &path[1..]] {
            let slice = Slice::parse(text).unwrap();
            assert_eq!(slice.name(), pod);
            assert_eq!(slice.path().unwrap().as_str(), path);
            assert_eq!(slice.scope("abc").unwrap().as_str(), format!("{path}/corten-abc.scope"));
        }
        assert_eq!(Slice::parse("/test.slice").unwrap().path().unwrap().as_str(), "/test.slice");
    }

    #[test]
    fn what_is_no_slice_is_refused() {
        for text in [
            "",
            "/",
            "/kubepods/pod1",
            "-.slice",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            ".slice",
            "a b.slice",
            "/kubepods.slice/other.slice",
            "/kubepods-burstable.slice",
            "/../a.slice",
        ] {
            assert!(Slice::parse(text).is_err(), "{text:?}");
        }
    }
}
