//! One 512-byte header block of a tar archive: ustar, GNU and the form before both.
//!
//! Fields are read strictly. Where readers are known to differ over a block (a number with junk behind it, a prefix
//! that is none, a sparse map), the block is refused: two readers must never see two archives in one stream.
//! Follows POSIX.1-2017 `pax`, "ustar Interchange Format", and the GNU tar manual, "Basic Tar Format".

/// The size of a block.
pub(super) const BLOCK: usize = 512;

/// What tells the formats apart. The form before both has nothing there.
const USTAR: &[u8] = b"ustar\x0000";
const GNU: &[u8] = b"ustar  \0";

/// A header block whose checksum is right.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Checks the checksum and the format of a block.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, &'static str> {
        let header = Self(block);
        let stored = number(header.field(148, 8))?.ok_or("the header has no checksum")?;
        let others = block[..148].iter().chain(&block[156..]);
        if stored != others.map(|&b| i64::from(b)).sum::<i64>() + 8 * i64::from(b' ') {
            return Err("the header's checksum is wrong");
        }
        match header.field(257, 8) {
            USTAR if header.field(508, 4) == b"tar\0" => return Err("the star format is not supported"),
            USTAR => {}
            GNU => header.check_gnu()?,
            other if other.starts_with(b"ustar") => return Err("the header's format is unknown"),
            _ if matches!(header.kind(), b'x' | b'g' | b'L' | b'K') => {
                return Err("an extended header has an unknown format");
            }
            _ => {}
        }
        Ok(header)
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Returns the name, with the prefix that only ustar has.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = text(self.field(345, 155));
        if self.field(257, 8) == USTAR && !prefix.is_empty() {
            [prefix, name].join(&b'/')
        } else {
            name.to_vec()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(self.field(157, 100)).to_vec()
    }

    pub(super) fn size(&self) -> Result<u64, &'static str> {
        let size = number(self.field(124, 12))?.ok_or("the header has no size")?;
        u64::try_from(size).map_err(|_| "the size is negative")
    }

    pub(super) fn mode(&self) -> Result<u32, &'static str> {
        let mode = number(self.field(100, 8))?.unwrap_or(0);
        u32::try_from(mode & 0o7777).map_err(|_| "the mode is out of range")
    }

    pub(super) fn uid(&self) -> Result<u32, &'static str> {
        id(number(self.field(108, 8))?.unwrap_or(0))
    }

    pub(super) fn gid(&self) -> Result<u32, &'static str> {
        id(number(self.field(116, 8))?.unwrap_or(0))
    }

    pub(super) fn mtime(&self) -> Result<i64, &'static str> {
        Ok(number(self.field(136, 12))?.unwrap_or(0))
    }

    fn field(&self, start: usize, length: usize) -> &'a [u8] {
        &self.0[start..start + length]
    }

    /// GNU keeps two times where ustar keeps the prefix, and sparse maps behind them.
    fn check_gnu(&self) -> Result<(), &'static str> {
        let ambiguous = "the header mixes the GNU and the ustar format";
        number(self.field(345, 12)).map_err(|_| ambiguous)?;
        number(self.field(357, 12)).map_err(|_| ambiguous)?;
        if self.field(369, 126).iter().any(|&b| b != 0) {
            return Err("GNU's sparse and multi-volume forms are not supported");
        }
        Ok(())
    }
}

/// Reads a user or group number. The highest means "unchanged" to the kernel, so it is nobody's.
pub(super) fn id(number: i64) -> Result<u32, &'static str> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err("the owner is out of range"),
    }
}

/// Reads a numeric field: octal digits between spaces and NULs, or GNU's base 256. None: the field is blank.
fn number(field: &[u8]) -> Result<Option<i64>, &'static str> {
    if field[0] & 0x80 != 0 {
        return base256(field).map(Some);
    }
    let invalid = "a number in the header is malformed";
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let Some(start) = field.iter().position(|b| !blank(b)) else {
        return Ok(None);
    };
    if field[..start].contains(&0) {
        return Err(invalid);
    }
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return Err(invalid);
    }
    digits[..end]
        .iter()
        .try_fold(0_i64, |value, digit| match digit {
            b'0'..=b'7' => Ok(value << 3 | i64::from(digit - b'0')),
            _ => Err(invalid),
        })
        .map(Some)
}

fn base256(field: &[u8]) -> Result<i64, &'static str> {
    let invalid = "a number in the header is out of range";
    let fill: u8 = match field[0] {
        0x80 => 0,
        0xff => 0xff,
        _ => return Err(invalid),
    };
    let (high, low) = field.split_at(field.len().saturating_sub(8).max(1));
    let mut bytes = [fill; 8];
    bytes[8 - low.len()..].copy_from_slice(low);
    let value = i64::from_be_bytes(bytes);
    if high[1..].iter().any(|&b| b != fill) || (value < 0) != (fill == 0xff) {
        return Err(invalid);
    }
    Ok(value)
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_reading() {
        let check = |field: &[u8], expected: Result<Option<i64>, ()>| {
            assert_eq!(number(field).map_err(|_| ()), expected, "{field:?}");
        };
        check(b"0000644\0", Ok(Some(0o644)));
        check(b"   644 \0", Ok(Some(0o644)));
        check(b"00000644", Ok(Some(0o644)));
        check(b"\0\0\0\0\0\0\0\0", Ok(None));
        check(b"        ", Ok(None));
        check(b"0000648\0", Err(()));
        check(b"+000644\0", Err(()));
        check(b"-000644\0", Err(()));
        check(b"0644\x00644", Err(()));
        check(b"\x00000644\0", Err(()));
        check(b"77777777777\0", Ok(Some(0o77_777_777_777)));
        check(b"\x80\0\0\0\0\0\0\x01", Ok(Some(1)));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff", Ok(Some(-1)));
        check(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(Some(i64::MAX)));
        check(b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err(()));
        check(b"\x80\0\0\x01\0\0\0\0\0\0\0\0", Err(()));
        check(b"\xc0\0\0\0\0\0\0\0", Err(()));
    }

    #[test]
    fn the_highest_owner_is_refused() {
        assert_eq!(id(0), Ok(0));
        assert_eq!(id(i64::from(u32::MAX) - 1), Ok(u32::MAX - 1));
        assert!(id(i64::from(u32::MAX)).is_err());
        assert!(id(-1).is_err());
    }
}
