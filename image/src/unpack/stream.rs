//! The stream of a layer: decompressed and hashed in threads of their own, beside the one that writes.
//!
//! Buffers go round: the last of the two that read one gives it back. gzip in any number of members, zstd in any
//! number of frames with windows up to 128 MiB, or none, told apart by their first bytes as the peers do: what the
//! manifest says of it is often wrong, and the digest of the uncompressed archive settles what it must be.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use flate2::bufread::MultiGzDecoder;

use super::limits::Limits;
use crate::{Algorithm, Digest, Hasher};

/// The size of a buffer.
const BUFFER: usize = 128 << 10;

/// How many buffers wait for each reader.
const QUEUE: usize = 6;

/// The largest window of a zstd frame, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The decompressed archive.
pub(super) struct Stream {
    chunks: Receiver<io::Result<Chunk>>,
    current: Option<Chunk>,
    taken: usize,
    hasher: JoinHandle<Digest>,
}

impl Stream {
    /// Starts to decompress and hash.
    pub(super) fn start(
        input: impl BufRead + Send + 'static,
        algorithm: Algorithm,
        limits: Limits,
    ) -> io::Result<Self> {
        let (writer, chunks) = sync_channel(QUEUE);
        let (hasher, hashed) = sync_channel::<Chunk>(QUEUE);
        let hashing = thread::Builder::new().name("hash".into()).spawn(move || {
            let mut digest = Hasher::new(algorithm);
            for chunk in hashed {
                digest.update(&chunk.bytes);
            }
            digest.finish()
        })?;
        let pump = Pump { writer, hasher, buffers: channel(), limits, bytes: 0 };
        thread::Builder::new().name("decompress".into()).spawn(move || pump.run(input))?;
        Ok(Self { chunks, current: None, taken: 0, hasher: hashing })
    }

    /// Returns the digest of the archive. Everything must have been read.
    pub(super) fn digest(self) -> io::Result<Digest> {
        self.hasher.join().map_err(|_| io::Error::other("the hashing thread ended early"))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|chunk| chunk.bytes.len() == self.taken) {
            self.taken = 0;
            self.current = None;
            self.current = self.chunks.recv().ok().transpose()?;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk.bytes[self.taken..]))
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

/// A part of the archive, shared by both readers.
type Chunk = Arc<Buffer>;

struct Buffer {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Nobody waits for it any more when the stream has ended.
        drop(self.home.send(std::mem::take(&mut self.bytes)));
    }
}

/// The thread that decompresses.
struct Pump {
    writer: SyncSender<io::Result<Chunk>>,
    hasher: SyncSender<Chunk>,
    buffers: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    limits: Limits,
    bytes: u64,
}

impl Pump {
    fn run(mut self, input: impl BufRead) {
        if let Err(e) = self.decompress(input) {
            // The writer may have failed first; then it says why.
            drop(self.writer.send(Err(e)));
        }
    }

    fn decompress(&mut self, mut input: impl BufRead) -> io::Result<()> {
        let mut magic = Vec::new();
        input.by_ref().take(4).read_to_end(&mut magic)?;
        let count = Cell::new(magic.len() as u64);
        let input = Counted { input, count: &count };
        match magic[..] {
            [0x1f, 0x8b, ..] => {
                let input = magic.chain(BufReader::with_capacity(BUFFER, input));
                self.pump(MultiGzDecoder::new(input), &count)
            }
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                let input = magic.chain(BufReader::with_capacity(BUFFER, input));
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                self.pump(decoder, &count)
            }
            _ => self.pump(magic.chain(input), &count),
        }
    }

    fn pump(&mut self, mut archive: impl Read, compressed: &Cell<u64>) -> io::Result<()> {
        loop {
            let mut bytes = self.buffers.1.try_recv().unwrap_or_else(|_| vec![0; BUFFER]);
            bytes.resize(BUFFER, 0);
            let mut filled = 0;
            while filled < BUFFER {
                match archive.read(&mut bytes[filled..])? {
                    0 => break,
                    length => filled += length,
                }
            }
            if filled == 0 {
                return Ok(());
            }
            bytes.truncate(filled);
            self.bytes += filled as u64;
            self.limits.check_growth(compressed.get(), self.bytes).map_err(io::Error::other)?;
            let chunk = Arc::new(Buffer { bytes, home: self.buffers.0.clone() });
            // Both end only after the stream, or when unpacking has failed already.
            if self.hasher.send(Arc::clone(&chunk)).is_err() || self.writer.send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    }
}

/// Counts what is read.
struct Counted<'a, R> {
    input: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.count.set(self.count.get() + length as u64);
        Ok(length)
    }
}
