//! Memory of a block in the hands of foreign code that writes through pointers.
//!
//! # Safety
//! The one unsafe function here is a promise by its caller: that the foreign code has stopped writing. It is declared,
//! not used, in this file.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use crate::block::{Block, BlockId, Lease};

/// A block whose memory is written through raw pointers by foreign code, FFmpeg for example.
///
/// It keeps the block held; no slice of it exists until [`Exposed::share`]. This process' hold ends when the last
/// `Exposed` or [`Block`] of it drops.
#[derive(Debug)]
pub struct Exposed {
    pub(crate) lease: Arc<Lease>,
}

impl Exposed {
    /// First byte, 64-byte aligned, valid for reads and writes of [`Exposed::len`] bytes while `self` or a [`Block`]
    /// made of it lives.
    pub fn as_ptr(&self) -> NonNull<u8> {
        match *self.lease {}
    }

    /// Bytes that may be written.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a block has at least 64 bytes, so the question does not arise"
    )]
    pub fn len(&self) -> usize {
        match *self.lease {}
    }

    /// The block's identity in the pool.
    pub fn id(&self) -> BlockId {
        match *self.lease {}
    }

    /// A readable handle of the same block.
    ///
    /// # Safety
    /// Nobody writes to the block from now until its last handle, in any process, has dropped. Foreign code may go on
    /// *reading* (a decoder's reference picture).
    pub unsafe fn share(&self) -> Block {
        Block { lease: Arc::clone(&self.lease) }
    }
}
