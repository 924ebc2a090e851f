//! An operation outlives its RPC, and a repeated request joins it.
//!
//! tonic drops a handler's future when the client's deadline passes. The work of a request therefore
//! runs in a task of its own; the handler only waits for it. A second request for the same thing
//! waits for the same task, and an answer that nobody was there to take is kept for the request that
//! comes again: there is no "name is reserved" (cri-contract 1.1, containerd #4604).

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::error::{Error, Result};

/// Operations in flight, and answers that were not taken.
#[derive(Debug)]
pub(crate) struct Tasks<K, T> {
    operation: &'static str,
    /// Never held across an await.
    entries: Mutex<HashMap<K, Answer<T>>>,
}

/// None until the work is done.
type Answer<T> = watch::Receiver<Option<Result<T>>>;

impl<K, T> Tasks<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// `operation` names the work in errors.
    pub(crate) fn new(operation: &'static str) -> Self {
        Self { operation, entries: Mutex::default() }
    }

    /// Waits for the operation in flight under `key`, or spawns `work` and waits for that.
    ///
    /// An answer is given to everyone who waits when it comes; if nobody does, to the next who asks.
    pub(crate) async fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut answer = self.join(&key, work);
        let taken = match answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None,
        };
        self.forget(&key, &answer);
        taken.unwrap_or(Err(Error::TaskLost { operation: self.operation }))
    }

    fn join<F>(&self, key: &K, work: impl FnOnce() -> F) -> Answer<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = entries.get(key) {
            return answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        entries.insert(key.clone(), answer.clone());
        drop(entries);
        let work = work();
        tokio::spawn(async move {
            let result = work.await;
            // The map's own receiver keeps the answer when nobody waits.
            sender.send_replace(Some(result));
        });
        answer
    }

    /// Removes the entry once its answer was taken; a newer operation under the same key stays.
    fn forget(&self, key: &K, answer: &Answer<T>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(key).is_some_and(|entry| entry.same_channel(answer)) {
            entries.remove(key);
        }
    }

    /// Drops an answer that was never taken, when its object is gone.
    pub(crate) fn discard(&self, key: &K) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(key).is_some_and(|entry| entry.borrow().is_some()) {
            entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_repeated_request_joins_the_operation_in_flight() {
        let tasks: Tasks<&str, u32> = Tasks::new("test");
        let runs = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(Notify::new());
        let work = || {
            let (runs, gate) = (runs.clone(), gate.clone());
            async move {
                gate.notified().await;
                Ok(runs.fetch_add(1, Ordering::SeqCst) + 1)
            }
        };
        let (first, second, ()) =
            tokio::join!(tasks.run("a", work), tasks.run("a", work), async { gate.notify_one() });
        assert_eq!((first.unwrap(), second.unwrap()), (1, 1));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_took_waits_for_the_next_request() {
        let tasks: Tasks<&str, u32> = Tasks::new("test");
        let gate = Arc::new(Notify::new());
        let finished = Arc::new(Notify::new());
        let work = || {
            let (gate, finished) = (gate.clone(), finished.clone());
            async move {
                gate.notified().await;
                finished.notify_one();
                Ok(7)
            }
        };
        let abandoned = tokio::time::timeout(Duration::from_millis(1), tasks.run("a", work)).await;
        assert!(abandoned.is_err());
        gate.notify_one();
        finished.notified().await;
        assert_eq!(tasks.run("a", || async { Ok(8) }).await.unwrap(), 7);
        assert_eq!(tasks.run("a", || async { Ok(8) }).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn a_panic_in_the_work_is_an_error_for_those_who_wait() {
        let tasks: Tasks<&str, u32> = Tasks::new("test");
        let result = tasks.run("a", || async { panic!("boom") }).await;
        assert!(matches!(result, Err(Error::TaskLost { operation: "test" })));
        assert_eq!(tasks.run("a", || async { Ok(1) }).await.unwrap(), 1);
    }
}
