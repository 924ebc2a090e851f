//! Extended headers of a tar archive: PAX records and GNU's long names.
//!
//! Keys that would make two readers disagree are refused: a key twice, sparse maps, a size or name in a global
//! header. Unknown keys are metadata of other tools and are passed over.

/// What the headers before an entry say about it.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    seen: Seen,
}

/// A point in time as the kernel takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

#[derive(Debug, Default)]
struct Seen {
    any: bool,
    records: bool,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Extended {
    /// Tells whether an entry has to follow.
    pub(super) fn expects_entry(&self) -> bool {
        self.seen.any
    }

    /// Takes a header of PAX records that belongs to the next entry.
    pub(super) fn records(&mut self, data: &[u8]) -> Result<(), &'static str> {
        if self.seen.records {
            return Err("two PAX headers follow each other");
        }
        self.seen = Seen { any: true, records: true };
        let mut keys = Vec::new();
        for record in Records(data) {
            let (key, value) = record?;
            keys.push(key);
            self.record(key, value)?;
        }
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a PAX key stands twice");
        }
        Ok(())
    }

    /// Takes GNU's long name of the next entry.
    pub(super) fn long_name(&mut self, data: &[u8]) -> Result<(), &'static str> {
        self.seen.any = true;
        set(&mut self.path, terminated(data)?)
    }

    /// Takes GNU's long link target of the next entry.
    pub(super) fn long_link(&mut self, data: &[u8]) -> Result<(), &'static str> {
        self.seen.any = true;
        set(&mut self.link, terminated(data)?)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" if !value.is_empty() => set(&mut self.path, text(value)?)?,
            b"linkpath" if !value.is_empty() => set(&mut self.link, text(value)?)?,
            b"size" => self.size = Some(decimal(value)?),
            b"uid" if !value.is_empty() => self.uid = Some(id(value)?),
            b"gid" if !value.is_empty() => self.gid = Some(id(value)?),
            b"mtime" if !value.is_empty() => self.mtime = Some(time(value)?),
            b"hdrcharset" if !matches!(value, b"" | b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {
                return Err("the PAX header has an unknown character set");
            }
            _ if key.starts_with(b"GNU.sparse.") => return Err("sparse files are not supported"),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Checks a global header: readers differ over whether it applies, so it must not say anything that matters.
pub(super) fn check_global(data: &[u8]) -> Result<(), &'static str> {
    for record in Records(data) {
        let (key, _) = record?;
        let matters =
            matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" | b"hdrcharset")
                || key.starts_with(b"GNU.sparse.")
                || key.starts_with(XATTR);
        if matters {
            return Err("a global PAX header changes entries");
        }
    }
    Ok(())
}

/// The records of a header: `LENGTH KEY=VALUE\n`, the length counting all of it.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let record = self.split().ok_or("a PAX record is malformed");
            if record.is_err() {
                self.0 = &[];
            }
            record
        })
    }
}

impl<'a> Records<'a> {
    fn split(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(8).position(|&b| b == b' ')?;
        let length = usize::try_from(decimal(&self.0[..space]).ok()?).ok()?;
        if self.0[0] == b'0' || length > self.0.len() || length < space + 4 {
            return None;
        }
        let (record, rest) = self.0.split_at(length);
        let record = record[space + 1..].strip_suffix(b"\n")?;
        let equals = record.iter().position(|&b| b == b'=').filter(|&i| i > 0)?;
        self.0 = rest;
        Some((&record[..equals], &record[equals + 1..]))
    }
}

fn set(place: &mut Option<Vec<u8>>, value: Vec<u8>) -> Result<(), &'static str> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("the entry has two long names"),
    }
}

fn text(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.contains(&0) { Err("a name in a PAX header holds a NUL") } else { Ok(value.to_vec()) }
}

