//! The atomics of the protocol: the processor's, or loom's when the interleavings are model-checked.
//!
//! Under `--cfg loom` processes are threads of the model, slices are boxes, and the hold word shrinks to 64 bits.

#[cfg(not(loom))]
pub use baton_shm::SharedSlice as Slice;
#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub use portable_atomic::AtomicU128 as AtomicBits;

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicU64 as AtomicBits, Ordering};

/// Atomics of one kind; under loom they belong to the model.
#[cfg(loom)]
#[derive(Debug)]
pub struct Slice<T>(pub Box<[T]>);

#[cfg(loom)]
impl<T> std::ops::Deref for Slice<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

/// Wakes up to `most` threads, of any process, that wait on this cell. An error is impossible for mapped, aligned memory.
#[cfg_attr(loom, allow(unused_variables))]
pub fn futex_wake(cell: &AtomicU32, most: u32) {
    #[cfg(not(loom))]
    let _ = rustix::thread::futex::wake(cell, rustix::thread::futex::Flags::empty(), most);
}

/// A moment's pause in a loop that waits for somebody else.
#[inline]
pub fn pause() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// How often a compare-and-swap is repeated before the memory is called corrupt. Honest contention fails a handful
/// of times in a row; only a member that scribbles over the metadata gets here.
pub const TRIES: u32 = 100_000;
