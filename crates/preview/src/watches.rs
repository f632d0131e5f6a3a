//! Who watches what, and what is to be encoded next.
//!
//! ```text
//!  stream:  (not there) ── first watch ──▶ followed ── frame ──▶ waiting ── encoder takes it ──▶ followed
//!                ▲                            │
//!                └────── last watch expired ──┘        a frame that comes while one is waiting replaces it
//! ```
//!
//! A plain state machine behind one lock; time is passed in, blocks are a type parameter, so that tests need neither a
//! clock nor a pool. The lock is held for look-ups only, never while something is encoded or sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aits_frame::{Header, Kind, Micros, Sequence, StreamId};
use aits_orders::FrameResult;
use aits_service::NamedSender;
use baton_client::Block;

/// Streams that are watched at the same time.
pub const MAX_STREAMS: usize = 64;
/// Watches of one stream at the same time: one per gateway worker and variant.
pub const MAX_WATCHERS: usize = 64;
/// A picture that has been the newest for so long is sent again to those who renew their watch: the stream stands
/// still, and they may have joined after it was sent.
pub const STILL_AFTER: Duration = Duration::from_millis(700);

/// What tells one frame from all others of its stream, over restarts of vas too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameKey {
    pub sequence: Sequence,
    pub decoded_at: Micros,
}

impl From<&Header> for FrameKey {
    fn from(header: &Header) -> Self {
        Self { sequence: header.sequence, decoded_at: header.decoded_at }
    }
}

impl FrameKey {
    /// On the clock of the host, which goes on when numbers begin anew.
    fn is_before(self, other: Self) -> bool {
        (self.decoded_at, self.sequence) < (other.decoded_at, other.sequence)
    }
}

/// A picture that was encoded: from which frame, with which result, since when, and where it lies.
#[derive(Clone, Debug)]
pub struct Encoded<B> {
    pub frame: FrameKey,
    pub result: Option<Sequence>,
    pub at: Instant,
    pub block: B,
}

/// Counters of a stream while it is watched.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Frames that arrived.
    pub frames: u64,
    /// Frames that arrived after a newer one: dropped, since an inbox that overflows is not in order.
    pub late: u64,
    /// Frames that a newer one replaced before they were encoded.
    pub replaced: u64,
    /// JPEGs made.
    pub encoded: u64,
    /// JPEGs that an inbox did not take.
    pub unsent: u64,
}

struct Watcher<S> {
    until: Instant,
    sender: S,
}

struct Stream<B, S> {
    /// By inbox and variant.
    watchers: HashMap<(String, bool), Watcher<S>>,
    waiting: Option<(FrameKey, B)>,
    newest: Option<FrameKey>,
    /// The newest picture of each variant: clean, annotated.
    encoded: [Option<Encoded<B>>; 2],
    result: Option<Arc<FrameResult>>,
    counters: Counters,
}

impl<B, S> Default for Stream<B, S> {
    fn default() -> Self {
        Self {
            watchers: HashMap::new(),
            waiting: None,
            newest: None,
            encoded: [None, None],
            result: None,
            counters: Counters::default(),
        }
    }
}

/// What the encoder is to do next.
pub struct Job<B, S> {
    pub stream: StreamId,
    pub frame: FrameKey,
    pub block: B,
    pub result: Option<Arc<FrameResult>>,
    /// Receivers of each variant, clean and annotated; empty if nobody wants it or it is there already.
    pub receivers: [Vec<S>; 2],
}

/// Why a watch was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// [`MAX_STREAMS`] are watched.
    Streams,
    /// [`MAX_WATCHERS`] watch this stream.
    Watchers,
}

/// The state machine. `B` is a block, `S` a sender to an inbox.
pub struct Watches<B, S> {
    streams: BTreeMap<StreamId, Stream<B, S>>,
    /// The stream that was encoded last: the next one gets its turn.
    last: StreamId,
}

impl<B, S> Default for Watches<B, S> {
    fn default() -> Self {
        Self { streams: BTreeMap::new(), last: StreamId(0) }
    }
}

