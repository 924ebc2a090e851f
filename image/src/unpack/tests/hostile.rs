//! Whatever an archive says, nothing outside of the layer's directory changes, even without the jail.
//! `PROPTEST_CASES=10000` tries more archives.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::failure::Failure;
use super::tar::{Item, Tar};
use super::{quick_directory, unpack};

/// A directory that holds the layer, and things beside it that archives are after.
pub(super) struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    pub(super) fn new() -> Self {
        let directory = quick_directory();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(outside.join("d")).unwrap();
        fs::write(outside.join("f"), "canary").unwrap();
        fs::write(outside.join("d/f"), "canary").unwrap();
        std::os::unix::fs::symlink("f", outside.join("l")).unwrap();
        fs::create_dir(directory.path().join("layer")).unwrap();
        Self { directory }
    }

    pub(super) fn outside_path(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    pub(super) fn layer(&self) -> PathBuf {
        self.directory.path().join("layer")
    }

    /// Everything that can be seen of what is outside; the time of change shows what was only touched.
    pub(super) fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.directory.path().to_owned()];
        while let Some(path) = pending.pop() {
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            pending.retain(|path| *path != self.layer());
            let changed = (metadata.ctime(), metadata.ctime_nsec(), metadata.mtime_nsec());
            let what = format!("{} {} {} {changed:?}", metadata.ino(), metadata.mode(), metadata.nlink());
            found.insert(path, what);
        }
        found
    }
}

/// Stands in names for the path of what is outside.
pub(super) const OUTSIDE: &str = "OUTSIDE";

/// Names that meet each other often, and lead out if anything follows them.
fn name() -> impl Strategy<Value = String> {
    let component = prop::sample::select(vec![
        "a",
        "b",
        "l",
        "d",
        "f",
        "..",
        ".",
        "",
        "outside",
        ".wh.a",
        ".wh.d",
        ".wh..wh..opq",
        ".wh..",
        "layer",
    ]);
    prop_oneof![
        6 => prop::collection::vec(component, 1..5).prop_map(|parts| parts.join("/")),
        1 => prop::sample::select(vec![OUTSIDE, "OUTSIDE/f", "OUTSIDE/d/f", "../outside/f", "../outside"])
            .prop_map(str::to_owned),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let kind = prop::sample::select(b"0000122255567L3".to_vec());
    let mode = prop::sample::select(vec![0o644, 0o4777, 0o1777, 0]);
    (kind, name(), name(), mode).prop_map(|(kind, name, link, mode)| {
        let link = if matches!(kind, b'1' | b'2') { link } else { String::new() };
        let data = if matches!(kind, b'0' | b'7' | b'L') { "data" } else { "" };
        Item::new(kind, &name).link(&link).mode(mode).owner(1, 2).data(data)
    })
}

/// Puts the path of what is outside in its place.
pub(super) fn aimed(mut item: Item, outside: &str) -> Item {
    for name in [&mut item.name, &mut item.link] {
        *name = String::from_utf8_lossy(name).replace(OUTSIDE, outside).into();
    }
    item
}

proptest! {
    #[test]
    fn nothing_outside_changes(items in prop::collection::vec(item(), 1..12)) {
        let scene = Scene::new();
        let before = scene.outside();
        let outside = scene.directory.path().join("outside");
        let aim = |item: &Item| aimed(item.clone(), outside.to_str().unwrap_or_default());
        let archive = items.iter().map(aim).fold(Tar::new(), |tar, item| tar.item(&item)).end();
        match unpack(&scene.layer(), &archive) {
            Ok(_) | Err(Failure::Refused { .. }) => {}
            Err(e) => panic!("{e:?}"),
        }
        prop_assert_eq!(scene.outside(), before);
    }

    /// Whatever the bytes are, the reader ends with an answer.
    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0..512_usize) {
        let scene = Scene::new();
        let before = scene.outside();
        let mut archive = Tar::new().dir("d").file("d/f", "x").end();
        let end = (at + bytes.len()).min(archive.len());
        archive[at..end].copy_from_slice(&bytes[..end - at]);
        drop(unpack(&scene.layer(), &archive));
        prop_assert_eq!(scene.outside(), before);
    }
}