/// GNU ends a long name with one NUL, some writers with none, others fill the block.
fn terminated(data: &[u8]) -> Result<Vec<u8>, &'static str> {
    let end = data.iter().position(|&b| b == 0).unwrap_or(data.len());
    if end == 0 || data[end..].iter().any(|&b| b != 0) {
        return Err("a long name is malformed");
    }
    Ok(data[..end].to_vec())
}

fn decimal(value: &[u8]) -> Result<u64, &'static str> {
    let invalid = "a number in a PAX header is malformed";
    if value.is_empty() {
        return Err(invalid);
    }
    value.iter().try_fold(0_u64, |sum, digit| match digit {
        b'0'..=b'9' => {
            sum.checked_mul(10).and_then(|s| s.checked_add(u64::from(digit - b'0'))).ok_or(invalid)
        }
        _ => Err(invalid),
    })
}

fn id(value: &[u8]) -> Result<u32, &'static str> {
    super::header::id(i64::try_from(decimal(value)?).unwrap_or(-1))
}

/// Reads seconds with an optional sign and fraction, to the nanosecond below.
fn time(value: &[u8]) -> Result<Time, &'static str> {
    let (negative, digits) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let point = digits.iter().position(|&b| b == b'.').unwrap_or(digits.len());
    let whole = i64::try_from(decimal(&digits[..point])?).map_err(|_| "a time is out of range")?;
    let fraction = digits.get(point + 1..).unwrap_or_default();
    let mut nanoseconds = 0;
    let mut unit = 100_000_000;
    for digit in fraction {
        if !digit.is_ascii_digit() {
            return Err("a number in a PAX header is malformed");
        }
        nanoseconds += u32::from(digit - b'0') * unit;
        unit /= 10;
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds },
        (true, _) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &[u8]) -> Result<Extended, &'static str> {
        let mut extended = Extended::default();
        extended.records(data).map(|()| extended)
    }

    #[test]
    fn records() {
        let extended = parse(b"10 path=a\n13 size=1234\n30 SCHILY.xattr.user.k=a\n=\0b\n\n").unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a"[..]));
        assert_eq!(extended.size, Some(1234));
        // A record ends where its length says, not at a line break.
        assert_eq!(parse(b"12 path=\nab\n").unwrap().path.as_deref(), Some(&b"\nab"[..]));
        assert_eq!(extended.xattrs, [(b"user.k".to_vec(), b"a\n=\0b\n".to_vec())]);
    }

    #[test]
    fn what_readers_differ_over_is_refused() {
        for data in [
            &b"10 path=a\n10 path=b\n"[..],
            b"10 path=a",
            b"11 path=a\n",
            b"8 path=a\n",
            b"011 path=a\n",
            b"+10 path=a\n",
            b"10 path=a\nx",
            b"6 =ab\n",
            b"6 abc\n",
            b"12 path=a\0b\n",
            b"8 size=\n",
            b"11 size=+1\n",
            b"29 size=99999999999999999999\n",
            b"18 uid=4294967295\n",
            b"26 GNU.sparse.realsize=10\n",
            b"999999999 path=a\n",
        ] {
            assert!(parse(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn times() {
        let check = |text: &str, seconds, nanoseconds| {
            assert_eq!(time(text.as_bytes()), Ok(Time { seconds, nanoseconds }), "{text}");
        };
        check("0", 0, 0);
        check("1700000000.123456789", 1_700_000_000, 123_456_789);
        check("1.5", 1, 500_000_000);
        check("1.1234567891234", 1, 123_456_789);
        check("-1.25", -2, 750_000_000);
        check("-3", -3, 0);
        assert!(time(b"").is_err());
        assert!(time(b"1.x").is_err());
        assert!(time(b"--1").is_err());
    }

    #[test]
    fn global_headers_must_not_matter() {
        assert!(check_global(b"14 comment=ab\n").is_ok());
        assert!(check_global(b"10 path=a\n").is_err());
        assert!(check_global(b"10 path=a").is_err());
    }
}
