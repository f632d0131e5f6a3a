//! Handing a block on: A sends block X to the inbox of B.
//!
//! ```text
//!   1 claim   CAS B.slot[tail]: EMPTY(lap) → FULL(lap, A, generation, X)   a hint: claim and content in one
//!   2         CAS tail → tail+1                                            anyone may help
//!   3         B's incarnation still the one addressed?      no → withdraw, Gone
//!   4         load X's word                                 no lane of A → withdraw, NotHolder
//!   5         load the slot: still mine?                    closed → Gone; withdrawn → back to 1
//!   6 commit  CAS X: A → B·INBOX (move) or + B·INBOX (share)               failed → back to 4
//!   7         if B sleeps: take `sleeping` back, wake
//! ```
//! Killed after 1–5: a hint without a commit; B skips it, X is still A's and is swept with it. After 6: B owns the
//! message. Before 7: the reaper wakes all sleepers.
//!
//! A hint that its sender does not commit after all is *given up*: the slot says CANCEL, with another nonce than the
//! receiver's own CANCEL has. Else a receiver that stalled at it could take a later message with the same block for
//! this one, and so deliver it before what was sent in between.
//!
//! Why 4 → 5 → 6 is enough: whoever withdraws the hint bumps X afterwards. If 6 succeeds on the word loaded in 4, the
//! bump came either before 4, and then 5 sees the withdrawn slot (acquire/release), or after 6, and then the bumper
//! sees B·INBOX and accepts the message.
//!
//! *Newest wins*: when the inbox is full, A takes its own oldest unread message back (CAS on that block: B·INBOX → A)
//! and only then lets the slot name the new block. In this order there is never a committed message that no slot
//! names, whenever A is killed.

use crate::ids::{BlockId, EndpointId, EndpointRef};
use crate::kill::{kill_point, mutant};
use crate::region::{Endpoint, Place, Region};
use crate::slot::{Slot, State};
use crate::sync::{AtomicU64, Ordering, TRIES, pause};
use crate::word::{Lane, Word};

/// What becomes of the sender's own lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It becomes the message.
    Move,
    /// It stays; the message is one more lane.
    Share,
}

/// Why a block was not sent. In every case the sender still holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// The inbox has no free slot: send later, or drop something.
    #[error("the inbox is full: receive faster, send later or drop")]
    Full,
    /// The inbox was closed: its owner left or died. Look it up again.
    #[error("the inbox is gone: its owner left or died, look it up again")]
    Gone,
    /// The block has as many holders as it can have.
    #[error(
        "the block has {} holders already, more do not fit its word: send a copy (alloc, copy, send) for every {} \
         receivers, or wait until one of the holders has dropped it",
        crate::word::LANES,
        crate::word::LANES - 1
    )]
    FanOut,
    /// The pool says that the sender does not hold the block (any more).
    #[error(
        "the pool does not list this endpoint as holder of the block: it was reaped, freed the block twice, or the \
         block belongs to another endpoint of this process"
    )]
    NotHolder,
    /// The pool's words never stood still: some member scribbles over them.
    #[error("the pool's metadata keeps changing under the sender: some member corrupts it, see `baton audit`")]
    Stale,
}

/// A claimed slot.
struct Hint {
    position: u64,
    content: Slot,
}

enum Commit {
    Done,
    /// The receiver withdrew the hint before the commit.
    Withdrawn,
}

impl Region {
    /// Sends; returns whether the receiver's event descriptor must be written to (a receiver that sleeps on its futex
    /// is awake by now).
    ///
    /// # Errors
    /// [`SendFailure`]; the sender still holds the block.
    pub fn send(&self, me: EndpointId, block: BlockId, to: EndpointRef, pass: Pass) -> Result<bool, SendFailure> {
        let place = self.place(block).ok_or(SendFailure::NotHolder)?;
        let receiver = self.endpoint(to.id).ok_or(SendFailure::Gone)?;
        let generation = Word::load(self.word(place)).generation();
        for _ in 0..TRIES {
            let hint = self.claim_slot(me, place, generation, to, receiver)?;
            if let Commit::Done = self.commit(me, place, to, receiver, &hint, pass)? {
                return Ok(Self::take_sleeping(receiver));
            }
        }
        Err(SendFailure::Stale)
    }

