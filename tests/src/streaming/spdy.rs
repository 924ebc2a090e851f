//! SPDY/3.1 as a client of Kubernetes speaks it: no windows, and each stream is accepted before it is used.

use std::io::Write;

use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::Link;
use crate::Result;

/// A connection.
pub struct Spdy {
    link: Link,
    headers: ZlibEncoder<Vec<u8>>,
    next: u32,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of a stream.
    Data(u32, Vec<u8>),
    /// The last of a stream.
    End(u32),
    /// The server gave a stream up, or refused it.
    Reset(u32),
    /// The server accepts a stream.
    Accepted(u32),
    /// The server says goodbye, or is gone.
    Closed,
}

impl std::fmt::Debug for Spdy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spdy").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Spdy {
    /// Over an upgraded connection.
    pub fn new(link: Link) -> Self {
        Self { link, headers: ZlibEncoder::new(Vec::new(), Compression::fast()), next: 1 }
    }

    /// Opens a stream; whether it is accepted comes later.
    pub async fn begin(&mut self, headers: &[(&str, &str)]) -> Result<u32> {
        let number = self.next;
        self.next += 2;
        let mut block = u32::try_from(headers.len())?.to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(u32::try_from(text.len())?.to_be_bytes());
            block.extend(text.as_bytes());
        }
        self.headers.write_all(&block)?;
        self.headers.flush()?;
        let block = std::mem::take(self.headers.get_mut());
        let mut payload = number.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend(block);
        self.control(1, &payload).await?;
        Ok(number)
    }

    /// Opens a stream and waits until it is accepted.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> Result<u32> {
        let number = self.begin(headers).await?;
        match self.next().await? {
            Event::Accepted(accepted) if accepted == number => Ok(number),
            other => bail!("opened stream {number}, and got {other:?}"),
        }
    }

    /// Sends bytes on a stream.
    pub async fn send(&mut self, stream: u32, bytes: &[u8]) -> Result {
        self.data(stream, 0, bytes).await
    }

    /// Ends this side of a stream.
    pub async fn end(&mut self, stream: u32) -> Result {
        self.data(stream, 1, &[]).await
    }

    /// Gives a stream up.
    pub async fn reset(&mut self, stream: u32) -> Result {
        let payload = [stream.to_be_bytes(), 5_u32.to_be_bytes()].concat();
        self.control(3, &payload).await
    }

    /// Asks for a sign of life.
    pub async fn ping(&mut self, id: u32) -> Result {
        self.control(6, &id.to_be_bytes()).await
    }

    async fn data(&mut self, stream: u32, flags: u8, bytes: &[u8]) -> Result {
        let [_, a, b, c] = u32::try_from(bytes.len())?.to_be_bytes();
        let frame = [&stream.to_be_bytes()[..], &[flags, a, b, c], bytes].concat();
        self.link.write(&frame).await
    }

    async fn control(&mut self, kind: u8, payload: &[u8]) -> Result {
        let [_, a, b, c] = u32::try_from(payload.len())?.to_be_bytes();
        let frame = [&[0x80, 3, 0, kind, 0, a, b, c], payload].concat();
        self.link.write(&frame).await
    }

    /// The next that concerns streams.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            let mut head = [0; 8];
            if !self.link.fill(&mut head).await? {
                return Ok(Event::Closed);
            }
            let [a, b, c, d, flags, e, f, g] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, e, f, g]) as usize];
            ensure!(self.link.fill(&mut payload).await?, "a frame is cut off");
            let first = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            if a & 0x80 == 0 {
                let stream = u32::from_be_bytes([a, b, c, d]);
                match flags {
                    1 if payload.is_empty() => return Ok(Event::End(stream)),
                    0 => return Ok(Event::Data(stream, payload)),
                    other => bail!("a data frame with flags {other}"),
                }
            }
            let first = first.context("a control frame with a number")?;
            match d {
                2 => return Ok(Event::Accepted(first)),
                3 => return Ok(Event::Reset(first)),
                7 => return Ok(Event::Closed),
                // Answers to pings and wider windows.
                6 | 9 => {}
                other => bail!("a control frame of kind {other}"),
            }
        }
    }
}
