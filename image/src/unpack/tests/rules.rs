//! What a layer may and may not do, rule by rule.

use super::super::limits::Limits;
use super::tar::{Item, Tar, seal};
use super::{describe, refusal, unpack, unpack_with, unpacked, xattrs};

const TIME: &str = "1000000000.000000000";

/// Unpacks and compares with what should be there, each as `NAME DESCRIPTION`.
#[track_caller]
fn check(archive: Tar, expected: &[&str]) {
    let (found, _) = unpacked(&archive.end());
    let found: Vec<String> =
        found.into_iter().map(|(name, what)| format!("{name} {}", what.replace(TIME, "T"))).collect();
    assert_eq!(found, expected);
}

#[track_caller]
fn refused(archive: Tar, reason: &str) {
    let found = refusal(&archive.end());
    assert!(found.contains(reason), "{found:?} should speak of {reason:?}");
}

fn whiteout(name: &str) -> Item {
    Item::new(b'0', name)
}

#[test]
fn ordinary_entries() {
    check(
        Tar::new()
            .dir("./")
            .item(&Item::new(b'5', "d/").mode(0o2750).owner(1000, 1001))
            .item(&Item::new(b'0', "d/f").mode(0o4755).owner(1000, 1001).data("hello"))
            .item(&Item::new(b'0', "d/g").mode(0o4755).data("x"))
            .hard_link("d/h", "./d/f")
            .item(&Item::new(b'2', "s").link("d/f").owner(5, 6))
            .item(&Item::new(b'6', "p").mode(0o600).owner(7, 8)),
        &[
            "d dir 2750 1000:1001 T",
            "d/f file \"hello\" x2 4755 1000:1001 T",
            "d/g file \"x\" x1 4755 0:0 T",
            "d/h file \"hello\" x2 4755 1000:1001 T",
            "p fifo 0600 7:8 T",
            "s link d/f 0777 5:6 T",
        ],
    );
}

#[test]
fn the_root_takes_its_metadata_from_its_entry() {
    let layer = tempfile::tempdir().unwrap();
    let root = Item::new(b'5', "./").mode(0o701).owner(3, 4).mtime(77);
    let (_, written) = unpack(layer.path(), &Tar::new().item(&root).file("f", "").end()).unwrap();
    assert_eq!(super::describe_one(layer.path()), "dir 0701 3:4 77.000000000");
    assert!(written.marked.implied.is_empty());
}

#[test]
fn implied_directories_are_made_and_reported() {
    let (found, written) = unpacked(&Tar::new().file("a/b/f", "").dir("a").file("/c//d/./g", "").end());
    assert!(found["a/b"].starts_with("dir 0755 0:0 "));
    assert!(found.contains_key("c/d/g"));
    assert_eq!(written.marked.implied, [&b""[..], b"a/b", b"c", b"c/d"]);
    assert_eq!(written.inodes, 6);
}

#[test]
fn directories_get_their_times_after_their_content() {
    check(
        Tar::new()
            .item(&Item::new(b'5', "d").mtime(5).mode(0o500))
            .file("d/f", "")
            .item(&Item::new(b'5', "d/e").mtime(6)),
        &["d dir 0500 0:0 5.000000000", "d/e dir 0755 0:0 6.000000000", "d/f file \"\" x1 0644 0:0 T"],
    );
}

#[test]
fn names_cannot_lead_out() {
    for name in ["..", "../x", "a/../../x", "a/..", "/../x"] {
        refused(Tar::new().file(name, ""), "`..`");
        refused(Tar::new().dir(name), "`..`");
        refused(Tar::new().file("x", "").hard_link("y", name), "`..`");
    }
    check(Tar::new().file("/abs", ""), &["abs file \"\" x1 0644 0:0 T"]);
    refused(Tar::new().file("", "data"), "root is not a directory");
    refused(Tar::new().symlink("./", "/etc"), "root is not a directory");
}