    fn claim_slot(
        &self,
        me: EndpointId,
        place: Place,
        generation: u8,
        to: EndpointRef,
        receiver: Endpoint<'_>,
    ) -> Result<Hint, SendFailure> {
        let tail = receiver.tail();
        for _ in 0..TRIES {
            let position = tail.load(Ordering::Acquire);
            let lap = position >> self.geometry.inbox_shift() & 0xffff;
            let cell = self.slot(to.id, position);
            let found = Slot::from_bits(cell.load(Ordering::SeqCst));
            let advance = || {
                let _ = tail.compare_exchange(position, position.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed);
            };
            match found.state() {
                State::Closed => return Err(SendFailure::Gone),
                State::Empty if found.lap() == lap => {
                    let content = Slot::full(lap, 0, me, generation, place.block);
                    kill_point!(BeforeHint);
                    if replace(cell, found, content) {
                        kill_point!(AfterHint);
                        advance();
                        kill_point!(AfterTail);
                        return Ok(Hint { position, content });
                    }
                }
                // Somebody claimed this position and has not moved the tail yet (or died): help.
                State::Full | State::Cancel if found.lap() == lap => advance(),
                State::Empty if found.lap() == (lap + 1) & 0xffff => advance(),
                _ => {
                    if tail.load(Ordering::Acquire) == position {
                        return Err(SendFailure::Full);
                    }
                }
            }
            pause();
        }
        Err(SendFailure::Full) // only a scribbled tail gets here
    }

    /// Makes sure that no message is accepted for this hint any more: it is withdrawn, or (if the receiver is just doing
    /// that) given up.
    fn give_up(&self, to: EndpointRef, hint: &Hint) {
        let cell = self.slot(to.id, hint.position);
        let withdrawn = hint.content.cancelled();
        if !replace(cell, hint.content, withdrawn.given_up()) && !mutant!(NotGivenUp) {
            replace(cell, withdrawn, withdrawn.given_up());
        }
    }

    fn commit(
        &self,
        me: EndpointId,
        place: Place,
        to: EndpointRef,
        receiver: Endpoint<'_>,
        hint: &Hint,
        pass: Pass,
    ) -> Result<Commit, SendFailure> {
        let refuse = |failure| {
            self.give_up(to, hint);
            Err(failure)
        };
        let is_gone = || receiver.incarnation().load(Ordering::Acquire) != u64::from(to.incarnation);
        if !mutant!(NoIncarnationCheck) && is_gone() {
            return refuse(SendFailure::Gone);
        }
        let (cell, slot) = (self.word(place), self.slot(to.id, hint.position));
        for _ in 0..TRIES {
            let word = Word::load(cell);
            let Some(mine) = word.find(Lane::holder(me)) else { return refuse(SendFailure::NotHolder) };
            let lane = match pass {
                Pass::Move => mine,
                Pass::Share => match word.find(Lane::EMPTY) {
                    Some(free) => free,
                    None => return refuse(SendFailure::FanOut),
                },
            };
            kill_point!(BeforeCheck);
            let found = Slot::from_bits(slot.load(Ordering::Acquire));
            if found != hint.content && !mutant!(NoHintCheck) {
                return if found.state() == State::Closed || is_gone() {
                    Err(SendFailure::Gone)
                } else {
                    self.give_up(to, hint); // what is sent instead has a slot of its own
                    Ok(Commit::Withdrawn)
                };
            }
            kill_point!(BeforeCommit);
            if Word::swap(cell, word, word.with(lane, Lane::inbox(to.id))).is_ok() {
                kill_point!(AfterCommit);
                return Ok(Commit::Done);
            }
            pause();
        }
        refuse(SendFailure::Stale)
    }

