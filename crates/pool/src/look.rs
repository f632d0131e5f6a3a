//! Looking into a block from outside: a tool becomes one more holder, copies the bytes, and the hold is taken back.
//!
//! ```text
//!   {A}  or  {A·INBOX}  ── lend_for_reading ──▶ {A, T} ── copy_of (T's process) ──▶ {A, T} ── take_lent_back ──▶ {A}
//! ```
//! The lane keeps the memory from being allocated for something else while it is copied. It does not keep its owner
//! from writing: a block that nobody has sent yet may not be frozen. So no reference to the bytes is made; they are
//! copied by atomic loads, and a copy of an unfrozen block may be half old and half new.
//!
//! Killed between two steps: the tool's process, then its endpoint is reaped and the lane goes; the daemon, then the
//! lane stays until the tool ends.

use crate::blocks::HoldError;
use crate::ids::{BlockId, EndpointRef};
use crate::member::Member;
use crate::pool::Pool;
use crate::report::BlockView;
use crate::sync::{TRIES, pause};
use crate::word::{Lane, Word};
use std::sync::Arc;

/// Why a block cannot be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookError {
    /// Not a block of this pool, or its memory is not bound to any size.
    #[error("there is no block {0} in this pool now")]
    NoSuchBlock(BlockId),
    /// Nobody holds it, so it has no contents.
    #[error("block {0} is free")]
    Free(BlockId),
    /// It has as many holders as fit.
    #[error("block {0} has as many holders as a block can have; look again when one has let go")]
    FanOut(BlockId),
    /// The one who asks holds it.
    #[error("you hold block {0} already: read it")]
    Yours(BlockId),
    /// The one who asks is no member.
    #[error("this endpoint is not (or no longer) admitted")]
    NotAdmitted,
    /// Its holders change faster than they can be followed.
    #[error("the holders of block {0} change too fast to join them; look again")]
    Busy(BlockId),
}

impl Pool {
    /// Makes `to` one more holder of a block that somebody holds or has unread. For the daemon: it must not be reaping
    /// `to` meanwhile. One compare-and-swap.
    ///
    /// # Errors
    /// [`LookError`].
    pub fn lend_for_reading(&self, block: BlockId, to: EndpointRef) -> Result<BlockView, LookError> {
        let region = &self.shared.region;
        if !region.is_admitted(to) {
            return Err(LookError::NotAdmitted);
        }
        let place = region.place(block).ok_or(LookError::NoSuchBlock(block))?;
        let cell = region.word(place);
        for _ in 0..TRIES {
            let word = Word::load(cell);
            if word.is_free() {
                return Err(LookError::Free(block));
            }
            if word.lanes().any(|lane| lane.endpoint() == Some(to.id)) {
                return Err(LookError::Yours(block));
            }
            let view = self.look(block).ok_or(LookError::NoSuchBlock(block))?;
            let empty = word.find(Lane::EMPTY).ok_or(LookError::FanOut(block))?;
            if Word::swap(cell, word, word.with(empty, Lane::holder(to.id))).is_ok() {
                return Ok(view);
            }
            pause();
        }
        Err(LookError::Busy(block))
    }

    /// Ends what [`Pool::lend_for_reading`] began.
    ///
    /// # Errors
    /// [`HoldError`] if `to` does not hold the block.
    pub fn take_lent_back(&self, block: BlockId, to: EndpointRef) -> Result<(), HoldError> {
        self.shared.region.release(to.id, block)
    }

    /// A copy of a block's bytes as they are now; `None` if there is no such block. They belong together only if the
    /// caller holds the block, and it was frozen.
    #[must_use]
    pub fn copy_of(&self, block: BlockId) -> Option<Vec<u8>> {
        let (offset, len) = self.shared.bytes_of(block)?;
        self.shared.payload.copy_out(offset, len).ok()
    }
}

impl Member {
    /// The pool that this member works in.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool { shared: Arc::clone(&self.inner.shared) }
    }
}
