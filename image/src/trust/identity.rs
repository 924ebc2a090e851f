//! Which names a signature may be for. Follows containers-policy.json(5), `signedIdentity`.

use std::fmt;

use serde::Deserialize;

use crate::Reference;

/// What the name that is signed must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum Identity {
    /// The image's own.
    MatchExact {},
    /// The image's own, or any of its repository when the image is named by its digest.
    MatchRepoDigestOrExact {},
    /// Any of the image's repository.
    MatchRepository {},
    /// This.
    ExactReference { docker_reference: String },
    /// Any of this repository.
    ExactRepository { docker_repository: String },
    /// As by default, with another prefix.
    #[serde(rename = "remapIdentity")]
    Remap { prefix: String, signed_prefix: String },
}

impl Default for Identity {
    fn default() -> Self {
        Self::MatchRepoDigestOrExact {}
    }
}

impl Identity {
    /// Says whether an image is what a signature is for.
    pub(super) fn accepts(&self, image: &Reference, signed: &str) -> bool {
        let Some(claimed) = Claimed::parse(signed) else { return false };
        match self {
            Self::MatchExact {} => claimed.is_exactly(image),
            Self::MatchRepoDigestOrExact {} => claimed.is_exactly_or_by_digest(image),
            Self::MatchRepository {} => claimed.reference.name() == image.name(),
            Self::ExactReference { docker_reference } => {
                let wanted = Claimed::parse(docker_reference);
                wanted.is_some_and(|wanted| wanted.specific && claimed.is_exactly(&wanted.reference))
            }
            Self::ExactRepository { docker_repository } => {
                let wanted = Claimed::parse(docker_repository);
                wanted.is_some_and(|wanted| wanted.reference.name() == claimed.reference.name())
            }
            Self::Remap { prefix, signed_prefix } => remap(image, prefix, signed_prefix)
                .is_some_and(|image| claimed.is_exactly_or_by_digest(&image)),
        }
    }
}

/// A name in a signature or a policy.
struct Claimed {
    reference: Reference,
    /// Whether it has a tag or a digest.
    specific: bool,
}

impl Claimed {
    fn parse(text: &str) -> Option<Self> {
        let last = text.rsplit('/').next().unwrap_or_default();
        Some(Self { reference: text.parse().ok()?, specific: last.contains([':', '@']) })
    }

    fn is_exactly(&self, image: &Reference) -> bool {
        self.specific && whole(&self.reference) == whole(image)
    }

    fn is_exactly_or_by_digest(&self, image: &Reference) -> bool {
        if image.digest().is_some() {
            return self.reference.name() == image.name();
        }
        self.is_exactly(image)
    }
}

/// Writes a name with what it is resolved by: a digest wins over a tag.
fn whole(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => reference.repo_digest(digest),
        None => reference.to_string(),
    }
}

/// Returns the name under which an image was signed. One that the prefix is not about keeps its name.
fn remap(image: &Reference, prefix: &str, signed_prefix: &str) -> Option<Reference> {
    let name = image.to_string();
    match name.strip_prefix(prefix) {
        // A host is matched without its port only if it has none.
        Some(rest) if rest.starts_with('/') || prefix.contains('/') && rest.starts_with([':', '@']) => {
            format!("{signed_prefix}{rest}").parse().ok()
        }
        _ => Some(image.clone()),
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MatchExact {} => "matchExact",
            Self::MatchRepoDigestOrExact {} => {
                "matchRepoDigestOrExact (cosign signs repositories: it needs matchRepository)"
            }
            Self::MatchRepository {} => "matchRepository",
            Self::ExactReference { .. } => "exactReference",
            Self::ExactRepository { .. } => "exactRepository",
            Self::Remap { .. } => "remapIdentity",
        })
    }
}
