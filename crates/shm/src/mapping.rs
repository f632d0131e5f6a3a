//! A piece of shared memory in this process' address space.
//!
//! # Safety
//! Other processes write to the same pages at any time, also hostile ones, so the usual references would be wrong:
//! * atomics are fine: that is what they are for. [`SharedSlice`] hands out `&[T]` only for types ([`Shared`]) that
//!   are valid for every bit pattern and change only by atomic operations;
//! * `&[u8]` and `&mut [u8]` are made nowhere in this crate. [`Mapping::range`] gives a checked raw pointer; whoever
//!   makes a reference from it must know that nobody writes (the pool knows: that is what holding a block means).
//!
//! The mapping itself is valid for exactly as long as the [`Mapping`] lives; every pointer and slice handed out
//! either borrows it or keeps it alive.
#![allow(unsafe_code)]

use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What this process may do with the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads only; a store is a SIGSEGV.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Why the memory is not mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {len} bytes of shared memory ({access:?}): {source}")]
pub struct MapError {
    len: usize,
    access: Access,
    source: std::io::Error,
}

/// A piece was asked for that the mapping does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{size} bytes at offset {offset} are not within the {len} bytes mapped, or not aligned, or not writable"
)]
pub struct OutOfRange {
    /// Offset of the piece in bytes.
    pub offset: usize,
    /// Its size in bytes.
    pub size: usize,
    /// Length of the mapping in bytes.
    pub len: usize,
}

/// Shared memory, mapped until drop, not inherited by `fork`.
#[derive(Debug)]
pub struct Mapping {
    /// Page-aligned; `len` bytes from here are mapped (MAP_SHARED, with `access`) until drop. The memory is shared
    /// with other processes: never make a `&[u8]` or `&mut [u8]` over bytes that somebody may write.
    base: NonNull<u8>,
    len: usize,
    access: Access,
}

