//! Which frame goes where: a state machine without I/O.
//!
//! One stream's due frame:
//!
//! ```text
//!   frame ─┬─ late ─────▶ dropped (counted): a newer one was here before
//!          ├─ not due ──▶ newest (kept, shared with watchers)
//!          └─ due ──▶ credit free? ──yes──▶ in flight ──result──▶ done: its credit is free again
//!                        │no                    │ vss lost, or no result for CREDIT_TIMEOUT
//!                        ▼                      └──▶ credit free again
//!                     pending ──newer due frame──▶ replaced (counted); the newer one is pending
//!                        └──credit free──▶ in flight
//! ```
//!
//! Between events `due = judged + replaced + (1 if one is pending)`. So a vss that is slow, dead or restarted costs frames, never memory: a
//! stream holds at most two blocks, the newest and the pending one.
//!
//! The caller does what the returned [`Action`]s say, in order, and reports each `Judge` back before anything else happens. Time is an argument
//! (microseconds of one monotonic clock), blocks are a type parameter: the tests run it on plain numbers.

mod cadence;
mod stream;

use std::collections::BTreeMap;

use aits_frame::Header;
use aits_orders::{Micros, Sequence, StreamId};

pub use stream::Routed;
use stream::{Stream, Watcher};

/// Frames, of all its streams together, that may be on their way to or through one vss. Two keep it busy: while it judges
/// one, the next one waits in its inbox. More would only grow old there: a frame waits here, where a newer one of its
/// stream can take its place.
pub const CREDITS: usize = 2;
/// A frame without result for so long is given up, and its credit is free again. Far longer than a vss takes for
/// [`CREDITS`] frames.
pub const CREDIT_TIMEOUT: Micros = Micros(3_000_000);
/// Streams leave a vss that has been away for so long, if another one is there. A restart takes far less.
pub const REASSIGN_AFTER: Micros = Micros(4_000_000);
/// Most inboxes that may watch one stream.
pub const WATCHERS_MAX: usize = 32;

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Frame<B> {
    /// Position in the stream.
    pub sequence: Sequence,
    /// The block.
    pub block: B,
}

/// When and where in its stream a frame was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Position in the stream.
    pub sequence: Sequence,
    /// Presentation time.
    pub pts: Micros,
    /// When vas had it, on the clock of the host.
    pub decoded_at: Micros,
}

impl From<&Header> for Stamp {
    fn from(header: &Header) -> Self {
        Self { sequence: header.sequence, pts: header.pts, decoded_at: header.decoded_at }
    }
}

/// What the caller shall do.
#[derive(Clone, Debug)]
pub enum Action<B> {
    /// Send the frame to this vss, then call [`Dispatch::sent`] or [`Dispatch::not_sent`].
    Judge {
        /// Index of the vss.
        vss: usize,
        /// The stream.
        stream: StreamId,
        /// The frame.
        frame: Frame<B>,
    },
    /// Share the block with a watcher. Whether it gets there matters to nobody here.
    Share {
        /// Name of the inbox.
        inbox: String,
        /// The block.
        block: B,
    },
    /// Tell this vss that tracks of the stream begin anew.
    Forget {
        /// Index of the vss.
        vss: usize,
        /// The stream.
        stream: StreamId,
    },
}

/// A vss as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vss {
    Up,
    DownSince(Micros),
}

/// The routing of all streams.
#[derive(Debug)]
pub struct Dispatch<B> {
    streams: BTreeMap<StreamId, Stream<B>>,
    vss: Vec<Vss>,
    strays: u64,
    /// Counts frames for vss: streams take turns.
    turn: u64,
}

impl<B: Clone> Dispatch<B> {
    /// Routing to `vss` instances, all of them taken to be up.
    ///
    /// # Panics
    /// If `vss` is 0.
    pub fn new(vss: usize) -> Self {
        assert!(vss > 0, "at least one vss");
        Self { streams: BTreeMap::new(), vss: vec![Vss::Up; vss], strays: 0, turn: 0 }
    }

