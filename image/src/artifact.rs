//! Artifacts: what registries keep beside images. Helm charts, models, files that ORAS pushed: a manifest whose blobs
//! are files and no layers.
//!
//! An artifact can be mounted as a volume. Each of its blobs becomes a layer of one file, so that all that holds for
//! layers holds for it: it is unpacked in the jail, shared between artifacts, checked and repaired. For that the blob
//! travels between the two ends of a tar archive. OCI image spec, `manifest.md`, "Guidelines for Artifact Usage".

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::Digest;
use crate::registry::manifest::Descriptor;
use crate::store::LayerExpectation;
use crate::unpack::Name;
use crate::ustar;

/// What a file is called: by the OCI image spec, and by the CNCF's model spec.
const TITLES: [&str; 2] = ["org.opencontainers.image.title", "org.cncf.model.filepath"];

/// What stands where nothing is to stand, but a manifest needs a blob.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The longest type that is kept.
const MAX_KIND: usize = 255;

/// What makes a manifest that of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// Its type, in the words of whoever made it.
    pub(crate) kind: String,
    /// The names of its blobs, relative to the volume.
    pub(crate) names: Vec<Name>,
    /// The place of each in the manifest, where those stand too that are for nothing.
    pub(crate) places: Vec<usize>,
}

/// A blob on its way to become a file: what goes before and after it makes an archive of it.
#[derive(Clone, Debug)]
pub(crate) struct Wrapping {
    pub(crate) before: Bytes,
    pub(crate) after: Bytes,
}

impl Artifact {
    /// Finds the names of blobs, and leaves out those that stand for nothing.
    pub(crate) fn parse(
        kind: &str,
        blobs: Vec<(Descriptor, BTreeMap<String, String>)>,
    ) -> Result<(Self, Vec<Descriptor>), String> {
        if kind.len() > MAX_KIND {
            return Err(format!("its type is longer than {MAX_KIND} bytes"));
        }
        let (mut names, mut descriptors, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (descriptor, annotations)) in blobs.into_iter().enumerate() {
            let title = TITLES.iter().find_map(|key| annotations.get(*key)).filter(|title| !title.is_empty());
            if title.is_none() && descriptor.media_type == EMPTY {
                continue;
            }
            let digest = &descriptor.digest;
            names.push(match title {
                Some(title) => file_name(title).map_err(|reason| format!("the title {title:?}: {reason}"))?,
                None => file_name(&format!("{}-{}", digest.algorithm().name(), digest.hex()))?,
            });
            descriptors.push(descriptor);
            places.push(place);
        }
        check_apart(&names)?;
        Ok((Self { kind: kind.to_owned(), names, places }, descriptors))
    }

    /// Returns what each blob has to become, and what is put around it for that.
    pub(crate) fn layers(&self, blobs: &[Descriptor]) -> Vec<(LayerExpectation, Option<Wrapping>)> {
        let layer = |(name, blob): (&Name, &Descriptor)| {
            let identity = [b"file ", blob.digest.to_string().as_bytes(), b" ", name.as_bytes()].concat();
            let expected = LayerExpectation { chain: Digest::sha256(&identity), diff_id: None };
            (expected, Some(Wrapping::new(name, blob.size_bytes)))
        };
        self.names.iter().zip(blobs).map(layer).collect()
    }
}

impl Wrapping {
    fn new(name: &Name, size: u64) -> Self {
        let before = ustar::start(name.as_bytes(), size);
        let after = [&vec![0; ustar::padding(size)][..], &ustar::END].concat();
        Self { before: before.into(), after: after.into() }
    }
}

/// Reads a title: a name inside of the volume, which must stand there as it is.
fn file_name(title: &str) -> Result<Name, &'static str> {
    let name = Name::parse(title.as_bytes())?;
    if title.starts_with('/') || title.ends_with('/') || name.is_root() {
        return Err("it is no name of a file");
    }
    if name.components().any(|component| component.starts_with(b".wh.")) {
        return Err("it is the name of a whiteout");
    }
    Ok(name)
}

