//! Taking messages out of an inbox. One owner per inbox reads; a dead or stopped sender never blocks it.
//!
//! ```text
//!   load slot[head] ─ EMPTY ─▶ nothing there
//!        │ FULL(X, generation)
//!        ▼
//!   load X's word ─ other generation ─▶ stale: empty the slot, next
//!        │        ─ has B·INBOX, and the slot still stands
//!        │             ─▶ CAS X: B·INBOX → B  ◀ commit ─▶ slot := EMPTY(lap+1), head+1 ─▶ deliver
//!        ▼ not committed after some patience
//!   skip:  CAS slot FULL → CANCEL (still naming X)
//!          B·INBOX there after all, and the slot not given up by its sender → accept it
//!          else bump X, so that a late commit fails and looks at the slot again
//!          slot := EMPTY(lap+1), head+1
//! ```
//! Killed anywhere: both forms of B's lanes are swept. Killed between CANCEL and the bump: the reaper bumps, since the
//! slot still names X. The slot is emptied by compare-and-swap, because its sender may have replaced it by a newer
//! message in the meantime, or given it up; then head stays.
//!
//! A lane says that *some* message with X is for B, not which: X can be in the inbox twice. The slot is looked at after
//! the word because its sender may have given that hint up (X had no lane left), sent others, and then X after all,
//! while the receiver stalled: whoever loads the word of that later commit sees that the slot was given up before.

use crate::ids::{BlockId, EndpointId};
use crate::kill::{kill_point, mutant};
use crate::region::{Place, Region};
use crate::send::replace;
use crate::slot::{Slot, State};
use crate::sync::{Ordering, TRIES, pause};
use crate::word::{Lane, Word};

/// Why nothing can be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// This endpoint was closed by the daemon.
    #[error("this inbox was closed by the daemon: connect again")]
    Closed,
    /// The inbox never stood still: some member scribbles over the metadata.
    #[error("the pool's metadata keeps changing under the receiver: some member corrupts it, see `baton audit`")]
    Disturbed,
}

/// The private half of an inbox.
#[derive(Debug)]
pub struct Head {
    me: EndpointId,
    /// The position read next.
    position: u64,
    /// How long a hint may stay uncommitted before it is skipped, in looks.
    patience: u32,
    /// Hints skipped so far.
    pub(crate) skipped: u64,
    /// Whether the block received last has no other holder.
    pub(crate) alone: bool,
    /// Where the block received last lies, if that is known from looking at it.
    pub(crate) place: Option<Place>,
}

enum Found {
    /// The block that was accepted: not the one named if the extent changed hands meanwhile.
    Accepted(BlockId),
    Stale,
    Changed,
    NotCommitted,
}

impl Head {
    /// Starts where the daemon says that this life of the endpoint starts (`head0`), not at the tail: senders may have
    /// been faster.
    pub fn new(me: EndpointId, head0: u64, patience: u32) -> Self {
        Self { me, position: head0, patience, skipped: 0, alone: false, place: None }
    }
}

impl Region {
    /// The next message: block and sender (`None` if the slot does not name a possible one).
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn receive(&self, head: &mut Head) -> Result<Option<(BlockId, Option<EndpointId>)>, RecvError> {
        if self.endpoint(head.me).is_none() {
            return Err(RecvError::Closed);
        }
        for _ in 0..TRIES {
            let cell = self.slot(head.me, head.position);
            let slot = Slot::from_bits(cell.load(Ordering::SeqCst));
            let place = match slot.state() {
                State::Empty => return Ok(None),
                State::Closed => return Err(RecvError::Closed),
                State::Cancel => None,
                State::Full => self.place(slot.block()),
            };
            let Some(place) = place else {
                self.empty_slot(head, slot);
                continue;
            };
            match self.accept(head, place, slot) {
                Found::Accepted(block) => {
                    self.empty_slot(head, slot);
                    return Ok(Some((block, slot.sender())));
                }
                Found::Stale => {
                    head.skipped += 1;
                    self.empty_slot(head, slot);
                }
                Found::Changed => {}
                Found::NotCommitted => {
                    if let Some(block) = self.skip(head, place, slot) {
                        return Ok(Some((block, slot.sender())));
                    }
                }
            }
        }
        Err(RecvError::Disturbed)
    }

