//! A worker's claim of a connection: from before a read until there is nothing more to do with it.
//!
//! ```text
//!   claim ──▶ busy ──▶ peek ▶ park ▶ take from the kernel ▶ taken ──▶ begin ▶ (handler) ▶ answer ──▶ send ──▶ release
//!              ▲                                                                              │ sending
//!              └────────────── NotYours: close the descriptor, touch nothing ◀────────────────┘ (no room in the socket:
//!                                                                                               release, wait, claim)
//! ```
//! Why peek and then take: what `read` has moved into private memory dies with the process. Peeked bytes are stored in
//! the arena first; then the kernel gives them up. A kill in between leaves them in both places, and the record says so.
//!
//! # What goes wrong
//! * The arena is full ([`PutError::Full`]): input stays in the kernel, whose window then slows the client down; for an
//!   answer, send what is recorded first.
//! * A claim that is dropped in the middle (a panic, a cancelled handler) is released as it is: a request without an
//!   answer shows in the next claim's [`crate::Hold::duty`], a send of unknown outcome makes the connection *unsure*.

use crate::arena::{Corrupt, Field, StoreError, Stream};
use crate::hold::{HANDLING, Hold, IDEMPOTENT, NotYours, OFFSET_LIMIT};
use crate::kill::{kill_point, mutant};
use crate::word::State;

/// Why bytes were not parked, or an answer not recorded. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// Somebody else's connection.
    #[error(transparent)]
    NotYours(#[from] NotYours),
    /// Scribbled memory.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The arena is full.
    #[error(
        "no room for {bytes} bytes in the ledger's arena: leave input in the socket, send what is recorded, or raise `arena_bytes`"
    )]
    Full {
        /// How many bytes were to be stored.
        bytes: usize,
    },
    /// Bytes are still being taken from the kernel.
    #[error("the bytes parked before are not taken from the kernel: call `taken` (or `resolve_taken`) first")]
    Taking,
    /// Already handling one, or handling none.
    #[error("a request is {}being handled on this connection: {}", if *handling { "" } else { "not " }, if *handling { "answer it first" } else { "begin one, or push" })]
    Handling {
        /// Whether one is.
        handling: bool,
    },
    /// More than there is, or more than a connection can ever carry.
    #[error("{asked} bytes are asked for, there are {there}")]
    TooMany {
        /// How many were asked for.
        asked: u64,
        /// How many there are.
        there: u64,
    },
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Somebody else's connection.
    #[error(transparent)]
    NotYours(#[from] NotYours),
    /// Scribbled memory.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// An earlier send has an unknown end.
    #[error("how much of the last send arrived is not known: call `resolve_sent`, or close the connection")]
    Unsure,
    /// What the kernel said; it took nothing.
    #[error("cannot send the recorded answer: {0}")]
    Kernel(#[source] std::io::Error),
}

/// A connection that is this worker's alone until it is released.
#[derive(Debug)]
#[must_use = "dropped at once, a claim is released at once"]
pub struct Claim<'l> {
    pub(crate) hold: Option<Hold<'l>>,
}

impl<'l> core::ops::Deref for Claim<'l> {
    type Target = Hold<'l>;
    fn deref(&self) -> &Hold<'l> {
        self.hold
            .as_ref()
            .unwrap_or_else(|| unreachable!("taken by release and close only, which consume the claim"))
    }
}

impl core::ops::DerefMut for Claim<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.hold
            .as_mut()
            .unwrap_or_else(|| unreachable!("taken by release and close only, which consume the claim"))
    }
}