// SAFETY: the mapping belongs to the process, not to a thread; `Mapping` gives out raw pointers (using them is the
// user's responsibility) and atomics, never plain references, so it may move to and be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method changes the mapping itself except drop, which has it exclusively.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `fd`.
    ///
    /// The caller should have made sure that the memory is as large as that and cannot shrink
    /// ([`crate::create_sealed`], [`crate::validate`]); otherwise a later access is a SIGBUS.
    ///
    /// # Errors
    /// [`MapError`] with the kernel's reason: no address space, or `fd` does not allow that access.
    pub fn new(fd: impl AsFd, len: usize, access: Access) -> Result<Self, MapError> {
        let error = |errno: rustix::io::Errno| MapError { len, access, source: errno.into() };
        let protection = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        if isize::try_from(len).is_err() {
            return Err(error(rustix::io::Errno::NOMEM)); // no Rust object may be larger
        }
        #[cfg(miri)]
        return crate::interpreted::map(&fd, len)
            .map(|base| Mapping { base, len, access })
            .map_err(|source| MapError { len, access, source });
        // SAFETY: a new mapping at an address of the kernel's choice (no MAP_FIXED) replaces nothing that exists.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }
                .map_err(error)?;
        let Some(base) = NonNull::new(base.cast::<u8>()) else {
            return Err(error(rustix::io::Errno::FAULT)); // only a hinted address can be null
        };
        let mapping = Mapping { base, len, access };
        // SAFETY: the range is exactly our own new mapping; DONTFORK changes nothing in this process.
        unsafe { rustix::mm::madvise(base.as_ptr().cast(), len, Advice::LinuxDontFork) }.map_err(error)?;
        Ok(mapping)
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping has no bytes; the kernel refuses such mappings, so never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What this process may do with it.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// A pointer to `size` bytes at `offset`, valid while the mapping lives. Dereferencing it is the user's
    /// responsibility: others may be writing there.
    ///
    /// # Errors
    /// [`OutOfRange`] unless the whole range lies within the mapping.
    pub fn range(&self, offset: usize, size: usize) -> Result<NonNull<u8>, OutOfRange> {
        match offset.checked_add(size) {
            // SAFETY: offset <= end <= len, so the result stays within (or at the end of) our one mapping.
            Some(end) if end <= self.len => Ok(unsafe { self.base.add(offset) }),
            _ => Err(OutOfRange { offset, size, len: self.len }),
        }
    }

    /// `count` atomics at `offset`, keeping the mapping alive.
    ///
    /// # Errors
    /// [`OutOfRange`] if they do not lie within the mapping, are not aligned, or the mapping is read-only (an atomic
    /// load may be a locked write).
    pub fn slice<T: Shared>(
        self: &Arc<Self>,
        offset: usize,
        count: usize,
    ) -> Result<SharedSlice<T>, OutOfRange> {
        let size = count.saturating_mul(size_of::<T>());
        let base = self.range(offset, size)?.cast::<T>();
        if !base.is_aligned() || self.access != Access::ReadWrite {
            return Err(OutOfRange { offset, size, len: self.len });
        }
        Ok(SharedSlice { base, count, mapping: Arc::clone(self) })
    }

    /// A copy of `size` bytes at `offset`, made by atomic loads: fine even while somebody writes there, and then partly
    /// old, partly new. For looking at memory that is not held exclusively; slower than a plain copy.
    ///
    /// # Errors
    /// [`OutOfRange`] if they do not lie within the mapping, or `offset` is no multiple of 8.
    pub fn copy_out(&self, offset: usize, size: usize) -> Result<Vec<u8>, OutOfRange> {
        let base = self.range(offset, size)?;
        let words = base.cast::<u64>();
        if !words.is_aligned() {
            return Err(OutOfRange { offset, size, len: self.len });
        }
        let mut copy = Vec::with_capacity(size);
        for i in 0..size / 8 {
            // SAFETY: 8 aligned bytes within `size` bytes that are mapped as long as `self` lives. Only atomic accesses
            // are made to them through this reference; a relaxed load of 8 bytes is no write, so a read-only page does.
            let word = unsafe { AtomicU64::from_ptr(words.add(i).as_ptr()) };
            copy.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        for at in size / 8 * 8..size {
            // SAFETY: as above, one byte.
            let byte = unsafe { AtomicU8::from_ptr(base.add(at).as_ptr()) };
            copy.push(byte.load(Ordering::Relaxed));
        }
        Ok(copy)
    }

    /// Faults in the pages of `range` (bytes) now, without changing their content, so that later accesses do not.
    /// Takes about a microsecond per page: call it from a background thread for a large mapping.
    ///
    /// # Errors
    /// The kernel's error; pages up to there may have been faulted in, which does no harm.
    pub fn populate(&self, range: Range<usize>) -> std::io::Result<()> {
        let page = rustix::param::page_size();
        let start = (range.start.min(self.len)) / page * page;
        let end = range.end.min(self.len);
        let advice = match self.access {
            Access::ReadOnly => Advice::LinuxPopulateRead,
            Access::ReadWrite => Advice::LinuxPopulateWrite,
        };
        if start >= end || cfg!(miri) {
            return Ok(());
        }
        loop {
            // SAFETY: start..end lies within our mapping; populating changes no content.
            match unsafe { rustix::mm::madvise(self.base.as_ptr().add(start).cast(), end - start, advice) } {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if cfg!(miri) {
            return; // see `interpreted`
        }
        // SAFETY: base and len are what mmap returned and nothing else unmaps it; whoever got a pointer without
        // keeping the mapping alive was told that it ends here. An error is impossible for a valid range.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Types that can lie in memory which other processes write.
///
/// # Safety
/// Every bit pattern must be valid, and the type must change through shared references by atomic operations only that
/// work across processes (lock-free, address-free).
pub unsafe trait Shared: Send + Sync + 'static {}

// SAFETY: a lock-free atomic integer; every bit pattern is a number.
unsafe impl Shared for core::sync::atomic::AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for core::sync::atomic::AtomicU64 {}
// SAFETY: as above; without portable-atomic's `fallback` feature (which the workspace leaves off) the type exists
// only where the processor has the instruction, so it is never a lock in this process' memory.
#[cfg(any(all(target_arch = "x86_64", target_feature = "cmpxchg16b"), target_arch = "aarch64"))]
unsafe impl Shared for portable_atomic::AtomicU128 {}

/// Atomics in shared memory; dereferences to `[T]` and keeps the mapping alive.
#[derive(Debug)]
pub struct SharedSlice<T: Shared> {
    /// `count` properly aligned `T` from here lie within `mapping`, which is writable; checked by [`Mapping::slice`].
    base: NonNull<T>,
    count: usize,
    mapping: Arc<Mapping>,
}

impl<T: Shared> SharedSlice<T> {
    /// The mapping that the atomics lie in.
    #[must_use]
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}

impl<T: Shared> std::ops::Deref for SharedSlice<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: see `base`; `T: Shared` is valid for any bytes and may be changed by others at any time; the
        // mapping lives as long as self, hence as long as the returned borrow.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

// SAFETY: a reference-counted handle to atomics (`T: Send + Sync`) in process-wide memory.
unsafe impl<T: Shared> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for SharedSlice<T> {}
