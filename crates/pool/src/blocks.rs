//! Taking and giving back blocks.
//!
//! ```text
//!   take:     find hint bits ─▶ clear them (one fetch_and) ─▶ CAS word: free → {A}, generation+1      ◀ commit
//!   release:  CAS word: remove one lane of A ◀ commit ─▶ if now free, set the hint bit
//! ```
//! Killed after clearing hints: the blocks are free but not indexed; the sweep for A sets the bits again. Killed
//! after the commit of `take`: A holds the block, the sweep frees it. Killed after the commit of `release`: as in
//! the first case. Killed while binding an extent: binding is one step, nothing is half done.
//!
//! All of it holds for the extent as it was bound when the operation began; `retire` tells what happens to somebody who
//! sleeps while the extent changes hands.

use crate::class::Class;
use crate::extent::Extent;
use crate::ids::{BlockId, EndpointId};
use crate::kill::{kill_point, mutant};
use crate::region::{Place, Region};
use crate::sync::{Ordering, TRIES, pause};
use crate::word::{Lane, Word};

/// Why a lane could not be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The block's word does not list the caller (or there is no such block): a double free, or one of somebody
    /// else's.
    #[error("the pool does not list this endpoint as holder of the block: it was given back already, or is another's")]
    NotHolder,
    /// The word never stood still: somebody scribbles over the metadata.
    #[error("the pool's metadata keeps changing: some member corrupts it, see `baton audit`")]
    Disturbed,
}

/// Where a member looks first: the leaf (64 blocks) where it last found something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor {
    extent: u32,
    leaf: u32,
}

impl Cursor {
    /// Different members start at different places.
    pub fn scattered(seed: u32) -> Self {
        Self { extent: seed, leaf: seed }
    }
}

/// What is looked for, and in which extent.
struct Search {
    me: EndpointId,
    number: u32,
    extent: Extent,
    class: Class,
    want: u32,
    first: u32,
}

impl Region {
    /// Takes up to `want` (1 … 64) free blocks of exactly this class and appends them to `out`; false if none was
    /// found. Binds nothing.
    pub fn take(&self, me: EndpointId, class: Class, want: u32, cursor: &mut Cursor, out: &mut Vec<BlockId>) -> bool {
        let extents = self.geometry.extents();
        for k in 0..extents {
            let number = (cursor.extent % extents + k) % extents;
            let Some(extent) = self.extent(number) else { continue };
            if self.class_in(extent) != Some(class) {
                continue;
            }
            let search = Search { me, number, extent, class, want, first: cursor.leaf };
            // A summary is a hint of a hint: if it leads nowhere, look at every leaf.
            if let Some(leaf) = self.take_in(&search, true, out).or_else(|| self.take_in(&search, false, out)) {
                *cursor = Cursor { extent: number, leaf };
                return true;
            }
        }
        false
    }

