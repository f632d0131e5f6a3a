//! What a process does in the pool: allocate and send, from any thread.

use crate::blocks::Cursor;
use crate::class::Class;
use crate::handles::{Block, BlockMut, Hold};
use crate::ids::{BlockId, EndpointRef};
use crate::pool::Shared;
use crate::send::{Pass, SendFailure};
use crate::sync::Ordering;
use baton_shm::Access;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks smaller than this are kept in a private magazine for the next allocation.
const MAGAZINE_BELOW: usize = 64 << 10;
/// At most as many per class, and no more than a few times [`MAGAZINE_BELOW`] bytes.
const MAGAZINE_MOST: usize = 64;

/// Why there is no block.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// Larger than this pool's largest block.
    #[error(
        "{len} bytes asked, the largest block of this pool has {largest}: raise the pool's size or largest block"
    )]
    TooLarge {
        /// Bytes asked for.
        len: usize,
        /// Bytes of the largest class.
        largest: usize,
    },
    /// Nothing free of that size or larger.
    #[error(
        "no free block of {len} bytes: {in_use} of {total} bytes are in use, most by endpoint {holder} ({holder_bytes} \
         bytes); receive and drop blocks faster, or raise the pool's size"
    )]
    Exhausted {
        /// Bytes asked for.
        len: usize,
        /// Bytes in blocks that somebody holds.
        in_use: u64,
        /// Bytes of the pool.
        total: u64,
        /// Number of the endpoint that holds most, 0 if nobody holds anything.
        holder: u16,
        /// Bytes it holds (unread messages to it included).
        holder_bytes: u64,
    },
    /// This process was admitted as a reader.
    #[error("this process may only read the pool: connect for reading and writing to allocate")]
    ReadOnly,
    /// The daemon has reaped this endpoint.
    #[error("this process is no member of the pool any more: connect to the daemon again")]
    NotAdmitted,
}

/// A block that was not sent; the caller has it back.
#[derive(Debug, thiserror::Error)]
#[error("the block was not sent: {reason}")]
pub struct SendError {
    /// The block, still held.
    pub block: Block,
    /// Why.
    #[source]
    pub reason: SendFailure,
}

/// What [`Member::send_newest`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many of this sender's own unread messages were dropped to make room.
    pub replaced: u32,
}

/// The way to one inbox: whom to address, and how to wake it. The daemon hands it out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Channel {
    to: EndpointRef,
    wake: Arc<OwnedFd>,
}

impl Channel {
    /// `wake` is the inbox's eventfd (best non-blocking); it is written to only when the receiver is asleep.
    #[must_use]
    pub fn new(to: EndpointRef, wake: OwnedFd) -> Self {
        Self { to, wake: Arc::new(wake) }
    }

    /// Whose inbox.
    #[must_use]
    pub fn to(&self) -> EndpointRef {
        self.to
    }

