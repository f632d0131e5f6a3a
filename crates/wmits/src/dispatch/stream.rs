//! The routing of one stream.

use std::collections::VecDeque;

use aits_orders::{Micros, Sequence};

use super::cadence::Cadence;
use super::{Frame, Stamp};

/// What happened to the frames of a stream since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Routed {
    /// Frames that arrived.
    pub received: u64,
    /// Of these: dropped, since a newer one had arrived before.
    pub late: u64,
    /// Of those received: due for judging.
    pub due: u64,
    /// Of these: sent to a vss.
    pub judged: u64,
    /// Of these: replaced by a newer one, or dropped since the source began anew.
    pub replaced: u64,
    /// Results that came back.
    pub results: u64,
}

/// An inbox that wants every frame.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    pub(super) inbox: String,
    pub(super) until: Micros,
}

/// A frame that is with a vss.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) sequence: Sequence,
    pub(super) since: Micros,
}

#[derive(Debug)]
pub(super) struct Stream<B> {
    pub(super) vss: usize,
    pub(super) cadence: Cadence,
    pub(super) last: Option<Stamp>,
    pub(super) newest: Option<Frame<B>>,
    pub(super) pending: Option<Frame<B>>,
    /// Those of all streams of a vss are at most [`CREDITS`](super::CREDITS).
    pub(super) in_flight: VecDeque<Flight>,
    /// When a frame of this stream was sent to a vss last; the larger, the later.
    pub(super) turn: u64,
    pub(super) watchers: Vec<Watcher>,
    pub(super) routed: Routed,
}

impl<B: Clone> Stream<B> {
    pub(super) fn new(vss: usize, detect_hz: f64) -> Self {
        Self {
            vss,
            cadence: Cadence::new(detect_hz),
            last: None,
            newest: None,
            pending: None,
            in_flight: VecDeque::new(),
            turn: 0,
            watchers: Vec::new(),
            routed: Routed::default(),
        }
    }

    /// A newer frame was here before: an inbox that overflows gives the newest message the place of the one that it
    /// replaces, before messages that are older. Sequence numbers alone do not tell: they begin at 0 when the source is
    /// opened again. The clock of the host goes on.
    pub(super) fn is_late(&self, stamp: &Stamp) -> bool {
        let older = |last: Stamp| (stamp.decoded_at, stamp.sequence) <= (last.decoded_at, last.sequence);
        self.last.is_some_and(older)
    }

    /// Sequence numbers count up; a later frame whose number does not comes from a vas that opened the source again.
    pub(super) fn began_anew(&self, stamp: &Stamp) -> bool {
        self.last.is_some_and(|last| stamp.sequence <= last.sequence)
    }

    /// A frame is due: it is the pending one now.
    pub(super) fn due(&mut self, frame: Frame<B>) {
        self.routed.due += 1;
        self.drop_pending();
        self.pending = Some(frame);
    }

    pub(super) fn drop_pending(&mut self) {
        if self.pending.take().is_some() {
            self.routed.replaced += 1;
        }
    }

    /// Takes a credit for the pending frame, if there is one.
    pub(super) fn judge(&mut self, now: Micros) -> Option<Frame<B>> {
        let frame = self.pending.take()?;
        self.in_flight.push_back(Flight { sequence: frame.sequence, since: now });
        Some(frame)
    }

    /// Gives the credit back; the frame is the pending one again, unless a newer one took the place.
    pub(super) fn not_sent(&mut self, frame: Frame<B>) {
        self.in_flight.retain(|flight| flight.sequence != frame.sequence);
        if self.pending.is_some() {
            self.routed.replaced += 1;
        } else {
            self.pending = Some(frame);
        }
    }
}
