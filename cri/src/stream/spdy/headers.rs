//! Header blocks, SPDY/3.1 section 2.6.10: pairs of names and values, compressed in one zlib stream a direction.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;
use super::frame::Broken;

/// A block after decompression.
const BLOCK_BYTES: usize = 64 << 10;
/// Pairs in a block.
const PAIRS: u32 = 256;

/// A stream's headers; their names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

/// Reads the blocks of a connection, in the order in which they came.
#[derive(Debug)]
pub(super) struct Reader(Decompress);

/// Makes the blocks of a connection, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Writer(Compress);

// === impl Headers ===

impl Headers {
    /// A header's value.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// With one header more.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Parses a decompressed block.
    fn parse(mut block: &[u8]) -> Result<Self, Broken> {
        let count = block.try_get_u32().map_err(|_| Broken::Headers("cut off"))?;
        if count > PAIRS {
            return Err(Broken::Headers("too many"));
        }
        let mut text = || {
            let length = block.try_get_u32().map_err(|_| Broken::Headers("cut off"))? as usize;
            let (text, rest) = block.split_at_checked(length).ok_or(Broken::Headers("cut off"))?;
            block = rest;
            String::from_utf8(text.to_owned()).map_err(|_| Broken::Headers("not UTF-8"))
        };
        let pairs: Result<Vec<_>, Broken> = (0..count).map(|_| Ok((text()?, text()?))).collect();
        Ok(Self(pairs?))
    }

    fn block(&self) -> Vec<u8> {
        // Our own headers are a handful of words.
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let mut block = Vec::new();
        block.put_u32(length(self.0.len()));
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(length(text.len()));
            block.put_slice(text.as_bytes());
        }
        block
    }
}

// === impl Reader ===

impl Reader {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers in the next block.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, Broken> {
        Headers::parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut out = Vec::with_capacity(1 << 10);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= BLOCK_BYTES {
                    return Err(Broken::Headers("too long"));
                }
                out.reserve_exact(out.len().min(BLOCK_BYTES - out.len()));
            }
            let (taken, made) = (self.0.total_in(), out.len());
            let inflated = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            // A slice's part has no more bytes than the slice.
            let taken = usize::try_from(self.0.total_in() - taken).unwrap_or(usize::MAX);
            block = block.get(taken..).unwrap_or_default();
            match inflated {
                Ok(Status::Ok) if out.len() > made || taken > 0 => {}
                // Nothing more comes out.
                Ok(Status::Ok | Status::BufError) if block.is_empty() && out.len() < out.capacity() => {
                    return Ok(out);
                }
                Ok(Status::BufError) if out.len() == out.capacity() => {}
                Ok(_) => return Err(Broken::Headers("compressed wrongly")),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| Broken::Headers("compressed with another dictionary"))?;
                }
                Err(_) => return Err(Broken::Headers("compressed wrongly")),
            }
        }
    }
}

// === impl Writer ===

impl Writer {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        // It is refused only after the first byte.
        drop(compress.set_dictionary(&DICTIONARY));
        Self(compress)
    }

    /// The block of some headers.
    pub(super) fn write(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.block();
        let mut out = Vec::with_capacity(block.len() + 64);
        let mut rest = block.as_slice();
        loop {
            let taken = self.0.total_in();
            let status = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            let taken = usize::try_from(self.0.total_in() - taken).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            if status.is_err() || (rest.is_empty() && out.len() < out.capacity()) {
                return out;
            }
            out.reserve(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_depend_on_the_ones_before() {
        let (mut writer, mut reader) = (Writer::new(), Reader::new());
        let first = Headers::default().with("streamType", "error").with("port", "80").with("requestID", "0");
        let second = Headers::default().with("streamType", "data").with("port", "80").with("requestID", "0");
        let blocks = [&first, &second, &Headers::default()].map(|headers| writer.write(headers));
        assert_eq!(reader.read(&blocks[0]).unwrap(), first);
        assert_eq!(reader.read(&blocks[1]).unwrap(), second);
        assert_eq!(reader.read(&blocks[2]).unwrap(), Headers::default());
        assert_eq!(first.value("StreamType"), Some("error"));
        assert!(Reader::new().read(&blocks[1]).is_err());
    }

    #[test]
    fn a_block_that_grows_is_refused() {
        let check = |value_bytes: usize, good: bool| {
            let headers = Headers::default().with("a", "x".repeat(value_bytes));
            let block = Writer::new().write(&headers);
            assert_eq!(Reader::new().read(&block).is_ok(), good, "{value_bytes}");
        };
        check(60_000, true);
        check(BLOCK_BYTES, false);
        check(4 << 20, false);
    }

    #[test]
    fn counts_are_not_believed() {
        let check = |block: &[u8]| assert!(Headers::parse(block).is_err(), "{block:?}");
        check(&[]);
        check(&[0, 0, 0, 1]);
        check(&[0xff; 4]);
        check(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, b'a']);
        check(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn headers_travel(pairs in prop::collection::vec(("[a-z-]{0,20}", ".{0,50}"), 0..20)) {
            let headers = pairs.iter().fold(Headers::default(), |all, (name, value)| all.with(name, value.clone()));
            let block = Writer::new().write(&headers);
            prop_assert_eq!(Reader::new().read(&block).unwrap(), headers);
        }

        #[test]
        fn no_block_is_too_strange(block in prop::collection::vec(any::<u8>(), 0..500), flipped in 0..200_usize) {
            drop(Reader::new().read(&block));
            drop(Headers::parse(&block));
            let mut good = Writer::new().write(&Headers::default().with("streamtype", "stdin"));
            let at = flipped % good.len();
            good[at] ^= 1 << (flipped % 8);
            drop(Reader::new().read(&good));
        }
    }
}