#[test]
fn a_parent_is_never_a_symbolic_link() {
    for target in ["/etc", "..", ".", "d", "missing"] {
        let tar = Tar::new().dir("d").symlink("l", target);
        refused(tar.clone().file("l/f", ""), "symbolic link");
        refused(tar.clone().dir("l/e"), "symbolic link");
        refused(tar.clone().item(&whiteout("l/.wh.f")), "symbolic link");
        refused(tar.clone().item(&whiteout("l/.wh..wh..opq")), "symbolic link");
        refused(tar.clone().file("f", "").hard_link("h", "l/f"), "parent is not a directory");
    }
    // A directory in the place of the link is a new directory, not the link's target.
    let tar = Tar::new().item(&Item::new(b'5', "d").mode(0o700)).symlink("l", "d");
    check(
        tar.item(&Item::new(b'5', "l").mode(0o777)).file("l/f", ""),
        &["d dir 0700 0:0 T", "l dir 0777 0:0 T trusted.overlay.opaque=\"y\"", "l/f file \"\" x1 0644 0:0 T"],
    );
}

#[test]
fn metadata_never_goes_through_a_link() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let before = super::describe_one(outside.path());
    let path = outside.path().to_str().unwrap();
    let link = Item::new(b'2', "l").link(path).mode(0o4777).owner(9, 9);
    let (_, written) = unpacked(&Tar::new().item(&link).hard_link("h", "l").end());
    assert_eq!(written.inodes, 2);
    assert_eq!(super::describe_one(outside.path()), before);
}

#[test]
fn a_file_replaces_a_link_and_does_not_follow_it() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let path = outside.path().to_str().unwrap();
    check(Tar::new().symlink("f", path).file("f", "new"), &["f file \"new\" x1 0644 0:0 T"]);
    assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
}

#[test]
fn hard_links_stay_in_the_layer() {
    refused(Tar::new().hard_link("h", "/etc/passwd"), "not in this layer");
    refused(Tar::new().dir("d").hard_link("h", "d"), "is a directory");
    refused(Tar::new().hard_link("h", "."), "the layer's root");
    refused(Tar::new().item(&whiteout(".wh.f")).hard_link("h", "f"), "removed in this layer");
    refused(Tar::new().file("f", "").hard_link("f", "f"), "the link itself");
    refused(Tar::new().file("f", "").hard_link("f/g", "f"), "not a directory");
    // The old file behind a name that is written anew keeps its content.
    check(
        Tar::new().file("a", "1").hard_link("b", "a").file("a", "2"),
        &["a file \"2\" x1 0644 0:0 T", "b file \"1\" x1 0644 0:0 T"],
    );
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    check(Tar::new().file("f", "1").file("f", "2"), &["f file \"2\" x1 0644 0:0 T"]);
    check(Tar::new().dir("d").file("d/x/y", "").file("d", "2"), &["d file \"2\" x1 0644 0:0 T"]);
    check(
        Tar::new().dir("d").file("d/f", "").item(&Item::new(b'5', "d").mode(0o711)),
        &["d dir 0711 0:0 T", "d/f file \"\" x1 0644 0:0 T"],
    );
    check(Tar::new().file("d", "").dir("d"), &["d dir 0755 0:0 T trusted.overlay.opaque=\"y\""]);
    // The directory is gone, and so is what was kept to be set for it.
    check(Tar::new().item(&Item::new(b'5', "d").mode(0o777)).symlink("d", "/"), &["d link / 0777 0:0 T"]);
    refused(Tar::new().file("f", "").file("f/g", ""), "not a directory");
}

#[test]
fn whiteouts() {
    check(
        Tar::new().dir("d").item(&whiteout("d/.wh.gone")).item(&whiteout(".wh.x")),
        &["d dir 0755 0:0 T", "d/gone whiteout", "x whiteout"],
    );
}

