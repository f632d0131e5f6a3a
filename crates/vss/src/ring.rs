//! The last results, for whoever asks.
//!
//! Results are numbered from 1. A caller names the last one it has; [`Ring::after`] gives the next ones and says how many
//! it missed because they had to make room.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aits_orders::{FrameResult, VssResultsQuery, VssResultsReply};
use tokio::sync::watch;

/// Results that are kept: some 10 s of five streams at five judgements a second.
pub(crate) const KEPT: usize = 256;
/// Results in one answer at most; the rest follows at once.
const AT_ONCE: usize = 64;
/// Longest wait that is granted.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The results.
pub(crate) struct Ring {
    process: u64,
    kept: Mutex<VecDeque<FrameResult>>,
    /// Number of the newest result. Changed only while `kept` is locked.
    newest: watch::Sender<u64>,
}

impl Ring {
    pub fn new() -> Self {
        // A random number from the standard library's own source; 53 bits, so that any reader of JSON can hold it.
        let process = RandomState::new().build_hasher().finish() >> 11;
        Self { process: process.max(1), kept: Mutex::default(), newest: watch::channel(0).0 }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<FrameResult>> {
        // Each change below is complete before the lock goes: what a panicking thread left is sound.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a result; the oldest goes if there are too many.
    pub fn push(&self, result: FrameResult) {
        let mut kept = self.kept();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(result);
        self.newest.send_modify(|newest| *newest += 1);
    }

    /// What the query asks for; waits as long as it says while there is nothing.
    pub async fn poll(&self, query: VssResultsQuery) -> VssResultsReply {
        let mut newest = self.newest.subscribe();
        let known = if query.process == self.process { query.after } else { 0 };
        let wait = Duration::from_millis(query.wait_ms.into()).min(LONGEST_WAIT);
        // Whether it came or the time is over: the answer is what there is. The sender lives as long as `self`.
        let _ = tokio::time::timeout(wait, newest.wait_for(|newest| *newest > known)).await;
        self.after(query)
    }

    fn after(&self, query: VssResultsQuery) -> VssResultsReply {
        let kept = self.kept();
        let newest = *self.newest.borrow();
        let oldest = newest - kept.len() as u64 + 1;
        // A caller that knows another process starts with what there is, and has lost nothing of ours.
        let after = if query.process == self.process { query.after.min(newest) } else { oldest - 1 };
        let first = oldest.max(after + 1);
        let results: Vec<_> = kept.iter().skip((first - oldest) as usize).take(AT_ONCE).cloned().collect();
        let lost = first - after - 1;
        VssResultsReply { process: self.process, next: after + lost + results.len() as u64, lost, results }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aits_orders::{Micros, Sequence, StreamId};

    use super::*;

    fn result(sequence: u64) -> FrameResult {
        FrameResult {
            stream: StreamId(1),
            sequence: Sequence(sequence),
            pts: Micros(0),
            decoded_at: Micros(0),
            finished_at: Micros(0),
            detect_ms: 0.0,
            size: [2, 2],
            tracks: Vec::new(),
            counts: Vec::new(),
            mean_speed_px_s: None,
            provisional: true,
        }
    }

    fn filled(count: u64) -> Ring {
        let ring = Ring::new();
        (1..=count).for_each(|n| ring.push(result(n)));
        ring
    }

    fn ask(ring: &Ring, after: u64) -> VssResultsQuery {
        VssResultsQuery { process: ring.process, after, wait_ms: 0 }
    }

    fn sequences(reply: &VssResultsReply) -> Vec<u64> {
        reply.results.iter().map(|r| r.sequence.0).collect()
    }

    #[tokio::test]
    async fn a_caller_gets_every_result_once() {
        let ring = filled(150);
        let (mut after, mut got) = (0, Vec::new());
        loop {
            let reply = ring.poll(ask(&ring, after)).await;
            if reply.results.is_empty() {
                assert_eq!((reply.next, reply.lost), (150, 0));
                break;
            }
            got.extend(sequences(&reply));
            after = reply.next;
        }
        assert_eq!(got, (1..=150).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_slow_caller_is_told_what_it_lost() {
        let ring = filled(KEPT as u64 + 40);
        let reply = ring.poll(ask(&ring, 10)).await;
        assert_eq!((reply.lost, sequences(&reply)[0], reply.results.len()), (30, 41, AT_ONCE));
        assert_eq!(ring.poll(ask(&ring, reply.next)).await.lost, 0);
    }

    #[tokio::test]
    async fn a_caller_of_another_process_begins_with_what_there_is() {
        let ring = filled(KEPT as u64 + 5);
        let reply = ring.poll(VssResultsQuery { process: 0, after: 77_777, wait_ms: 10_000 }).await;
        assert_eq!((reply.lost, sequences(&reply)[0]), (0, 6));
        assert_eq!(reply.process, ring.process);
        assert_eq!(ring.poll(ask(&ring, u64::MAX)).await.next, KEPT as u64 + 5);
        let empty = Ring::new();
        assert_eq!(empty.poll(VssResultsQuery { process: 0, after: 9, wait_ms: 0 }).await.next, 0);
    }

    #[tokio::test]
    async fn a_waiting_caller_is_woken_by_the_result() {
        let ring = Arc::new(Ring::new());
        let query = VssResultsQuery { wait_ms: 10_000, ..ask(&ring, 0) };
        let waiting = tokio::spawn({
            let ring = Arc::clone(&ring);
            async move { ring.poll(query).await }
        });
        while ring.newest.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        ring.push(result(1));
        assert_eq!(sequences(&waiting.await.unwrap()), [1]);
    }
}
