//! Blocks as values: exclusive while they are written, read-only from then on, given back when dropped.
//!
//! ```text
//!   Member::alloc ─▶ BlockMut ── freeze ──▶ Block ── clone (local count) ──▶ Block …  ── last drop ──▶ given back
//!                       └── expose ──▶ Exposed (raw pointer, for foreign writers) ── unsafe share ──▶ Block
//! ```
//!
//! # Safety
//! The bytes of a block lie in memory that other processes map. References to them are made under this contract of the
//! pool, which every member's own code keeps by its types:
//! * a block is written by its allocator only, before it is frozen (`BlockMut`, not `Clone`, is the only lane then);
//! * from `freeze` on nobody writes, until every holder has given it back;
//! * this process holds the block (its lane is in the word) as long as a [`Hold`] lives, so nobody can allocate it anew.
//!
//! A *hostile* member can write to memory that it has mapped writable, and break this for its peers; so can a daemon
//! that reaps a living process. No type in this process can prevent that. It is contained by admitting readers with a
//! read-only payload, by one pool per tenant, and by never taking a block's bytes as true without checking them.
#![allow(unsafe_code)]

use crate::ids::BlockId;
use crate::member::Inner;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// One lane of this process in a block's word; given back on drop.
#[derive(Debug)]
pub(crate) struct Hold {
    member: Arc<Inner>,
    block: BlockId,
    /// `len` bytes from here lie within the payload mapping, which `member` keeps alive.
    base: NonNull<u8>,
    len: usize,
    armed: bool,
}

// SAFETY: a lane belongs to the process, not to a thread; the pointer is into memory that is mapped for the whole
// process, and reading through a shared `Hold` is reading frozen bytes (see the module's contract).
unsafe impl Send for Hold {}
// SAFETY: as above; `&Hold` allows reading only.
unsafe impl Sync for Hold {}

impl Hold {
    /// Wraps a lane that this member has just got. `None` (and the lane is given back) if the metadata says that the
    /// block lies nowhere.
    pub(crate) fn new(member: &Arc<Inner>, block: BlockId) -> Option<Self> {
        let found = member.shared.bytes_of(block).and_then(|(offset, len)| {
            let base = member.shared.payload.range(offset, len).ok()?;
            Some((base, len))
        });
        match found {
            Some((base, len)) => Some(Self { member: Arc::clone(member), block, base, len, armed: true }),
            None => {
                member.give_back(block);
                None
            }
        }
    }

    pub(crate) fn block(&self) -> BlockId {
        self.block
    }

    pub(crate) fn belongs_to(&self, member: &Arc<Inner>) -> bool {
        Arc::ptr_eq(&self.member, member)
    }

    /// The lane has become a message: nothing to give back.
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: base and len lie within the mapping (see `base`), the block is held and nobody writes to it: it is
        // frozen, or exclusively ours and borrowed here. Mapped shared memory is initialised. By the module's contract.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.armed {
            self.member.give_back(self.block);
        }
    }
}

/// A block that only this handle can reach: to be written, then frozen. At least 64-byte aligned (a page from 4 KiB
/// on). Its bytes are whatever the last user of the memory left there.
#[derive(Debug)]
pub struct BlockMut {
    hold: Hold,
}

impl BlockMut {
    pub(crate) fn new(hold: Hold) -> Self {
        Self { hold }
    }

    /// Which block.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.hold.block
    }

    /// Ends the writing: from now on the block is read-only, here and everywhere.
    #[must_use]
    pub fn freeze(self) -> Block {
        Block { hold: Arc::new(self.hold) }
    }

    /// Gives up the guarantees, for a foreign writer that needs a pointer and tells later when it has finished.
    #[must_use]
    pub fn expose(self) -> Exposed {
        Exposed { hold: Arc::new(self.hold) }
    }
}

impl Deref for BlockMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.hold.bytes()
    }
}

impl DerefMut for BlockMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: within the mapping as for `bytes`; writable, since allocation is refused on a read-only payload;
        // exclusive, since `self` is the only handle to the only lane and is mutably borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.hold.base.as_ptr(), self.hold.len) }
    }
}

/// A block for a foreign writer (a decoder that fills it from its own threads, and refers to it later). Holds the
/// block; this process' lane is given back when the last [`Exposed`] and [`Block`] of it are gone.
#[derive(Debug, Clone)]
pub struct Exposed {
    hold: Arc<Hold>,
}

impl Exposed {
    /// The first byte; valid for [`Exposed::len`] bytes while any handle of the block lives.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.hold.base
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hold.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hold.len == 0
    }

    /// Which block.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.hold.block
    }

    /// A readable handle.
    ///
    /// # Safety
    /// From this call on, and as long as any holder of the block exists (in any process), nobody writes through
    /// [`Exposed::as_ptr`]. Reading through it remains fine.
    #[must_use]
    pub unsafe fn share(&self) -> Block {
        Block { hold: Arc::clone(&self.hold) }
    }
}

/// A frozen block. Clones are a local count; the pool's word counts this process once.
#[derive(Debug, Clone)]
pub struct Block {
    hold: Arc<Hold>,
}

impl Block {
    pub(crate) fn from_hold(hold: Hold) -> Self {
        Self { hold: Arc::new(hold) }
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The lane itself if this is the only local handle.
    pub(crate) fn into_sole(self) -> Result<Hold, Block> {
        Arc::try_unwrap(self.hold).map_err(|hold| Block { hold })
    }

    /// Which block. Numbers are reused: equal ids at different times may be different contents.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.hold.block
    }
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.hold.bytes()
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.hold.bytes()
    }
}
