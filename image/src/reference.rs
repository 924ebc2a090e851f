//! Names of images: `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`, completed as Docker does.
//!
//! The grammar is that of the distribution project's `reference` package. It is read by hand: the `Reference` of
//! oci-client is a regular expression whose compilation takes 54 ms and keeps 12 MiB, more than half of what the
//! whole daemon may use, and which takes tags that no registry does.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::error::excerpt;
use crate::{Digest, Error};

const DOCKER_HUB: &str = "docker.io";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A name of an image, in full: registry, repository, and a tag, a digest or both.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the registry, `docker.io` when none was named: `HOST[:PORT]` in lower case.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `latest` when neither tag nor digest was named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, which wins over a tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the registry and the repository: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the name that the image gets by a pull of this reference; none when a digest wins over the tag,
    /// because nobody knows then what the tag means.
    pub fn repo_tag(&self) -> Option<String> {
        match (&self.digest, &self.tag) {
            (None, Some(tag)) => Some(format!("{}:{tag}", self.name())),
            _ => None,
        }
    }

    /// Returns the name of content of this repository.
    pub fn repo_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }

    /// Returns the same name at another registry.
    pub(crate) fn at(&self, registry: String) -> Self {
        Self { registry, ..self.clone() }
    }

    /// Says whether `text` names no registry, so that `docker.io` would be filled in.
    pub fn is_short(text: &str) -> bool {
        split_registry(text).is_none()
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|reason| Error::InvalidReference {
            reference: excerpt(text),
            reason: reason.to_string(),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong with the text of a reference.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("a digest {0}")]
    Digest(String),
    #[error("the repository is empty")]
    Empty,
    #[error("{0:?} is no host name with an optional port")]
    Host(String),
    #[error("64 hexadecimal digits are the id of an image, not its name")]
    Id,
    #[error("the repository has more than {MAX_NAME} characters")]
    Long,
    #[error(
        "{0:?} is no part of a repository: lower-case letters and digits, with '.', '_', '__' or '-' between them"
    )]
    Part(String),
    #[error(
        "{0:?} is no tag: at most {MAX_TAG} letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
    )]
    Tag(String),
}

fn parse(text: &str) -> Result<Reference, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse::<Digest>();
            (rest, Some(digest.map_err(|e| Reason::Digest(format!("that is none: {e}")))?))
        }
        None => (text, None),
    };
    // A colon before the last slash belongs to the port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, repository) = complete(name)?;
    let tag = match (tag, &digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { registry, repository, tag, digest })
}

fn complete(name: &str) -> Result<(String, String), Reason> {
    let (mut registry, repository) = match split_registry(name) {
        Some((registry, repository)) => {
            check_host(registry)?;
            let lower = registry.to_ascii_lowercase();
            // One that only its capitals tell from a part of docker.io's names keeps them.
            let stays = split_registry(&format!("{lower}/x")).is_none();
            (if stays { registry.to_owned() } else { lower }, repository)
        }
        None => (DOCKER_HUB.to_owned(), name),
    };
    if registry == "index.docker.io" {
        DOCKER_HUB.clone_into(&mut registry);
    }
    if repository.is_empty() {
        return Err(Reason::Empty);
    }
    if repository.len() == 64 && repository.bytes().all(|b| b.is_ascii_hexdigit()) && registry == DOCKER_HUB {
        return Err(Reason::Id);
    }
    for part in repository.split('/') {
        check_part(part)?;
    }
    let repository = if registry == DOCKER_HUB && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    if repository.len() > MAX_NAME {
        return Err(Reason::Long);
    }
    Ok((registry, repository))
}

/// Splits off what stands before the first slash, if it can only be a host.
fn split_registry(name: &str) -> Option<(&str, &str)> {
    let (first, rest) = name.split_once('/')?;
    let host = first.contains(['.', ':', '[']) || first == "localhost" || first.contains(char::is_uppercase);
    host.then_some((first, rest))
}

fn check_host(text: &str) -> Result<(), Reason> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (is_host_name(host), Some(port)),
            None => (is_host_name(text), None),
        },
    };
    // What follows an address in brackets is a port, or nothing.
    let whole = port.is_some() || !text.starts_with('[') || text.ends_with(']');
    let port = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if host && whole && port && text.len() <= MAX_NAME { Ok(()) } else { Err(Reason::Host(excerpt(text))) }
}

