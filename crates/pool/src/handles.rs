//! Blocks as values: exclusive while they are written, read-only from then on, given back when dropped.
//!
//! ```text
//!   Member::alloc ─▶ BlockMut ── freeze ──▶ Block ── clone (local count) ──▶ Block …  ── last drop ──▶ given back
//!                       └── expose ──▶ Exposed (raw pointer, for foreign writers) ── unsafe share ──▶ Block
//! ```
//! A handle is a [`Hold`]: one pointer to what this process knows about the block (see [`crate::entries`]), and a share
//! in its member. Nothing is allocated for it, and a handle that goes back to the magazine stays ready for the next
//! allocation.
//!
//! # Safety
//! The bytes of a block lie in memory that other processes map. References to them are made under this contract of the
//! pool, which every member's own code keeps by its types:
//! * a block is written by its allocator only, before it is frozen (`BlockMut`, not `Clone`, is the only lane then);
//! * from `freeze` on nobody writes, until every holder has given it back;
//! * this process holds the block as long as a handle of it lives (its lanes in the word are never fewer than the handles
//!   that do not share one, see [`crate::entries`]), so nobody can allocate it anew.
//!
//! A *hostile* member can write to memory that it has mapped writable, and break this for its peers; so can a daemon
//! that reaps a living process. No type in this process can prevent that. It is contained by admitting readers with a
//! read-only payload, by one pool per tenant, and by never taking a block's bytes as true without checking them.
#![allow(unsafe_code)]

use crate::class::Class;
use crate::entries::Entry;
use crate::ids::BlockId;
use crate::member::Inner;
use crate::region::Place;
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What every handle is made of: one pointer, and a share in the member that owns the entry. Dropping it gives nothing
/// back: the handles do.
pub(crate) struct Hold {
    /// In the tables of a member of which this hold owns one `Arc` count.
    entry: NonNull<Entry<Inner>>,
}

// SAFETY: a lane belongs to the process, not to a thread; an entry is made of atomics, its owner is `Sync`, and the
// bytes that it names are frozen or exclusively ours (see the module's contract).
unsafe impl Send for Hold {}
// SAFETY: as above; `&Hold` allows reading only.
unsafe impl Sync for Hold {}

impl Hold {
    /// Wraps a lane that this member has just got. `None` (and the lane is given back) if the metadata says that the
    /// block lies nowhere. `alone`: it is the only lane in the block's word.
    #[inline]
    pub fn new(member: &Arc<Inner>, block: BlockId, alone: bool) -> Option<Self> {
        Self::at(member, block, member.shared.region.place(block), alone)
    }

    /// [`Hold::new`] for a block whose place was found out already.
    #[inline]
    pub fn at(member: &Arc<Inner>, block: BlockId, place: Option<Place>, alone: bool) -> Option<Self> {
        let found = place.and_then(|place| {
            let (offset, len) = member.shared.bytes_at(place)?;
            let base = member.shared.payload.range(offset, place.class.size()).ok()?;
            let entry = member.entries.of(block, Arc::as_ptr(member))?;
            entry.fill(place, base.as_ptr(), len, alone);
            Some(entry)
        });
        let Some(entry) = found else {
            member.release(block);
            return None;
        };
        let hold = Self { entry: NonNull::from(entry) };
        let _owned_by_the_hold = Arc::into_raw(Arc::clone(member));
        Some(hold)
    }

    #[inline]
    fn entry(&self) -> &Entry<Inner> {
        // SAFETY: entries stay where they are as long as their member lives, and this hold owns a share in it.
        unsafe { self.entry.as_ref() }
    }

    /// The member that holds the block.
    #[inline]
    pub fn member(&self) -> &Inner {
        // SAFETY: the owner of the entry, alive as in `entry`.
        unsafe { &*self.entry().owner() }
    }

    #[inline]
    pub fn block(&self) -> BlockId {
        self.entry().block
    }

    #[inline]
    pub fn class(&self) -> Class {
        self.entry().class()
    }

    /// The number of its class.
    #[inline]
    pub fn class_index(&self) -> usize {
        self.entry().class_index()
    }

