//! One stream, as its player and the desk share it.
//!
//! ```text
//!              source open            first frame                end of file
//!  Opening ──────────────▶ Opening ──────────────▶ Running ──────────────────────▶ Ended
//!     └──────── sentence ────────┴───────── sentence ──┴──▶ Failed
//!  close() at any time: the player ends within 100 ms, and not one frame is published after close() has returned.
//! ```
//!
//! Publishing and closing exclude each other by one lock, held for a hand-over (microseconds; a few milliseconds while
//! an inbox is looked up). So a stream number can be opened again at once without frames of two sources mixing.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aits_frame::StreamId;
use aits_media::{StopFlag, redact};
use aits_orders::{OpenStream, SourceState, VasCounters, VasStream, VideoInfo};
use tokio::sync::watch;

use crate::outlet::{Dropped, Outlet};

/// Room in the pool that comes and goes is told once, not with each frame.
const RECOVERED_AFTER: Duration = Duration::from_secs(1);

/// The stream was closed: the player is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Closed;

pub(crate) struct Stream {
    order: OpenStream,
    stop: StopFlag,
    story: Mutex<Story>,
    closing: Condvar,
    /// Counts changes of state of all streams.
    version: watch::Sender<u64>,
}

struct Story {
    closed: bool,
    /// The player has returned.
    over: bool,
    /// When a frame found no room last, until that is over.
    starved: Option<Instant>,
    told: VasStream,
}

impl Stream {
    pub(crate) fn new(order: OpenStream, version: watch::Sender<u64>) -> Self {
        let told = VasStream {
            stream: order.stream,
            url: redact(&order.url),
            state: SourceState::Opening,
            reason: None,
            video: None,
            counters: VasCounters::default(),
        };
        let story = Mutex::new(Story { closed: false, over: false, starved: None, told });
        Self { order, stop: StopFlag::default(), story, closing: Condvar::new(), version }
    }

    pub(crate) fn order(&self) -> &OpenStream {
        &self.order
    }

    pub(crate) fn id(&self) -> StreamId {
        self.order.stream
    }

    /// Ends the source's waiting from elsewhere.
    pub(crate) fn stop(&self) -> &StopFlag {
        &self.stop
    }

    /// What is told of it now.
    pub(crate) fn told(&self) -> VasStream {
        self.story().told.clone()
    }

    /// Neither ended nor failed.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.story().told.state, SourceState::Opening | SourceState::Running)
    }

    /// From here on nothing is published.
    pub(crate) fn close(&self) {
        self.stop.stop();
        self.story().closed = true;
        self.closing.notify_all();
    }

    /// Waits until `when`.
    pub(crate) fn wait_until(&self, when: Instant) -> Result<(), Closed> {
        let mut story = self.story();
        loop {
            let left = when.saturating_duration_since(Instant::now());
            if story.closed {
                return Err(Closed);
            }
            if left.is_zero() {
                return Ok(());
            }
            story = self.closing.wait_timeout(story, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is in the source.
    pub(crate) fn set_video(&self, video: VideoInfo) {
        self.change(|told| told.video = Some(video));
    }

    /// Hands a frame on and counts what became of it. `also` sets the counters of the source.
    pub(crate) fn publish<B>(
        &self,
        block: B,
        outlet: &impl Outlet<B>,
        also: impl FnOnce(&mut VasCounters),
    ) -> Result<(), Closed> {
        let mut story = self.story();
        if story.closed {
            return Err(Closed);
        }
        let published = outlet.publish(block);
        let counters = &mut story.told.counters;
        counters.decoded += 1;
        match published {
            Ok(revoked) => {
                counters.published += 1;
                counters.revoked += u64::from(revoked);
            }
            Err(Dropped::NoReceiver) => counters.no_receiver += 1,
            Err(Dropped::InboxFull) => counters.inbox_full += 1,
        }
        also(counters);
        let recovered = story.starved.is_some_and(|at| at.elapsed() >= RECOVERED_AFTER);
        if recovered {
            story.starved = None;
            story.told.reason = None;
        }
        if story.told.state == SourceState::Opening || recovered {
            story.told.state = SourceState::Running;
            drop(story);
            self.bump();
        }
        Ok(())
    }

    /// Counts a frame that found no room, and says so until one does.
    pub(crate) fn starve(&self, sentence: &str, count: impl FnOnce(&mut VasCounters)) {
        let mut story = self.story();
        count(&mut story.told.counters);
        let first = story.told.reason.is_none();
        story.told.reason = Some(sentence.to_owned());
        story.starved = Some(Instant::now());
        drop(story);
        if first {
            self.bump();
        }
    }

    /// Counts what is no frame.
    pub(crate) fn count(&self, count: impl FnOnce(&mut VasCounters)) {
        count(&mut self.story().told.counters);
    }

    /// The source was read to its end (`None`), or something is wrong with it.
    pub(crate) fn finish(&self, failure: Option<String>) {
        self.change(|told| {
            told.state = if failure.is_some() { SourceState::Failed } else { SourceState::Ended };
            told.reason = failure;
        });
    }

    /// The player has returned.
    pub(crate) fn set_over(&self) {
        self.story().over = true;
        self.closing.notify_all();
    }

    /// Waits until the player has returned; `false`: it has not by then.
    pub(crate) fn wait_until_over(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.closing.wait_timeout_while(self.story(), left, |story| !story.over);
        waited.unwrap_or_else(PoisonError::into_inner).0.over
    }

    fn change(&self, change: impl FnOnce(&mut VasStream)) {
        change(&mut self.story().told);
        self.bump();
    }

    fn bump(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Every change under this lock is complete before anything can panic: go on with what is there.
    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
