//! What this process knows about the blocks that it holds: one entry per block, which all its handles point to.
//!
//! Lanes of one endpoint in one word are alike: a process that receives a block which it holds already has two lanes and
//! two handles, and it does not matter which handle goes with which lane. How many handles there are beyond the lanes is
//! counted ([`Extra`]).
//!
//! Entries are made 64 at a time, when one of those blocks is first held here; they stay until the endpoint goes. They are
//! written when a lane is gained, and read through every handle. Both at once happens only if a block arrives that is held
//! already; then the same place is written again, and a length that a hostile member may have changed meanwhile, but
//! never beyond the block: hence relaxed atomics, which cost no more than plain memory.

use crate::class::Class;
use crate::extra::Extra;
use crate::geometry::Geometry;
use crate::ids::BlockId;
use crate::region::Place;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// Entries that are made together.
const TOGETHER: u32 = 64;

/// One block of one endpoint. On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Entry<M> {
    /// Whose entry; never changed. (A plain pointer would keep the tables on one thread.)
    owner: AtomicPtr<M>,
    pub block: BlockId,
    class: AtomicU8,
    /// Nobody else can hold the block: nobody did when the lane was gained, and it was not shared since.
    alone: AtomicBool,
    /// How many handles share a lane with another one.
    pub extra: Extra,
    /// Bytes of the whole block: those of its class.
    size: AtomicU32,
    base: AtomicPtr<u8>,
    len: AtomicUsize,
    /// Which word of the pool is its.
    cell: AtomicUsize,
}

impl<M> Entry<M> {
    fn new(owner: *const M, block: BlockId) -> Self {
        Self {
            owner: AtomicPtr::new(owner.cast_mut()),
            block,
            class: AtomicU8::new(0),
            alone: AtomicBool::new(false),
            extra: Extra::default(),
            size: AtomicU32::new(0),
            base: AtomicPtr::new(std::ptr::null_mut()),
            len: AtomicUsize::new(0),
            cell: AtomicUsize::new(usize::MAX),
        }
    }

    #[inline]
    pub fn owner(&self) -> *const M {
        self.owner.load(Ordering::Relaxed)
    }

    /// A lane was gained: the block lies here.
    #[inline]
    pub fn fill(&self, place: Place, base: *mut u8, len: usize, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
        self.class.store(place.class.index() as u8, Ordering::Relaxed);
        self.size.store(place.class.size() as u32, Ordering::Relaxed);
        self.cell.store(place.cell(), Ordering::Relaxed);
        self.base.store(base, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
    }

    /// Our only handle of the block is at work, so whoever reads this later knows of it.
    #[inline]
    pub fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
    }

    #[inline]
    pub fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    /// How much of it is used.
    #[inline]
    pub fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Relaxed);
    }

    #[inline]
    pub fn class(&self) -> Class {
        Class::from_index(self.class_index() as u64).unwrap_or(Class::SMALLEST)
    }

    /// The number of its class.
    #[inline]
    pub fn class_index(&self) -> usize {
        self.class.load(Ordering::Relaxed).into()
    }

    /// Bytes of the whole block.
    #[inline]
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed) as usize
    }

    /// The [`Place::cell`] of the block.
    #[inline]
    pub fn cell(&self) -> usize {
        self.cell.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}

type Few<M> = OnceLock<Box<[Entry<M>]>>;
type Extent<M> = OnceLock<Box<[Few<M>]>>;

/// All entries of one endpoint, by extent and by 64 blocks.
#[derive(Debug)]
pub(crate) struct Entries<M> {
    extents: Box<[Extent<M>]>,
    per_extent: u32,
    shift: u32,
}

impl<M> Entries<M> {
    pub fn new(geometry: &Geometry) -> Self {
        let per_extent = geometry.words_per_extent().next_power_of_two();
        Self {
            extents: (0..geometry.extents()).map(|_| OnceLock::new()).collect(),
            per_extent,
            shift: per_extent.trailing_zeros(),
        }
    }

    /// The entry of a block; `None` beyond the pool.
    #[inline]
    pub fn of(&self, block: BlockId, owner: *const M) -> Option<&Entry<M>> {
        let (extent, index) = (block.get() >> self.shift, block.get() & (self.per_extent - 1));
        let extent = self
            .extents
            .get(extent as usize)?
            .get_or_init(|| (0..self.per_extent.div_ceil(TOGETHER)).map(|_| OnceLock::new()).collect());
        let few = extent.get((index / TOGETHER) as usize)?.get_or_init(|| {
            let first = block.get() / TOGETHER * TOGETHER;
            (first..first + TOGETHER).map(|block| Entry::new(owner, BlockId::new(block))).collect()
        });
        few.get((block.get() % TOGETHER) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::PoolConfig;

    #[test]
    fn every_block_has_one_entry() {
        let geometry =
            Geometry::plan(&PoolConfig { payload_bytes: 8 << 20, ..PoolConfig::default() }).unwrap();
        let entries = Entries::<u8>::new(&geometry);
        let all = geometry.extents() * geometry.words_per_extent();
        for block in (0..all).map(BlockId::new) {
            let entry = entries.of(block, std::ptr::null()).unwrap();
            assert_eq!(entry.block, block);
            assert!(std::ptr::eq(entry, entries.of(block, std::ptr::null()).unwrap()));
        }
        assert!(entries.of(BlockId::new(all), std::ptr::null()).is_none());
    }

    #[test]
    fn as_many_handles_leave_alone_as_were_added() {
        let entry = Entry::<u8>::new(std::ptr::null(), BlockId::new(3));
        assert!(entry.extra.is_sole() && !entry.extra.leave());
        (0..4000).for_each(|_| entry.extra.add());
        assert!(!entry.extra.is_sole());
        assert_eq!((0..4004).filter(|_| entry.extra.leave()).count(), 4000, "four took a lane with them");
        assert!(entry.extra.is_sole());
    }
}