#[test]
fn an_opaque_directory() {
    let (found, _) = unpacked(&Tar::new().dir("d").file("d/f", "").item(&whiteout("d/.wh..wh..opq")).end());
    assert!(found["d"].ends_with("trusted.overlay.opaque=\"y\""));
    assert!(found.contains_key("d/f"));
    let (found, written) = unpacked(&Tar::new().item(&whiteout(".wh..wh..opq")).file("f", "").end());
    assert_eq!(found.len(), 1);
    assert_eq!(written.marked.opaque, [b""]);
}

#[test]
fn a_whiteout_spares_what_its_own_layer_brings() {
    for tar in [
        Tar::new().file("x", "new").item(&whiteout(".wh.x")),
        Tar::new().item(&whiteout(".wh.x")).file("x", "new"),
    ] {
        check(tar, &["x file \"new\" x1 0644 0:0 T"]);
    }
    for tar in [
        Tar::new().dir("x").file("x/f", "").item(&whiteout(".wh.x")),
        Tar::new().item(&whiteout(".wh.x")).dir("x").file("x/f", ""),
        Tar::new().item(&whiteout(".wh.x")).file("x/f", "").dir("x"),
    ] {
        check(tar, &["x dir 0755 0:0 T trusted.overlay.opaque=\"y\"", "x/f file \"\" x1 0644 0:0 T"]);
    }
}

#[test]
fn names_of_whiteouts_are_never_made() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh."] {
        refused(Tar::new().item(&whiteout(name)), "hides nothing");
    }
    refused(Tar::new().dir(".wh.d"), "must be a file");
    refused(Tar::new().symlink(".wh.d", "x"), "must be a file");
    refused(Tar::new().file(".wh.d/f", ""), "that of a whiteout");
    refused(Tar::new().file(".wh.d/.wh.f", ""), "that of a whiteout");
    refused(Tar::new().file(".wh..wh..opq/f", ""), "that of a whiteout");
    // What aufs left behind says nothing.
    check(Tar::new().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "").file(".wh..wh.aufs", ""), &[]);
}

#[test]
fn device_nodes() {
    for kind in [b'3', b'4'] {
        refused(Tar::new().item(&Item::new(kind, "null")), "device nodes");
        refused(Tar::new().item(&Item::new(kind, "etc/null")), "device nodes");
        let dev = Tar::new().item(&Item::new(kind, "dev/null")).item(&Item::new(kind, "var/chroot/dev/x"));
        let (found, written) = unpacked(&dev.end());
        assert_eq!((found.len(), written.skipped), (0, 2));
    }
}

#[test]
fn attributes_are_chosen() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let records: Vec<(&str, &[u8])> = vec![
        ("SCHILY.xattr.user.note", b"a\0b\n"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.security.selinux", b"x"),
        ("SCHILY.xattr.system.posix_acl_access", b"x"),
        ("SCHILY.xattr.security.capability", capability),
    ];
    let layer = tempfile::tempdir().unwrap();
    let tar = Tar::new().pax(&records).item(&Item::new(b'0', "f").owner(1, 1).mode(0o755));
    unpack(layer.path(), &tar.pax(&records[..3]).dir("d").end()).unwrap();
    let expected = [
        ("security.capability".to_owned(), capability.to_vec()),
        ("user.note".to_owned(), b"a\0b\n".to_vec()),
    ];
    assert_eq!(xattrs(&layer.path().join("f")).into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(xattrs(&layer.path().join("d")).into_iter().collect::<Vec<_>>(), expected[1..]);
    // Version 1, and one whose length is not that of its version, are nothing the kernel should judge.
    for bad in [&b"\x01\0\0\x01\0\x04\0\0\0\0\0\0"[..], &capability[..12]] {
        let tar = Tar::new().pax(&[("SCHILY.xattr.security.capability", bad)]).file("f", "");
        check(tar, &["f file \"\" x1 0644 0:0 T"]);
    }
}

#[test]
fn pax_names_owners_and_times() {
    let long = "d/".repeat(60) + "file";
    let tar = Tar::new()
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"4294967294"),
            ("gid", b"70000"),
            ("mtime", b"-1.5"),
            ("comment", b"x"),
        ])
        .file("short", "x");
    let (found, _) = unpacked(&tar.end());
    assert_eq!(found[&long], "file \"x\" x1 0644 4294967294:70000 -2.500000000");
    let target = "t".repeat(300);
    let tar = Tar::new().pax(&[("linkpath", target.as_bytes())]).symlink("l", "x");
    check(tar, &[&format!("l link {target} 0777 0:0 T")]);
}

