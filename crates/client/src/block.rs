//! Blocks: loaned for writing, frozen for reading, free again when the last handle drops.
//!
//! ```text
//!            alloc                  freeze                        send (only local handle)
//!   (free) ────────▶ BlockMut ────────────────▶ Block ───────────────────────────────▶ receiver's Block
//!      ▲                │  └─expose─▶ Exposed ──share──▲  │ clone: local count            │
//!      └────── drop ────┴───────────────┴─────────────────┴──────── drop of the last ─────┘
//! ```

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::Exposed;

/// Number of an endpoint in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u16);

/// Number of a block in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Nothing can be attached yet, so nothing can exist.
#[derive(Debug)]
pub(crate) enum Lease {}

/// A block that only this handle can see: writable, 64-byte aligned, contents undefined at first (whatever the last
/// user left). Dropping it frees it.
#[derive(Debug)]
pub struct BlockMut {
    pub(crate) lease: Box<Lease>,
}

impl BlockMut {
    /// The block's identity in the pool.
    pub fn id(&self) -> BlockId {
        match *self.lease {}
    }

    /// Ends writing: from here on everybody only reads.
    pub fn freeze(self) -> Block {
        match *self.lease {}
    }

    /// Gives the memory to a foreign writer (a decoder) that keeps pointers into it.
    pub fn expose(self) -> Exposed {
        match *self.lease {}
    }
}

impl Deref for BlockMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match *self.lease {}
    }
}

impl DerefMut for BlockMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        match *self.lease {}
    }
}

/// A block that nobody writes any more. Clones count locally; the block is released when the last of them drops, on
/// any thread.
#[derive(Debug, Clone)]
pub struct Block {
    pub(crate) lease: Arc<Lease>,
}

impl Block {
    /// The block's identity in the pool.
    pub fn id(&self) -> BlockId {
        match *self.lease {}
    }
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match *self.lease {}
    }
}
