//! Frames, SPDY/3.1 section 2.2: parsed from bytes and made into bytes, with nothing read or written here.
//!
//! What a peer may send is bounded: a control frame has 64 KiB at most. A data frame may have all of its 16 MiB,
//! since nobody keeps one whole.

use bytes::{BufMut, Bytes, BytesMut};

/// What every frame begins with.
pub(super) const HEAD_BYTES: usize = 8;
/// The longest control frame that is accepted.
const CONTROL_BYTES: usize = 64 << 10;
/// Settings in one frame; the protocol knows eight.
const SETTINGS: usize = 64;
/// The flag that this is the last of a stream.
pub(super) const FIN: u8 = 1;
const CONTROL: u32 = 1 << 31;
const VERSION: u32 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS_FRAME: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
const SETTINGS_INITIAL_WINDOW_SIZE: u32 = 7;

/// What a frame begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Bytes of a stream follow.
    Data {
        /// Whose bytes.
        stream: u32,
        /// Whether they are the last.
        is_last: bool,
        /// How many.
        length: usize,
    },
    /// A control frame follows.
    Control {
        /// What it is.
        kind: u16,
        /// Its flags.
        flags: u8,
        /// How many bytes.
        length: usize,
    },
}

/// A control frame; header blocks are still compressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control<'a> {
    /// A new stream.
    Open {
        /// Its number.
        stream: u32,
        /// Whether its opener sends nothing.
        is_last: bool,
        /// Its compressed headers.
        block: &'a [u8],
    },
    /// A new stream is accepted, or more headers of one; both change the state of the compression.
    Reply {
        /// Whose.
        stream: u32,
        /// Whether the sender sends nothing.
        is_last: bool,
        /// The compressed headers.
        block: &'a [u8],
    },
    /// A stream is over at once, in both directions.
    Reset {
        /// Which.
        stream: u32,
    },
    /// How much may be sent on a stream before the peer allows more.
    InitialWindow(u32),
    /// To be sent back by whom it was not sent first.
    Ping(u32),
    /// There will be no more streams.
    GoAway,
    /// More may be sent on a stream.
    Window {
        /// Which.
        stream: u32,
        /// How many bytes more.
        more: u32,
    },
    /// What has no meaning here.
    Nothing,
}

/// Why a peer is not listened to any longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// A frame that cannot be.
    #[error("a frame of kind {kind} with {length} bytes")]
    Frame {
        /// The kind, 0 for data.
        kind: u16,
        /// Its length.
        length: usize,
    },
    /// Headers that cannot be.
    #[error("headers: {0}")]
    Headers(&'static str),
    /// A stream's number that cannot be.
    #[error("a stream with the number {0}")]
    Stream(u32),
    /// Another protocol.
    #[error("version {0} of SPDY")]
    Version(u32),
}

impl Head {
    /// Parses what a frame begins with.
    pub(super) fn parse(bytes: [u8; HEAD_BYTES]) -> Result<Self, Broken> {
        let [a, b, c, d, flags, e, f, g] = bytes;
        let first = u32::from_be_bytes([a, b, c, d]);
        let length = u32::from_be_bytes([0, e, f, g]) as usize;
        if first & CONTROL == 0 {
            if first == 0 {
                return Err(Broken::Stream(0));
            }
            return Ok(Self::Data { stream: first, is_last: flags & FIN != 0, length });
        }
        let (version, kind) = ((first & !CONTROL) >> 16, u16::from_be_bytes([c, d]));
        if version != VERSION {
            return Err(Broken::Version(version));
        }
        if length > CONTROL_BYTES {
            return Err(Broken::Frame { kind, length });
        }
        Ok(Self::Control { kind, flags, length })
    }
}