    /// From now on frames of this stream are expected, judged at most `detect_hz` times a second. If the stream was open
    /// before, what was known of it is forgotten, here and at its vss; who watches it stays.
    pub fn open(&mut self, stream: StreamId, detect_hz: f64) -> Vec<Action<B>> {
        let old = self.streams.remove(&stream);
        let mut fresh = Stream::new(self.least_loaded(), detect_hz);
        let mut actions = Vec::new();
        if let Some(old) = old {
            actions.push(Action::Forget { vss: old.vss, stream });
            fresh.watchers = old.watchers;
        }
        self.streams.insert(stream, fresh);
        actions
    }

    /// Frames of this stream are expected no more; its blocks are released.
    pub fn close(&mut self, stream: StreamId) -> Vec<Action<B>> {
        let closed = self.streams.remove(&stream);
        closed.map(|closed| Action::Forget { vss: closed.vss, stream }).into_iter().collect()
    }

    /// A frame arrived from vas.
    pub fn frame(&mut self, stream: StreamId, stamp: Stamp, block: B, now: Micros) -> Vec<Action<B>> {
        let Some(entry) = self.streams.get_mut(&stream) else {
            self.strays += 1;
            return Vec::new();
        };
        entry.routed.received += 1;
        // What claims to come from the future must not make everything after it late.
        let stamp = Stamp { decoded_at: stamp.decoded_at.min(now), ..stamp };
        if entry.is_late(&stamp) {
            entry.routed.late += 1;
            return Vec::new();
        }
        let mut actions = Vec::new();
        if entry.began_anew(&stamp) {
            entry.in_flight.clear();
            entry.drop_pending();
            actions.push(Action::Forget { vss: entry.vss, stream });
        }
        entry.last = Some(stamp);
        let sequence = stamp.sequence;
        entry.newest = Some(Frame { sequence, block: block.clone() });
        entry.watchers.retain(|watcher| watcher.until > now);
        actions.extend(
            entry
                .watchers
                .iter()
                .map(|watcher| Action::Share { inbox: watcher.inbox.clone(), block: block.clone() }),
        );
        if entry.cadence.due(stamp.pts) {
            entry.due(Frame { sequence, block });
        }
        actions.extend(self.next_judges(now));
        actions
    }

