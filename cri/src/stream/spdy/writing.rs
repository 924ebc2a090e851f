//! What a peer is sent: frames in the order in which they were queued, small answers before them.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::super::channel::{Frame, HEAD_ROOM};
use super::frame::{self, HEAD_BYTES, Reason};
use super::table::Table;
use super::{Headers, headers};

/// The half that writes.
pub(super) struct Writing<W> {
    pub(super) to: W,
    pub(super) headers: headers::Writer,
    pub(super) table: Arc<Table>,
}

impl<W: AsyncWrite + Unpin> Writing<W> {
    /// Until nobody has anything to say any longer; then it says goodbye.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Frame>,
        mut answers: mpsc::Receiver<Bytes>,
    ) -> io::Result<()> {
        loop {
            let frame = tokio::select! {
                biased;
                Some(answer) = answers.recv() => {
                    self.to.write_all(&answer).await?;
                    self.to.flush().await?;
                    continue;
                }
                frame = queue.recv() => frame,
            };
            let Some(frame) = frame else { break };
            let bytes = self.bytes(frame);
            self.to.write_all(&bytes).await?;
            self.to.flush().await?;
        }
        let last = self.table.lock().last;
        self.to.write_all(&frame::go_away(last)).await?;
        self.to.shutdown().await
    }

    fn bytes(&mut self, frame: Frame) -> Bytes {
        match frame {
            Frame::Data { channel, mut chunk } => {
                let head = frame::data_head(channel, false, chunk.len() - HEAD_ROOM);
                chunk[..HEAD_BYTES].copy_from_slice(&head);
                chunk.freeze()
            }
            Frame::End { channel } => Bytes::copy_from_slice(&frame::data_head(channel, true, 0)),
            Frame::Accept { channel } => frame::reply(channel, &self.headers.write(&Headers::default())),
            Frame::Open { channel, headers } => frame::open(channel, &self.headers.write(&headers)),
            Frame::Reset { channel, refused } => {
                self.table.lock().streams.remove(&channel);
                frame::reset(channel, if refused { Reason::Refused } else { Reason::Cancelled })
            }
        }
    }
}