#[test]
fn gnu_long_names() {
    let long = "n".repeat(200);
    let tar = Tar::new()
        .extended(b'L', format!("{long}\0").as_bytes())
        .extended(b'K', b"target\0")
        .symlink("short", "x");
    check(tar, &[&format!("{long} link target 0777 0:0 T")]);
}

#[test]
fn ambiguous_headers_are_refused() {
    let file = || Item::new(b'0', "f").data("x");
    let no_entry = "has no entry";
    refused(Tar::new().pax(&[("path", b"a")]).pax(&[("uid", b"1")]).file("f", ""), "two PAX headers");
    refused(Tar::new().pax(&[("path", b"a")]).extended(b'L', b"b\0").file("f", ""), "two long names");
    refused(Tar::new().extended(b'L', b"a\0").extended(b'L', b"b\0").file("f", ""), "two long names");
    refused(Tar::new().pax(&[("path", b"a"), ("path", b"b")]).file("f", ""), "two long names");
    refused(Tar::new().pax(&[("uid", b"1"), ("uid", b"2")]).file("f", ""), "stands twice");
    refused(Tar::new().pax(&[("path", b"a")]), no_entry);
    refused(Tar::new().pax(&[("path", b"a")]).extended(b'g', b"").file("f", ""), no_entry);
    refused(Tar::new().extended(b'g', &super::tar::record("path", b"a")).file("f", ""), "global");
    refused(Tar::new().pax(&[("size", b"2")]).item(&file()), "disagree over the size");
    refused(Tar::new().pax(&[("size", b"0")]).item(&file()), "disagree over the size");
    refused(Tar::new().pax(&[("GNU.sparse.major", b"1")]).item(&file()), "sparse");
    refused(Tar::new().item(&Item::new(b'S', "f")), "sparse");
    refused(Tar::new().item(&Item::new(b'0', "d/")), "ends in a slash");
    refused(Tar::new().item(&Item::new(b'5', "d").data("x")), "has a size");
    refused(Tar::new().file("f", "").item(&Item::new(b'1', "h").link("f").data("x")), "has a size");
    refused(Tar::new().item(&Item::new(b'M', "f")), "'M'");
    refused(Tar::new().pax(&[("path", b"a\0b")]).file("f", ""), "NUL");
    refused(Tar::new().pax(&[("uid", b"4294967295")]).file("f", ""), "owner");
    // The form before ustar had no type for directories.
    check(Tar::new().item(&Item::new(0, "d/")), &["d dir 0644 0:0 T"]);
}

