//! The name of a control group, the same in every hierarchy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

/// NAME_MAX.
const COMPONENT_MAX: usize = 255;
/// PATH_MAX, with room for the mount point and a file name.
const PATH_MAX: usize = 3072;

/// An absolute path below each hierarchy's root, without `.`, `..` or control characters; never the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Takes a path such as `/kubepods/burstable/podX/ID`; repeated and trailing slashes are dropped.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let refuse = |reason| Error::InvalidPath { path: path.to_owned(), reason };
        if !path.starts_with('/') {
            return Err(refuse("it is not absolute"));
        }
        if path.len() > PATH_MAX {
            return Err(refuse("it is too long"));
        }
        if path.chars().any(char::is_control) {
            return Err(refuse("it has a control character"));
        }
        let mut parsed = String::with_capacity(path.len());
        for component in path.split('/').filter(|component| !component.is_empty()) {
            if component == "." || component == ".." {
                return Err(refuse("it has a relative component"));
            }
            if component.len() > COMPONENT_MAX {
                return Err(refuse("a component is too long"));
            }
            parsed.push('/');
            parsed.push_str(component);
        }
        if parsed.is_empty() {
            return Err(refuse("it is the root"));
        }
        Ok(Self(parsed))
    }

    /// A cgroup below this one.
    pub fn join(&self, below: &str) -> Result<Self, Error> {
        Self::parse(&format!("{}/{below}", self.0))
    }

    /// The cgroup above this one; none when that is the root.
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (!parent.is_empty()).then(|| Self(parent.to_owned()))
    }

    /// Whether this is `other` or below it, by whole components.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without its leading slash, to be joined to a mount point.
    pub(super) fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// This path's ancestors from the top down, without the path itself.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.0.match_indices('/').skip(1).map(|(at, _)| Self(self.0[..at].to_owned()))
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CgroupPath {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self, Error> {
        Self::parse(path)
    }
}

impl From<CgroupPath> for String {
    fn from(path: CgroupPath) -> Self {
        path.0
    }
}

impl TryFrom<String> for CgroupPath {
    type Error = Error;

    fn try_from(path: String) -> Result<Self, Error> {
        Self::parse(&path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_and_normalizes() {
        let path = CgroupPath::parse("//kubepods//burstable/pod1/").unwrap();
        assert_eq!(path.as_str(), "/kubepods/burstable/pod1");
        assert_eq!(path.relative(), "kubepods/burstable/pod1");
        assert_eq!(path.join("abc").unwrap().as_str(), "/kubepods/burstable/pod1/abc");
        assert_eq!(path.parent().unwrap().as_str(), "/kubepods/burstable");
        assert_eq!(CgroupPath::parse("/a").unwrap().parent(), None);
        let ancestors: Vec<String> = path.ancestors().map(String::from).collect();
        assert_eq!(ancestors, ["/kubepods", "/kubepods/burstable"]);
    }

    #[test]
    fn refuses_what_leaves_the_tree() {
        let long = format!("/{}", "x".repeat(COMPONENT_MAX + 1));
        let deep = "/x".repeat(PATH_MAX);
        for path in ["", "a", "/", "//", "/a/../b", "/..", "/a/.", "/a\0b", "/a\nb", "../a", &long, &deep] {
            assert!(CgroupPath::parse(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn compares_by_component() {
        let pod = CgroupPath::parse("/pods/a").unwrap();
        assert!(CgroupPath::parse("/pods/a/b").unwrap().is_within(&pod));
        assert!(pod.is_within(&pod));
        assert!(!CgroupPath::parse("/pods/ab").unwrap().is_within(&pod));
    }

    proptest! {
        #[test]
        fn never_leaves_the_tree(path in "(/|\\.|[a-z\\x00-\\x1f]|é)*") {
            if let Ok(parsed) = CgroupPath::parse(&path) {
                prop_assert!(parsed.as_str().starts_with('/'));
                prop_assert!(parsed.relative().split('/').all(|c| !c.is_empty() && c != "." && c != ".."));
                prop_assert_eq!(&CgroupPath::parse(parsed.as_str()).unwrap(), &parsed);
            }
        }
    }
}