    /// The frame of an [`Action::Judge`] is in the vss' inbox.
    pub fn sent(&mut self, stream: StreamId) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.routed.judged += 1;
        }
    }

    /// The frame of an [`Action::Judge`] could not be sent: it is pending again, unless a newer one is.
    pub fn not_sent(&mut self, stream: StreamId, frame: Frame<B>) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.not_sent(frame);
        }
    }

    /// A result for this frame came back: its credit, and those of older frames, are free.
    pub fn result(&mut self, stream: StreamId, sequence: Sequence, now: Micros) -> Vec<Action<B>> {
        let Some(entry) = self.streams.get_mut(&stream) else { return Vec::new() };
        entry.routed.results += 1;
        entry.in_flight.retain(|flight| flight.sequence > sequence);
        self.next_judges(now)
    }

    /// This vss does not answer.
    pub fn vss_down(&mut self, vss: usize, now: Micros) {
        if let Some(state @ Vss::Up) = self.vss.get_mut(vss) {
            *state = Vss::DownSince(now);
        }
    }

    /// This vss answers. `restarted`: it is another process than before, so what was on its way is lost.
    pub fn vss_up(&mut self, vss: usize, restarted: bool, now: Micros) -> Vec<Action<B>> {
        let Some(state) = self.vss.get_mut(vss) else { return Vec::new() };
        *state = Vss::Up;
        if restarted {
            self.streams
                .values_mut()
                .filter(|entry| entry.vss == vss)
                .for_each(|entry| entry.in_flight.clear());
        }
        self.next_judges(now)
    }

    /// Shares the frames of a stream with an inbox until `until`; the newest frame at once. `None` if there is no such
    /// stream, `Some(Err)` if too many watch it.
    #[allow(clippy::type_complexity, reason = "the three outcomes, used once")]
    pub fn watch(
        &mut self,
        stream: StreamId,
        inbox: &str,
        until: Micros,
        now: Micros,
    ) -> Option<Result<(Option<Sequence>, Vec<Action<B>>), TooManyWatchers>> {
        let entry = self.streams.get_mut(&stream)?;
        entry.watchers.retain(|watcher| watcher.until > now && watcher.inbox != inbox);
        if entry.watchers.len() >= WATCHERS_MAX {
            return Some(Err(TooManyWatchers));
        }
        entry.watchers.push(Watcher { inbox: inbox.to_owned(), until });
        let newest = entry.newest.as_ref();
        let share = newest.map(|frame| Action::Share { inbox: inbox.to_owned(), block: frame.block.clone() });
        Some(Ok((newest.map(|frame| frame.sequence), share.into_iter().collect())))
    }

    /// To be called some times a second: credits that timed out, streams whose vss is away for long.
    pub fn tick(&mut self, now: Micros) -> Vec<Action<B>> {
        self.reassign(now);
        for entry in self.streams.values_mut() {
            entry.in_flight.retain(|flight| now.0.saturating_sub(flight.since.0) < CREDIT_TIMEOUT.0);
        }
        self.next_judges(now)
    }

    /// What happened to the frames of a stream.
    pub fn routed(&self, stream: StreamId) -> Option<Routed> {
        self.streams.get(&stream).map(|entry| entry.routed)
    }

    /// Frames that belonged to no stream.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Names of the inboxes that watch anything.
    pub fn watching(&self, now: Micros) -> impl Iterator<Item = &str> {
        self.streams
            .values()
            .flat_map(|entry| &entry.watchers)
            .filter(move |watcher| watcher.until > now)
            .map(|watcher| watcher.inbox.as_str())
    }

    fn least_loaded(&self) -> usize {
        let load = |index: usize| self.streams.values().filter(|entry| entry.vss == index).count();
        let up = |index: &usize| self.vss[*index] == Vss::Up;
        let best = (0..self.vss.len()).filter(up).min_by_key(|index| load(*index));
        best.or_else(|| (0..self.vss.len()).min_by_key(|index| load(*index))).unwrap_or(0)
    }

    /// Takes the free credits of every vss that is up for pending frames. The stream whose turn is longest ago goes first,
    /// so that each gets its share of a vss that is too slow for all.
    fn next_judges(&mut self, now: Micros) -> Vec<Action<B>> {
        let mut actions = Vec::new();
        for vss in (0..self.vss.len()).filter(|index| self.vss[*index] == Vss::Up) {
            let taken = |entry: &Stream<B>| if entry.vss == vss { entry.in_flight.len() } else { 0 };
            let taken: usize = self.streams.values().map(taken).sum();
            for _ in taken..CREDITS {
                let waits = |entry: &Stream<B>| entry.vss == vss && entry.pending.is_some();
                let waiting = self.streams.iter_mut().filter(|(_, entry)| waits(entry));
                let Some((stream, entry)) = waiting.min_by_key(|(_, entry)| entry.turn) else { break };
                self.turn += 1;
                entry.turn = self.turn;
                actions.extend(entry.judge(now).map(|frame| Action::Judge { vss, stream: *stream, frame }));
            }
        }
        actions
    }

    fn reassign(&mut self, now: Micros) {
        for index in 0..self.vss.len() {
            let Vss::DownSince(since) = self.vss[index] else { continue };
            if now.0.saturating_sub(since.0) < REASSIGN_AFTER.0 || !self.vss.contains(&Vss::Up) {
                continue;
            }
            let orphans: Vec<StreamId> =
                self.streams.iter().filter(|(_, entry)| entry.vss == index).map(|(id, _)| *id).collect();
            for stream in orphans {
                let target = self.least_loaded();
                if let Some(entry) = self.streams.get_mut(&stream) {
                    entry.vss = target;
                    entry.in_flight.clear();
                }
            }
        }
    }
}

/// [`WATCHERS_MAX`] inboxes watch the stream already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyWatchers;

#[cfg(test)]
mod tests;
