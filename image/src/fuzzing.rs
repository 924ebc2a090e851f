//! What the fuzz targets of `tests/fuzz` call: the readers of what strangers write. Each must end, and hold to what it
//! says of what it took. The corpora are replayed by the tests below, so that no release loses what fuzzing found.

use std::path::Path;

use crate::Reference;
use crate::image::Configuration;
use crate::registry::fuzzing;
use crate::registry::manifest::Document;

/// Reads a manifest or an index; the first line is the `Content-Type` that came with it.
pub fn manifest(data: &[u8]) {
    let (head, body) = split(data);
    let Ok(document) = Document::parse(body, head, "fuzzed") else { return };
    match document {
        Document::Image(manifest) => {
            assert!(manifest.layers.len() <= 256, "layers are bounded");
            let Some(artifact) = manifest.artifact else { return };
            assert_eq!(artifact.names.len(), manifest.layers.len(), "each file has a name");
            assert!(artifact.names.iter().all(|name| !name.is_root()), "and a place");
        }
        Document::Index(entries) => assert!(entries.len() <= 1000, "entries are bounded"),
    }
}

/// Reads the configuration of an image; the first byte is the number of its layers.
pub fn config(data: &[u8]) {
    let Some((layers, json)) = data.split_first() else { return };
    let Ok(config) = Configuration::parse(json, usize::from(*layers)) else { return };
    assert_eq!(config.diff_ids.len(), usize::from(*layers), "each layer has a digest");
}

/// Reads a name of an image. What is one is its own long form.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    let long = reference.to_string();
    assert_eq!(long.parse::<Reference>().ok().as_ref(), Some(&reference), "{long} is what {text} means");
    assert!(!long.contains("..") && !long.contains("//"), "{long} is no path");
}

/// Reads a `registries.conf`, and asks it about names.
pub fn registries_conf(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        fuzzing::registries_conf(text);
    }
}

/// Reads a `hosts.toml`.
pub fn hosts_toml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        fuzzing::hosts_toml(text, Path::new("/hosts"));
    }
}

/// Reads a `policy.json`, and what a signature says.
pub fn policy(data: &[u8]) {
    crate::trust::fuzz(data);
}

/// Lists a tar archive. What it lists is inside of the archive, under plain names.
pub fn tar(data: &[u8]) {
    let Ok(members) = crate::unpack::list(data) else { return };
    for member in members {
        let end = member.offset.checked_add(member.size);
        assert!(end.is_some_and(|end| end <= data.len() as u64), "{member:?} is inside");
        assert!(
            member.name.split('/').all(|part| !matches!(part, "." | "..")),
            "{member:?} leads nowhere else"
        );
    }
}

fn split(data: &[u8]) -> (Option<&str>, &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return (None, data) };
    (std::str::from_utf8(&data[..end]).ok().filter(|text| !text.is_empty()), &data[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    type Target = fn(&[u8]);

    #[test]
    fn the_corpora_are_replayed() {
        let targets: [(&str, Target); 7] = [
            ("manifest", manifest),
            ("config", config),
            ("reference", reference),
            ("registries_conf", registries_conf),
            ("hosts_toml", hosts_toml),
            ("policy", policy),
            ("tar", tar),
        ];
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, target) in targets {
            let inputs = std::fs::read_dir(corpora.join(name)).unwrap();
            let mut count = 0;
            for input in inputs {
                let data = std::fs::read(input.unwrap().path()).unwrap();
                // Each with every way to be cut and with every byte spoilt: cheap mutations find cheap mistakes.
                target(&data);
                for at in 0..data.len().min(2000) {
                    target(&data[..at]);
                    let mut spoilt = data.clone();
                    spoilt[at] ^= 1 << (at % 8);
                    target(&spoilt);
                }
                count += 1;
            }
            assert!(count >= 3, "{name} has inputs");
        }
    }
}
