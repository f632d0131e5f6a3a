//! Where decoded pictures lie: blocks of the pool, or the heap for tests and tools without a daemon.
//!
//! ```text
//!  alloc ──▶ Writing (FFmpeg's threads write through pointers) ── share ──▶ Block (nobody writes) ── drop ──▶ free
//!               └────────── kept as a reference picture by the decoder ────────── drop ──┘ the later of the two frees
//! ```
//!
//! Failure paths: no memory is a [`NoMemory`] that says whether trying again can help.
//!
//! # Safety
//! Implementing [`Memory`] is a promise about pointers (see the trait). Implementations: the pool's client, whose
//! `Exposed` gives the same promise, and [`HeapMemory`], whose bytes lie in `UnsafeCell`s that live as long as the last
//! handle.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_client::{AllocError, Client};

/// What to do about a [`NoMemory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMemoryKind {
    /// Everything is in use; blocks come back when readers drop theirs.
    Exhausted,
    /// No block is ever that large: a stream of this size cannot be decoded here.
    TooLarge,
    /// This process is no (writing) member of the pool any more.
    Detached,
}

/// Why there is no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NoMemory {
    /// What to do about it.
    pub kind: NoMemoryKind,
    /// One sentence for people.
    pub message: String,
}

/// Memory that a decoder may write pictures into.
///
/// # Safety
/// For a [`Writing`](Memory::Writing) the pointer of [`bytes`](Memory::bytes) is aligned to 64 bytes and stays the same,
/// valid for reads and writes of its whole length, while it or a [`Block`](Memory::Block) made of it lives; no reference
/// to those bytes exists before [`share`](Memory::share).
pub unsafe trait Memory: Send + Sync + 'static {
    /// Memory that foreign code writes. May be dropped on any thread.
    type Writing: Send + Sync + 'static;
    /// The same memory, finished.
    type Block: Deref<Target = [u8]> + Send;

    /// At least `len` bytes, with any contents.
    ///
    /// # Errors
    /// See [`NoMemory`].
    fn alloc(&self, len: usize) -> Result<Self::Writing, NoMemory>;

    /// Where the bytes lie.
    fn bytes(writing: &Self::Writing) -> NonNull<[u8]>;

    /// A readable handle.
    ///
    /// # Safety
    /// Nobody writes to the memory from now on, as long as a handle to it lives. Foreign code may go on reading.
    unsafe fn share(writing: &Self::Writing) -> Self::Block;
}

// SAFETY: `Exposed::as_ptr` promises alignment, validity for `len` bytes and the lifetime; `BlockMut::expose` consumed
// the only handle that gave out slices.
unsafe impl Memory for Client {
    type Writing = baton_client::Exposed;
    type Block = baton_client::Block;

    fn alloc(&self, len: usize) -> Result<Self::Writing, NoMemory> {
        Client::alloc(self, len).map(baton_client::BlockMut::expose).map_err(|error| NoMemory {
            kind: match error {
                AllocError::Exhausted { .. } | AllocError::Quota { .. } => NoMemoryKind::Exhausted,
                AllocError::TooLarge { .. } => NoMemoryKind::TooLarge,
                _ => NoMemoryKind::Detached,
            },
            message: match error {
                AllocError::Exhausted { len, bytes_in_use, bytes_total, holders } => format!(
                    "no free block of {len} bytes: {bytes_in_use} of {bytes_total} bytes are in use, most by {}; give the \
                     pool more memory (`aits up --pool-size`), or watch fewer streams",
                    baton_client::LargestHolders(&holders)
                ),
                AllocError::TooLarge { len, max } => format!(
                    "{len} bytes asked, the largest block of this pool has {max}; give the pool more memory (`aits up \
                     --pool-size`), or larger blocks (max_block under [pool] in aits.toml)"
                ),
                other => other.to_string(),
            },
        })
    }

    fn bytes(writing: &Self::Writing) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(writing.as_ptr(), writing.len())
    }

    unsafe fn share(writing: &Self::Writing) -> Self::Block {
        // SAFETY: the same promise, given by our caller.
        unsafe { writing.share() }
    }
}

/// Heap memory with a limit, for tests and for tools that run without a daemon. Clones share the limit.
#[derive(Clone, Debug)]
pub struct HeapMemory {
    in_use: Arc<AtomicUsize>,
    limit: usize,
}

impl HeapMemory {
    /// Memory that has room for `limit` blocks at a time.
    pub fn new(limit: usize) -> Self {
        Self { in_use: Arc::new(AtomicUsize::new(0)), limit }
    }

    /// Blocks in use.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::SeqCst)
    }
}

/// 64 bytes on their own cache line, written through pointers.
#[repr(C, align(64))]
struct Line(UnsafeCell<[u8; 64]>);

struct Heap {
    lines: Box<[Line]>,
    len: usize,
    in_use: Arc<AtomicUsize>,
}

// SAFETY: the bytes are written through the pointer of `Memory::bytes` only, by whoever holds the `Writing`, and read
// through slices only after `Memory::share`, whose caller promises that writing has ended.
unsafe impl Sync for Heap {}

impl Drop for Heap {
    fn drop(&mut self) {
        self.in_use.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A block on the heap that is being written.
pub struct HeapWriting(Arc<Heap>);

/// A finished block on the heap.
#[derive(Clone)]
pub struct HeapBlock(Arc<Heap>);

impl Deref for HeapBlock {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `lines` has at least `len` initialised bytes (see `alloc`), alive as long as `self`. Nobody writes:
        // a `HeapBlock` comes from `share`, whose caller promised it.
        unsafe { std::slice::from_raw_parts(self.0.lines.as_ptr().cast(), self.0.len) }
    }
}

// SAFETY: a `Line` is 64 bytes long and aligned, the slice of lines does not move and lives as long as the `Arc`; slices
// of it are made in `HeapBlock::deref` only.
unsafe impl Memory for HeapMemory {
    type Writing = HeapWriting;
    type Block = HeapBlock;

    fn alloc(&self, len: usize) -> Result<HeapWriting, NoMemory> {
        let taken = self
            .in_use
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < self.limit).then_some(n + 1));
        if taken.is_err() {
            return Err(NoMemory {
                kind: NoMemoryKind::Exhausted,
                message: format!("all {} blocks of the heap memory are in use", self.limit),
            });
        }
        // Not zero: what was never decoded shall be visible in tests.
        let lines = (0..len.div_ceil(64)).map(|_| Line(UnsafeCell::new([0xCD; 64]))).collect();
        Ok(HeapWriting(Arc::new(Heap { lines, len, in_use: Arc::clone(&self.in_use) })))
    }

    fn bytes(writing: &HeapWriting) -> NonNull<[u8]> {
        let lines = NonNull::from(&*writing.0.lines);
        NonNull::slice_from_raw_parts(lines.cast(), writing.0.len)
    }

    unsafe fn share(writing: &HeapWriting) -> HeapBlock {
        HeapBlock(Arc::clone(&writing.0))
    }
}
