//! Waiting for room in an inbox, for a free block, for a message: the sleeper's half of [`crate::door`].
//!
//! ```text
//!   waiter                                     provider (room, freed)
//!   seen := counter                            provides (empties a slot, frees a block)
//!   waiters := 1                               waiters == 1 ? waiters := 0, counter + 1, wake all
//!   tries once more ── works ─▶ done
//!   sleep while counter == seen ── again from the top
//! ```
//! Never lost: `waiters` is written before the last try, and read after providing, in sequentially consistent order, so
//! either the try finds what was provided or the provider finds the waiter. Then the counter rises after `seen` was read,
//! so the sleep ends, or does not begin. That the provider takes `waiters` back to 0 hurts no other waiter: who had
//! announced itself before that has a `seen` from before the counter rose, and announces itself anew. So a waiter that
//! dies costs its provider one system call, once.
//!
//! A provider that dies between providing and waking owes a wake-up: the reaper raises every counter and wakes all.
//!
//! What a waiter for memory is not told of are spare blocks in other members' magazines. Members keep none as long as
//! somebody waits, but what they had before stays theirs until they use it.

use crate::sync::{AtomicU32, Ordering};
use rustix::thread::futex::{self, Flags, Timespec};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};

/// What is left until `deadline`: `None` for ever, zero if it is over.
pub(crate) fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|end| end.saturating_duration_since(Instant::now()))
}

/// Sleeps while the cell has this value, at most for `left`. May end early for no reason.
pub(crate) fn sleep_while(cell: &AtomicU32, value: u32, left: Option<Duration>) {
    // A time too long for the kernel's type is as good as for ever.
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    // All that can come back is "woken", "has another value", "time over" and "interrupted": to look again is right.
    let _ = futex::wait(cell, Flags::empty(), value, left.as_ref());
}

/// Tries until something comes of it; `None` when the time is over.
pub(crate) fn wait_for<T>(
    counter: &AtomicU32,
    waiters: &AtomicU32,
    deadline: Option<Instant>,
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    loop {
        let seen = counter.load(Ordering::SeqCst);
        waiters.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if let Some(done) = attempt() {
            return Some(done);
        }
        let left = left(deadline);
        if left == Some(Duration::ZERO) {
            return None;
        }
        sleep_while(counter, seen, left);
    }
}
