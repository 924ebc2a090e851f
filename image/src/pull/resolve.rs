//! From a name to the manifest and the configuration of the image for this machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Puller;
use crate::image::Configuration;
use crate::registry::manifest::{Document, Manifest};
use crate::registry::{Again, Failure, Host, Wanted};
use crate::{Digest, Error, ImageId};

/// How many indexes may lead to a manifest.
const MAX_INDEXES: usize = 2;

/// An image of which everything but its layers is known.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Who knew it.
    pub(super) host: Arc<Host>,
    pub(super) id: ImageId,
    /// What the repository knows it by: the digest of what the name means, then that of the manifest.
    pub(super) digests: Vec<Digest>,
    pub(super) manifest: Manifest,
    pub(super) manifest_digest: Digest,
    pub(super) manifest_body: Bytes,
    pub(super) config: Configuration,
    pub(super) config_body: Bytes,
}

impl Puller {
    /// Asks the hosts in order, and once more after a pause while the last of them, the registry itself, has given
    /// no final answer.
    pub(super) async fn resolve(&self, hosts: &[Arc<Host>]) -> Result<Resolved, Error> {
        let patience = self.registries.patience();
        let mut pauses = patience.pauses.iter().copied();
        let hosts: Vec<_> = hosts.iter().filter(|host| host.resolves()).collect();
        let mut failures: Vec<Option<Failure>> = hosts.iter().map(|_| None).collect();
        // A host that cannot be reached is tried twice at most: whoever waits has a back-off of its own.
        let given_up = |failure: &Option<Failure>, round: usize| {
            failure.as_ref().is_some_and(|failure| match failure.again {
                Again::No => true,
                Again::Soon => round > 1,
                Again::Later(_) | Again::OtherScheme => false,
            })
        };
        for round in 1.. {
            let mut asked = Duration::ZERO;
            for (host, failure) in hosts.iter().zip(&mut failures) {
                if given_up(failure, round - 1) {
                    continue;
                }
                match self.resolve_at(host).await {
                    Ok(resolved) => return Ok(resolved),
                    Err(new) => {
                        if let Again::Later(Some(pause)) = new.again {
                            asked = asked.max(pause);
                        }
                        *failure = Some(new);
                    }
                }
            }
            let settled = failures.last().is_none_or(|last| given_up(last, round));
            match pauses.next() {
                Some(pause) if !settled => {
                    tokio::time::sleep(pause.max(asked.min(patience.longest_pause))).await;
                }
                _ => break,
            }
        }
        let mut errors: Vec<_> = failures.into_iter().flatten().map(|failure| failure.error).collect();
        let last = errors.pop();
        Err(last.map_or_else(
            || Error::RegistryUnavailable {
                host: "?".to_owned(),
                reason: "there is no host to ask".to_owned(),
            },
            |last| last.after(&errors),
        ))
    }

    async fn resolve_at(&self, host: &Arc<Host>) -> Result<Resolved, Failure> {
        let mut fetched = host.manifest(&Wanted::Named).await?;
        let mut digests = vec![fetched.digest.clone()];
        let mut indexes = 0;
        let manifest = loop {
            let entries = match fetched.document {
                Document::Image(manifest) => break manifest,
                Document::Index(entries) => entries,
            };
            indexes += 1;
            let what = format!("index {} of {}", fetched.digest, host.name());
            if indexes > MAX_INDEXES {
                let reason = format!("more than {MAX_INDEXES} indexes are nested");
                return Err(Failure::last(Error::InvalidImage { what, reason }));
            }
            let Some(entry) = self.machine.choose(&entries) else {
                let offered: Vec<_> =
                    entries.iter().filter_map(|e| e.platform.as_ref()).map(ToString::to_string).collect();
                return Err(Failure::last(Error::Platform {
                    reference: host.name(),
                    wanted: self.machine.to_string(),
                    offered: crate::error::excerpt(&offered.join(", ")),
                }));
            };
            if !entry.descriptor.is_document() {
                let reason =
                    format!("its entry for this machine is of type {:?}", entry.descriptor.media_type);
                return Err(Failure::last(Error::Unsupported { what, reason }));
            }
            fetched = host.manifest(&Wanted::Listed(entry.descriptor.clone())).await?;
        };
        digests.extend((digests[0] != fetched.digest).then(|| fetched.digest.clone()));
        let config_body = host.config(&manifest.config).await?;
        let (id, config) = match manifest.artifact {
            Some(_) => (ImageId::new(fetched.digest.clone()), Configuration::default()),
            None => {
                let config = self.configuration(host, &manifest, &config_body)?;
                (ImageId::new(manifest.config.digest.clone()), config)
            }
        };
        Ok(Resolved {
            host: Arc::clone(host),
            id,
            digests,
            manifest,
            manifest_digest: fetched.digest,
            manifest_body: fetched.body,
            config,
            config_body,
        })
    }

    /// Reads the configuration of an image that can run here.
    fn configuration(&self, host: &Host, manifest: &Manifest, body: &[u8]) -> Result<Configuration, Failure> {
        let config = Configuration::parse(body, manifest.layers.len()).map_err(|reason| {
            let what = format!("config {} of {}", manifest.config.digest, host.name());
            Failure::last(Error::InvalidImage { what, reason: crate::error::excerpt(&reason) })
        })?;
        if config.os.is_empty() || config.os == "linux" {
            return Ok(config);
        }
        Err(Failure::last(Error::Platform {
            reference: host.name(),
            wanted: self.machine.to_string(),
            offered: format!("{}/{}", crate::error::excerpt(&config.os), config.architecture),
        }))
    }
}
