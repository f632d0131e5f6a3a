//! The hold word: the one truth about a block.
//!
//! ```text
//!   127        112 111         96 95      84        11         0
//!  ┌──────────────┬──────────────┬──────────┬─ … ─┬───────────┐
//!  │ generation   │ version      │ lane 7   │     │ lane 0    │   lane = INBOX bit + endpoint id (11 bits), 0 = empty
//!  └──────────────┴──────────────┴──────────┴─ … ─┴───────────┘
//!
//!   free ── alloc: generation+1 ──▶ {A} ── share ──▶ {A, B·INBOX} ── B receives ──▶ {A, B} ── release ──▶ … ──▶ free
//! ```
//! A block is free exactly when all lanes are empty. `generation` rises at each allocation and unmasks hints from an
//! earlier life. `version` rises only to make somebody's pending compare-and-swap fail (a *bump*). Both are 16 bits
//! and wrap: a process that stalls between two of its own instructions for exactly 65,536 bumps of one block could
//! commit late.

use crate::ids::EndpointId;
use crate::sync::{AtomicBits, Ordering};

#[cfg(not(loom))]
type Bits = u128;
#[cfg(loom)]
type Bits = u64;

/// How many holders a block can have at once.
#[cfg(not(loom))]
pub const LANES: u32 = 8;
/// Fewer in the model, where the word has 64 bits.
#[cfg(loom)]
pub const LANES: u32 = 4;

const LANE_BITS: u32 = 12;
const LANE_MASK: Bits = (1 << LANE_BITS) - 1;
const ALL_LANES: Bits = (1 << (LANES * LANE_BITS)) - 1;
const COUNT_BITS: u32 = (Bits::BITS - LANES * LANE_BITS) / 2;
const COUNT_MASK: Bits = (1 << COUNT_BITS) - 1;
const VERSION_AT: u32 = LANES * LANE_BITS;
const GENERATION_AT: u32 = VERSION_AT + COUNT_BITS;

/// One entry of a hold word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane(u16);

impl Lane {
    const INBOX: u16 = 0x800;
    /// Nobody.
    pub const EMPTY: Lane = Lane(0);

    /// "This endpoint holds the block."
    pub fn holder(id: EndpointId) -> Self {
        Lane(id.get())
    }

    /// "The block is a message in this endpoint's inbox."
    pub fn inbox(id: EndpointId) -> Self {
        Lane(id.get() | Self::INBOX)
    }

    /// Whose lane; `None` for an empty one (or for garbage with number 0).
    pub fn endpoint(self) -> Option<EndpointId> {
        EndpointId::new(self.0 & !Self::INBOX)
    }

    /// Whether it is a message that was not received yet.
    pub fn is_inbox(self) -> bool {
        self.0 & Self::INBOX != 0
    }
}

/// A value of the hold word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(Bits);

impl Word {
    /// A block that was never used.
    #[cfg(any(test, loom))]
    pub const ZERO: Word = Word(0);

    /// The word as it lies in memory.
    #[cfg(loom)]
    pub fn atomic(self) -> AtomicBits {
        AtomicBits::new(self.0)
    }

    /// The value now.
    #[inline]
    pub fn load(cell: &AtomicBits) -> Self {
        Word(cell.load(Ordering::Acquire))
    }

