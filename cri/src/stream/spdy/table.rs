//! What both halves of a connection and who opens streams know of its streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::channel::{Credit, Feeder};

/// A stream's window, unless a peer says another.
const WINDOW: u32 = 64 << 10;
/// How much is taken over before the peer's window is widened.
const WIDEN: u32 = 32 << 10;

/// What both halves of a connection and who opens streams know.
#[derive(Debug, Default)]
pub(super) struct Table {
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) streams: HashMap<u32, Entry>,
    /// The peer's window for new streams.
    pub(super) window: u32,
    /// Whether the peer keeps windows.
    pub(super) is_kept: bool,
    /// The last stream of the peer's.
    pub(super) last: u32,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// None after the peer's last byte.
    pub(super) feeder: Option<Arc<Feeder>>,
    pub(super) credit: Arc<Credit>,
    /// What was taken over since the window was widened.
    pub(super) taken: u32,
}

// === impl Table ===

impl Table {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for State {
    fn default() -> Self {
        Self { streams: HashMap::new(), window: WINDOW, is_kept: false, last: 0 }
    }
}

impl State {
    /// How much may be sent on a new stream.
    pub(super) fn credit(&self) -> Arc<Credit> {
        Credit::new(self.window, self.is_kept)
    }

    pub(super) fn insert(&mut self, number: u32, feeder: Feeder, credit: Arc<Credit>) {
        self.streams.insert(number, Entry { feeder: Some(Arc::new(feeder)), credit, taken: 0 });
    }

    /// Forgets streams that are over, and says how many are left.
    pub(super) fn live(&mut self) -> usize {
        self.streams.retain(|_, entry| {
            let credit = entry.credit.lock();
            !(credit.is_reset || entry.feeder.is_none() && credit.is_ended)
        });
        self.streams.len()
    }

    /// From now on windows count.
    pub(super) fn keep_windows(&mut self) {
        if !self.is_kept {
            self.is_kept = true;
            self.streams.values().for_each(|entry| entry.credit.change(|credit| credit.is_kept = true));
        }
    }

    /// The peer's windows become this large.
    pub(super) fn set_window(&mut self, size: u32) {
        let more = i64::from(size) - i64::from(self.window);
        self.window = size;
        self.streams.values().for_each(|entry| entry.credit.change(|credit| credit.window += more));
        self.keep_windows();
    }

    /// Notes that `count` bytes were taken over, and says by how much the window is to be widened.
    pub(super) fn taken(&mut self, number: u32, count: usize) -> Option<u32> {
        let entry = self.streams.get_mut(&number)?;
        entry.taken = entry.taken.saturating_add(u32::try_from(count).ok()?);
        (entry.taken >= WIDEN).then(|| std::mem::take(&mut entry.taken))
    }

    /// The connection is no more.
    pub(super) fn cut(&mut self) {
        for (_, entry) in self.streams.drain() {
            entry.credit.change(|credit| credit.is_reset = true);
        }
    }
}
