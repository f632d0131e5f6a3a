//! Holding a record: what its exclusive owner of the moment may do, each step with what a kill there leaves behind.
//!
//! ```text
//!   stream of input       ─────────┬────────────┬────────────────┬─────────────┬───────▶
//!                                done       request_end         read         taking
//!                                  └─ handled ──┘ ── parked ─────┘ ─ uncertain ┘
//!   stream of answers     ─────────┬──────────────────────────┬────────────────────────▶
//!                                sent                      answered
//!                                  └──────── unsent ──────────┘
//! ```
//! Every step commits with one store, everything before it is invisible, everything after it can be repeated:
//!
//! | step | stores, in this order; the commit in capitals | killed before / after the commit |
//! |---|---|---|
//! | park | chunks, TAKING | the kernel still has the bytes / it may have them: `uncertain` |
//! | taken | READ, taking | uncertain / parked |
//! | begin | request_end, HANDLING | parked / interrupted |
//! | answer | chunks, ANSWERED (offset and phase), done, handling | interrupted / answered; [`Hold::settle`] does the rest |
//! | send | state SENDING, (kernel), SENT, state BUSY | nothing sent / unsure how much, until the last |
//!
//! The *phase* is the lowest bit of `answered`: it turns with the last byte of each answer, so that "recorded" and
//! "no longer being handled" are one store.

use crate::arena::{Corrupt, Field, Memory, Stream};
use crate::kill::kill_point;
use crate::ledger::Ledger;
use crate::sync::Ordering;
use crate::word::{State, Word};
use core::ops::Range;

/// The connection is somebody else's by now: touch neither it nor its socket, close the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection {record} is not this worker's (any more): close the descriptor and touch nothing")]
pub struct NotYours {
    /// Which record.
    pub record: u32,
}

/// A request that was begun and has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted {
    /// How many parked bytes it has: the first ones of the pending input.
    pub len: u64,
    /// Whether it may be run again: declared idempotent, and no part of its answer is recorded.
    pub rerun: bool,
}

/// What has to be done for a connection by whoever answers for it now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Duty {
    /// Close it: it was being opened or closed.
    pub close: bool,
    /// Input of which the kernel may have given up a part, already stored: ask for the position of reading, then
    /// [`Hold::resolve_taken`]; close the connection if it cannot be known.
    pub taking: Option<Range<u64>>,
    /// Answer bytes of which the kernel may have taken a part: ask for the position of sending, then
    /// [`Hold::resolve_sent`]; close the connection if it cannot be known.
    pub sending: Option<Range<u64>>,
    /// A request without an answer: answer it with an error frame, or run it again.
    pub request: Option<Interrupted>,
    /// Parked bytes after that request: deliver them.
    pub parked: u64,
    /// Recorded answer bytes that are not sent (if `sending`, at most so many).
    pub unsent: u64,
}

impl Duty {
    /// Whether the connection simply goes on.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The number is outside of what the record allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Not the holder any more.
    #[error(transparent)]
    NotYours(#[from] NotYours),
    /// Scribbled memory.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// Nothing to resolve, or not there.
    #[error("the kernel's position is said to be {said}, the record allows {} to {}: close this connection", allowed.start, allowed.end)]
    Outside {
        /// What was said.
        said: u64,
        /// What can be.
        allowed: Range<u64>,
    },
}

/// Exclusive hold of a record, of a [`crate::Claim`] or a [`crate::Moved`].
#[derive(Debug)]
pub struct Hold<'l> {
    pub(crate) ledger: &'l Ledger,
    pub(crate) record: u32,
    /// What the state word is as long as the hold lasts.
    pub(crate) word: Word,
}

/// The offsets of a record, read once and checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offsets {
    pub(crate) read: u64,
    pub(crate) taking: u64,
    pub(crate) done: u64,
    pub(crate) request_end: u64,
    pub(crate) handling: u64,
    pub(crate) answered: u64,
    pub(crate) phase: u64,
    pub(crate) sent: u64,
}

/// Offsets stay below: a connection at 100 Gbit/s needs 11 years.
pub(crate) const OFFSET_LIMIT: u64 = 1 << 60;
pub(crate) const HANDLING: u64 = 1;
pub(crate) const IDEMPOTENT: u64 = 4;

impl Offsets {
    fn is_handling(&self) -> bool {
        self.handling & HANDLING != 0
    }

    /// Whether a request is being handled whose answer does not count yet.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.is_handling() && self.handling >> 1 & 1 == self.phase
    }
}