    /// Like [`Region::send`]; if the inbox is full, takes back the sender's own oldest unread messages there until the
    /// new one fits. Returns (wake?, how many were taken back and dropped).
    ///
    /// # Errors
    /// [`SendFailure::Full`] if nothing in the inbox is the sender's own; otherwise as `send`. Nothing was taken back then,
    /// unless another holder of the block took its last lane, or the receiver died, in the middle of this.
    pub fn send_newest(
        &self,
        me: EndpointId,
        block: BlockId,
        to: EndpointRef,
        pass: Pass,
    ) -> Result<(bool, u32), SendFailure> {
        let place = self.place(block).ok_or(SendFailure::NotHolder)?;
        let receiver = self.endpoint(to.id).ok_or(SendFailure::Gone)?;
        let mut dropped = 0;
        // Each round takes one message back; more rounds than slots only if others keep filling the inbox.
        for _ in 0..2 * self.geometry.inbox_slots() {
            match self.send(me, block, to, pass) {
                Err(SendFailure::Full) => {}
                other => return other.map(|wake| (wake, dropped)),
            }
            // What would be refused anyway must not cost an old message.
            let word = Word::load(self.word(place));
            if word.find(Lane::holder(me)).is_none() {
                return Err(SendFailure::NotHolder);
            }
            if pass == Pass::Share && word.find(Lane::EMPTY).is_none() {
                return Err(SendFailure::FanOut);
            }
            let Some((old, hint)) = self.take_back_oldest(me, to, receiver) else {
                // Nothing of ours; or the receiver has just taken it, and there is room now.
                return self.send(me, block, to, pass).map(|wake| (wake, dropped));
            };
            dropped += 1;
            let generation = Word::load(self.word(place)).generation();
            let content = Slot::full(hint.content.lap(), hint.content.nonce() + 1, me, generation, block);
            let replaced = replace(self.slot(to.id, hint.position), hint.content, content);
            kill_point!(AfterReplace);
            let result = if replaced {
                let hint = Hint { position: hint.position, content };
                self.commit(me, place, to, receiver, &hint, pass)
            } else {
                self.give_up(to, &hint);
                Ok(Commit::Withdrawn) // the receiver found it empty first: then there is room again
            };
            let _ = self.release(me, old); // the lane that was taken back; refused only if somebody scribbles
            if let Commit::Done = result? {
                return Ok((Self::take_sleeping(receiver), dropped));
            }
        }
        Err(SendFailure::Full)
    }

    /// Finds the oldest slot that names a committed message of `me` and takes that message back.
    fn take_back_oldest(&self, me: EndpointId, to: EndpointRef, receiver: Endpoint<'_>) -> Option<(BlockId, Hint)> {
        let tail = receiver.tail().load(Ordering::Acquire);
        for age in (1..=self.geometry.inbox_slots()).rev() {
            let position = tail.wrapping_sub(age);
            let content = Slot::from_bits(self.slot(to.id, position).load(Ordering::SeqCst));
            let lap = position >> self.geometry.inbox_shift() & 0xffff;
            if content.state() == State::Full
                && content.sender() == Some(me)
                && content.lap() == lap
                && let hint = (Hint { position, content })
                && self.revoke(me, to.id, &hint)
            {
                return Some((content.block(), hint));
            }
        }
        None
    }

    /// CAS: B·INBOX → A. False if the message was received already, or never committed.
    fn revoke(&self, me: EndpointId, to: EndpointId, hint: &Hint) -> bool {
        let (block, generation) = (hint.content.block(), hint.content.generation());
        let slot = self.slot(to, hint.position);
        let Some(place) = self.place(block) else { return false };
        let cell = self.word(place);
        for _ in 0..TRIES {
            let word = Word::load(cell);
            if word.generation() != generation {
                return false;
            }
            let Some(i) = word.find(Lane::inbox(to)) else { return false };
            // The receiver empties the slot after it accepts. So if the slot stands now, what was loaded is this message,
            // not a later one that got the same block with the same low bits of its generation.
            if Slot::from_bits(slot.load(Ordering::Acquire)) != hint.content {
                return false;
            }
            kill_point!(BeforeRevoke);
            if Word::swap(cell, word, word.with(i, Lane::holder(me))).is_ok() {
                kill_point!(AfterRevoke);
                return true;
            }
            pause();
        }
        false
    }
}

/// One compare-and-swap on a slot.
pub(crate) fn replace(cell: &AtomicU64, old: Slot, new: Slot) -> bool {
    cell.compare_exchange(old.bits(), new.bits(), Ordering::SeqCst, Ordering::Acquire).is_ok()
}
