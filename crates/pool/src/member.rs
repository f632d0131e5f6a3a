//! What a process does in the pool: allocate and send, from any thread.

use crate::class::Class;
use crate::entries::Entries;
use crate::handles::{Block, BlockMut, Hold};
use crate::ids::{BlockId, EndpointRef};
use crate::magazine::Magazine;
use crate::pool::Shared;
use crate::quota::Quota;
use crate::region::Count;
use crate::send::{Pass, SendFailure};
use crate::shortage::AllocError;
use crate::sync::Ordering;
use crate::waiting::wait_for;
use baton_shm::Access;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

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
    /// What is in the hands of this process, if that is limited.
    pub quota: Option<Quota>,
    /// A reader has no use for spare blocks: it would only keep them from the others.
    writes: bool,
    refused: AtomicU64,
}

/// Ends with the last `Member` or receiver: then nothing may stay behind in the magazine (whose blocks keep `Inner`
/// alive).
struct Tenure(Arc<Inner>);

impl Drop for Tenure {
    fn drop(&mut self) {
        self.0.magazine.close().into_iter().for_each(Hold::release);
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
        let limit = shared.region.endpoint(me.id).map_or(0, |e| e.quota_bytes().load(Ordering::SeqCst));
        let writes = shared.payload.access() == Access::ReadWrite;
        let inner = Arc::new(Inner {
            me,
            entries,
            magazine: Magazine::new(me, shared.region.geometry.payload_bytes(), writes),
            quota: Quota::new(shared.id, limit),
            writes,
            refused: AtomicU64::new(0),
            shared,
        });
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

    /// Gives the spare blocks back to the pool. They pin extents of their sizes: for who is about to ask the daemon for
    /// room. Returns how many there were.
    pub fn give_spares_back(&self) -> usize {
        let spares = self.inner.magazine.empty();
        let count = spares.len();
        spares.into_iter().for_each(Hold::release);
        count
    }

    /// A block of `len` bytes, held by this endpoint alone. Never blocks.
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline(always)]
    pub fn alloc(&self, len: usize) -> Result<BlockMut, AllocError> {
        match self.alloc_spare(len) {
            Some(block) => Ok(block),
            None => self.alloc_searching(len),
        }
    }

    /// The way of almost every allocation: without a limit to keep to, a spare block. Not part of its caller, which would be
    /// large and so not part of *its* caller: what this returns is one register.
    #[inline(never)]
    fn alloc_spare(&self, len: usize) -> Option<BlockMut> {
        let inner = &*self.inner;
        if inner.quota.is_some() || !inner.writes || !inner.shared.region.is_admitted(inner.me) {
            return None;
        }
        let hold = inner.magazine.pop(Class::for_len(len)?)?;
        Some(BlockMut::new(hold.sized(len)))
    }

    #[cold]
    fn alloc_searching(&self, len: usize) -> Result<BlockMut, AllocError> {
        match self.try_alloc(len)? {
            Some(block) => Ok(block),
            None => Err(self.inner.shared.exhausted(len)),
        }
    }

