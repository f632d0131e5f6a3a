//! The metadata as arrays of atomics, and the only way in: every index is checked here.
//!
//! An endpoint's record (64 words of 64 bits; what different processes write lies on different cache lines):
//!
//! ```text
//!   word  0 state  1 incarnation  2 head0  3 pid  4 start time      written by the daemon
//!   word  8 tail                                                    moved by senders
//!   word 16 sleeping                                                set by the receiver, taken back by senders
//!   word 24…31 name shown, 32…39 name of the inbox (63 bytes)       written by the daemon
//! ```

use crate::class::Class;
use crate::geometry::{ENDPOINT_WORDS, Geometry};
use crate::ids::{BlockId, EndpointId};
use crate::sync::{AtomicBits, AtomicU32, AtomicU64, Ordering, Slice};

/// Nobody has this number.
pub const STATE_FREE: u64 = 0;
/// A member has it.
pub const STATE_LIVE: u64 = 1;
/// Its owner is dead, the daemon is taking back what it held.
pub const STATE_DEAD: u64 = 2;
/// Its owner lives but receives no longer.
pub const STATE_LEAVING: u64 = 3;

/// Bits of an extent's word: bound or not, and to which class.
const BOUND: u64 = 1 << 32;

/// All metadata of one pool.
#[derive(Debug)]
pub struct Region {
    /// The layout: private memory.
    pub geometry: Geometry,
    pub(crate) extents: Slice<ExtentCell>,
    pub(crate) endpoints: Slice<AtomicU64>,
    pub(crate) slots: Slice<AtomicU64>,
    pub(crate) leaves: Slice<AtomicU64>,
    pub(crate) summaries: Slice<AtomicU64>,
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) lengths: Slice<AtomicU32>,
    pub(crate) words: Slice<AtomicBits>,
}

/// An extent's word. In the model it is no loom atomic: binding is one compare-and-swap and would only multiply the
/// schedules.
pub(crate) type ExtentCell = core::sync::atomic::AtomicU64;

/// A block that exists: number, class and place of its word.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its number.
    pub block: BlockId,
    /// The class its extent is bound to.
    pub class: Class,
    word: usize,
}

/// Record of one endpoint.
#[derive(Clone, Copy)]
pub struct Endpoint<'r> {
    words: &'r [AtomicU64],
}

impl<'r> Endpoint<'r> {
    /// One of the `STATE_` values, or garbage.
    pub fn state(self) -> &'r AtomicU64 {
        &self.words[0]
    }
    /// How often this number was reaped.
    pub fn incarnation(self) -> &'r AtomicU64 {
        &self.words[1]
    }
    /// Where the next owner starts to read.
    pub fn head0(self) -> &'r AtomicU64 {
        &self.words[2]
    }
    /// Process id.
    pub fn pid(self) -> &'r AtomicU64 {
        &self.words[3]
    }
    /// Start time of the process.
    pub fn start_time(self) -> &'r AtomicU64 {
        &self.words[4]
    }
    /// Hint: the next slot to claim.
    pub fn tail(self) -> &'r AtomicU64 {
        &self.words[8]
    }
    /// Not 0 while the receiver is (about to be) asleep.
    pub fn sleeping(self) -> &'r AtomicU64 {
        &self.words[16]
    }
    /// The name shown.
    pub fn name(self) -> &'r [AtomicU64] {
        &self.words[24..32]
    }
    /// The name of the inbox.
    pub fn inbox_name(self) -> &'r [AtomicU64] {
        &self.words[32..40]
    }
}

