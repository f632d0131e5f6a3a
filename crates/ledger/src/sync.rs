//! The atomics of the protocol: the processor's, or loom's when the interleavings are model-checked.
//!
//! Every load is `Acquire` and every store `Release`, also where the claim alone would order them: a process may be
//! killed between any two stores, and then they must have become visible in the order in which they are written here.

#[cfg(not(loom))]
pub use baton_shm::SharedSlice as Slice;
#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};

/// Words of the model.
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