    fn take_in(&self, search: &Search, trust_summary: bool, out: &mut Vec<BlockId>) -> Option<u32> {
        let Search { me, number, extent, class, want, first } = *search;
        let blocks = self.geometry.blocks_in_extent(class);
        let leaves = blocks.div_ceil(64);
        for k in 0..leaves {
            let leaf = (first % leaves + k) % leaves;
            let summary = &self.summaries[(number * self.geometry.summaries_per_extent() + leaf / 64) as usize];
            let bit = 1u64 << (leaf % 64);
            if trust_summary && summary.load(Ordering::Acquire) & bit == 0 {
                continue;
            }
            let cell = &self.leaves[(number * self.geometry.leaves_per_extent() + leaf) as usize];
            // Bits beyond the last block of the class are set (they are from when the extent was unbound): mask them.
            let real = if blocks - leaf * 64 >= 64 { !0 } else { (1u64 << (blocks - leaf * 64)) - 1 };
            let mut free = cell.load(Ordering::SeqCst) & real;
            if free == 0 {
                if trust_summary {
                    summary.fetch_and(!bit, Ordering::AcqRel);
                    kill_point!(SummaryCleared);
                    if cell.load(Ordering::SeqCst) & real != 0 {
                        summary.fetch_or(bit, Ordering::AcqRel);
                    }
                }
                continue;
            }
            let mut mask = 0;
            for _ in 0..want {
                mask |= free & free.wrapping_neg();
                free &= free.wrapping_sub(1);
            }
            let cleared = cell.fetch_and(!mask, Ordering::AcqRel) & mask;
            kill_point!(HintsCleared);
            let before = out.len();
            let mut got = cleared;
            while got != 0 {
                let index = leaf * 64 + got.trailing_zeros();
                got &= got - 1;
                if let Some(place) = self.place_in(number, index, extent, class)
                    && self.claim(me, place)
                {
                    out.push(place.block);
                }
            }
            if out.len() > before {
                return Some(leaf); // a block of it is ours: the extent cannot have changed hands
            }
            if self.extent(number) != Some(extent) && !mutant!(NoCellCheck) {
                cell.fetch_or(cleared, Ordering::SeqCst);
                summary.fetch_or(bit, Ordering::AcqRel);
                return None;
            }
        }
        None
    }

    /// free → {me}, generation+1. False if somebody holds it (the hint was wrong), or the extent changed hands.
    pub(crate) fn claim(&self, me: EndpointId, place: Place) -> bool {
        let cell = self.word(place);
        for _ in 0..TRIES {
            let word = Word::load(cell);
            if !word.is_free() {
                return false;
            }
            kill_point!(BeforeClaim);
            if Word::swap(cell, word, word.next_life(me)).is_ok() {
                kill_point!(AfterClaim);
                if self.is_still(place) {
                    return true;
                }
                self.give_back_stray(me, place);
                return false;
            }
            // It may have been a mere bump of a block that is still free. Giving up now would leave it free but not
            // indexed (its hint bit is already cleared), so look again.
            if mutant!(NoSecondLook) {
                return false;
            }
            pause();
        }
        false
    }

    /// Gives back one lane of `me`.
    ///
    /// # Errors
    /// [`HoldError`]; nothing has changed then.
    pub fn release(&self, me: EndpointId, block: BlockId) -> Result<(), HoldError> {
        self.exchange(block, Lane::holder(me), Lane::EMPTY)
    }

    /// Replaces one lane by another, or by nothing; a block that is free then is indexed.
    ///
    /// # Errors
    /// [`HoldError`]; nothing has changed then.
    pub fn exchange(&self, block: BlockId, from: Lane, to: Lane) -> Result<(), HoldError> {
        let place = self.place(block).ok_or(HoldError::NotHolder)?;
        let cell = self.word(place);
        for _ in 0..TRIES {
            let word = Word::load(cell);
            let i = word.find(from).ok_or(HoldError::NotHolder)?;
            let rest = word.with(i, to);
            kill_point!(BeforeRelease);
            if Word::swap(cell, word, rest).is_ok() {
                if rest.is_free() {
                    kill_point!(AfterRelease);
                    self.set_hint(block);
                    kill_point!(AfterIndex);
                    self.announce_freed();
                }
                return Ok(());
            }
            pause();
        }
        Err(HoldError::Disturbed)
    }

    /// Binds an unbound extent to `class`, leaving at least `leave` extents unbound. False if that is not possible.
    pub fn bind_one(&self, class: Class, leave: u32) -> bool {
        if self.geometry.span(class) > 1 {
            return false; // a run: only the daemon binds those
        }
        let unbound = || (0..self.geometry.extents()).filter(|extent| self.is_unbound(*extent));
        if unbound().count() as u64 <= u64::from(leave) {
            return false;
        }
        for extent in unbound() {
            kill_point!(BeforeBind);
            if self.bind(extent, class) {
                kill_point!(AfterBind);
                return true;
            }
        }
        false
    }
}