impl Region {
    /// The record of `id`; `None` beyond the table.
    #[inline]
    pub fn endpoint(&self, id: EndpointId) -> Option<Endpoint<'_>> {
        let at = usize::from(id.get()) * ENDPOINT_WORDS;
        self.endpoints.get(at..at + ENDPOINT_WORDS).map(|words| Endpoint { words })
    }

    /// All numbers of this pool.
    pub fn ids(&self) -> impl Iterator<Item = EndpointId> + use<> {
        (1..=self.geometry.endpoints()).filter_map(EndpointId::new)
    }

    /// The slot for position `position` of an inbox (positions count on, slots repeat). The endpoint must be within
    /// the table.
    #[inline]
    pub fn slot(&self, id: EndpointId, position: u64) -> &AtomicU64 {
        let slots = self.geometry.inbox_slots();
        let at = u64::from(id.get().min(self.geometry.endpoints())) * slots + (position & (slots - 1));
        &self.slots[at as usize]
    }

    /// What an extent is bound to; `None` if unbound (or garbage).
    #[inline]
    pub fn class_of(&self, extent: u32) -> Option<Class> {
        let word = self.extents.get(extent as usize)?.load(Ordering::Acquire);
        if word & BOUND == 0 { None } else { Class::from_index(word & !BOUND) }.filter(|class| {
            *class <= self.geometry.largest_class() // else not even one block would fit
        })
    }

    /// Binds an unbound extent; false if somebody was faster. All hint bits of an unbound extent are set from the
    /// beginning, so there is nothing to do after this one step.
    pub fn bind(&self, extent: u32, class: Class) -> bool {
        let word = BOUND | class.index() as u64;
        self.extents
            .get(extent as usize)
            .is_some_and(|cell| cell.compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire).is_ok())
    }

    /// Whether an extent can still be bound.
    pub fn is_unbound(&self, extent: u32) -> bool {
        self.extents.get(extent as usize).is_some_and(|cell| cell.load(Ordering::Acquire) == 0)
    }

    /// Where a block is; `None` if no such block exists now.
    #[inline]
    pub fn place(&self, block: BlockId) -> Option<Place> {
        let (extent, index) = self.geometry.split(block)?;
        let class = self.class_of(extent)?;
        let word = self.geometry.word_at(extent, index, class)?;
        Some(Place { block, class, word })
    }

    /// All blocks of one extent, none if unbound.
    pub fn blocks_of(&self, extent: u32) -> impl Iterator<Item = Place> + '_ {
        let class = self.class_of(extent);
        let count = class.map_or(0, |c| self.geometry.blocks_in_extent(c));
        (0..count).filter_map(move |index| {
            let class = class?;
            let word = self.geometry.word_at(extent, index, class)?;
            Some(Place { block: self.geometry.block(extent, index), class, word })
        })
    }

    /// All blocks that exist now.
    pub fn blocks(&self) -> impl Iterator<Item = Place> + '_ {
        (0..self.geometry.extents()).flat_map(|extent| self.blocks_of(extent))
    }

    /// The truth about a block.
    #[inline]
    pub fn word(&self, place: Place) -> &AtomicBits {
        &self.words[place.word]
    }

    fn hint_at(&self, block: BlockId) -> Option<(usize, u64, usize, u64)> {
        let (extent, index) = self.geometry.split(block)?;
        let leaf = index / 64;
        let leaf_at = extent * self.geometry.leaves_per_extent() + leaf;
        let summary_at = extent * self.geometry.summaries_per_extent() + leaf / 64;
        Some((leaf_at as usize, 1 << (index % 64), summary_at as usize, 1 << (leaf % 64)))
    }

    /// Hint "this block is free"; may be repeated, may be wrong.
    pub fn set_hint(&self, block: BlockId) {
        let Some((leaf_at, leaf_bit, summary_at, summary_bit)) = self.hint_at(block) else { return };
        if self.leaves[leaf_at].fetch_or(leaf_bit, Ordering::AcqRel) == 0 {
            self.summaries[summary_at].fetch_or(summary_bit, Ordering::AcqRel);
        }
    }

    /// Whether the hint is set.
    pub fn is_hinted(&self, block: BlockId) -> bool {
        self.hint_at(block).is_some_and(|(at, bit, ..)| self.leaves[at].load(Ordering::Acquire) & bit != 0)
    }

    /// Sets the summary bits of all leaves that have hints.
    pub fn rebuild_summary(&self) {
        let (leaves, summaries) = (self.geometry.leaves_per_extent(), self.geometry.summaries_per_extent());
        for extent in 0..self.geometry.extents() {
            for leaf in 0..leaves {
                if self.leaves[(extent * leaves + leaf) as usize].load(Ordering::Acquire) != 0 {
                    let cell = &self.summaries[(extent * summaries + leaf / 64) as usize];
                    if cell.load(Ordering::Relaxed) & (1 << (leaf % 64)) == 0 {
                        cell.fetch_or(1 << (leaf % 64), Ordering::AcqRel);
                    }
                }
            }
        }
    }
}

#[cfg(loom)]
impl Region {
    /// A pool of `blocks` (a power of two, at most 64) whose words start as `word`, three endpoints, inboxes of two.
    pub fn for_model(blocks: u32, word: crate::word::Word) -> Self {
        let header = [4096, 1, blocks.into(), 3, 1, Class::for_len(64).unwrap().index() as u64];
        let geometry = Geometry::from_header(header).unwrap();
        let zeros = |n: usize| Slice((0..n).map(|_| AtomicU64::new(0)).collect());
        let region = Region {
            extents: Slice(Box::new([ExtentCell::new(0)])),
            endpoints: zeros(4 * ENDPOINT_WORDS),
            slots: Slice((0..8).map(|_| AtomicU64::new(crate::slot::Slot::empty(0).bits())).collect()),
            leaves: zeros(1),
            summaries: zeros(1),
            lengths: Slice(Box::new([])),
            words: Slice((0..blocks).map(|_| word.atomic()).collect()),
            geometry,
        };
        region.bind(0, Class::for_len(64).unwrap());
        for id in region.ids() {
            region.endpoint(id).unwrap().state().store(STATE_LIVE, Ordering::SeqCst);
        }
        region
    }
}