    fn accept(&self, head: &mut Head, place: Place, slot: Slot) -> Found {
        let cell = self.word(place);
        let mut looks = 0;
        kill_point!(SlotRead);
        for _ in 0..TRIES {
            let word = Word::load(cell);
            if word.generation() != slot.generation() {
                return Found::Stale; // that sender lost the block, it cannot commit any more
            }
            let still = || Slot::from_bits(self.slot(head.me, head.position).load(Ordering::Acquire)) == slot;
            if let Some(i) = word.find(Lane::inbox(head.me)) {
                if !still() && !mutant!(NoSlotCheck) {
                    return Found::Changed;
                }
                kill_point!(BeforeAccept);
                let accepted = word.with(i, Lane::holder(head.me));
                if Word::swap(cell, word, accepted).is_ok() {
                    head.alone = accepted.is_held_only_by(head.me);
                    kill_point!(AfterAccept);
                    return self.accepted(head, place).map_or(Found::Stale, Found::Accepted);
                }
                continue;
            }
            if !still() {
                return Found::Changed;
            }
            looks += 1;
            if looks > head.patience {
                return Found::NotCommitted;
            }
            pause();
        }
        Found::NotCommitted
    }

    /// Which block a swapped word belongs to. If the extent changed hands while this receiver stalled, and the word is
    /// a block of another class now, that block was a message to it all the same (its generation is the one named by
    /// chance; its own slot will be found stale). `None`: no block at all, the lane is given back.
    fn accepted(&self, head: &mut Head, place: Place) -> Option<BlockId> {
        if self.is_still(place) {
            head.place = Some(place);
            return Some(place.block);
        }
        head.place = None;
        let block = self.block_now(place);
        if block.is_none() {
            let _ = self.drop_stray(Lane::holder(head.me), place);
        }
        block
    }

    /// The message, if it had been committed just before and is accepted.
    fn skip(&self, head: &mut Head, place: Place, slot: Slot) -> Option<BlockId> {
        kill_point!(BeforeWithdraw);
        let withdrawn = if mutant!(WithdrawnForgets) { Slot::empty(slot.lap() + 1) } else { slot.cancelled() };
        if !replace(self.slot(head.me, head.position), slot, withdrawn) {
            return None; // changed meanwhile: look again
        }
        head.skipped += 1;
        kill_point!(AfterWithdraw);
        let cell = self.word(place);
        let mut accepted = None;
        for _ in 0..TRIES {
            let word = Word::load(cell);
            if word.generation() != slot.generation() || mutant!(NoBumpAtSkip) {
                break;
            }
            let found = Slot::from_bits(self.slot(head.me, head.position).load(Ordering::Acquire));
            if found != withdrawn && !mutant!(NotGivenUp) {
                break; // given up: its sender has nothing pending here
            }
            let (next, accepts) = match word.find(Lane::inbox(head.me)) {
                Some(i) => (word.with(i, Lane::holder(head.me)), true),
                None => (word.bumped(), false),
            };
            if Word::swap(cell, word, next).is_ok() {
                if accepts {
                    head.alone = false;
                    accepted = self.accepted(head, place);
                }
                break;
            }
            pause();
        }
        kill_point!(AfterBump);
        self.empty_slot(head, withdrawn);
        accepted
    }

    /// Frees the slot for the next lap, unless its sender has put a newer message there.
    fn empty_slot(&self, head: &mut Head, slot: Slot) {
        kill_point!(BeforeEmpty);
        let lap = head.position >> self.geometry.inbox_shift();
        let next = Slot::empty(lap.wrapping_add(1));
        if replace(self.slot(head.me, head.position), slot, next) {
            head.position = head.position.wrapping_add(1);
            if let Some(endpoint) = self.endpoint(head.me) {
                Self::announce_room(endpoint);
            }
        }
    }
}