impl<B: Clone, S: Clone> Watches<B, S> {
    /// Whether somebody takes care of this stream's frames already.
    pub fn is_followed(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Adds or renews a watch. Answers what is to be sent to this watcher at once, and whether the stream is new here
    /// (somebody has to follow it then).
    pub fn watch(
        &mut self,
        stream: StreamId,
        inbox: &str,
        annotated: bool,
        until: Instant,
        now: Instant,
        sender: impl FnOnce() -> S,
    ) -> Result<(Option<(S, B)>, bool), Refused> {
        let new = !self.is_followed(stream);
        if new && self.streams.len() >= MAX_STREAMS {
            return Err(Refused::Streams);
        }
        let state = self.streams.entry(stream).or_default();
        let key = (inbox.to_owned(), annotated);
        if !state.watchers.contains_key(&key) && state.watchers.len() >= MAX_WATCHERS {
            return Err(Refused::Watchers);
        }
        let newest = state.encoded[usize::from(annotated)].clone();
        let joined = !state.watchers.contains_key(&key);
        let watcher = state.watchers.entry(key).or_insert_with(|| Watcher { until, sender: sender() });
        watcher.until = until;
        let due = newest.filter(|picture| joined || now.duration_since(picture.at) >= STILL_AFTER);
        Ok((due.map(|picture| (watcher.sender.clone(), picture.block)), new))
    }

    /// A frame came. `false` if nobody watches its stream.
    pub fn frame(&mut self, stream: StreamId, frame: FrameKey, block: B) -> bool {
        let Some(state) = self.streams.get_mut(&stream) else { return false };
        state.counters.frames += 1;
        // The newest frame may come again (a watch is answered with it); one that was decoded earlier may not, also if a
        // vas that has been replaced sent it.
        if state.newest.is_some_and(|newest| frame.is_before(newest)) {
            state.counters.late += 1;
            return true;
        }
        state.newest = Some(frame);
        state.counters.replaced += u64::from(state.waiting.replace((frame, block)).is_some());
        true
    }

    /// A result came.
    pub fn result(&mut self, stream: StreamId, result: Arc<FrameResult>) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.result = Some(result);
        }
    }

    /// The next frame to encode, streams in turn; `None` if there is nothing to do.
    pub fn next_job(&mut self, now: Instant) -> Option<Job<B, S>> {
        loop {
            let waits = |(id, state): (&StreamId, &Stream<B, S>)| state.waiting.is_some().then_some(*id);
            let after = self.streams.range(StreamId(self.last.0.saturating_add(1))..).find_map(waits);
            let stream = after.or_else(|| self.streams.iter().find_map(waits))?;
            self.last = stream;
            let state = self.streams.get_mut(&stream)?;
            let (frame, block) = state.waiting.take()?;
            let seen = state.result.as_ref().map(|result| result.sequence);
            let receivers = [false, true].map(|annotated| {
                let known = state.encoded[usize::from(annotated)].as_ref();
                if known.is_some_and(|e| e.frame == frame && (!annotated || e.result == seen)) {
                    return Vec::new();
                }
                let mut senders = Vec::new();
                for ((_, variant), watcher) in &state.watchers {
                    if *variant == annotated && watcher.until > now {
                        senders.push(watcher.sender.clone());
                    }
                }
                senders
            });
            if receivers.iter().any(|senders| !senders.is_empty()) {
                return Some(Job { stream, frame, block, result: state.result.clone(), receivers });
            }
        }
    }

    /// A job's variant was encoded; `unsent` inboxes did not take it.
    pub fn encoded(&mut self, stream: StreamId, annotated: bool, picture: Encoded<B>, unsent: u64) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.encoded[usize::from(annotated)] = Some(picture);
            state.counters.encoded += 1;
            state.counters.unsent += unsent;
        }
    }

    /// Forgets watches whose time is over. When none is left the stream goes, and its counters are answered.
    pub fn expire(&mut self, stream: StreamId, now: Instant) -> Option<Counters> {
        let state = self.streams.get_mut(&stream)?;
        state.watchers.retain(|_, watcher| watcher.until > now);
        if !state.watchers.is_empty() {
            return None;
        }
        self.streams.remove(&stream).map(|state| state.counters)
    }
}

/// The state machine with its lock, and the bell that wakes the encoder.
#[derive(Default)]
pub struct Shared {
    watches: Mutex<Watches<Block, NamedSender>>,
    bell: Condvar,
    stopping: std::sync::atomic::AtomicBool,
}