/// Checks that no name is there twice or stands where another needs a directory.
fn check_apart(names: &[Name]) -> Result<(), String> {
    let mut sorted: Vec<&Name> = names.iter().collect();
    // Component by component, so that what is in a directory follows it at once.
    sorted.sort_unstable_by(|a, b| a.components().cmp(b.components()));
    let clash = sorted.windows(2).find(|pair| {
        let mut below = pair[1].components();
        pair[0].components().all(|component| below.next() == Some(component))
    });
    clash.map_or(Ok(()), |pair| {
        let name = |name: &Name| String::from_utf8_lossy(name.as_bytes()).into_owned();
        Err(format!("two files cannot be {:?} and {:?}", name(pair[0]), name(pair[1])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(title: Option<&str>, media_type: &str) -> (Descriptor, BTreeMap<String, String>) {
        let digest = Digest::sha256(title.unwrap_or_default().as_bytes());
        let descriptor = Descriptor { media_type: media_type.to_owned(), digest, size_bytes: 3 };
        (descriptor, title.map(|title| (TITLES[0].to_owned(), title.to_owned())).into_iter().collect())
    }

    fn names(titles: &[&str]) -> Result<Vec<String>, String> {
        let blobs = titles.iter().map(|title| blob(Some(title), "text/plain")).collect();
        let (artifact, descriptors) = Artifact::parse("x/y", blobs)?;
        assert_eq!(artifact.names.len(), descriptors.len());
        Ok(artifact.names.iter().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).collect())
    }

    #[test]
    fn files_are_called_by_their_titles() {
        let check = |titles: &[&str], expected: &[&str]| assert_eq!(names(titles).unwrap(), expected);
        check(&["values.yaml", "a b", "é"], &["values.yaml", "a b", "é"]);
        check(&["dir/one", "dir/two", "dir.x", "./top"], &["dir/one", "dir/two", "dir.x", "top"]);
        let (model, empty) = (blob(None, "text/plain"), blob(None, EMPTY));
        let digest = model.0.digest.hex().to_owned();
        let (artifact, descriptors) = Artifact::parse("x/y", vec![empty, model]).unwrap();
        assert_eq!(artifact.names, [Name::parse(format!("sha256-{digest}").as_bytes()).unwrap()]);
        assert_eq!((descriptors.len(), artifact.places), (1, vec![1]));
        let mut model = blob(None, "text/plain");
        model.1.insert(TITLES[1].to_owned(), "weights/0.bin".to_owned());
        let (artifact, _) = Artifact::parse("x/y", vec![model]).unwrap();
        assert_eq!(artifact.names, [Name::parse(b"weights/0.bin").unwrap()]);
    }

    #[test]
    fn titles_that_lead_astray_are_refused() {
        for titles in [
            &["../x"][..],
            &["a/../../x"],
            &["/etc/passwd"],
            &["dir/"],
            &["."],
            &["a\0b"],
            &[".wh.x"],
            &["a/.wh..wh..opq"],
            &["same", "same"],
            &["same", "./same"],
            &["a", "a.b", "a/b"],
            &[&"x".repeat(256)],
        ] {
            assert!(names(titles).is_err(), "{titles:?}");
        }
        assert!(Artifact::parse(&"x".repeat(300), Vec::new()).is_err());
    }

    #[test]
    fn a_blob_becomes_an_archive_of_one_file() {
        for (name, size) in [("file", 0), ("dir/file", 700), (&"long/".repeat(200), 512)] {
            let name = format!("{name}x");
            let wrapping = Wrapping::new(&Name::parse(name.as_bytes()).unwrap(), size);
            let content = vec![7; usize::try_from(size).unwrap()];
            let archive = [&wrapping.before[..], &content, &wrapping.after].concat();
            let mut read = tar::Archive::new(&archive[..]);
            let mut entries = read.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            assert_eq!((&*entry.path_bytes(), entry.size()), (name.as_bytes(), size));
            let mut found = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut found).unwrap();
            assert_eq!(found, content);
            drop(entry);
            assert!(entries.next().is_none());
        }
    }

    #[test]
    fn a_blob_larger_than_a_header_can_say_has_its_size_before_it() {
        let wrapping = Wrapping::new(&Name::parse(b"x").unwrap(), 9 << 30);
        let before = String::from_utf8_lossy(&wrapping.before).into_owned();
        assert!(before.contains("size=9663676416\n"), "{before:?}");
        assert_eq!(wrapping.before.len(), 3 * 512);
    }
}
