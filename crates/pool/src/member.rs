//! What a process does in the pool: allocate and send, from any thread.

use crate::class::Class;
use crate::entries::Entries;
use crate::handles::{Block, BlockMut, Hold};
use crate::ids::{BlockId, EndpointRef};
use crate::magazine::Magazine;
use crate::pool::Shared;
use crate::send::{Pass, SendFailure};
use crate::sync::Ordering;
use baton_shm::Access;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

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
#[derive(Clone)]
pub struct Member {
    pub(crate) inner: Arc<Inner>,
    _tenure: Arc<Tenure>,
}

/// What the handles of one endpoint share.
pub(crate) struct Inner {
    pub shared: Arc<Shared>,
    pub me: EndpointRef,
    /// What handles point to.
    pub entries: Entries<Inner>,
    pub magazine: Magazine,
    refused: AtomicU64,
}

/// Ends with the last `Member` or receiver: then nothing may stay behind in the magazine (whose blocks keep `Inner`
/// alive).
struct Tenure(Arc<Inner>);

impl Drop for Tenure {
    fn drop(&mut self) {
        for hold in self.0.magazine.close() {
            hold.release();
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("endpoint", &self.inner.me).finish_non_exhaustive()
    }
}

impl Member {
    pub(crate) fn new(shared: Arc<Shared>, me: EndpointRef) -> Self {
        let entries = Entries::new(&shared.region.geometry);
        let inner =
            Arc::new(Inner { shared, me, entries, magazine: Magazine::new(me), refused: AtomicU64::new(0) });
        Self { _tenure: Arc::new(Tenure(Arc::clone(&inner))), inner }
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
        self.inner.magazine.blocks()
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
        if let Some(hold) = inner.magazine.pop(class) {
            return Ok(BlockMut::new(hold.sized(len)));
        }
        match inner.magazine.take(inner, class) {
            Some(hold) => Ok(BlockMut::new(hold.sized(len))),
            None => Err(inner.shared.exhausted(len)),
        }
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
        if !std::ptr::eq(block.hold().member(), &*self.inner) {
            return Err(SendError { block, reason: SendFailure::NotHolder });
        }
        let result = match block.into_sole() {
            Ok(hold) => match send(hold.block(), Pass::Move) {
                Ok(sent) => {
                    hold.end(); // its lane has become the message
                    Ok(sent)
                }
                Err(reason) => Err(SendError { block: Block::from_hold(hold), reason }),
            },
            Err(block) => {
                block.hold().shared();
                match send(block.id(), Pass::Share) {
                    Ok(sent) => Ok(sent),
                    Err(reason) => Err(SendError { block, reason }),
                }
            }
        };
        let (wake, dropped) = result?;
        if wake {
            to.wake();
        }
        Ok(dropped)
    }
}

impl Inner {
    /// A reader has no use for spare blocks: it would only keep them from the others.
    fn may_allocate(&self) -> bool {
        self.shared.payload.access() == Access::ReadWrite
    }

    fn is_admitted(&self) -> bool {
        self.shared.region.is_admitted(self.me)
    }

    /// The last handle of a lane is gone: keeps the block as a spare one, or gives the lane back.
    #[inline]
    pub fn keep_or_release(hold: Hold) {
        let member = hold.member();
        let keeps = Magazine::keeps(hold.class())
            && member.may_allocate()
            && !member.shared.region.somebody_waits()
            && (hold.is_alone() || member.is_alone(hold.block()));
        let rest = if keeps { hold.stow() } else { Some(hold) };
        if let Some(hold) = rest {
            hold.release();
        }
    }

    fn is_alone(&self, block: BlockId) -> bool {
        let region = &self.shared.region;
        region.place(block).is_some_and(|place| region.is_sole_holder(self.me.id, place))
    }

    /// Gives one lane back to the pool.
    pub fn release(&self, block: BlockId) {
        if self.shared.region.release(self.me.id, block).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}