    fn wake(&self) {
        // An eventfd whose counter is full would block: then the receiver is woken already.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

/// One endpoint of this process. Clones are the same endpoint; all methods work from any thread.
#[derive(Debug, Clone)]
pub struct Member {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub shared: Arc<Shared>,
    pub me: EndpointRef,
    store: Mutex<Store>,
    refused: AtomicU64,
}

/// Spare blocks (their words already say "mine") and where to look for more, per class.
#[derive(Debug)]
struct Store {
    spare: Vec<Vec<BlockId>>,
    cursors: Vec<Cursor>,
}

/// How many spare blocks of a class are worth keeping.
fn keep(class: Class) -> usize {
    if class.size() < MAGAZINE_BELOW { (2 * MAGAZINE_BELOW / class.size()).min(MAGAZINE_MOST) } else { 0 }
}

impl Member {
    pub(crate) fn new(shared: Arc<Shared>, me: EndpointRef) -> Self {
        // Members start to look at different places, so that they do not fight over the same hint words.
        let seed = u32::from(me.id.get()).wrapping_mul(0x9E37_79B1) >> 8;
        let store = Store {
            spare: vec![Vec::new(); Class::COUNT],
            cursors: vec![Cursor::scattered(seed); Class::COUNT],
        };
        Self { inner: Arc::new(Inner { shared, me, store: Mutex::new(store), refused: AtomicU64::new(0) }) }
    }

    /// Which endpoint this is.
    #[must_use]
    pub fn endpoint(&self) -> EndpointRef {
        self.inner.me
    }

    /// How often the pool refused to take a block back from this process. Not 0: a bug, or a member that corrupts the
    /// metadata.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// The spare blocks in this endpoint's magazine: held according to the pool, in nobody's hands.
    #[must_use]
    pub fn spare_blocks(&self) -> Vec<BlockId> {
        self.inner.store().spare.iter().flatten().copied().collect()
    }

    /// A block of `len` bytes, held by this endpoint alone. Never blocks.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn alloc(&self, len: usize) -> Result<BlockMut, AllocError> {
        let inner = &self.inner;
        let geometry = &inner.shared.region.geometry;
        if !inner.may_allocate() {
            return Err(AllocError::ReadOnly);
        }
        if !inner.is_admitted() {
            return Err(AllocError::NotAdmitted);
        }
        let class = Class::for_len(len)
            .filter(|class| *class <= geometry.largest_class())
            .ok_or(AllocError::TooLarge { len, largest: geometry.largest_block() })?;
        let taken = inner.store().take(inner, class); // its lock ends here: the report below looks at every block
        let block = taken.ok_or_else(|| inner.shared.exhausted(len))?;
        inner.shared.set_len(block, len);
        Hold::new(inner, block).map(BlockMut::new).ok_or_else(|| inner.shared.exhausted(len))
    }

    /// Hands a block over: moves this process' lane if `block` is its only local handle, adds the receiver otherwise.
    /// No system call unless the receiver sleeps.
    ///
    /// # Errors
    /// [`SendError`] gives the block back. [`SendFailure::NotHolder`] also if the block belongs to another endpoint of
    /// this process.
    pub fn send(&self, to: &Channel, block: Block) -> Result<(), SendError> {
        let region = &self.inner.shared.region;
        self.hand_over(to, block, |id, pass| {
            region.send(self.inner.me.id, id, to.to, pass).map(|wake| (wake, 0))
        })?;
        Ok(())
    }

    /// Like [`Member::send`], but when the inbox is full drops this sender's own oldest unread messages there.
    ///
    /// # Errors
    /// [`SendError`]; `Full` if none of the messages is this sender's.
    pub fn send_newest(&self, to: &Channel, block: Block) -> Result<Sent, SendError> {
        let region = &self.inner.shared.region;
        let replaced =
            self.hand_over(to, block, |id, pass| region.send_newest(self.inner.me.id, id, to.to, pass))?;
        Ok(Sent { replaced })
    }

    fn hand_over(
        &self,
        to: &Channel,
        block: Block,
        send: impl FnOnce(BlockId, Pass) -> Result<(bool, u32), SendFailure>,
    ) -> Result<u32, SendError> {
        if !block.hold().belongs_to(&self.inner) {
            return Err(SendError { block, reason: SendFailure::NotHolder });
        }
        let result = match block.into_sole() {
            Ok(hold) => match send(hold.block(), Pass::Move) {
                Ok(sent) => {
                    hold.disarm();
                    Ok(sent)
                }
                Err(reason) => Err(SendError { block: Block::from_hold(hold), reason }),
            },
            Err(block) => match send(block.id(), Pass::Share) {
                Ok(sent) => Ok(sent),
                Err(reason) => Err(SendError { block, reason }),
            },
        };
        let (wake, dropped) = result?;
        if wake {
            to.wake();
        }
        Ok(dropped)
    }
}

impl Inner {
    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader has no use for spare blocks: it would only keep them from the others.
    fn may_allocate(&self) -> bool {
        self.shared.payload.access() == Access::ReadWrite
    }

    fn is_admitted(&self) -> bool {
        self.shared.region.is_admitted(self.me)
    }

    /// Gives back one lane, or keeps the block as a spare one.
    pub fn give_back(&self, block: BlockId) {
        let region = &self.shared.region;
        if self.may_allocate()
            && let Some(place) = region.place(block)
        {
            let mut store = self.store();
            let spare = &mut store.spare[place.class.index()];
            if spare.len() < keep(place.class) && region.is_sole_holder(self.me.id, block) {
                spare.push(block);
                return;
            }
        }
        if region.release(self.me.id, block).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Inner {
    /// The last handle of this endpoint is gone: nothing may stay behind in the magazine.
    fn drop(&mut self) {
        let store = self.store.get_mut().unwrap_or_else(PoisonError::into_inner);
        for block in store.spare.iter_mut().flat_map(|spare| spare.drain(..)) {
            let _ = self.shared.region.release(self.me.id, block);
        }
    }
}

impl Store {
    /// A block of the class, or of a larger one if nothing else is left. Different sizes compete for extents, so a
    /// fresh extent is bound lavishly only while a quarter of them is unbound; below that a somewhat larger block is
    /// taken first (at most twice the size), and any larger one at last.
    fn take(&mut self, inner: &Inner, class: Class) -> Option<BlockId> {
        let region = &inner.shared.region;
        if let Some(block) = self.spare[class.index()].pop() {
            return Some(block);
        }
        let reserve = region.geometry.extents() / 4;
        if self.refill(inner, class) || (region.bind_one(class, reserve) && self.refill(inner, class)) {
            return self.spare[class.index()].pop();
        }
        if let Some(block) =
            region.geometry.a_little_larger(class).find_map(|class| self.take_one(inner, class))
        {
            return Some(block);
        }
        if region.bind_one(class, 0) && self.refill(inner, class) {
            return self.spare[class.index()].pop();
        }
        region.geometry.much_larger(class).find_map(|class| self.take_one(inner, class))
    }

    fn refill(&mut self, inner: &Inner, class: Class) -> bool {
        let want = (keep(class) / 2).clamp(1, 32) as u32;
        let (spare, cursor) = (&mut self.spare[class.index()], &mut self.cursors[class.index()]);
        inner.shared.region.take(inner.me.id, class, want, cursor, spare)
    }

    fn take_one(&mut self, inner: &Inner, class: Class) -> Option<BlockId> {
        if let Some(block) = self.spare[class.index()].pop() {
            return Some(block);
        }
        let mut got = Vec::with_capacity(1);
        inner.shared.region.take(inner.me.id, class, 1, &mut self.cursors[class.index()], &mut got);
        got.pop()
    }
}