    /// One compare-and-swap: the commit point of every operation. On failure the value found instead.
    #[inline]
    pub fn swap(cell: &AtomicBits, old: Word, new: Word) -> Result<(), Word> {
        cell.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire).map(drop).map_err(Word)
    }

    /// Nobody holds the block.
    #[inline]
    pub fn is_free(self) -> bool {
        self.0 & ALL_LANES == 0
    }

    /// One lane, of this holder, and no other.
    #[inline]
    pub fn is_held_only_by(self, id: EndpointId) -> bool {
        let lanes = self.0 & ALL_LANES;
        if lanes == Bits::from(id.get()) {
            return true; // almost always the first lane
        }
        let at = lanes.trailing_zeros() / LANE_BITS * LANE_BITS; // 0 lanes: beyond the last one, see the comparison
        lanes != 0 && lanes == Bits::from(id.get()) << at
    }

    /// The low 8 bits of the generation: what a hint remembers.
    #[inline]
    pub fn generation(self) -> u8 {
        (self.0 >> GENERATION_AT) as u8
    }

    /// The lane at place `i`.
    #[inline]
    pub fn lane(self, i: u32) -> Lane {
        Lane((self.0 >> (i * LANE_BITS) & LANE_MASK) as u16)
    }

    /// All lanes, empty ones too.
    pub fn lanes(self) -> impl Iterator<Item = Lane> {
        (0..LANES).map(move |i| self.lane(i))
    }

    /// The place of such a lane.
    #[inline]
    pub fn find(self, lane: Lane) -> Option<u32> {
        // Almost always the first or the second: most blocks have one holder or two.
        if self.lane(0) == lane {
            return Some(0);
        }
        (1..LANES).find(|i| self.lane(*i) == lane)
    }

    /// The same with another lane at place `i`.
    #[inline]
    pub fn with(self, i: u32, lane: Lane) -> Self {
        let at = i * LANE_BITS;
        Word(self.0 & !(LANE_MASK << at) | Bits::from(lane.0) << at)
    }

    /// The same without any lane of this endpoint.
    pub fn without(self, id: EndpointId) -> Self {
        (0..LANES)
            .fold(self, |word, i| if word.lane(i).endpoint() == Some(id) { word.with(i, Lane::EMPTY) } else { word })
    }

    /// Whether this endpoint has a lane of either kind.
    #[inline]
    pub fn names(self, id: EndpointId) -> bool {
        self.0 & ALL_LANES != 0 && self.lanes().any(|lane| lane.endpoint() == Some(id))
    }

    /// The next life of a free block: one holder.
    #[inline]
    pub fn next_life(self, holder: EndpointId) -> Self {
        let generation = (self.0 >> GENERATION_AT).wrapping_add(1) & COUNT_MASK;
        let version = self.0 & (COUNT_MASK << VERSION_AT);
        Word(generation << GENERATION_AT | version | Bits::from(holder.get()))
    }

    /// The same block, same holders, but every pending compare-and-swap on it fails.
    #[inline]
    pub fn bumped(self) -> Self {
        let version = (self.0 >> VERSION_AT).wrapping_add(1) & COUNT_MASK;
        Word(self.0 & !(COUNT_MASK << VERSION_AT) | version << VERSION_AT)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u16) -> EndpointId {
        EndpointId::new(n).unwrap()
    }

    #[test]
    fn counts_wrap_within_their_bits() {
        let mut word = Word(!0);
        assert_eq!(word.bumped().lane(7), word.lane(7));
        assert_eq!(word.bumped().generation(), word.generation());
        word = Word::ZERO;
        for _ in 0..70_000 {
            word = word.next_life(id(5));
            assert_eq!(word.find(Lane::holder(id(5))), Some(0));
            word = word.without(id(5)).bumped();
            assert!(word.is_free());
        }
    }

    proptest! {
        #[test]
        fn lanes_do_not_touch_each_other(bits: u128, place in 0..LANES, n in 1..=EndpointId::MAX, inbox: bool) {
            let lane = if inbox { Lane::inbox(id(n)) } else { Lane::holder(id(n)) };
            let (before, after) = (Word(bits), Word(bits).with(place, lane));
            prop_assert_eq!(after.lane(place), lane);
            for i in (0..LANES).filter(|i| *i != place) {
                prop_assert_eq!(after.lane(i), before.lane(i));
            }
            prop_assert_eq!(after.0 >> VERSION_AT, before.0 >> VERSION_AT);
            prop_assert_eq!(after.lane(place).endpoint(), Some(id(n)));
            prop_assert_eq!(after.lane(place).is_inbox(), inbox);
            prop_assert!(after.without(id(n)).lanes().all(|l| l.endpoint() != Some(id(n))));
            prop_assert!(before.bumped() != before && before.bumped().0 & ALL_LANES == bits & ALL_LANES);
        }
    }
}
