//! How many handles of one block this process has beyond its lanes in the block's word.
//!
//! ```text
//!   alloc, receive: one lane, one handle                       extra  0
//!   clone                                                      extra +1
//!   drop a handle:  extra > 0 ─▶ extra −1      extra = 0 ─▶ this handle takes a lane with it
//! ```
//! `handles = lanes + extra` holds at any moment, whatever threads do: a step that changes one side is one atomic step, or
//! belongs to a handle that found 0 and so has a lane which nobody else counts on. So nobody's last handle is ever without
//! a lane, and no lane outlives the handles. (Model-checked together with sending: `tests/loom/local.rs`.)

use crate::sync::{AtomicU32, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Extra(AtomicU32);

impl Default for Extra {
    /// As many handles as lanes.
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl Extra {
    /// One handle more.
    pub fn add(&self) {
        // Only handles that are forgotten in a loop get there. Wrapping would let a block go that is still read.
        if self.0.fetch_add(1, Ordering::Relaxed) >= u32::MAX / 2 {
            std::process::abort();
        }
    }

    /// One handle less; false: this handle is the last one of its lane, which has to go with it.
    #[inline]
    pub fn leave(&self) -> bool {
        let mut extra = self.0.load(Ordering::Acquire);
        while extra > 0 {
            match self.0.compare_exchange_weak(extra, extra - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => extra = now,
            }
        }
        false
    }

    /// Whether a handle has a lane of its own, so that both can leave together.
    #[inline]
    pub fn is_sole(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}
