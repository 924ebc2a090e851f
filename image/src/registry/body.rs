//! Bodies of answers: bounded in size, and in the time that they may trickle.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use tokio::time::{Instant, timeout};

use super::{Failure, Patience};
use crate::Error;

/// The body of an answer.
///
/// Time counts only while somebody waits for bytes here: a slow disk is not the registry's fault.
#[derive(Debug)]
pub(crate) struct Blob {
    response: Response,
    host: String,
    patience: Arc<Patience>,
    waited: Duration,
    came: u64,
    /// Bytes at the start that the caller has already.
    skip: u64,
}

impl Blob {
    pub(super) fn new(response: Response, host: &str, patience: &Arc<Patience>) -> Self {
        Self {
            response,
            host: host.to_owned(),
            patience: Arc::clone(patience),
            waited: Duration::ZERO,
            came: 0,
            skip: 0,
        }
    }

    /// Leaves out the first bytes.
    pub(super) fn skip(mut self, bytes: u64) -> Self {
        self.skip = bytes;
        self
    }

    /// Returns the next bytes, none at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(mut chunk) = self.any_chunk().await? else { return Ok(None) };
            let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
            self.skip -= known as u64;
            let chunk = chunk.split_off(known);
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// Returns the whole body, which is at most `limit` bytes long.
    pub(super) async fn whole(mut self, limit: u64, what: &str) -> Result<Bytes, Failure> {
        let too_large = || {
            let limit = format!("the {} KiB", limit >> 10);
            Failure::last(Error::TooLarge { what: what.to_owned(), limit })
        };
        let announced = self.response.content_length().unwrap_or(0);
        if announced > limit {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    async fn any_chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let begun = Instant::now();
        let left = self.patience.stall.saturating_sub(self.waited);
        let Ok(chunk) = timeout(left, self.response.chunk()).await else {
            let reason = format!("only {} bytes came in {:?}", self.came, self.patience.stall);
            return Err(Failure::unavailable(&self.host, reason));
        };
        let chunk = chunk.map_err(|e| Failure::of_body(&self.host, e))?;
        self.waited += begun.elapsed();
        self.came += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.came >= self.patience.stall_bytes {
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }
}