impl Shared {
    /// A panic elsewhere cannot leave the state half changed in a way that matters: go on with what is there.
    pub fn lock(&self) -> MutexGuard<'_, Watches<Block, NamedSender>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks what came from wmits and lets the encoder know.
    pub fn frame_arrived(&self, block: Block) {
        match Header::parse(&block) {
            Ok(header) if header.kind() == Kind::Picture => {
                if self.lock().frame(header.stream, FrameKey::from(&header), block) {
                    self.bell.notify_one();
                }
            }
            Ok(header) => tracing::warn!("dropped a block of stream {} that is no picture", header.stream),
            Err(error) => tracing::warn!("dropped a block that is no frame: {error}"),
        }
    }

    /// Waits for work; `None` when the process ends.
    pub fn wait_for_job(&self) -> Option<Job<Block, NamedSender>> {
        let mut watches = self.lock();
        loop {
            if self.stopping.load(std::sync::atomic::Ordering::Acquire) {
                return None;
            }
            if let Some(job) = watches.next_job(Instant::now()) {
                return Some(job);
            }
            watches = self.bell.wait(watches).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends [`Shared::wait_for_job`].
    pub fn stop(&self) {
        // Under the lock, so that it cannot fall between the check and the wait.
        let _watches = self.lock();
        self.stopping.store(true, std::sync::atomic::Ordering::Release);
        self.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table = Watches<&'static str, String>;

    const ONE: StreamId = StreamId(1);
    const TWO: StreamId = StreamId(2);

    fn key(sequence: u64) -> FrameKey {
        FrameKey { sequence: Sequence(sequence), decoded_at: Micros(sequence as i64) }
    }

    fn watch(
        table: &mut Table,
        stream: StreamId,
        inbox: &str,
        annotated: bool,
        now: Instant,
    ) -> Option<(String, &'static str)> {
        let sender = || inbox.to_owned();
        table.watch(stream, inbox, annotated, now + Duration::from_secs(5), now, sender).unwrap().0
    }

    fn done(
        table: &mut Table,
        job: &Job<&'static str, String>,
        annotated: bool,
        block: &'static str,
        at: Instant,
    ) {
        let result = job.result.as_ref().map(|r| r.sequence);
        table.encoded(job.stream, annotated, Encoded { frame: job.frame, result, at, block }, 0);
    }

    #[test]
    fn one_encoding_serves_all_watchers_of_a_variant() {
        let (mut table, now) = (Table::default(), Instant::now());
        for inbox in ["a", "b", "c"] {
            watch(&mut table, ONE, inbox, false, now);
        }
        watch(&mut table, ONE, "a", true, now);
        assert!(table.frame(ONE, key(1), "f1"));
        let job = table.next_job(now).unwrap();
        let mut clean = job.receivers[0].clone();
        clean.sort();
        assert_eq!(
            (clean, job.receivers[1].clone()),
            (vec!["a".into(), "b".into(), "c".into()], vec!["a".to_string()])
        );
        assert!(table.next_job(now).is_none());
    }

    #[test]
    fn the_newest_frame_wins_and_the_loser_is_counted() {
        let (mut table, now) = (Table::default(), Instant::now());
        watch(&mut table, ONE, "a", false, now);
        table.frame(ONE, key(1), "f1");
        table.frame(ONE, key(2), "f2");
        assert_eq!(table.next_job(now).unwrap().block, "f2");
        let counters = table.expire(ONE, now + Duration::from_secs(6)).unwrap();
        assert_eq!(counters, Counters { frames: 2, late: 0, replaced: 1, encoded: 0, unsent: 0 });
    }

    #[test]
    fn a_frame_that_was_overtaken_is_not_shown_and_a_restarted_vas_is() {
        let (mut table, now) = (Table::default(), Instant::now());
        watch(&mut table, ONE, "a", false, now);
        for sequence in [4, 1, 2, 3] {
            table.frame(ONE, key(sequence), "f");
        }
        assert_eq!(table.next_job(now).unwrap().frame, key(4));
        table.frame(ONE, key(3), "f3");
        assert!(table.next_job(now).is_none());
        let anew = FrameKey { sequence: Sequence(0), decoded_at: Micros(5) };
        table.frame(ONE, anew, "anew");
        assert_eq!(table.next_job(now).unwrap().frame, anew);
        let counters = table.expire(ONE, now + Duration::from_secs(6)).unwrap();
        assert_eq!(counters, Counters { frames: 6, late: 4, ..Counters::default() });
    }

    #[test]
    fn streams_take_turns() {
        let (mut table, now) = (Table::default(), Instant::now());
        watch(&mut table, ONE, "a", false, now);
        watch(&mut table, TWO, "a", false, now);
        let mut order = Vec::new();
        for sequence in 0..4 {
            table.frame(ONE, key(sequence), "one");
            table.frame(TWO, key(sequence), "two");
            order.push(table.next_job(now).unwrap().block);
        }
        assert_eq!(order, ["one", "two", "one", "two"]);
    }

    #[test]
    fn frames_of_streams_that_nobody_watches_are_refused() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert!(!table.frame(ONE, key(1), "f1"));
        watch(&mut table, ONE, "a", false, now);
        assert!(table.expire(ONE, now + Duration::from_secs(1)).is_none());
        assert!(table.expire(ONE, now + Duration::from_secs(6)).is_some());
        assert!(!table.frame(ONE, key(1), "f1"));
    }

    #[test]
    fn a_watch_that_is_over_gets_nothing_more() {
        let (mut table, now) = (Table::default(), Instant::now());
        watch(&mut table, ONE, "dead", false, now);
        watch(&mut table, ONE, "alive", false, now + Duration::from_secs(3));
        table.frame(ONE, key(1), "f1");
        let job = table.next_job(now + Duration::from_secs(6)).unwrap();
        assert_eq!(job.receivers[0], ["alive"]);
    }

    #[test]
    fn the_same_frame_is_encoded_again_only_for_a_new_result() {
        let (mut table, now) = (Table::default(), Instant::now());
        watch(&mut table, ONE, "a", false, now);
        watch(&mut table, ONE, "a", true, now);
        table.frame(ONE, key(1), "f1");
        let job = table.next_job(now).unwrap();
        done(&mut table, &job, false, "clean", now);
        done(&mut table, &job, true, "boxes", now);
        table.frame(ONE, key(1), "f1 again");
        assert!(table.next_job(now).is_none());
        table.result(ONE, Arc::new(result(1)));
        table.frame(ONE, key(1), "f1 again");
        let job = table.next_job(now).unwrap();
        assert!(job.receivers[0].is_empty());
        assert_eq!(job.receivers[1], ["a"]);
    }

    #[test]
    fn who_joins_gets_the_newest_picture_at_once_and_again_while_the_stream_stands_still() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert_eq!(watch(&mut table, ONE, "a", false, now), None);
        table.frame(ONE, key(1), "f1");
        let job = table.next_job(now).unwrap();
        done(&mut table, &job, false, "clean", now);
        assert_eq!(watch(&mut table, ONE, "a", false, now), None);
        assert_eq!(watch(&mut table, ONE, "b", false, now), Some(("b".into(), "clean")));
        assert_eq!(watch(&mut table, ONE, "a", false, now + STILL_AFTER), Some(("a".into(), "clean")));
    }

    #[test]
    fn both_tables_are_bounded() {
        let (mut table, now) = (Table::default(), Instant::now());
        for inbox in 0..MAX_WATCHERS {
            watch(&mut table, ONE, &inbox.to_string(), false, now);
        }
        let refused = table.watch(ONE, "one more", false, now, now, String::new);
        assert_eq!(refused.unwrap_err(), Refused::Watchers);
        for stream in 2..=MAX_STREAMS as u32 {
            watch(&mut table, StreamId(stream), "a", false, now);
        }
        let refused = table.watch(StreamId(9999), "a", false, now, now, String::new);
        assert_eq!(refused.unwrap_err(), Refused::Streams);
        watch(&mut table, ONE, "0", false, now);
    }

    fn result(sequence: u64) -> FrameResult {
        FrameResult {
            stream: ONE,
            sequence: Sequence(sequence),
            pts: Micros(0),
            decoded_at: Micros(0),
            finished_at: Micros(0),
            detect_ms: 0.0,
            size: [1, 1],
            tracks: Vec::new(),
            counts: Vec::new(),
            mean_speed_px_s: None,
            provisional: true,
        }
    }
}
