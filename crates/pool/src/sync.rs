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

/// An extent's word. In most models it is no loom atomic: it would only multiply the schedules.
#[cfg(not(loom))]
pub type ExtentCell = AtomicU64;
/// An extent's word. In most models it is no loom atomic: it would only multiply the schedules.
#[cfg(loom)]
#[derive(Debug)]
#[allow(missing_docs)]
pub enum ExtentCell {
    Fixed(core::sync::atomic::AtomicU64),
    Modelled(AtomicU64),
}

#[cfg(loom)]
#[allow(missing_docs)]
impl ExtentCell {
    pub fn load(&self, order: Ordering) -> u64 {
        match self {
            Self::Fixed(cell) => cell.load(order),
            Self::Modelled(cell) => cell.load(order),
        }
    }
    pub fn compare_exchange(&self, old: u64, new: u64, yes: Ordering, no: Ordering) -> Result<u64, u64> {
        match self {
            Self::Fixed(cell) => cell.compare_exchange(old, new, yes, no),
            Self::Modelled(cell) => cell.compare_exchange(old, new, yes, no),
        }
    }
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
