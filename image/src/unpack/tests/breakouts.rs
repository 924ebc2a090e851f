//! The ways out that containerd's own tests of its unpacking try, under their names there, with something outside of
//! the layer to find. Each archive makes a layer that has them inside, or is refused; nothing outside changes.

use super::super::failure::Failure;
use super::hostile::{OUTSIDE, Scene, aimed};
use super::tar::{Item, Tar};
use super::{describe, unpack};

/// What comes of an archive: the names in the layer, or the reason of the refusal.
type End = Result<&'static [&'static str], &'static str>;

const LINKED: End = Err("the parent of an entry is a symbolic link");
const NO_PARENT: End = Err("its parent is not a directory");
const DOTS: End = Err("the name holds `..`");

fn dir(name: &str) -> Item {
    Item::new(b'5', name)
}

fn file(name: &str) -> Item {
    Item::new(b'0', name).data("inside")
}

fn symlink(target: &str, name: &str) -> Item {
    Item::new(b'2', name).link(target)
}

fn link(target: &str, name: &str) -> Item {
    Item::new(b'1', name).link(target)
}

fn symlinks() -> Vec<(&'static str, Vec<Item>, End)> {
    vec![
        ("SymlinkAbsolute", vec![symlink(OUTSIDE, "l"), file("/l/f")], LINKED),
        ("SymlinkUpAndOut", vec![dir("d"), symlink("/d/../../outside", "l"), file("/l/f")], LINKED),
        (
            "SymlinkMultipleAbsolute",
            vec![dir("d"), symlink(OUTSIDE, "/d/l"), symlink("/d/l", "m"), file("m/f")],
            LINKED,
        ),
        (
            "SymlinkMultipleRelative",
            vec![dir("d"), symlink("../../outside", "/d/l"), symlink("./d/l", "m"), file("m/f")],
            LINKED,
        ),
        ("SymlinkEmptyFile", vec![symlink(OUTSIDE, "l"), Item::new(b'0', "/l/f")], LINKED),
        ("SymlinkParentDirectory", vec![file("f"), symlink(OUTSIDE, ".."), link("/f", "h")], DOTS),
        (
            "SymlinkEmptyFilename",
            vec![file("f"), symlink(OUTSIDE, ""), link("/f", "h")],
            Err("the layer's root is not a directory"),
        ),
        ("SymlinkParentRelative", vec![file("f"), symlink(OUTSIDE, "l/sub/.."), link("/f", "/l/h")], DOTS),
        ("SymlinkSlashEnded", vec![file("f"), dir("l/"), link("/f", "/l/h")], Ok(&["f", "l", "l/h"])),
        (
            "SymlinkOverrideDirectory",
            vec![file("f"), dir("l"), symlink(OUTSIDE, "l"), link("/f", "/l/h")],
            LINKED,
        ),
        (
            "SymlinkOverrideDirectoryRelative",
            vec![file("f"), dir("l"), symlink("../outside", "l"), link("/f", "/l/h")],
            LINKED,
        ),
        (
            "DirectoryOverrideSymlink",
            vec![file("f"), symlink(OUTSIDE, "l"), dir("/l/"), link("/f", "/l/h")],
            Ok(&["f", "l", "l/h"]),
        ),
        (
            "DirectoryOverrideSymlinkAndHardlink",
            vec![file("f"), symlink(OUTSIDE, "l"), dir("/l/"), link("/f", "/l/f"), file("/l/f")],
            Ok(&["f", "l", "l/f"]),
        ),
    ]
}

fn hard_links() -> Vec<(&'static str, Vec<Item>, End)> {
    let missing = Err("it is not in this layer");
    vec![
        (
            "HardlinkRelative",
            vec![dir("d"), symlink("../../outside", "d/l"), link("/d/l/f", "d/h")],
            NO_PARENT,
        ),
        (
            "HardlinkDownAndOut",
            vec![dir("d"), symlink("../d/../../outside", "d/l"), link("/d/l/f", "d/h")],
            NO_PARENT,
        ),
        ("HardlinkAbsolute", vec![symlink(OUTSIDE, "l"), link("/l/f", "h")], NO_PARENT),
        (
            "HardlinkRelativeLong",
            vec![symlink("../../../../../../../etc", "l"), link("/l/passwd", "h")],
            NO_PARENT,
        ),
        ("HardlinkRelativeUpAndOut", vec![symlink("up/../../outside", "l"), link("/l/f", "h")], NO_PARENT),
        ("HardlinkDirectRelative", vec![link("../outside/f", "h")], DOTS),
        ("HardlinkDirectAbsolute", vec![link("OUTSIDE/f", "h")], missing),
        // One to a symbolic link is a second name of the link: what is written there replaces it.
        (
            "HardlinkSymlinkBeforeCreateTarget",
            vec![symlink("OUTSIDE/f", "l"), link("l", "h"), file("h")],
            Ok(&["h", "l"]),
        ),
        (
            "HardlinkToWhiteout",
            vec![Item::new(b'0', ".wh.f"), link("f", "h")],
            Err("it is removed in this layer"),
        ),
    ]
}

fn whiteouts() -> Vec<(&'static str, Vec<Item>, End)> {
    let whiteout = |name: &str| Item::new(b'0', name);
    let nothing = Err("the whiteout hides nothing");
    vec![
        ("WhiteoutRootParent", vec![whiteout(".wh...")], nothing),
        ("WhiteoutParent", vec![dir("d"), whiteout("d/.wh...")], nothing),
        ("WhiteoutRoot", vec![whiteout(".wh..")], nothing),
        ("WhiteoutCurrentDirectory", vec![dir("d"), whiteout("d/.wh..")], nothing),
        ("WhiteoutSymlink", vec![symlink(OUTSIDE, "l"), whiteout(".wh.l")], Ok(&["l"])),
        ("WhiteoutSymlinkPath", vec![symlink(OUTSIDE, "l"), whiteout("l/.wh.f")], LINKED),
        (
            "WhiteoutDirectoryName",
            vec![file(".wh.d/f")],
            Err("the name of a directory is that of a whiteout"),
        ),
        ("WhiteoutDeadSymlinkParent", vec![symlink("/dne", "l"), whiteout("l/.wh.f")], LINKED),
        ("WhiteoutRelativePath", vec![dir("d"), whiteout("d/../../.wh.outside")], DOTS),
        ("WhiteoutOpaqueOutside", vec![symlink(OUTSIDE, "l"), whiteout("l/.wh..wh..opq")], LINKED),
    ]
}

#[test]
fn ways_out_that_are_known_lead_nowhere() {
    for (name, items, end) in [symlinks(), hard_links(), whiteouts()].concat() {
        let scene = Scene::new();
        let before = scene.outside();
        let outside = scene.outside_path().display().to_string();
        let archive = items.into_iter().fold(Tar::new(), |tar, item| tar.item(&aimed(item, &outside))).end();
        match (unpack(&scene.layer(), &archive), end) {
            (Ok(_), Ok(names)) => {
                assert!(describe(&scene.layer()).into_keys().eq(names.iter().copied()), "{name}")
            }
            (Err(failure @ Failure::Refused { .. }), Err(reason)) => {
                assert!(failure.to_string().contains(reason), "{name}: {failure}");
            }
            (found, end) => panic!("{name}: {found:?} instead of {end:?}"),
        }
        assert_eq!(scene.outside(), before, "{name}");
    }
}
