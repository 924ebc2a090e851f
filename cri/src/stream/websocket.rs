//! WebSocket with channels: the first byte of each message says whose bytes follow.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::channel::{Feeder, Frame, HEAD_ROOM};
use super::line::{Io, Line};
use super::negotiate::Codec;
use super::tunnel::to_io;

/// The longest message from a client.
const MESSAGE_BYTES: usize = 1 << 20;
/// The channel by which others are closed, since `v5.channel.k8s.io`.
const CLOSE: u8 = 255;
/// How long the client may take to answer a close.
const LINGER: Duration = Duration::from_secs(5);

/// A WebSocket over a connection that was upgraded to one.
pub(super) async fn open(io: Box<dyn Io>, role: Role) -> WebSocketStream<Box<dyn Io>> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES))
        // Messages are sent one by one, and none waits for another.
        .write_buffer_size(0)
        .max_write_buffer_size(4 << 20);
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// Moves messages until nobody has anything to say any longer, or the client is gone.
pub(super) async fn run(
    socket: WebSocketStream<Box<dyn Io>>,
    (line, codec, role): (&Line, Codec, Role),
    mut feeders: Vec<Option<Feeder>>,
    queue: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    let (mut to, mut from) = socket.split();
    let mut read = std::pin::pin!(read(&mut from, (line, codec), &mut feeders));
    tokio::select! {
        done = &mut read => done,
        done = write(&mut to, (codec, role), queue) => {
            done?;
            // What a client does after the goodbye does not matter.
            drop(tokio::time::timeout(LINGER, read).await);
            Ok(())
        }
    }
}

async fn read(
    from: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    (line, codec): (&Line, Codec),
    feeders: &mut [Option<Feeder>],
) -> io::Result<()> {
    while let Some(message) = from.next().await {
        let mut bytes = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Close(_)) => return Ok(()),
            Ok(_) => continue,
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(to_io(error)),
        };
        let Ok(first) = bytes.try_get_u8() else { continue };
        if codec.closes && first == CLOSE {
            if let Some(feeder) = bytes.first().and_then(|channel| feeders.get_mut(usize::from(*channel))) {
                *feeder = None;
            }
            continue;
        }
        let channel = if codec.is_base64 { first.wrapping_sub(b'0') } else { first };
        let Some(Some(feeder)) = feeders.get(usize::from(channel)) else { continue };
        if codec.is_base64 {
            bytes = STANDARD
                .decode(&bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
                .into();
        }
        tokio::select! {
            biased;
            // Whose reader is gone gets nothing; the others go on.
            _ = feeder.feed(bytes) => {}
            () = line.hung_up() => return Ok(()),
        }
    }
    Ok(())
}

async fn write(
    to: &mut (impl Sink<Message, Error = Error> + Unpin),
    (codec, role): (Codec, Role),
    mut queue: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        let message = match frame {
            Frame::Data { channel, chunk } => message(channel, chunk, codec),
            // Only clients close channels; they learn of the end of one by the end of all.
            Frame::End { channel } if codec.closes && role == Role::Client => {
                Message::Binary(Bytes::copy_from_slice(&[CLOSE, u8::try_from(channel).unwrap_or(CLOSE)]))
            }
            _ => continue,
        };
        to.send(message).await.map_err(to_io)?;
    }
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    to.send(Message::Close(Some(normal))).await.map_err(to_io)
}

fn message(channel: u32, mut chunk: BytesMut, codec: Codec) -> Message {
    // Channels are a handful, or two a port of a request.
    let channel = u8::try_from(channel).unwrap_or(u8::MAX);
    if codec.is_base64 {
        let mut text = String::from(char::from(b'0'.wrapping_add(channel)));
        STANDARD.encode_string(&chunk[HEAD_ROOM..], &mut text);
        return Message::text(text);
    }
    chunk[HEAD_ROOM - 1] = channel;
    Message::Binary(chunk.split_off(HEAD_ROOM - 1).freeze())
}
