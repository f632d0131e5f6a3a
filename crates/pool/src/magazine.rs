//! Spare blocks of one endpoint, and where it looks for more.
//!
//! ```text
//!   alloc:  spare one there? ── yes ─▶ it, with no step on shared memory
//!             └─ no ─▶ take a handful from the pool (see `blocks`), keep all but one
//!   free:   alone holding it, and room here? ── yes ─▶ kept, with no step on shared memory
//!             └─ no ─▶ given back to the pool
//! ```
//! Spare blocks are held according to the pool, and in nobody's hands: of a process that is killed they are swept like
//! any held block. They are handles that are ready for use, each with its share in the member that owns this magazine; so
//! the magazine is closed, and emptied, when the last [`Member`](crate::Member) and receiver of the endpoint is gone.
//! Blocks that live longer go to the pool directly.
//!
//! Small blocks are kept by the dozen. Of a size that is a noticeable part of the pool, one or two are kept, and only by who
//! allocates that size: a frame that goes round between its producer and the pool costs no step on shared memory either, and
//! a mere receiver keeps none. Who finds nothing to allocate gives all its spare blocks back.
//!
//! Two threads that meet here do not wait for each other: the second goes to the pool.

use crate::blocks::Cursor;
use crate::class::Class;
use crate::handles::Hold;
use crate::handles::TryCell;
use crate::ids::{BlockId, EndpointRef};
use crate::member::Inner;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks smaller than this are kept by the dozen.
const SMALL: usize = 64 << 10;
/// At most as many per class, and no more than a few times [`SMALL`] bytes.
const KEPT_MOST: usize = 64;
/// Two larger blocks are kept if the pool is as many times as large, and one if it is a quarter of that.
const TWO_OF: u64 = 256;

/// How many spare blocks of a class are worth keeping.
fn keep(class: Class, payload_bytes: u64) -> usize {
    let size = class.size();
    match size as u64 {
        _ if size < SMALL => (2 * SMALL / size).min(KEPT_MOST),
        bytes if bytes * TWO_OF <= payload_bytes => 2,
        bytes if bytes * TWO_OF / 4 <= payload_bytes => 1,
        _ => 0,
    }
}

pub(crate) struct Magazine {
    shelf: TryCell<Shelf>,
    /// Only for those who found nothing on the shelf.
    search: Mutex<Search>,
    /// The first class of which no block is kept.
    kept_below: usize,
}

struct Search {
    cursors: Box<[Cursor]>,
    /// Empty; kept for its memory.
    got: Vec<BlockId>,
}

/// By class. No entry at all once it is closed.
type Shelf = Box<[Spare]>;

struct Spare {
    /// The last one kept: the one that is allocated next. (Outside of `others`, whose length would have to be read before
    /// it is known where the block lies.)
    top: Option<Hold>,
    others: Vec<Hold>,
    /// How many are kept, with the top.
    most: usize,
    /// Kept by whoever frees one, or only by who has allocated one.
    is_kept: bool,
}

impl Spare {
    /// One more, besides the top.
    #[inline(never)]
    fn add(&mut self, hold: Hold) -> Result<(), Hold> {
        if self.others.len() + 1 < self.most {
            self.others.push(hold);
            Ok(())
        } else {
            Err(hold)
        }
    }

    fn all(&self) -> impl Iterator<Item = &Hold> {
        self.top.iter().chain(&self.others)
    }

    fn take_all(&mut self) -> impl Iterator<Item = Hold> {
        self.top.take().into_iter().chain(self.others.drain(..))
    }
}

impl Magazine {
    /// Of an endpoint that allocates, or (`writes` is false) of one that could only keep them from others.
    pub fn new(me: EndpointRef, payload_bytes: u64, writes: bool) -> Self {
        // Members start to look at different places, so that they do not fight over the same hint words.
        let seed = u32::from(me.id.get()).wrapping_mul(0x9E37_79B1) >> 8;
        let classes = || (0..Class::COUNT as u64).filter_map(Class::from_index);
        let spare = |class: Class| Spare {
            top: None,
            others: Vec::new(),
            most: keep(class, payload_bytes),
            is_kept: class.size() < SMALL,
        };
        Self {
            shelf: TryCell::new(classes().map(spare).collect()),
            search: Mutex::new(Search {
                cursors: vec![Cursor::scattered(seed); Class::COUNT].into(),
                got: Vec::with_capacity(64),
            }),
            kept_below: classes()
                .take_while(|_| writes)
                .take_while(|class| keep(*class, payload_bytes) > 0)
                .count(),
        }
    }

    /// A block of exactly this class, if one lies here.
    #[inline]
    pub fn pop(&self, class: Class) -> Option<Hold> {
        let mut shelf = self.shelf.take()?;
        let spare = shelf.get_mut(class.index())?;
        spare.top.take().or_else(|| spare.others.pop())
    }

    /// Keeps a block of the class of that number that its member holds alone, if there is room for it; gives it back to the caller
    /// otherwise.
    #[inline]
    pub fn push(&self, hold: Hold, class: usize) -> Result<(), Hold> {
        let Some(mut shelf) = self.shelf.take() else { return Err(hold) };
        let Some(spare) = shelf.get_mut(class).filter(|spare| spare.is_kept) else {
            return Err(hold);
        };
        if spare.top.is_none() {
            spare.top = Some(hold);
            return Ok(());
        }
        spare.add(hold)
    }

    /// Whether blocks of the class of this number are kept at all.
    #[inline]
    pub fn keeps(&self, class: usize) -> bool {
        class < self.kept_below
    }

    /// What lies here now.
    pub fn blocks(&self) -> Vec<BlockId> {
        self.shelf.wait_with(|shelf| shelf.iter().flat_map(Spare::all).map(Hold::block).collect())
    }

    /// Takes everything out.
    pub fn empty(&self) -> Vec<Hold> {
        self.shelf.wait_with(|shelf| shelf.iter_mut().flat_map(Spare::take_all).collect())
    }

    /// Takes everything out, for good.
    pub fn close(&self) -> Vec<Hold> {
        let mut shelf = self.shelf.wait_with(std::mem::take);
        shelf.iter_mut().flat_map(Spare::take_all).collect()
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
        let want = self.shelf.take().and_then(|mut shelf| {
            let spare = shelf.get_mut(class.index())?;
            spare.is_kept = true;
            Some((spare.most / 2).clamp(1, 32) as u32)
        });
        let want = want.unwrap_or(1);
        let Search { cursors, got } = search;
        inner.shared.region.take(inner.me.id, class, want, cursors.get_mut(class.index())?, got);
        let mut holds = got.drain(..).filter_map(|block| Hold::new(inner, block, true));
        let first = holds.next();
        for hold in holds {
            let class = hold.class_index();
            if let Err(hold) = self.push(hold, class) {
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