impl Claim<'_> {
    fn put(&self, stream: Stream, offset: u64, bytes: &[u8]) -> Result<(), PutError> {
        if OFFSET_LIMIT - offset <= bytes.len() as u64 {
            return Err(PutError::TooMany { asked: bytes.len() as u64, there: OFFSET_LIMIT - offset });
        }
        self.memory().store(self.record, stream, offset, bytes).map_err(|error| match error {
            StoreError::Full => PutError::Full { bytes: bytes.len() },
            StoreError::Corrupt(corrupt) => corrupt.into(),
        })
    }

    /// Stores bytes that were peeked. Next: take them from the kernel, and say [`Claim::taken`].
    ///
    /// # Errors
    /// [`PutError`]
    pub fn park(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        self.check()?;
        let o = self.offsets()?;
        if o.taking != o.read {
            return Err(PutError::Taking);
        }
        if let Err(error) = self.put(Stream::Input, o.read, bytes) {
            self.memory().trim(self.record, Stream::Input, o.done, o.read)?;
            return Err(error);
        }
        kill_point!(ParkWritten);
        self.memory().set(self.record, Field::Taking, o.read + bytes.len() as u64);
        kill_point!(ParkSaid);
        Ok(())
    }

    /// The kernel has given up `count` of the parked bytes; the rest does not count.
    ///
    /// # Errors
    /// [`PutError::TooMany`] if fewer were parked.
    pub fn taken(&mut self, count: u64) -> Result<(), PutError> {
        self.check()?;
        let o = self.offsets()?;
        if count > o.taking - o.read {
            return Err(PutError::TooMany { asked: count, there: o.taking - o.read });
        }
        self.memory().set(self.record, Field::Read, o.read + count);
        kill_point!(ParkTaken);
        self.memory().set(self.record, Field::Taking, o.read + count);
        self.memory().trim(self.record, Stream::Input, o.done, o.read + count)?;
        Ok(())
    }

    /// The first `len` parked bytes are a request which is now being handled.
    ///
    /// # Errors
    /// [`PutError::Handling`] if there is one already, [`PutError::TooMany`] if fewer bytes are parked.
    pub fn begin(&mut self, len: u64, idempotent: bool) -> Result<(), PutError> {
        self.check()?;
        let o = self.offsets()?;
        if o.handling & HANDLING != 0 {
            return Err(PutError::Handling { handling: true });
        }
        if len > o.read - o.done {
            return Err(PutError::TooMany { asked: len, there: o.read - o.done });
        }
        self.memory().set(self.record, Field::RequestEnd, o.done + len);
        kill_point!(BeginEnd);
        let idempotent = if idempotent { IDEMPOTENT } else { 0 };
        self.memory().set(
            self.record,
            Field::Handling,
            o.answered << 3 | idempotent | o.phase << 1 | HANDLING,
        );
        kill_point!(Begun);
        Ok(())
    }

    /// Records the answer (or the last part of it; possibly no bytes at all): the request is through.
    ///
    /// # Errors
    /// [`PutError::Handling`] if no request is being handled.
    pub fn answer(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        self.check()?;
        let o = self.offsets()?;
        if !o.is_unanswered() {
            return Err(PutError::Handling { handling: false });
        }
        self.record_bytes(bytes)?;
        if mutant!(DoneBeforeAnswer) {
            self.memory().set(self.record, Field::Done, o.request_end);
            self.memory().set(self.record, Field::Handling, 0);
            kill_point!(AnswerDone);
        }
        let answered = o.answered + bytes.len() as u64;
        self.memory().set(self.record, Field::Answered, answered << 1 | (o.phase ^ 1));
        kill_point!(AnswerCounts);
        if mutant!(DoneBeforeAnswer) {
            self.settle()?;
        }
        self.end_answered()?;
        Ok(())
    }

    /// Records bytes that end no request: a part of a streamed answer, a notification.
    ///
    /// # Errors
    /// [`PutError`]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        self.check()?;
        let o = self.offsets()?;
        self.record_bytes(bytes)?;
        self.memory().set(self.record, Field::Answered, (o.answered + bytes.len() as u64) << 1 | o.phase);
        Ok(())
    }

    fn record_bytes(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        let o = self.offsets()?;
        if let Err(error) = self.put(Stream::Output, o.answered, bytes) {
            self.memory().trim(self.record, Stream::Output, o.sent, o.answered)?;
            return Err(error);
        }
        kill_point!(AnswerWritten);
        Ok(())
    }

    /// Copies up to `most` recorded bytes into `buffer` and has `write` hand them to the kernel: it returns how many the
    /// kernel took, and an error only if that is none. Returns that number; 0 also if nothing is unsent.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn send(
        &mut self,
        buffer: &mut Vec<u8>,
        most: usize,
        write: impl FnOnce(&[u8]) -> std::io::Result<usize>,
    ) -> Result<usize, SendError> {
        self.check()?;
        if self.word.is_unsure() {
            return Err(SendError::Unsure);
        }
        let o = self.offsets()?;
        self.memory().load(self.record, Stream::Output, o.sent..o.answered, most, buffer)?;
        if buffer.is_empty() {
            return Ok(0);
        }
        let busy = self.word;
        self.turn(busy.with_state(State::Sending))?;
        kill_point!(SendBegun);
        let result = write(buffer);
        kill_point!(SendTaken);
        let count = *result.as_ref().unwrap_or(&0);
        // More than it was given cannot have been taken; the excess is the caller's mistake.
        let sent = o.sent + (count as u64).min(buffer.len() as u64);
        self.memory().set(self.record, Field::Sent, sent);
        kill_point!(SendCounted);
        self.turn(busy)?;
        self.memory().trim(self.record, Stream::Output, sent, o.answered)?;
        result.map_err(SendError::Kernel)
    }

    /// Lets go: from now on the connection may be claimed again, or moved.
    ///
    /// # Errors
    /// [`NotYours`] if it was not held any more.
    pub fn release(mut self) -> Result<(), NotYours> {
        let Some(mut hold) = self.hold.take() else { return Ok(()) };
        let idle = hold.word.with_state(State::Idle);
        hold.turn(idle)?;
        kill_point!(Released);
        Ok(())
    }

    /// Frees the record; `shutdown` the socket first, since other processes hold it, too.
    ///
    /// # Errors
    /// [`NotYours`] if it was not held any more.
    pub fn close(mut self) -> Result<(), NotYours> {
        self.hold.take().map_or(Ok(()), Hold::finish)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let Some(mut hold) = self.hold.take() else { return };
        #[cfg(loom)]
        if crate::kill::is_dead() {
            return;
        }
        let unsure = hold.word.is_unsure() || hold.word.state() == Some(State::Sending);
        // Refused means that it was not held any more, which is what this is for.
        let _ = hold.turn(hold.word.with_state(State::Idle).with_unsure(unsure));
    }
}
