//! Platforms: which entry of an index is for this machine.
//!
//! Names are Go's (`GOOS`, `GOARCH`), as in the OCI image spec, `image-index.md`.

use std::fmt;

use serde::Deserialize;

use crate::registry::manifest::Entry;

/// An operating system and a processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// In Go's words.
    pub os: String,
    /// In Go's words.
    pub architecture: String,
    /// The level of the instruction set, `v8`; often empty.
    pub variant: String,
}

/// This machine: what it runs, the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    architecture: &'static str,
    /// Variants from the best down; an empty one stands for entries that name none.
    variants: &'static [&'static str],
}

// === impl Host ===

impl Host {
    /// Finds out what this machine is.
    pub fn detect() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self { architecture: "amd64", variants: amd64() },
            "aarch64" => Self { architecture: "arm64", variants: &["v8", ""] },
            "arm" => Self { architecture: "arm", variants: &["v7", "v6", "", "v5"] },
            "x86" => Self { architecture: "386", variants: &[""] },
            "powerpc64" if cfg!(target_endian = "little") => {
                Self { architecture: "ppc64le", variants: &[""] }
            }
            "loongarch64" => Self { architecture: "loong64", variants: &[""] },
            same => Self { architecture: same, variants: &[""] },
        }
    }

    /// Returns the entry that fits best. An index of one entry that names no platform means that one.
    pub(crate) fn choose<'a>(&self, entries: &'a [Entry]) -> Option<&'a Entry> {
        if let [only] = entries
            && only.platform.is_none()
        {
            return Some(only);
        }
        let rank = |entry: &&Entry| self.rank(entry.platform.as_ref()?);
        // The first of equals: an index lists what it prefers first.
        entries.iter().filter(|entry| rank(entry).is_some()).min_by_key(rank)
    }

    /// How many platforms fit this machine better; none when this one does not fit at all.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        let is_same = platform.os == "linux" && platform.architecture == self.architecture;
        is_same.then(|| self.variants.iter().position(|variant| *variant == platform.variant))?
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(target_arch = "x86_64")]
fn amd64() -> &'static [&'static str] {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("sse3") && has!("ssse3") && has!("sse4.2") && has!("popcnt") && has!("cmpxchg16b");
    let v3 = v2 && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma") && has!("lzcnt");
    match (v2, v3) {
        (_, true) => &["v3", "v2", "v1", ""],
        (true, _) => &["v2", "v1", ""],
        _ => &["v1", ""],
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64() -> &'static [&'static str] {
    &[""]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::registry::manifest::Descriptor;

    fn choice(host: &Host, platforms: &[&str]) -> Option<usize> {
        let entries: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(at, text)| {
                let mut parts = text.split('/').map(str::to_owned);
                let platform = (!text.is_empty()).then(|| Platform {
                    os: parts.next().unwrap(),
                    architecture: parts.next().unwrap(),
                    variant: parts.next().unwrap_or_default(),
                });
                let digest = Digest::sha256(&[u8::try_from(at).unwrap()]);
                Entry {
                    descriptor: Descriptor { media_type: String::new(), digest, size_bytes: 0 },
                    platform,
                }
            })
            .collect();
        let chosen = host.choose(&entries)?;
        entries.iter().position(|entry| std::ptr::eq(entry, chosen))
    }

    #[test]
    fn the_best_entry_for_the_machine_is_chosen() {
        let amd64 = Host { architecture: "amd64", variants: &["v2", "v1", ""] };
        assert_eq!(choice(&amd64, &["linux/arm64", "linux/amd64", "windows/amd64"]), Some(1));
        assert_eq!(choice(&amd64, &["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"]), Some(1));
        assert_eq!(choice(&amd64, &["linux/amd64/v3"]), None);
        assert_eq!(choice(&amd64, &["linux/amd64", "linux/amd64"]), Some(0));
        assert_eq!(choice(&amd64, &["unknown/unknown", "linux/amd64"]), Some(1));
        assert_eq!(choice(&amd64, &[""]), Some(0));
        assert_eq!(choice(&amd64, &["", ""]), None);
        assert_eq!(choice(&amd64, &["windows/amd64"]), None);
        let arm = Host { architecture: "arm", variants: &["v7", "v6", "", "v5"] };
        assert_eq!(choice(&arm, &["linux/arm/v5", "linux/arm/v6", "linux/arm64/v8"]), Some(1));
    }

    #[test]
    fn this_machine_has_a_name() {
        assert!(Host::detect().to_string().starts_with("linux/"));
    }
}