fn is_host_name(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

fn check_part(part: &str) -> Result<(), Reason> {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let mut separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let separated = separators
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'));
    if ends && separated { Ok(()) } else { Err(Reason::Part(excerpt(part))) }
}

fn check_tag(tag: &str) -> Result<(), Reason> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if good { Ok(()) } else { Err(Reason::Tag(excerpt(tag))) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn names_are_completed() {
        let check = |text: &str, expected: &str| {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), expected, "{text}");
            assert_eq!(expected.parse::<Reference>().unwrap(), reference, "{expected}");
        };
        check("busybox", "docker.io/library/busybox:latest");
        check("busybox:1.36", "docker.io/library/busybox:1.36");
        check("user/app", "docker.io/user/app:latest");
        check("docker.io/busybox", "docker.io/library/busybox:latest");
        check("index.docker.io/busybox:1", "docker.io/library/busybox:1");
        check("localhost/a", "localhost/a:latest");
        check("localhost:5000/a/b:T_a.g-", "localhost:5000/a/b:T_a.g-");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check("127.0.0.1:5000/x__y/z-a--b.c:v1", "127.0.0.1:5000/x__y/z-a--b.c:v1");
        check("[::1]:5000/x", "[::1]:5000/x:latest");
        check("Registry.Example/x", "registry.example/x:latest");
        check("LOCALHOST/x", "localhost/x:latest");
        // In small letters it would be a part of docker.io.
        check("UPPER/x", "UPPER/x:latest");
        check(&format!("q.io/a@{SHA}"), &format!("q.io/a@{SHA}"));
        check(&format!("q.io/a:1@{SHA}"), &format!("q.io/a:1@{SHA}"));
        check("test.com:5000", "docker.io/library/test.com:5000");
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let reference: Reference = format!("q.io/a:1@{SHA}").parse().unwrap();
        assert_eq!(reference.digest().unwrap().to_string(), SHA);
        assert_eq!(reference.repo_tag(), None);
        let tagged: Reference = "a:1".parse().unwrap();
        assert_eq!(tagged.repo_tag().unwrap(), "docker.io/library/a:1");
        assert_eq!(tagged.repo_digest(reference.digest().unwrap()), format!("docker.io/library/a@{SHA}"));
    }

    #[test]
    fn bad_names_say_why() {
        let check = |text: &str, part: &str| match text.parse::<Reference>() {
            Err(Error::InvalidReference { reference, reason }) => {
                assert!(reason.contains(part), "{text}: {reason}");
                assert!(reference.len() <= 310);
            }
            other => panic!("{text}: {other:?}"),
        };
        check("", "empty");
        check("localhost/", "empty");
        check(":tag", "empty");
        check("@sha256:x", "digest");
        check("UPPER", "no part of a repository");
        check("a//b", "no part of a repository");
        check("a/../b", "no part of a repository");
        check("a_.b", "no part of a repository");
        check("a___b", "no part of a repository");
        check("-a", "no part of a repository");
        check("a:", "no tag");
        check("a:-x", "no tag");
        check("a:é", "no tag");
        check("a b", "no part of a repository");
        check("ho_st.example/a", "no host name");
        check("host:99999/a", "no host name");
        check("host:/a", "no host name");
        check("-host.a/a", "no host name");
        check("[::g]:1/a", "no host name");
        check("[::1]x/a", "no host name");
        check("a@sha256:../../x", "hexadecimal digits");
        check("a@md5:0", "neither sha256 nor sha512");
        check(&format!("a@{}", SHA.to_uppercase()), "neither");
        check(&"f".repeat(64), "id of an image");
        check(&format!("q.io/{}", "a".repeat(256)), "more than 255");
        check(&format!("a:{}", "t".repeat(129)), "no tag");
        check(&"x/".repeat(5000), "no part");
    }

    #[test]
    fn short_names_are_known() {
        assert!(Reference::is_short("busybox:1"));
        assert!(Reference::is_short("user/app"));
        assert!(!Reference::is_short("localhost/app"));
        assert!(!Reference::is_short("q.io/app"));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_parses_is_stable(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let full = reference.to_string();
                prop_assert_eq!(full.parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn whatever_is_built_by_the_grammar_parses(
            host in "([a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?\\.){1,3}[a-z]{2,3}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            digest in proptest::bool::ANY,
        ) {
            let mut text = format!("{host}/{path}");
            if let Some(tag) = &tag { text.push(':'); text.push_str(tag); }
            if digest { text.push('@'); text.push_str(SHA); }
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.registry(), host);
            prop_assert_eq!(reference.repository(), path);
            prop_assert_eq!(reference.tag(), if digest { tag.as_deref() } else { Some(tag.as_deref().unwrap_or("latest")) });
            prop_assert_eq!(reference.digest().is_some(), digest);
        }
    }
}
