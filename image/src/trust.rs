//! Trust: whose images may be pulled. Follows containers-policy.json(5) for the transport `docker`.
//!
//! What is decided is decided by the names in `policy` and the keys in `key`; the signatures come from the registry
//! of the image, as cosign attaches them. Requirements that are not understood refuse.

mod attachments;
mod identity;
mod key;
mod payload;
mod policy;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::registry::Host;
use crate::{Config, Digest, Error, Reference};
use identity::Identity;
use key::Key;
use policy::{Keys, Policy, Requirement};

/// The policy of the node, read again for each pull.
#[derive(Debug)]
pub(crate) struct Trust {
    policy: Option<PathBuf>,
    attachments: PathBuf,
}

/// What has to be true of an image.
#[derive(Debug)]
pub(crate) struct Demands {
    reference: Reference,
    /// The scope and the file that these are from.
    source: String,
    signed: Vec<Signed>,
}

/// A signature that is needed.
#[derive(Debug)]
struct Signed {
    keys: Vec<Key>,
    identity: Identity,
}

impl Trust {
    /// Takes the policy, and checks that it can be used.
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        let trust = Self { policy: config.policy.clone(), attachments: config.registries_d.clone() };
        if let Some(path) = &trust.policy {
            Policy::read(path)?;
        }
        Ok(trust)
    }

    /// Says what is demanded of an image; an error if nothing would do. None: anything does.
    pub(crate) fn demands(&self, reference: &Reference) -> Result<Option<Demands>, Error> {
        let Some(path) = &self.policy else { return Ok(None) };
        let policy = Policy::read(path)?;
        let (scope, requirements) = policy.requirements(reference);
        let source = format!("{scope} in {}", path.display());
        let refused = |reason: String| Error::SignatureRefused { reference: reference.to_string(), reason };
        let mut signed = Vec::new();
        for requirement in requirements {
            match requirement {
                Requirement::InsecureAcceptAnything {} => {}
                Requirement::Reject {} => return Err(refused(format!("{source} rejects it"))),
                Requirement::SignedBy => {
                    let reason =
                        format!("{source} asks for a GPG signature (signedBy), which Corten does not check");
                    return Err(refused(reason));
                }
                Requirement::SigstoreSigned(wanted) => {
                    let keys = wanted.keys().map_err(|reason| refused(format!("{source}: {reason}")))?;
                    let keys = read_keys(&keys).map_err(|reason| refused(format!("{source}: {reason}")))?;
                    signed.push(Signed { keys, identity: wanted.identity.clone().unwrap_or_default() });
                }
            }
        }
        if signed.is_empty() {
            return Ok(None);
        }
        if !attachments::enabled(&self.attachments, reference)? {
            return Err(refused(format!(
                "{source} asks for a signature, and none is looked for: set use-sigstore-attachments: true for {} in {}",
                reference.name(),
                self.attachments.display()
            )));
        }
        Ok(Some(Demands { reference: reference.clone(), source, signed }))
    }

    /// Says what is demanded of an image, for people.
    pub(crate) fn describe(&self, reference: &Reference) -> String {
        match (self.demands(reference), &self.policy) {
            (Ok(Some(demands)), _) => format!("a sigstore signature, by {}", demands.source),
            (Ok(None), Some(path)) => format!("none, by {}", path.display()),
            (Ok(None), None) => "none: image.policy is not set".to_owned(),
            (Err(error), _) => error.to_string(),
        }
    }
}

impl Demands {
    /// Checks that an image is signed as demanded. `digests` are those of the manifest and of what led to it.
    pub(crate) async fn check(&self, host: &Arc<Host>, digests: &[Digest]) -> Result<(), Error> {
        let mut found = Vec::new();
        for digest in digests {
            found.extend(host.signatures(digest).await.map_err(|failure| failure.error)?);
        }
        let refused = |reason: String| {
            let reason = format!("{reason} ({})", self.source);
            Error::SignatureRefused { reference: self.reference.to_string(), reason }
        };
        if found.is_empty() {
            return Err(refused(format!("{} has no signature of it", host.name())));
        }
        for wanted in &self.signed {
            let mut reasons = Vec::new();
            let accepted = found.iter().any(|signature| {
                let judged = wanted.judge(signature, &self.reference, digests);
                judged.map_err(|reason| reasons.push(reason)).is_ok()
            });
            if !accepted {
                reasons.dedup();
                return Err(refused(reasons.join("; ")));
            }
        }
        Ok(())
    }
}

impl Signed {
    fn judge(
        &self,
        signature: &crate::registry::Signature,
        reference: &Reference,
        digests: &[Digest],
    ) -> Result<(), String> {
        if !self.keys.iter().any(|key| key.verifies(&signature.payload, &signature.bytes)) {
            return Err("its signature is by none of the keys of the policy".to_owned());
        }
        // Signed, so it may be believed what it says.
        let claim = payload::Claim::parse(&signature.payload)?;
        if !digests.contains(&claim.digest) {
            return Err(format!("its signature is of another image, {}", claim.digest));
        }
        if !self.identity.accepts(reference, &claim.reference) {
            let claimed = crate::error::excerpt(&claim.reference);
            return Err(format!("its signature is for {claimed:?}, which {} does not accept", self.identity));
        }
        Ok(())
    }
}

/// Reads a policy and a claim, for `crate::fuzzing`.
pub(crate) fn fuzz(data: &[u8]) {
    if let (Ok(policy), Ok(name)) = (Policy::parse(data), "a.b.io:5000/team/app:1".parse()) {
        assert!(!policy.requirements(&name).1.is_empty(), "something is required of every image");
    }
    payload::Claim::parse(data).ok();
    Key::parse(data).ok();
}

fn read_keys(keys: &Keys<'_>) -> Result<Vec<Key>, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()));
    let from_file =
        |path: &Path| Key::parse(&read(path)?).map_err(|reason| format!("{}: {reason}", path.display()));
    match keys {
        Keys::Files(paths) => paths.iter().map(|path| from_file(path)).collect(),
        Keys::Data(all) => all.iter().map(|pem| Key::parse(pem)).collect(),
    }
}