impl Hold<'_> {
    /// The record's number.
    #[must_use]
    pub fn record(&self) -> u32 {
        self.record
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.ledger.memory
    }

    /// Changes the state word; whoever finds it changed is not the holder.
    pub(crate) fn turn(&mut self, to: Word) -> Result<(), NotYours> {
        let cell = self.memory().cell(self.record, Field::State);
        match cell.compare_exchange(self.word.bits(), to.bits(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.word = to;
                Ok(())
            }
            Err(_) => Err(NotYours { record: self.record }),
        }
    }

    /// That the hold still lasts. It cannot end by itself: this notices scribbled memory and wrong recoveries.
    pub(crate) fn check(&self) -> Result<(), NotYours> {
        if self.memory().get(self.record, Field::State) == self.word.bits() {
            return Ok(());
        }
        Err(NotYours { record: self.record })
    }

    pub(crate) fn offsets(&self) -> Result<Offsets, Corrupt> {
        let get = |field| self.memory().get(self.record, field);
        let answered = get(Field::Answered);
        let o = Offsets {
            read: get(Field::Read),
            taking: get(Field::Taking),
            done: get(Field::Done),
            request_end: get(Field::RequestEnd),
            handling: get(Field::Handling),
            answered: answered >> 1,
            phase: answered & 1,
            sent: get(Field::Sent),
        };
        let ordered = o.done <= o.read
            && o.read <= o.taking
            && o.taking < OFFSET_LIMIT
            && o.sent <= o.answered
            && o.answered < OFFSET_LIMIT
            && (!o.is_handling() || (o.done <= o.request_end && o.request_end <= o.read))
            && (!o.is_handling() || o.handling >> 3 <= o.answered);
        if ordered { Ok(o) } else { Err(Corrupt { record: self.record, what: "offsets out of order" }) }
    }

    /// What has to be done for this connection.
    ///
    /// # Errors
    /// [`Corrupt`]: close it.
    pub fn duty(&self) -> Result<Duty, Corrupt> {
        if self.word.is_opening() || self.word.is_ending() {
            return Ok(Duty { close: true, ..Duty::default() });
        }
        let o = self.offsets()?;
        let unanswered = o.is_unanswered();
        let from = if o.is_handling() { o.request_end } else { o.done };
        Ok(Duty {
            close: false,
            taking: (o.taking > o.read).then_some(o.read..o.taking),
            sending: self.word.is_unsure().then_some(o.sent..o.answered),
            request: unanswered.then(|| Interrupted {
                len: o.request_end - o.done,
                rerun: o.handling & IDEMPOTENT != 0 && o.handling >> 3 == o.answered,
            }),
            parked: o.read - from,
            unsent: o.answered - o.sent,
        })
    }

    /// Ends what an owner that was killed in the middle of recording an answer had not ended, and gives back the chunks
    /// of bytes that no longer (or never) counted.
    pub(crate) fn settle(&mut self) -> Result<(), Corrupt> {
        self.end_answered()?;
        let o = self.offsets()?;
        self.memory().trim(self.record, Stream::Input, o.done, o.taking)?;
        self.memory().trim(self.record, Stream::Output, o.sent, o.answered)
    }

    /// The steps after an answer counts: its request is no longer pending.
    pub(crate) fn end_answered(&mut self) -> Result<(), Corrupt> {
        let o = self.offsets()?;
        if o.is_handling() && !o.is_unanswered() {
            self.memory().set(self.record, Field::Done, o.request_end);
            kill_point!(AnswerDone);
            self.memory().set(self.record, Field::Handling, 0);
            kill_point!(AnswerEnded);
            self.memory().trim(self.record, Stream::Input, o.request_end, o.taking)?;
        }
        Ok(())
    }

    /// Up to which offset of the stream the kernel has given up input, where [`Duty::taking`] asks.
    ///
    /// # Errors
    /// [`ResolveError`]; `Outside` if that cannot be.
    pub fn resolve_taken(&mut self, position: u64) -> Result<(), ResolveError> {
        self.check()?;
        let o = self.offsets()?;
        if position < o.read || position > o.taking {
            return Err(ResolveError::Outside { said: position, allowed: o.read..o.taking });
        }
        self.memory().set(self.record, Field::Read, position);
        self.memory().set(self.record, Field::Taking, position);
        Ok(())
    }

    /// Up to which offset of the stream the kernel has taken answers, where [`Duty::sending`] asks.
    ///
    /// # Errors
    /// [`ResolveError`]; `Outside` if that cannot be.
    pub fn resolve_sent(&mut self, position: u64) -> Result<(), ResolveError> {
        self.check()?;
        let o = self.offsets()?;
        if !self.word.is_unsure() || position < o.sent || position > o.answered {
            return Err(ResolveError::Outside { said: position, allowed: o.sent..o.answered });
        }
        self.memory().set(self.record, Field::Sent, position);
        self.memory().trim(self.record, Stream::Output, position, o.answered)?;
        self.turn(self.word.with_unsure(false))?;
        Ok(())
    }

    /// Copies the pending input (the request being handled first, if there is one) into `out`.
    ///
    /// # Errors
    /// [`Corrupt`]: close the connection.
    pub fn input(&self, out: &mut Vec<u8>) -> Result<(), Corrupt> {
        let o = self.offsets()?;
        self.memory().load(self.record, Stream::Input, o.done..o.read, usize::MAX, out)
    }

    /// Frees the record and all that hangs on it. The socket's end is the caller's: `shutdown` first.
    pub(crate) fn finish(mut self) -> Result<(), NotYours> {
        self.turn(self.word.with_state(State::Closing).ending())?;
        kill_point!(CloseBegun);
        let memory = &self.ledger.memory;
        for (stream, head) in [(Stream::Input, Field::InputHead), (Stream::Output, Field::OutputHead)] {
            if memory.trim(self.record, stream, 0, 0).is_err() {
                // What a scribbled chain still names stays tagged; the pass over the table finds it by that.
                memory.set(self.record, head, 0);
                let record = self.record;
                memory.sweep(|of| of == record);
            }
        }
        kill_point!(CloseEmptied);
        let free = Word::new(State::Free, self.word.owner(), self.word.epoch());
        self.turn(free)?;
        kill_point!(CloseFreed);
        Ok(())
    }
}
