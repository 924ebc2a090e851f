//! Both sides of a connection against each other, and a peer that does as it likes.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::super::channel::CHUNK_BYTES;
use super::frame::{Broken, Reason};
use super::*;

struct Pair {
    client: Streams,
    server: Streams,
}

/// A client and a server that talk to each other.
fn pair() -> Pair {
    let (near, far) = UnixStream::pair().unwrap();
    let side = |socket: UnixStream, side: Side| {
        let line = Line::watch(&socket).unwrap();
        let (connection, streams) = connection(Box::new(socket), line, side);
        tokio::spawn(async move { drop(connection.run().await) });
        streams
    };
    Pair { client: side(near, Side::Client), server: side(far, Side::Server) }
}

fn named(name: &str) -> Headers {
    Headers::default().with("streamType", name)
}

async fn all(mut inbound: Inbound) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = inbound.next().await {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

#[tokio::test]
async fn bytes_go_both_ways_and_end() {
    let Pair { client, mut server } = pair();
    let served = tokio::spawn(async move {
        let opened = server.next().await.unwrap();
        assert_eq!(opened.headers.value("streamType"), Some("data"));
        opened.outbound.accept().await.unwrap();
        let came = all(opened.inbound).await;
        opened.outbound.text(&came).await.unwrap();
        opened.outbound.end().await.unwrap();
        came.len()
    });
    let (inbound, outbound) = client.open(named("data")).await.unwrap();
    let sent: Vec<u8> = (0..300_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    outbound.text(&sent).await.unwrap();
    outbound.end().await.unwrap();
    assert_eq!(all(inbound).await, sent);
    assert_eq!(served.await.unwrap(), sent.len());
}

#[tokio::test]
async fn a_stream_that_is_not_wanted_is_refused() {
    let Pair { client, mut server } = pair();
    tokio::spawn(async move {
        let opened = server.next().await.unwrap();
        opened.outbound.reset(true).await.unwrap();
        let opened = server.next().await.unwrap();
        opened.outbound.accept().await.unwrap();
        drop(server);
        opened.outbound.end().await.unwrap();
    });
    assert!(client.open(named("x")).await.is_err());
    let (inbound, _outbound) = client.open(named("y")).await.unwrap();
    assert_eq!(all(inbound).await, b"");
    // Nobody looks at new ones any longer.
    assert!(client.open(named("z")).await.is_err());
}

#[tokio::test]
async fn a_reset_is_told_from_an_end() {
    let Pair { client, mut server } = pair();
    let (_inbound, outbound) = tokio::join!(client.open(named("a")), async {
        let opened = server.next().await.unwrap();
        opened.outbound.accept().await.unwrap();
        opened.inbound
    });
    let mut seen = outbound;
    let (_, outbound) = _inbound.unwrap();
    outbound.text(b"x").await.unwrap();
    outbound.reset(false).await.unwrap();
    assert_eq!(seen.next().await.unwrap(), "x");
    assert_eq!(seen.next().await, None);
    assert!(seen.was_reset());
}

/// A server whose client is the test itself.
fn raw() -> (UnixStream, Streams, tokio::task::JoinHandle<Result<(), Error>>) {
    let (near, far) = UnixStream::pair().unwrap();
    let line = Line::watch(&far).unwrap();
    let (connection, streams) = connection(Box::new(far), line, Side::Server);
    (near, streams, tokio::spawn(connection.run()))
}

fn open(writer: &mut headers::Writer, number: u32) -> Bytes {
    frame::open(number, &writer.write(&named("data")))
}

#[tokio::test]
async fn pings_come_back_and_unknown_frames_do_no_harm() {
    let (mut peer, _streams, _task) = raw();
    peer.write_all(&[0x80, 3, 0, 77, 0, 0, 0, 2, 1, 2]).await.unwrap();
    peer.write_all(&frame::window(99, 5)).await.unwrap();
    peer.write_all(&frame::reset(99, Reason::Cancelled)).await.unwrap();
    peer.write_all(&frame::data_head(99, true, 3)).await.unwrap();
    peer.write_all(b"abc").await.unwrap();
    peer.write_all(&frame::ping(2)).await.unwrap();
    peer.write_all(&frame::ping(3)).await.unwrap();
    let mut answer = [0; 12];
    peer.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, frame::ping(3)[..]);
}

#[tokio::test]
async fn numbers_of_streams_only_grow_and_are_odd() {
    for numbers in [&[2][..], &[3, 1], &[3, 3]] {
        let (mut peer, mut streams, task) = raw();
        let mut writer = headers::Writer::new();
        for number in numbers {
            peer.write_all(&open(&mut writer, *number)).await.unwrap();
        }
        for _ in 1..numbers.len() {
            streams.next().await.unwrap();
        }
        let ended = task.await.unwrap();
        assert!(matches!(ended, Err(Error::Broken(Broken::Stream(_)))), "{numbers:?}: {ended:?}");
    }
}

#[tokio::test]
async fn who_keeps_windows_is_not_sent_more() {
    let (mut peer, mut streams, _task) = raw();
    // SETTINGS: the initial window is 10.
    peer.write_all(&[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 10]).await.unwrap();
    peer.write_all(&open(&mut headers::Writer::new(), 1)).await.unwrap();
    let opened = streams.next().await.unwrap();
    let sent = tokio::spawn(async move {
        opened.outbound.text(b"0123456789abc").await.unwrap();
        opened
    });
    let mut first = [0; 18];
    peer.read_exact(&mut first).await.unwrap();
    assert_eq!(&first[8..], b"0123456789");
    assert!(!sent.is_finished());
    peer.write_all(&frame::window(1, 5)).await.unwrap();
    let mut second = [0; 11];
    peer.read_exact(&mut second).await.unwrap();
    assert_eq!(&second[8..], b"abc");
    sent.await.unwrap();
}

#[tokio::test]
async fn a_full_stream_slows_its_sender_down_and_windows_grow_with_what_is_taken() {
    let (peer, mut streams, _task) = raw();
    let (mut read, mut write) = peer.into_split();
    let sender = tokio::spawn(async move {
        write.write_all(&open(&mut headers::Writer::new(), 1)).await.unwrap();
        for _ in 0..64 {
            write.write_all(&frame::data_head(1, false, CHUNK_BYTES)).await.unwrap();
            write.write_all(&[7; CHUNK_BYTES]).await.unwrap();
        }
        write
    });
    let mut opened = streams.next().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!sender.is_finished());
    let mut count = 0;
    while count < 64 * CHUNK_BYTES {
        count += opened.inbound.next().await.unwrap().len();
    }
    let _write = sender.await.unwrap();
    let mut widened = 0;
    while widened < 32 * CHUNK_BYTES {
        let mut frame = [0; 16];
        read.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[..8], [0x80, 3, 0, 9, 0, 0, 0, 8]);
        widened += u32::from_be_bytes(*frame.last_chunk().unwrap()) as usize;
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_connection_even_when_nothing_is_read() {
    let (mut peer, mut streams, task) = raw();
    peer.write_all(&open(&mut headers::Writer::new(), 1)).await.unwrap();
    let _unread = streams.next().await.unwrap();
    let full = [vec![0; 8], vec![7; CHUNK_BYTES]].concat();
    loop {
        let mut frame = full.clone();
        frame[..8].copy_from_slice(&frame::data_head(1, false, CHUNK_BYTES));
        let wrote = tokio::time::timeout(Duration::from_millis(100), peer.write_all(&frame)).await;
        if wrote.is_err() {
            break;
        }
    }
    drop(peer);
    tokio::time::pause();
    task.await.unwrap().unwrap();
}
