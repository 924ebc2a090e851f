//! What a layer costs: memory, in a process that may have no more than it should need, and steps, which are counted.

use std::io::Write;
use std::process::{Command, Stdio};

use super::super::tree::STEPS;
use super::tar::{Item, Tar};
use super::{quick_directory, unpack, unpacker};
use crate::Digest;

/// What a layer may take, beside the window of a zstd stream.
const MEBIBYTES: u64 = 64;

/// Unpacks in a process that may have so many MiB of private memory, and returns its report.
fn unpack_within(mebibytes: u64, stream: &[u8]) -> String {
    let layer = quick_directory();
    let unpacker = unpacker();
    let mut process = Command::new("/bin/sh")
        .args(["-c", &format!("ulimit -d {}; exec \"$0\" \"$@\"", mebibytes << 10)])
        .arg(unpacker.program)
        .args(unpacker.args)
        .current_dir(layer.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(tempfile::tempfile().unwrap())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    let order = super::super::Order { diff_id: Digest::sha256(b"") }.to_line().unwrap();
    // One that refuses does not read to the end.
    drop(input.write_all(&order).and_then(|()| input.write_all(stream)));
    drop(input);
    let output = process.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

#[track_caller]
fn holds(mebibytes: u64, stream: &[u8], verdict: &str) {
    let report = unpack_within(mebibytes, stream);
    assert!(report.contains(verdict), "{} instead of {verdict}", &report[..report.len().min(300)]);
}

#[test]
fn memory_does_not_grow_with_files_and_their_names() {
    let wide = (0..6000).fold(Tar::new(), |tar, n| tar.file(&format!("d{}/{n}", n % 300), ""));
    holds(MEBIBYTES, &wide.end(), "unpacked");
    let above = "d/".repeat(1500);
    let deep = (0..200).fold(Tar::new(), |tar, n| {
        tar.pax(&[("path", (above.clone() + &n.to_string()).as_bytes())]).dir("d")
    });
    holds(MEBIBYTES, &deep.end(), "unpacked");
    // Names that the report would have to tell have a limit of their own.
    let implied = (0..160).fold(Tar::new(), |tar, n: usize| {
        let path = format!("{n}{}", "x".repeat(240)) + &format!("/{}", "y".repeat(250)).repeat(14) + "/f";
        tar.pax(&[("path", path.as_bytes())]).file("f", "")
    });
    holds(MEBIBYTES, &implied.end(), "too many directories");
}

#[test]
fn memory_does_not_grow_with_headers_and_promised_sizes() {
    let comment = vec![b'c'; (1 << 20) - 100];
    let headers = (0..8).fold(Tar::new(), |tar, _| tar.pax(&[("comment", &comment)]).file("f", ""));
    holds(MEBIBYTES, &headers.end(), "unpacked");
    let attribute = vec![b'a'; 60_000];
    let attributes: Vec<(String, &[u8])> =
        (0..17).map(|n| (format!("SCHILY.xattr.user.{n}"), &attribute[..])).collect();
    let attributes: Vec<(&str, &[u8])> =
        attributes.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let dropped = (0..8).fold(Tar::new(), |tar, n| {
        let name = if n == 0 { "user.overlay." } else { "trusted." };
        let renamed: Vec<_> =
            attributes.iter().map(|(key, value)| (key.replace("user.", name), *value)).collect();
        let renamed: Vec<(&str, &[u8])> = renamed.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        tar.pax(&renamed).file("f", "")
    });
    holds(MEBIBYTES, &dropped.end(), "unpacked");
    let sparse = Tar::new().pax(&[("size", b"10995116277760")]).file("f", "");
    holds(MEBIBYTES, &sparse.end(), "make room for");
}

#[test]
fn a_stream_that_unpacks_to_far_more_takes_no_more_memory() {
    let zeros = Tar::new().item(&Item::new(b'0', "zeros").data(vec![0; 24 << 20])).end();
    holds(MEBIBYTES, &zstd::encode_all(&zeros[..], 1).unwrap(), "unpacked");
}

#[test]
fn a_zstd_layer_takes_its_window_and_little_more() {
    let archive = Tar::new().file("f", "small").end();
    // The window is taken as a whole, whatever comes.
    let compress = |window: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(&archive).unwrap();
        encoder.finish().unwrap()
    };
    holds(MEBIBYTES + 128, &compress(27), "unpacked");
    holds(MEBIBYTES + 128, &compress(28), "refused");
    holds(MEBIBYTES + 128, &compress(31), "refused");
}

/// How many steps it takes to unpack.
fn steps(archive: &[u8]) -> u64 {
    let layer = quick_directory();
    let before = STEPS.get();
    unpack(layer.path(), archive).unwrap();
    STEPS.get() - before
}

/// Makes the entries of one number.
type Items = fn(usize) -> Vec<Item>;

#[test]
fn work_grows_with_the_archive_and_no_faster() {
    let cases: [(&str, Items); 7] = [
        ("opaque", |_| vec![Item::new(b'0', "d/.wh..wh..opq")]),
        ("opaque over files", |n| {
            vec![Item::new(b'0', &format!("d/{n}")), Item::new(b'0', "d/.wh..wh..opq")]
        }),
        ("whiteouts of the same", |n| {
            vec![Item::new(b'0', &format!("d/.wh.{n}")), Item::new(b'0', "d/.wh.0")]
        }),
        ("type changes", |n| {
            let name = format!("d/{}", n % 7);
            vec![Item::new(b'5', &name), Item::new(b'0', &name)]
        }),
        ("hard links", |n| match n % 1000 {
            0 => vec![Item::new(b'0', "f")],
            _ => vec![Item::new(b'1', &format!("l{n}")).link("f")],
        }),
        ("many directories", |n| vec![Item::new(b'0', &format!("d{n}/e/f"))]),
        ("trees that go", |n| match n % 100 {
            99 => vec![Item::new(b'0', "t"), Item::new(b'5', "t")],
            n => vec![Item::new(b'0', &format!("t/{n}/f"))],
        }),
    ];
    for (what, items) in cases {
        let archive = |count| (0..count).flat_map(items).fold(Tar::new(), |tar, item| tar.item(&item)).end();
        let (few, many) = (steps(&archive(200)), steps(&archive(1600)));
        assert!(few > 0 || what == "opaque", "{what}: steps are counted");
        assert!(many <= few * 10 + 100, "{what}: {few} steps, and {many} with 8 times the entries");
    }
}

#[test]
fn a_hundred_thousand_opaque_whiteouts_are_ten_times_ten_thousand() {
    let archive = |count: usize| {
        let below = (0..200).fold(Tar::new(), |tar, n| tar.file(&format!("d/{n}"), ""));
        (0..count).fold(below, |tar, _| tar.item(&Item::new(b'0', "d/.wh..wh..opq"))).end()
    };
    let (few, many) = (steps(&archive(10_000)), steps(&archive(100_000)));
    assert!(many <= few * 10, "{few} steps, and {many}");
    assert!(many < 2000, "{many} steps for 200 files and a mark");
}

#[test]
fn a_file_deep_down_costs_what_is_missing_of_its_path() {
    let above = "d/".repeat(1000);
    let archive = |count: usize| {
        let path = |n: usize| format!("{above}{n}/f");
        (0..count).fold(Tar::new(), |tar, n| tar.pax(&[("path", path(n).as_bytes())]).file("f", "")).end()
    };
    let (one, many) = (steps(&archive(1)), steps(&archive(101)));
    assert!(many - one <= 100 * 10, "{one} steps for the first, {} for a hundred more", many - one);
}