impl<'a> Control<'a> {
    /// Parses what follows the head of a control frame.
    pub(super) fn parse(kind: u16, flags: u8, payload: &'a [u8]) -> Result<Self, Broken> {
        let broken = || Broken::Frame { kind, length: payload.len() };
        let word = |at: usize| word(payload, at).ok_or_else(broken);
        let stream = || match word(0)? & !CONTROL {
            0 => Err(Broken::Stream(0)),
            stream => Ok(stream),
        };
        let block = |at: usize| payload.get(at..).ok_or_else(broken);
        let is_last = flags & FIN != 0;
        Ok(match kind {
            SYN_STREAM => Self::Open { stream: stream()?, is_last, block: block(10)? },
            SYN_REPLY | HEADERS => Self::Reply { stream: stream()?, is_last, block: block(4)? },
            RST_STREAM => Self::Reset { stream: stream()? },
            SETTINGS_FRAME => settings(payload).ok_or_else(broken)?,
            PING => Self::Ping(word(0)?),
            GOAWAY => Self::GoAway,
            WINDOW_UPDATE => match stream() {
                Ok(stream) => Self::Window { stream, more: word(4)? & !CONTROL },
                // The whole connection's window: there is none before SPDY/4, and some send it.
                Err(Broken::Stream(_)) => Self::Nothing,
                Err(error) => return Err(error),
            },
            _ => Self::Nothing,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn settings<'a>(payload: &[u8]) -> Option<Control<'a>> {
    let count = word(payload, 0)? as usize;
    let entries = payload.get(4..)?;
    if count > SETTINGS || entries.len() != count * 8 {
        return None;
    }
    let window = entries.chunks_exact(8).find(|entry| {
        // The first byte has flags.
        word(entry, 0).is_some_and(|id| id & 0x00ff_ffff == SETTINGS_INITIAL_WINDOW_SIZE)
    });
    let size = window.and_then(|entry| word(entry, 4));
    Some(size.map_or(Control::Nothing, |size| Control::InitialWindow(size & !CONTROL)))
}

/// The head of a data frame; its bytes follow.
pub(super) fn data_head(stream: u32, is_last: bool, length: usize) -> [u8; HEAD_BYTES] {
    // A caller's chunk is a small part of what 24 bits can say.
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let [d, e, f, g] = (stream & !CONTROL).to_be_bytes();
    [d, e, f, g, u8::from(is_last), a, b, c]
}

/// SYN_STREAM with a compressed block.
pub(super) fn open(stream: u32, block: &[u8]) -> Bytes {
    let mut payload = BytesMut::with_capacity(10 + block.len());
    payload.put_u32(stream);
    payload.put_u32(0);
    payload.put_u16(0);
    payload.put_slice(block);
    control(SYN_STREAM, &payload)
}

/// SYN_REPLY with a compressed block.
pub(super) fn reply(stream: u32, block: &[u8]) -> Bytes {
    let mut payload = BytesMut::with_capacity(4 + block.len());
    payload.put_u32(stream);
    payload.put_slice(block);
    control(SYN_REPLY, &payload)
}

/// Why a stream is reset.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason {
    /// It is not wanted.
    Refused = 3,
    /// It is not wanted any longer.
    Cancelled = 5,
}

/// RST_STREAM.
pub(super) fn reset(stream: u32, reason: Reason) -> Bytes {
    words(RST_STREAM, &[stream, reason as u32])
}

/// PING.
pub(super) fn ping(id: u32) -> Bytes {
    words(PING, &[id])
}

/// GOAWAY with the last stream that was accepted.
pub(super) fn go_away(last: u32) -> Bytes {
    words(GOAWAY, &[last, 0])
}

/// WINDOW_UPDATE.
pub(super) fn window(stream: u32, more: u32) -> Bytes {
    words(WINDOW_UPDATE, &[stream, more])
}

fn words(kind: u16, words: &[u32]) -> Bytes {
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    control(kind, &payload)
}

fn control(kind: u16, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + payload.len());
    frame.put_u32(CONTROL | VERSION << 16 | u32::from(kind));
    // Our own frames have a few hundred bytes at most.
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX) & 0x00ff_ffff);
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(frame: &[u8]) -> Result<(Head, Control<'_>), Broken> {
        let head = Head::parse(*frame.first_chunk().unwrap())?;
        let Head::Control { kind, flags, length } = head else { return Ok((head, Control::Nothing)) };
        assert_eq!(length, frame.len() - HEAD_BYTES);
        Ok((head, Control::parse(kind, flags, &frame[HEAD_BYTES..])?))
    }

    #[test]
    fn what_is_made_is_parsed() {
        let check = |frame: Bytes, expected: Control<'_>| assert_eq!(parse(&frame).unwrap().1, expected);
        check(open(1, b"xyz"), Control::Open { stream: 1, is_last: false, block: b"xyz" });
        check(reply(3, b"xyz"), Control::Reply { stream: 3, is_last: false, block: b"xyz" });
        check(reset(5, Reason::Refused), Control::Reset { stream: 5 });
        check(ping(7), Control::Ping(7));
        check(go_away(9), Control::GoAway);
        check(window(11, 100), Control::Window { stream: 11, more: 100 });
        check(window(0, 100), Control::Nothing);
        let head = Head::parse(data_head(13, true, 70_000)).unwrap();
        assert_eq!(head, Head::Data { stream: 13, is_last: true, length: 70_000 });
    }

    #[test]
    fn settings_give_the_window() {
        let check = |words: &[u32], expected: Option<Control<'_>>| {
            let payload: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            assert_eq!(Control::parse(SETTINGS_FRAME, 0, &payload).ok(), expected, "{words:?}");
        };
        check(&[2, 4, 100, 0x0100_0007, 5000], Some(Control::InitialWindow(5000)));
        check(&[1, 4, 100], Some(Control::Nothing));
        check(&[0], Some(Control::Nothing));
        check(&[2, 4, 100], None);
        check(&[0x2000_0000], None);
        check(&[], None);
    }

    #[test]
    fn wrong_frames_are_refused() {
        let check = |bytes: [u8; 8], expected: Broken| assert_eq!(Head::parse(bytes), Err(expected));
        check([0, 0, 0, 0, 0, 0, 0, 0], Broken::Stream(0));
        check([0x80, 2, 0, 1, 0, 0, 0, 0], Broken::Version(2));
        check([0x80, 3, 0, 1, 0, 1, 0, 1], Broken::Frame { kind: 1, length: 65537 });
        let refused = |kind, payload: &[u8]| assert!(Control::parse(kind, 0, payload).is_err(), "{kind}");
        refused(SYN_STREAM, &[0, 0, 0, 1, 0, 0, 0, 0, 0]);
        refused(SYN_STREAM, &[0; 10]);
        refused(SYN_REPLY, &[0, 0, 1]);
        refused(RST_STREAM, &[]);
        refused(PING, &[1]);
        refused(WINDOW_UPDATE, &[0, 0, 0, 1, 1]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(frame in prop::collection::vec(any::<u8>(), HEAD_BYTES..200), kind in 0..12_u16) {
            // Most random bytes would have no known kind.
            drop(Head::parse(*frame.first_chunk().unwrap()));
            drop(Control::parse(kind, frame[4], &frame[HEAD_BYTES..]));
        }
    }
}
