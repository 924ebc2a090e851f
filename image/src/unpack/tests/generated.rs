//! Ten thousand hostile archives, the same ones each time: nothing outside of the layer changes, and each ends with
//! a layer or a refusal. `CORTEN_HOSTILE_SEED` makes others.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::super::failure::Failure;
use super::hostile::{OUTSIDE, Scene, aimed};
use super::tar::{Item, Tar, seal};
use super::unpack;

const ARCHIVES: u64 = 10_000;

/// How many archives come between two looks at what is outside.
const EACH: u64 = 50;

/// Numbers that look random: Marsaglia's xorshift.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const PARTS: [&str; 20] = [
    "a",
    "b",
    "l",
    "d",
    "f",
    "..",
    ".",
    "",
    "outside",
    "layer",
    ".wh.a",
    ".wh.d",
    ".wh.l",
    ".wh..wh..opq",
    ".wh..wh.aufs",
    ".wh..",
    ".wh.",
    "dev",
    "x y",
    "\u{1b}[2J",
];

/// Those that no archive is refused for by themselves: what comes behind them is tried, too.
const TAME: [&str; 10] = ["a", "b", "l", "d", "f", "layer", "dev", ".wh..wh.aufs", "x y", "outside"];

const WHOLE: [&str; 10] = [
    "OUTSIDE",
    "OUTSIDE/f",
    "OUTSIDE/d/f",
    "../outside/f",
    "../outside",
    "/",
    "./",
    "/proc/self/root/etc",
    "/proc/1/root",
    "../../../../../../../../etc/passwd",
];

fn name(numbers: &mut Numbers) -> String {
    match numbers.below(60) {
        0 => numbers.one_of(&WHOLE).to_owned(),
        1 => "d/".repeat(numbers.below(60)) + "f",
        2 => format!("d/{}", numbers.below(1000)),
        _ => {
            let length = 1 + numbers.below(4);
            let parts = if numbers.below(12) == 0 { &PARTS[..] } else { &TAME[..] };
            (0..length).map(|_| numbers.one_of(parts)).collect::<Vec<_>>().join("/")
        }
    }
}

const XATTRS: [&str; 10] = [
    "trusted.overlay.opaque",
    "trusted.overlay.redirect",
    "trusted.overlay.metacopy",
    "trusted.overlay.whiteout",
    "user.overlay.opaque",
    "user.overlay.redirect",
    "user.note",
    "security.capability",
    "security.selinux",
    "system.posix_acl_access",
];

fn records(numbers: &mut Numbers) -> Vec<(String, Vec<u8>)> {
    let count = numbers.below(4);
    (0..count)
        .map(|_| match numbers.below(8) {
            0 => ("path".into(), name(numbers).into_bytes()),
            1 => ("linkpath".into(), name(numbers).into_bytes()),
            2 => ("size".into(), numbers.one_of(&["0", "4", "99999999999", "-1", "4294967296"]).into()),
            3 => ("uid".into(), numbers.one_of(&["0", "4294967295", "70000", "x"]).into()),
            4 => ("GNU.sparse.realsize".into(), b"1099511627776".to_vec()),
            _ => (format!("SCHILY.xattr.{}", numbers.one_of(&XATTRS)), b"y".to_vec()),
        })
        .collect()
}

fn item(numbers: &mut Numbers) -> Item {
    let rare = numbers.below(10) == 0;
    let kind = numbers.one_of(if rare { &b"L7K34SgxV\0"[..] } else { &b"00000001122255556"[..] });
    let link = if matches!(kind, b'1' | b'2') { name(numbers) } else { String::new() };
    let data: &[u8] = match kind {
        b'0' | b'7' | 0 => numbers.one_of(&[&b""[..], b"data", &[7; 600]]),
        b'L' | b'K' => b"a/../../outside/f\0",
        b'g' | b'x' => numbers.one_of(&[&b""[..], b"22 path=../outside/f2\n", b"junk"]),
        _ => b"",
    };
    let mut item = Item::new(kind, &name(numbers)).link(&link).data(data);
    item = item.mode(numbers.one_of(&[0o644, 0o4777, 0o1777, 0, 0o2755])).owner(1, 2);
    if numbers.below(25) == 0 {
        item = item.size(numbers.one_of(&[1, 1 << 20, 8_589_934_591]));
    }
    item
}

fn archive(numbers: &mut Numbers, outside: &str) -> Vec<u8> {
    let mut tar = Tar::new();
    for _ in 0..=numbers.below(14) {
        if numbers.below(6) == 0 {
            let records = records(numbers);
            let records: Vec<(&str, &[u8])> = records.iter().map(|(k, v)| (k.as_str(), &v[..])).collect();
            tar = tar.pax(&records);
        }
        let item = aimed(item(numbers), outside);
        if numbers.below(20) == 0 {
            // GNU's format says something else with the same bytes, and some fields are damaged.
            let mut block = item.header();
            block[257..265].copy_from_slice(b"ustar  \0");
            let at = numbers.one_of(&[345, 386, 482, 483, 124, 100, 345]);
            block[at] = numbers.one_of(b"\0\x01\x80\xff7/");
            seal(&mut block);
            tar = tar.block(&block);
        } else {
            tar = tar.item(&item);
        }
    }
    let mut bytes = if numbers.below(10) == 0 { tar.unfinished() } else { tar.end() };
    if numbers.below(40) == 0 {
        let at = numbers.below(bytes.len());
        bytes[at] ^= 1 << numbers.below(8);
    }
    bytes
}

#[test]
fn ten_thousand_hostile_archives_change_nothing_outside() {
    let seed = std::env::var("CORTEN_HOSTILE_SEED").map_or(0x00c0_47e5, |seed| seed.parse().unwrap());
    let scene = Scene::new();
    let outside = scene.outside_path().display().to_string();
    assert!(WHOLE[0] == OUTSIDE);
    let before = scene.outside();
    let (mut taken, mut refused) = (0, 0);
    for number in 0..ARCHIVES {
        let mut numbers = Numbers(seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let archive = archive(&mut numbers, &outside);
        match unpack(&scene.layer(), &archive) {
            Ok(_) => taken += 1,
            Err(Failure::Refused { .. } | Failure::Input(_)) => refused += 1,
            // A file system without room for a large file, or for an attribute, says so itself.
            Err(Failure::Write { operation, .. }) => {
                assert!(matches!(operation, "make room for" | "set an extended attribute of"), "{operation}");
                refused += 1;
            }
        }
        assert!(no_forged_marks(&scene), "archive {number} of seed {seed}");
        if number % EACH == EACH - 1 {
            assert_eq!(scene.outside(), before, "one of the {EACH} archives to {number} of seed {seed}");
        }
        empty(&scene);
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > 500 && refused > 500, "{taken} taken, {refused} refused");
}

/// Makes room for the next archive. The directory itself stays: making it anew would show outside.
fn empty(scene: &Scene) {
    let layer = fs::File::open(scene.layer()).unwrap();
    for entry in fs::read_dir(scene.layer()).unwrap() {
        super::super::remove_tree(layer.as_fd(), entry.unwrap().file_name().as_bytes()).unwrap();
    }
}

/// No attribute of overlayfs but the mark that is its own, no name of a whiteout, no device.
fn no_forged_marks(scene: &Scene) -> bool {
    super::describe(&scene.layer()).iter().all(|(name, what)| {
        let marks = what.replace(" trusted.overlay.opaque=\"y\"", "");
        let reserved = name.split('/').any(|part| part.starts_with(".wh."));
        !reserved && !marks.contains("overlay.") && !marks.contains("selinux") && !marks.starts_with("other")
    })
}
