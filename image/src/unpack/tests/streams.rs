//! Compressed streams: members, frames, windows, and damage.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::failure::Failure;
use super::tar::{Item, Tar};
use super::{describe, unpack};
use crate::Digest;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn archive() -> Vec<u8> {
    let noise: Vec<u8> =
        (0..700_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    Tar::new().item(&Item::new(b'0', "noise").data(noise)).file("f", "x").end()
}

#[track_caller]
fn check_good(stream: &[u8]) {
    let archive = archive();
    let layer = tempfile::tempdir().unwrap();
    let (digest, _) = unpack(layer.path(), stream).unwrap();
    assert_eq!(digest, Digest::sha256(&archive));
    assert_eq!(describe(layer.path()).len(), 2);
}

#[track_caller]
fn check_bad(stream: &[u8]) {
    let layer = tempfile::tempdir().unwrap();
    let failure = unpack(layer.path(), stream).unwrap_err();
    assert!(matches!(failure, Failure::Input(_) | Failure::Refused { .. }), "{failure:?}");
}

#[test]
fn plain_gzip_and_zstd() {
    let archive = archive();
    check_good(&archive);
    check_good(&gzip(&archive));
    check_good(&zstd::encode_all(&archive[..], 3).unwrap());
}

#[test]
fn many_members_and_frames() {
    let archive = archive();
    let parts = [&archive[..1], &archive[1..511], &archive[511..300_000], &archive[300_000..]];
    check_good(&parts.map(gzip).concat());
    check_good(&parts.map(|part| zstd::encode_all(part, 1).unwrap()).concat());
    let skippable =
        [&b"\x50\x2a\x4d\x18\x04\0\0\0abcd"[..], &zstd::encode_all(&archive[..], 1).unwrap()].concat();
    check_good(&skippable);
}

#[test]
fn cut_and_damaged_streams() {
    let archive = archive();
    for stream in [gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
        for cut in [0, 1, 3, 4, 5, 10, stream.len() / 2, stream.len() - 1] {
            if cut > 0 {
                check_bad(&stream[..cut]);
            }
        }
        check_bad(&[&stream[..], b"junk"].concat());
        let mut flipped = stream.clone();
        flipped[stream.len() / 2] ^= 0x10;
        let layer = tempfile::tempdir().unwrap();
        // A flipped bit is found by the stream's checksum, or by the digest that it changes.
        match unpack(layer.path(), &flipped) {
            Ok((digest, _)) => assert_ne!(digest, Digest::sha256(&archive)),
            Err(failure) => assert!(matches!(failure, Failure::Input(_) | Failure::Refused { .. })),
        }
    }
}

#[test]
fn zstd_windows() {
    let archive = archive();
    let compressed = |log| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&archive).unwrap();
        encoder.finish().unwrap()
    };
    check_good(&compressed(27));
    check_bad(&compressed(28));
}