    /// Like [`Member::alloc`], but waits for a free block until `deadline` (`None`: for ever). While somebody waits, no
    /// member keeps spare blocks.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn alloc_until(&self, len: usize, deadline: Option<Instant>) -> Result<BlockMut, AllocError> {
        if let Some(block) = self.try_alloc(len)? {
            return Ok(block);
        }
        self.inner.count(Count::Waits);
        let region = &self.inner.shared.region;
        wait_for(region.freed(), region.freed_waiters(), deadline, || self.try_alloc(len).transpose())
            .unwrap_or_else(|| Err(self.inner.shared.exhausted(len)))
    }

    /// `None` if there is nothing.
    fn try_alloc(&self, len: usize) -> Result<Option<BlockMut>, AllocError> {
        let inner = &self.inner;
        let geometry = &inner.shared.region.geometry;
        if !inner.writes {
            return Err(AllocError::ReadOnly);
        }
        if !inner.shared.region.is_admitted(inner.me) {
            return Err(AllocError::NotAdmitted);
        }
        let class = Class::for_len(len)
            .filter(|class| *class <= geometry.largest_class())
            .ok_or(AllocError::TooLarge { len, largest: geometry.largest_block() })?;
        if let Some(quota) = &inner.quota
            && let Err((held, quota)) = quota.take(class.size() as u64)
        {
            return Err(AllocError::Quota { len, held, quota });
        }
        let found = inner.magazine.pop(class).or_else(|| inner.magazine.take(inner, class)).or_else(|| {
            // Spare blocks of other sizes keep extents from being used for this one.
            if self.give_spares_back() > 0 { inner.magazine.take(inner, class) } else { None }
        });
        if let Some(quota) = &inner.quota {
            // A larger block may have stepped in.
            quota.add(found.as_ref().map_or(0, |hold| hold.class().size() as u64));
            quota.sub(class.size() as u64);
        }
        Ok(found.map(|hold| BlockMut::new(hold.sized(len))))
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

    /// Like [`Member::send`], but when the inbox is full waits for room until `deadline` (`None`: for ever).
    ///
    /// # Errors
    /// [`SendError`] gives the block back; `Full` when the time is over.
    pub fn send_until(&self, to: &Channel, block: Block, deadline: Option<Instant>) -> Result<(), SendError> {
        let block = match self.send(to, block) {
            Err(SendError { block, reason: SendFailure::Full }) => block,
            other => return other,
        };
        let Some(receiver) = self.inner.shared.region.endpoint(to.to.id) else {
            return Err(SendError { block, reason: SendFailure::Gone });
        };
        self.inner.count(Count::Waits);
        let mut kept = Some(block);
        let sent = wait_for(receiver.room(), receiver.room_waiters(), deadline, || {
            match self.send(to, kept.take()?) {
                Err(SendError { block, reason: SendFailure::Full }) => {
                    kept = Some(block);
                    None
                }
                other => Some(other),
            }
        });
        match (sent, kept) {
            (Some(sent), _) => sent,
            (None, Some(block)) => Err(SendError { block, reason: SendFailure::Full }),
            (None, None) => Ok(()), // not possible: without an answer the block is still here
        }
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
                    self.inner.out_of_hand(&hold);
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
        let (wake, dropped) = match result {
            Ok(sent) => sent,
            Err(error) => {
                self.inner.count(Count::Refused);
                return Err(error);
            }
        };
        if wake {
            to.wake();
        }
        self.inner.count(Count::Sent);
        if dropped > 0 {
            self.inner.count_many(Count::Dropped, dropped.into());
        }
        Ok(dropped)
    }
}

impl Inner {
    /// Adds to a statistic. Two threads that count at once may lose one: no atomic step is spent on it.
    #[inline]
    pub fn count(&self, what: Count) {
        self.count_many(what, 1);
    }

    #[inline]
    fn count_many(&self, what: Count, n: u64) {
        if let Some(record) = self.shared.region.endpoint(self.me.id) {
            let cell = record.count(what);
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// A message was received.
    #[inline]
    pub fn came_to_hand(&self, hold: &Hold) {
        if let Some(quota) = &self.quota {
            quota.add(hold.class().size() as u64);
        }
    }

    /// A lane has gone, into the magazine, to the pool or to somebody else.
    #[inline]
    fn out_of_hand(&self, hold: &Hold) {
        if let Some(quota) = &self.quota {
            quota.sub(hold.class().size() as u64);
        }
    }

    /// The last handle of a lane is gone: keeps the block as a spare one, or gives the lane back. `unseen`: it was never
    /// frozen, so nobody can be reading it. Of any other block the word is asked, whatever we know: the daemon may have
    /// lent it to a tool that looks into it, and then its memory is not to be used again.
    #[inline]
    pub fn keep_or_release(hold: Hold, unseen: bool) {
        let member = hold.member();
        let class = hold.class_index();
        let keeps = member.quota.is_none() && member.may_keep(&hold, class, unseen);
        let rest = if keeps { hold.stow(class) } else { Some(hold) };
        if let Some(hold) = rest {
            Self::let_go(hold, class, keeps);
        }
    }

    #[inline]
    fn may_keep(&self, hold: &Hold, class: usize, unseen: bool) -> bool {
        self.magazine.keeps(class)
            && !self.shared.region.somebody_waits()
            && (unseen && hold.is_alone() || hold.is_held_only_by_us())
    }

    /// The rarer ways: there is a quota, or no room in the magazine.
    #[inline(never)]
    fn let_go(mut hold: Hold, class: usize, tried: bool) {
        if let Some(quota) = &hold.member().quota {
            quota.sub(hold.class().size() as u64);
            // Whether it is alone is asked of the word: few have a quota.
            if !tried && hold.member().may_keep(&hold, class, false) {
                match hold.stow(class) {
                    Some(refused) => hold = refused,
                    None => return,
                }
            }
        }
        hold.release();
    }

    /// Gives one lane back to the pool.
    pub fn release(&self, block: BlockId) {
        if self.shared.region.release(self.me.id, block).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}