    /// Whether nobody else can hold the block; `false` where that is not known.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.entry().is_alone()
    }

    /// Whether the block's word says so, now.
    #[inline]
    pub fn is_held_only_by_us(&self) -> bool {
        let member = self.member();
        member.shared.region.is_held_only_by(member.me.id, self.entry().cell())
    }

    /// Somebody else is about to hold the block, too.
    #[inline]
    pub fn shared(&self) {
        self.entry().set_alone(false);
    }

    /// The same block, used for `len` bytes. No more than the block has, whatever is asked.
    #[inline]
    pub fn sized(self, len: usize) -> Self {
        let entry = self.entry();
        let len = len.min(entry.size());
        entry.set_alone(true); // a fresh or a spare block
        // Both were written, or read, together. Most blocks are used for the same length again.
        if entry.len() != len {
            entry.set_len(len);
            self.member().shared.set_len(entry.block, len);
        }
        self
    }

    /// For one handle more.
    #[inline]
    fn another(&self) -> Self {
        self.entry().extra.add();
        // SAFETY: the pointer is that of the `Arc` of which this hold owns a count.
        unsafe { Arc::increment_strong_count(self.entry().owner()) };
        Self { entry: self.entry }
    }

    /// The handle is gone, and whatever became of its lane, it is not ours to give back.
    #[inline]
    pub fn end(self) {
        // SAFETY: as above; the count that this hold owned ends here, with the hold.
        drop(unsafe { Arc::from_raw(self.entry().owner()) });
    }

    /// Gives the lane back to the pool.
    pub fn release(self) {
        self.member().release(self.block());
        self.end();
    }

    /// Puts the block, of the class of that number, into its member's magazine; back again if there is no room.
    #[inline]
    pub fn stow(self, class: usize) -> Option<Self> {
        let owner = self.entry().owner();
        // SAFETY: the member lives as long as the share in `self`. Where `self` comes back, that is as long as this
        // function. Where it is kept, it lies behind the magazine's `TryCell`, and whoever takes it out to drop it gets
        // there only after the cell was given back, which is the last time that the magazine is touched here.
        let magazine = unsafe { &(*owner).magazine };
        magazine.push(self, class).err()
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        let entry = self.entry();
        // SAFETY: base was filled with an address from which the block's whole class lies within the payload mapping,
        // which the member keeps alive, and len is at most that. The block is held and nobody writes to it: it is
        // frozen, or exclusively ours and borrowed here. Mapped shared memory is initialised. By the module's contract.
        unsafe { std::slice::from_raw_parts(entry.base(), entry.len()) }
    }

    fn show(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.entry();
        f.debug_struct(name).field("id", &entry.block).field("len", &entry.len()).finish()
    }
}

/// A block that only this handle can reach: to be written, then frozen. At least 64-byte aligned (a page from 4 KiB
/// on). Its bytes are whatever the last user of the memory left there.
pub struct BlockMut {
    hold: ManuallyDrop<Hold>,
}

impl BlockMut {
    #[inline]
    pub(crate) fn new(hold: Hold) -> Self {
        Self { hold: ManuallyDrop::new(hold) }
    }

    #[inline]
    fn into_hold(self) -> Hold {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used or dropped again, so the hold is taken exactly once.
        unsafe { ManuallyDrop::take(&mut this.hold) }
    }

    /// Which block.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.hold.block()
    }

    /// Ends the writing: from now on the block is read-only, here and everywhere.
    #[must_use]
    #[inline]
    pub fn freeze(self) -> Block {
        Block::from_hold(self.into_hold())
    }

    /// Gives up the guarantees, for a foreign writer that needs a pointer and tells later when it has finished.
    #[must_use]
    pub fn expose(self) -> Exposed {
        Exposed { block: self.freeze() }
    }
}

impl Drop for BlockMut {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the drop, nothing uses the hold afterwards.
        let hold = unsafe { ManuallyDrop::take(&mut self.hold) };
        Inner::keep_or_release(hold, true);
    }
}

impl Deref for BlockMut {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.hold.bytes()
    }
}

impl DerefMut for BlockMut {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: within the mapping as for `bytes`; writable, since allocation is refused on a read-only payload;
        // exclusive, since `self` is the only handle to the only lane and is mutably borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.hold.entry().base(), self.hold.entry().len()) }
    }
}

