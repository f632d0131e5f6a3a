//! The metadata as arrays of atomics, and the only way in: every index is checked here.
//!
//! An endpoint's record (64 words of 64 bits) and its doors (32 words of 32 bits). What different processes write lies
//! on different pairs of cache lines (processors fetch lines in pairs):
//!
//! ```text
//!   record  0 state  1 incarnation  2 head0  3 pid  4 start time  5 quota  6 kind      written by the daemon
//!          16 tail                                                moved by senders
//!          24…31 name shown, 32…39 name of the inbox (63 bytes)   written by the daemon
//!          40…44 received, sent, dropped, waits, refused          statistics, written by the owner
//!   doors   0 sleeping                                            set by the receiver, taken back by senders
//!           1…3 when and where the waker sent                      hints, see `wakeup`
//!          16 room, 17 room_waiters                               see `door`
//! ```

use crate::class::Class;
use crate::extent::{Extent, Use};
use crate::geometry::{ENDPOINT_WORDS, Geometry};
use crate::ids::{BlockId, EndpointId, EndpointRef};
use crate::sync::{AtomicBits, AtomicU32, AtomicU64, ExtentCell, Ordering, Slice};
#[cfg(not(loom))]
use crate::word::Word;

/// Nobody has this number.
pub const STATE_FREE: u64 = 0;
/// A member has it.
pub const STATE_LIVE: u64 = 1;
/// Its owner is dead, the daemon is taking back what it held.
pub const STATE_DEAD: u64 = 2;
/// Its owner lives but receives no longer.
pub const STATE_LEAVING: u64 = 3;

/// 32-bit words per endpoint for its doors: 128 bytes. (The model has no cache lines, but pays for every word.)
pub const DOOR_WORDS: usize = if cfg!(loom) { 4 } else { 32 };
/// 32-bit words for the doors of the whole pool: `freed` and its waiters, on pairs of lines of their own.
pub const POOL_DOOR_WORDS: usize = if cfg!(loom) { 2 } else { 64 };

/// What an endpoint counts about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Messages received.
    Received,
    /// Messages sent.
    Sent,
    /// Own unread messages that were replaced by newer ones.
    Dropped,
    /// Times it waited for room or memory.
    Waits,
    /// Sends refused because the inbox was full.
    Refused,
}

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
    pub(crate) doors: Slice<AtomicU32>,
    pub(crate) pool_doors: Slice<AtomicU32>,
}

/// A block that exists: number, class and place of its word.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its number.
    pub block: BlockId,
    /// The class its extent is bound to.
    pub class: Class,
    /// The number of its extent.
    pub(crate) number: u32,
    /// What the extent's word said.
    pub(crate) extent: Extent,
    word: usize,
}

impl Place {
    /// The number of its word in the pool: the same as long as the block is held.
    #[cfg(not(loom))]
    pub(crate) fn cell(self) -> usize {
        self.word
    }

    /// Which word of its extent.
    pub(crate) fn word_within(self, region: &Region) -> u32 {
        (self.word % region.geometry.words_per_extent() as usize) as u32
    }
}

/// Record of one endpoint.
#[derive(Clone, Copy)]
pub struct Endpoint<'r> {
    words: &'r [AtomicU64],
    doors: &'r [AtomicU32],
}

impl<'r> Endpoint<'r> {
    /// One of the `STATE_` values, or garbage.
    #[inline]
    pub fn state(self) -> &'r AtomicU64 {
        &self.words[0]
    }
    /// How often this number was reaped.
    #[inline]
    pub fn incarnation(self) -> &'r AtomicU64 {
        &self.words[1]
    }
    /// Where the next owner starts to read.
    #[inline]
    pub fn head0(self) -> &'r AtomicU64 {
        &self.words[2]
    }
    /// Process id.
    #[inline]
    pub fn pid(self) -> &'r AtomicU64 {
        &self.words[3]
    }
    /// Start time of the process.
    #[inline]
    pub fn start_time(self) -> &'r AtomicU64 {
        &self.words[4]
    }
    /// Hint: the next slot to claim.
    #[inline]
    pub fn tail(self) -> &'r AtomicU64 {
        &self.words[16]
    }
    /// Bytes that it may hold, 0 for no limit.
    #[inline]
    pub fn quota_bytes(self) -> &'r AtomicU64 {
        &self.words[5]
    }
    /// Number of its [`EndpointKind`](crate::EndpointKind).
    #[inline]
    pub fn kind(self) -> &'r AtomicU64 {
        &self.words[6]
    }
    /// One of its statistics; any thread of the owner counts.
    #[inline]
    pub fn count(self, what: Count) -> &'r AtomicU64 {
        &self.words[40 + what as usize]
    }
    /// Not 0 while the receiver is (about to be) asleep; see `door`.
    #[inline]
    pub fn sleeping(self) -> &'r AtomicU32 {
        &self.doors[0]
    }
    /// What the last waker told, see `wakeup`: when, how late it was itself, on which processor.
    #[cfg(not(loom))]
    pub fn told(self) -> [&'r AtomicU32; 3] {
        [&self.doors[1], &self.doors[2], &self.doors[3]]
    }
    /// Raised when a slot was emptied while somebody waited for that.
    #[inline]
    pub fn room(self) -> &'r AtomicU32 {
        &self.doors[DOOR_WORDS / 2]
    }
    /// Whether somebody may wait for room; taken back by who wakes.
    #[inline]
    pub fn room_waiters(self) -> &'r AtomicU32 {
        &self.doors[DOOR_WORDS / 2 + 1]
    }
    /// The name shown.
    #[inline]
    pub fn name(self) -> &'r [AtomicU64] {
        &self.words[24..32]
    }
    /// The name of the inbox.
    #[inline]
    pub fn inbox_name(self) -> &'r [AtomicU64] {
        &self.words[32..40]
    }
}

