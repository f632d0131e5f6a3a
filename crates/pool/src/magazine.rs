//! Spare blocks of one endpoint, and where it looks for more.
//!
//! ```text
//!   alloc:  spare one there? ── yes ─▶ it, with no step on shared memory
//!             └─ no ─▶ take a handful from the pool (see `blocks`), keep all but one
//!   free:   alone holding it, small, and room here? ── yes ─▶ kept, with no step on shared memory
//!             └─ no ─▶ given back to the pool
//! ```
//! Spare blocks are held according to the pool, and in nobody's hands: of a process that is killed they are swept like
//! any held block. They are handles that are ready for use, each with its share in the member that owns this magazine; so
//! the magazine is closed, and emptied, when the last [`Member`](crate::Member) and receiver of the endpoint is gone.
//! Blocks that live longer go to the pool directly.
//!
//! Two threads that meet here do not wait for each other: the second goes to the pool.

use crate::blocks::Cursor;
use crate::class::Class;
use crate::handles::{Hold, TryCell};
use crate::ids::{BlockId, EndpointRef};
use crate::member::Inner;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks smaller than this are kept for the next allocation.
const KEPT_BELOW: usize = 64 << 10;
/// At most as many per class, and no more than a few times [`KEPT_BELOW`] bytes.
const KEPT_MOST: usize = 64;

/// How many spare blocks of a class are worth keeping.
fn keep(class: Class) -> usize {
    if class.size() < KEPT_BELOW { (2 * KEPT_BELOW / class.size()).min(KEPT_MOST) } else { 0 }
}

pub(crate) struct Magazine {
    shelf: TryCell<Shelf>,
    /// Only for those who found nothing on the shelf.
    search: Mutex<Search>,
}

struct Search {
    cursors: Box<[Cursor]>,
    /// Empty; kept for its memory.
    got: Vec<BlockId>,
}

/// By class. No entry at all once it is closed.
type Shelf = Box<[Spare]>;

struct Spare {
    blocks: Vec<Hold>,
    most: usize,
}

impl Magazine {
    pub fn new(me: EndpointRef) -> Self {
        // Members start to look at different places, so that they do not fight over the same hint words.
        let seed = u32::from(me.id.get()).wrapping_mul(0x9E37_79B1) >> 8;
        Self {
            shelf: TryCell::new(
                (0..Class::COUNT as u64)
                    .filter_map(Class::from_index)
                    .map(|class| Spare { blocks: Vec::new(), most: keep(class) })
                    .collect(),
            ),
            search: Mutex::new(Search {
                cursors: vec![Cursor::scattered(seed); Class::COUNT].into(),
                got: Vec::with_capacity(64),
            }),
        }
    }

    /// A block of exactly this class, if one lies here.
    #[inline]
    pub fn pop(&self, class: Class) -> Option<Hold> {
        self.shelf.with(|shelf| shelf.get_mut(class.index())?.blocks.pop()).flatten()
    }

    /// Keeps a block that its member holds alone, if there is room for it; gives it back to the caller otherwise.
    #[inline]
    pub fn push(&self, hold: Hold) -> Result<(), Hold> {
        let class = hold.class();
        let mut hold = Some(hold);
        self.shelf.with(|shelf| {
            if let Some(spare) = shelf.get_mut(class.index())
                && spare.blocks.len() < spare.most
                && let Some(hold) = hold.take()
            {
                spare.blocks.push(hold);
            }
        });
        hold.map_or(Ok(()), Err)
    }

    /// Whether blocks of this class are kept at all.
    #[inline]
    pub fn keeps(class: Class) -> bool {
        class.size() < KEPT_BELOW
    }

    /// What lies here now.
    pub fn blocks(&self) -> Vec<BlockId> {
        self.shelf.wait_with(|shelf| shelf.iter().flat_map(|spare| &spare.blocks).map(Hold::block).collect())
    }

    /// Takes everything out.
    pub fn empty(&self) -> Vec<Hold> {
        self.shelf.wait_with(|shelf| shelf.iter_mut().flat_map(|spare| spare.blocks.drain(..)).collect())
    }

    /// Takes everything out, for good.
    pub fn close(&self) -> Vec<Hold> {
        let shelf = self.shelf.wait_with(std::mem::take);
        shelf.into_iter().flat_map(|spare| spare.blocks).collect()
    }

    /// A block of the class from the pool, or of a larger one if nothing else is left. Different sizes compete for
    /// extents, so a fresh extent is bound lavishly only while a quarter of them is unbound; below that a somewhat larger
    /// block is taken first (at most twice the size), and any larger one at last.
    pub fn take(&self, inner: &Arc<Inner>, class: Class) -> Option<Hold> {
        let region = &inner.shared.region;
        let mut search = self.search.lock().unwrap_or_else(PoisonError::into_inner);
        let reserve = region.geometry.extents() / 4;
        if let Some(hold) = self.refill(inner, class, &mut search) {
            return Some(hold);
        }
        if region.bind_one(class, reserve)
            && let Some(hold) = self.refill(inner, class, &mut search)
        {
            return Some(hold);
        }
        if let Some(hold) =
            region.geometry.a_little_larger(class).find_map(|class| self.take_one(inner, class, &mut search))
        {
            return Some(hold);
        }
        if region.bind_one(class, 0)
            && let Some(hold) = self.refill(inner, class, &mut search)
        {
            return Some(hold);
        }
        region.geometry.much_larger(class).find_map(|class| self.take_one(inner, class, &mut search))
    }

    /// One to use and some to keep.
    fn refill(&self, inner: &Arc<Inner>, class: Class, search: &mut Search) -> Option<Hold> {
        let want = (keep(class) / 2).clamp(1, 32) as u32;
        let Search { cursors, got } = search;
        inner.shared.region.take(inner.me.id, class, want, cursors.get_mut(class.index())?, got);
        let mut holds = got.drain(..).filter_map(|block| Hold::new(inner, block, true));
        let first = holds.next();
        for hold in holds {
            if let Err(hold) = self.push(hold) {
                hold.release();
            }
        }
        first
    }

    fn take_one(&self, inner: &Arc<Inner>, class: Class, search: &mut Search) -> Option<Hold> {
        if let Some(hold) = self.pop(class) {
            return Some(hold);
        }
        let Search { cursors, got } = search;
        inner.shared.region.take(inner.me.id, class, 1, cursors.get_mut(class.index())?, got);
        got.drain(..).find_map(|block| Hold::new(inner, block, true))
    }
}