impl fmt::Debug for BlockMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hold.show("BlockMut", f)
    }
}

/// A block for a foreign writer (a decoder that fills it from its own threads, and refers to it later). Holds the
/// block; this process' lane is given back when the last [`Exposed`] and [`Block`] of it are gone.
#[derive(Debug, Clone)]
pub struct Exposed {
    /// Never read through as long as the foreign writer may write.
    block: Block,
}

impl Exposed {
    /// The first byte; valid for [`Exposed::len`] bytes while any handle of the block lives.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        NonNull::new(self.block.hold.entry().base()).unwrap_or(NonNull::dangling()) // filled, never null
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.hold.entry().len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which block.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.block.id()
    }

    /// A readable handle.
    ///
    /// # Safety
    /// From this call on, and as long as any holder of the block exists (in any process), nobody writes through
    /// [`Exposed::as_ptr`]. Reading through it remains fine.
    #[must_use]
    pub unsafe fn share(&self) -> Block {
        self.block.clone()
    }
}

/// A frozen block. Clones are a local count; the pool's word counts this process once.
pub struct Block {
    hold: ManuallyDrop<Hold>,
}

impl Block {
    #[inline]
    pub(crate) fn from_hold(hold: Hold) -> Self {
        Self { hold: ManuallyDrop::new(hold) }
    }

    #[inline]
    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The lane itself if this is its only local handle.
    #[inline]
    pub(crate) fn into_sole(self) -> Result<Hold, Block> {
        if !self.hold.entry().extra.is_sole() {
            return Err(self);
        }
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used or dropped again, so the hold is taken exactly once.
        Ok(unsafe { ManuallyDrop::take(&mut this.hold) })
    }

    /// Which block. Numbers are reused: equal ids at different times may be different contents.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.hold.block()
    }
}

impl Block {
    /// The daemon is about to give somebody a lane of this block in our name ([`Pool::lend`](crate::Pool::lend)): from now
    /// on the word is asked whether this process holds it alone, before its memory is used again.
    pub fn mark_shared(&self) {
        self.hold.shared();
    }
}

impl Clone for Block {
    #[inline]
    fn clone(&self) -> Self {
        Self::from_hold(self.hold.another())
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the drop, nothing uses the hold afterwards.
        let hold = unsafe { ManuallyDrop::take(&mut self.hold) };
        if hold.entry().extra.leave() {
            hold.end();
        } else {
            Inner::keep_or_release(hold, false);
        }
    }
}

impl Deref for Block {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.hold.bytes()
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.hold.bytes()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hold.show("Block", f)
    }
}

/// A value that one thread at a time may use, for a few instructions. Taking it is one atomic step, giving it back a
/// plain store; a mutex of the library needs an atomic step for each.
pub(crate) struct TryCell<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `take` lets one thread at a time reach the value (`taken`), so sharing the cell is sending the value around.
unsafe impl<T: Send> Sync for TryCell<T> {}

impl<T> TryCell<T> {
    pub fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The value, for a few instructions; `None` if another thread is at it. Meanwhile this thread must neither wait nor come
    /// back to this cell (it would get `None`).
    #[inline]
    pub fn take(&self) -> Option<Taken<'_, T>> {
        (!self.taken.swap(true, Ordering::Acquire)).then(|| Taken { cell: self, _like: PhantomData })
    }

    /// Uses the value, after waiting for the thread that is at it.
    pub fn wait_with<R>(&self, mut what: impl FnMut(&mut T) -> R) -> R {
        loop {
            if let Some(mut value) = self.take() {
                return what(&mut value);
            }
            std::thread::yield_now();
        }
    }
}

/// The value of a [`TryCell`]; given back when this is dropped, also by a panic.
pub(crate) struct Taken<'c, T> {
    cell: &'c TryCell<T>,
    /// May be sent and shared as such a reference may.
    _like: PhantomData<&'c mut T>,
}

impl<T> Drop for Taken<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.taken.store(false, Ordering::Release);
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `taken` was false and is true since this was made, by its maker's own step, and until it is dropped: nobody
        // else has a `Taken`, and there is no other way to the value. Acquire and Release order our use after the last one.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { &mut *self.cell.value.get() }
    }
}
