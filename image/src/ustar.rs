//! The archives that Corten writes: files in the ustar format, with pax records for what its fields do not hold
//! (IEEE Std 1003.1, pax, "ustar Interchange Format" and "pax Extended Header").

/// What everything in an archive is a multiple of, in bytes.
pub const BLOCK: usize = 512;

/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The longest name that the field of a header holds.
const MAX_NAME: usize = 99;
/// The largest size that the field of a header holds: eleven octal digits.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// Returns what stands before the content of a file that root owns and everybody may read.
pub fn start(name: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if name.len() > MAX_NAME {
        records.extend(record("path", name));
    }
    if size > MAX_SIZE {
        records.extend(record("size", size.to_string().as_bytes()));
    }
    let mut start = Vec::new();
    if !records.is_empty() {
        start.extend_from_slice(&header(b"pax", b'x', records.len() as u64));
        start.extend_from_slice(&records);
        start.resize(start.len().next_multiple_of(BLOCK), 0);
    }
    let short = &name[..name.len().min(MAX_NAME)];
    start.extend_from_slice(&header(short, b'0', if size > MAX_SIZE { 0 } else { size }));
    start
}

/// Returns how many zeros follow the content of a file.
pub fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default()
}

/// A record of an extended header, whose length counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &rest].concat()
}

fn header(name: &[u8], kind: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// What tar(1) lists.
    fn listed(archive: &[u8]) -> String {
        let mut tar = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--file=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It stops reading where the content of a huge file would be.
        drop(tar.stdin.take().unwrap().write_all(archive));
        String::from_utf8(tar.wait_with_output().unwrap().stdout).unwrap()
    }

    #[test]
    fn tar_reads_names_and_sizes_of_any_length() {
        for (name, size) in [("n", 0), (&*"n".repeat(99), 7), (&*format!("d/{}", "n".repeat(200)), 513)] {
            let content = vec![b'x'; usize::try_from(size).unwrap()];
            let archive =
                [&start(name.as_bytes(), size)[..], &content, &vec![0; padding(size)], &END].concat();
            assert_eq!(archive.len() % BLOCK, 0);
            let line = listed(&archive);
            assert!(line.starts_with("-rw-r--r-- 0/0") && line.ends_with(&format!(" {name}\n")), "{line}");
            assert!(line.contains(&format!(" {size} ")), "{line}");
        }
        assert!(listed(&start(b"big", 1 << 40)).contains(" 1099511627776 "));
    }
}