#[test]
fn damaged_headers_are_refused() {
    let damaged = |at: usize, value: &[u8]| {
        let mut block = Item::new(b'0', "f").header();
        block[at..at + value.len()].copy_from_slice(value);
        seal(&mut block);
        Tar::new().block(&block)
    };
    refused(damaged(124, b"0000000001x\0"), "malformed");
    refused(damaged(124, b"\0\0\0\0\0\0\0\0\0\0\0\0"), "no size");
    refused(damaged(148 - 24, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "negative");
    refused(damaged(108, b"\x80\0\0\0\xff\xff\xff\xff"), "owner");
    let gnu = |at: usize, value: &[u8]| {
        let mut block = Item::new(b'0', "f").header();
        block[257..265].copy_from_slice(b"ustar  \0");
        block[at..at + value.len()].copy_from_slice(value);
        seal(&mut block);
        Tar::new().block(&block)
    };
    refused(gnu(345, b"prefix"), "mixes");
    refused(gnu(386, b"1"), "sparse");
    refused(damaged(508, b"tar\0"), "star");
    let mut block = Item::new(b'0', "f").header();
    block[0] = b'g';
    refused(Tar::new().block(&block), "checksum");
}

#[test]
fn the_end_of_an_archive() {
    let whole = Tar::new().file("f", "x");
    for end in [0, 512, 1024, 10240] {
        let mut archive = whole.clone().unfinished();
        archive.resize(archive.len() + end, 0);
        assert_eq!(unpacked(&archive).0.len(), 1, "{end} zeros");
    }
    let trailing = "follows the end";
    refused(Tar::new().block(&[0; 512]).file("f", "x"), trailing);
    refused(Tar::new().block(&[0; 1024]).file("f", "x"), trailing);
    let mut archive = whole.clone().end();
    archive.push(1);
    assert!(refusal(&archive).contains(trailing));
    for length in [1, 511, 513, 600, 1023] {
        assert!(refusal(&whole.clone().unfinished()[..length]).contains("read the stream"), "{length}");
    }
    assert_eq!(unpacked(&[]).0.len(), 0);
}

#[test]
fn limits_hold() {
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    let layer = || tempfile::tempdir().unwrap();
    let fails = |tar: Tar, limits: Limits, reason: &str| {
        let failure = unpack_with(layer().path(), &tar.end(), limits).unwrap_err();
        let text =
            std::error::Error::source(&failure).map_or_else(|| failure.to_string(), ToString::to_string);
        assert!(text.contains(reason), "{text}");
    };
    fails(
        Tar::new().file("a", "").file("b", "").file("c", ""),
        limits(|l| l.entries = 2),
        "more than 2 entries",
    );
    fails(Tar::new().file("a/b/c/d", ""), limits(|l| l.entries = 3), "more than 3 entries");
    let big = Tar::new().item(&Item::new(b'0', "f").data(vec![b'x'; 1 << 20]));
    fails(big, limits(|l| l.bytes = 1 << 19), "unpacks to more than");
    let huge = Tar::new().pax(&[("size", b"1099511627776")]).file("f", "");
    fails(huge, limits(|_| {}), "the disk is too full");
    refused(Tar::new().item(&Item::new(b'x', "x").size(1 << 21)), "longer than 1 MiB");
    refused(Tar::new().pax(&[("path", "/d".repeat(2100).as_bytes())]).file("f", ""), "4095");
    refused(Tar::new().pax(&[("path", "d".repeat(256).as_bytes())]).file("f", ""), "255");
}

#[test]
fn many_directories_keep_their_metadata_out_of_memory() {
    let layer = tempfile::tempdir().unwrap();
    // Long names fill the memory with few directories.
    let above = ["a", "b", "c", "d"].map(|name| name.repeat(250)).join("/");
    let name = |n: usize| format!("{above}/{n}");
    let mut tar = Tar::new();
    for n in 0..2500 {
        let path = name(n);
        tar = tar.pax(&[("path", path.as_bytes())]).item(&Item::new(b'5', "d").mode(0o700).mtime(n as u64));
    }
    unpack(layer.path(), &tar.end()).unwrap();
    for n in [0, 1, 2000, 2499] {
        let found = super::describe_one(&layer.path().join(name(n)));
        assert_eq!(found, format!("dir 0700 0:0 {n}.000000000"));
    }
}

#[test]
fn deep_trees_are_removed_with_few_descriptors() {
    let layer = tempfile::tempdir().unwrap();
    let mut tar = Tar::new();
    for n in 0..4 {
        tar = tar.pax(&[("path", ("d/".repeat(2000) + &n.to_string()).as_bytes())]).file("f", "");
    }
    unpack(layer.path(), &tar.clone().end()).unwrap();
    let (found, _) = unpacked(&tar.file("d", "flat").end());
    assert_eq!(found.len(), 1);
    let parent = std::fs::File::open(layer.path()).unwrap();
    super::super::remove_tree(std::os::fd::AsFd::as_fd(&parent), b"d").unwrap();
    assert!(describe(layer.path()).is_empty());
}