impl Region {
    /// The record of `id`; `None` beyond the table.
    #[inline]
    pub fn endpoint(&self, id: EndpointId) -> Option<Endpoint<'_>> {
        let n = usize::from(id.get());
        let words = self.endpoints.get(n * ENDPOINT_WORDS..(n + 1) * ENDPOINT_WORDS)?;
        let doors = self.doors.get(n * DOOR_WORDS..(n + 1) * DOOR_WORDS)?;
        Some(Endpoint { words, doors })
    }

    /// Raised when a block became free while somebody waited for that.
    #[inline]
    pub fn freed(&self) -> &AtomicU32 {
        &self.pool_doors[0]
    }

    /// Whether somebody may wait for a free block; as `room_waiters`.
    #[inline]
    pub fn freed_waiters(&self) -> &AtomicU32 {
        &self.pool_doors[POOL_DOOR_WORDS / 2]
    }

    /// Whether somebody waits for a free block: then nobody keeps spare ones.
    #[inline]
    pub fn somebody_waits(&self) -> bool {
        self.freed_waiters().load(Ordering::Relaxed) != 0
    }

    /// Whether this life of an endpoint may still work: the daemon has not begun to reap it.
    #[inline]
    pub fn is_admitted(&self, me: EndpointRef) -> bool {
        // On the way of each allocation: only these two words of the record.
        let at = usize::from(me.id.get()) * ENDPOINT_WORDS;
        let Some([state, incarnation, ..]) = self.endpoints.get(at..at + 2) else { return false };
        incarnation.load(Ordering::Acquire) == u64::from(me.incarnation)
            && !matches!(state.load(Ordering::Acquire), STATE_DEAD | STATE_FREE)
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

    /// The word of an extent; `None` beyond the pool.
    #[inline]
    pub fn extent(&self, number: u32) -> Option<Extent> {
        let cell = self.extents.get(number as usize)?;
        Some(Extent::from_bits(cell.load(Ordering::Acquire)))
    }

    /// One compare-and-swap on the word of an extent.
    pub fn swap_extent(&self, number: u32, old: Extent, new: Extent) -> bool {
        self.extents.get(number as usize).is_some_and(|cell| {
            cell.compare_exchange(old.bits(), new.bits(), Ordering::SeqCst, Ordering::Acquire).is_ok()
        })
    }

    /// What an extent is bound to; `None` if it has no blocks of its own (or garbage in its word).
    #[inline]
    pub fn class_of(&self, extent: u32) -> Option<Class> {
        self.class_in(self.extent(extent)?)
    }

    /// As [`Region::class_of`], of an extent's word.
    #[inline]
    pub(crate) fn class_in(&self, extent: Extent) -> Option<Class> {
        match extent.used() {
            // A larger one would not fit the pool.
            Some(Use::Bound(class)) if class <= self.geometry.largest_class() => Some(class),
            _ => None,
        }
    }

    /// Binds an unbound extent; false if it is not unbound (any more). All hint bits of an unbound extent are set, so
    /// there is nothing to do after this one step.
    pub fn bind(&self, number: u32, class: Class) -> bool {
        let Some(extent) = self.extent(number) else { return false };
        extent.used() == Some(Use::Unbound) && self.swap_extent(number, extent, extent.with(Use::Bound(class)))
    }

    /// Whether an extent can still be bound.
    pub fn is_unbound(&self, extent: u32) -> bool {
        self.extent(extent).is_some_and(|extent| extent.used() == Some(Use::Unbound))
    }

    /// Where a block is; `None` if no such block exists now.
    #[inline]
    pub fn place(&self, block: BlockId) -> Option<Place> {
        let (number, index) = self.geometry.split(block)?;
        let extent = self.extent(number)?;
        let class = self.class_in(extent)?;
        self.place_in(number, index, extent, class)
    }

    /// Where the block of this index is, in an extent with this word.
    #[inline]
    pub(crate) fn place_in(&self, number: u32, index: u32, extent: Extent, class: Class) -> Option<Place> {
        let word = self.geometry.word_at(number, index, class)?;
        Some(Place { block: self.geometry.block(number, index), class, number, extent, word })
    }

    /// A word of an extent, used by its class or not. Both numbers must be within the pool.
    pub fn raw_word(&self, number: u32, within: u32) -> &AtomicBits {
        &self.words[(number * self.geometry.words_per_extent() + within) as usize]
    }

    /// All blocks of one extent, none if unbound.
    pub fn blocks_of(&self, number: u32) -> impl Iterator<Item = Place> + '_ {
        let bound = self.extent(number).and_then(|extent| Some((extent, self.class_in(extent)?)));
        let count = bound.map_or(0, |(_, class)| self.geometry.blocks_in_extent(class));
        (0..count).filter_map(move |index| {
            let (extent, class) = bound?;
            self.place_in(number, index, extent, class)
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

    /// Whether this endpoint alone holds the block with that [`Place::cell`].
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn is_held_only_by(&self, me: EndpointId, cell: usize) -> bool {
        self.words.get(cell).is_some_and(|cell| Word::load(cell).is_held_only_by(me))
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
        if self.leaves[leaf_at].fetch_or(leaf_bit, Ordering::SeqCst) == 0 {
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
        let cell = ExtentCell::Fixed(core::sync::atomic::AtomicU64::new(0));
        let region = Self::model(Box::new([cell]), blocks, 64, word, 1);
        region.bind(0, Class::for_len(64).unwrap());
        region
    }

    /// As `for_model`, with inboxes of four slots.
    pub fn for_order(blocks: u32, word: crate::word::Word) -> Self {
        let cell = ExtentCell::Fixed(core::sync::atomic::AtomicU64::new(0));
        let region = Self::model(Box::new([cell]), blocks, 64, word, 2);
        region.bind(0, Class::for_len(64).unwrap());
        region
    }

    /// A fresh pool of several extents of a page each, whose words take part in the model.
    pub fn for_retirement(extents: u32, words_per_extent: u32) -> Self {
        let cells = (0..extents).map(|_| ExtentCell::Modelled(AtomicU64::new(0))).collect();
        let region = Self::model(cells, words_per_extent, 4096 * extents as usize, crate::word::Word::ZERO, 1);
        (0..extents).for_each(|number| region.hint_all(number));
        region
    }

    /// Takes a block out of the index.
    pub fn hide(&self, block: BlockId) {
        if let Some((at, bit, ..)) = self.hint_at(block) {
            self.leaves[at].fetch_and(!bit, Ordering::SeqCst);
        }
    }

    fn model(
        cells: Box<[ExtentCell]>,
        words: u32,
        largest: usize,
        word: crate::word::Word,
        inbox_shift: u64,
    ) -> Self {
        let extents = cells.len() as u64;
        let header = [4096, extents, words.into(), 3, inbox_shift, Class::for_len(largest).unwrap().index() as u64];
        let geometry = Geometry::from_header(header).unwrap();
        let zeros = |n: usize| Slice((0..n).map(|_| AtomicU64::new(0)).collect());
        let region = Region {
            extents: Slice(cells),
            endpoints: zeros(4 * ENDPOINT_WORDS),
            slots: Slice((0..4 << inbox_shift).map(|_| AtomicU64::new(crate::slot::Slot::empty(0).bits())).collect()),
            leaves: zeros(extents as usize),
            summaries: zeros(extents as usize),
            lengths: Slice(Box::new([])),
            words: Slice((0..words * extents as u32).map(|_| word.atomic()).collect()),
            doors: Slice((0..4 * DOOR_WORDS).map(|_| AtomicU32::new(0)).collect()),
            pool_doors: Slice((0..POOL_DOOR_WORDS).map(|_| AtomicU32::new(0)).collect()),
            geometry,
        };
        for id in region.ids() {
            region.endpoint(id).unwrap().state().store(STATE_LIVE, Ordering::SeqCst);
        }
        region
    }
}
