//! Named points at which a test may kill the process: between the steps of starting, attaching, leaving, adopting.
//!
//! ```text
//!   code                              test, feature `armed`                      shipped
//!   step!(AdmitInPool);  ──────────▶  the hook: count; perhaps SIGKILL itself    nothing: an empty inline function
//! ```
//! The pool has points of its own (`baton_pool::kill`), between the atomic steps on shared memory. These here lie
//! between system calls: what has been told to the kernel, to the keeper or to a peer, and what not yet.
//!
//! A point says what *has just been done*. [`Point::ALL`] lists them all, so that a test can prove that it killed at
//! each of them; a point that nobody reaches is a fault of the test or dead code.
//!
//! Failure path: there is none. Without the feature nothing happens; with it, but without a hook, nothing either.
#![forbid(unsafe_code)]

/// Marks a point: `step!(AdmitInPool);`. Costs nothing without the feature `armed`.
#[macro_export]
macro_rules! step {
    ($point:ident) => {
        $crate::reached($crate::Point::$point)
    };
}

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident,)*) => {
        /// Where a process can be killed, named after what has just been done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Point { $($(#[$doc])* $variant,)* }

        impl Point {
            /// All of them, in order of their numbers.
            pub const ALL: &'static [Point] = &[$(Point::$variant,)*];
        }
    };
}

points! {
    /// Daemon, start: it has the lock.
    StartLocked,
    /// Daemon, start: the keeper has the lock, too.
    StartLockDeposited,
    /// Daemon, start: the pool's two memories exist.
    StartPoolCreated,
    /// Daemon, start: the keeper has the metadata.
    StartMetadataDeposited,
    /// Daemon, start: the keeper has the payload.
    StartPayloadDeposited,
    /// Daemon, start: the socket is bound.
    StartBound,
    /// Daemon, start: the keeper has the socket.
    StartListenerDeposited,
    /// Daemon, start: all is laid, the keeper does not know that it serves.
    StartBeforeReady,
    /// Daemon, start: the keeper knows.
    StartReady,
    /// Daemon, adoption: the pool of the daemon before is open.
    AdoptOpened,
    /// Daemon, adoption: one living member taken over.
    AdoptEntered,
    /// Daemon, adoption: one dead member taken back.
    AdoptTakenBack,
    /// Daemon, adoption: all members looked at.
    AdoptDone,
    /// Daemon, admission: the process is followed, the pool knows nothing.
    AdmitFollowed,
    /// Daemon, admission: the pool has the endpoint, the keeper has nothing.
    AdmitInPool,
    /// Daemon, admission: the keeper has event descriptor and note.
    AdmitDeposited,
    /// Daemon, admission: entered and watched, not answered.
    AdmitEntered,
    /// Daemon, admission: answered.
    AdmitAnswered,
    /// Daemon: a member that was silent since a restart speaks again.
    ResumeEntered,
    /// Daemon: an inbox was found for a sender, not answered.
    OpenFound,
    /// Daemon, bye: the inbox is closed, the keeper's note is the old one.
    LeaveClosed,
    /// Daemon, bye: the keeper knows that the member left.
    LeaveNoted,
    /// Daemon, death of a member: forgotten by the daemon, untouched in the pool.
    ReapForgotten,
    /// Daemon, death of a member: taken back in the pool, nobody woken.
    ReapTakenBack,
    /// Daemon, death of a member: sleepers woken, the keeper still has the deposit.
    ReapWoken,
    /// Daemon, death of a member: the keeper's deposit withdrawn.
    ReapWithdrawn,
    /// Daemon, end: the inboxes are closed, the files are there.
    EndClosed,
    /// Daemon, end: the files are removed.
    EndRemoved,
    /// Keeper: the child runs, it has got nothing.
    KeepSpawned,
    /// Keeper: one descriptor handed to the child.
    KeepHandedOne,
    /// Keeper: all handed over.
    KeepHandedAll,
    /// Keeper: one message of the child taken.
    KeepTook,
    /// Keeper: the child has ended, the rest of its messages is not read.
    KeepChildEnded,
    /// Keeper: the rest is read, nothing started again.
    KeepDrained,
    /// Keeper: a daemon that ran before it has given it everything.
    KeepFollowed,
    /// Daemon, classic client: the pool has its endpoint, the ledger nothing.
    ClassicAdmitted,
    /// Daemon, classic client: greeted in the ledger, not answered.
    ClassicSeated,
    /// Daemon, classic client: a block is its endpoint's, not in the ledger.
    ClassicAllocated,
    /// Daemon, classic client: a reference dropped, not answered.
    ClassicFreed,
    /// Daemon, to a classic client: one block lent to the receiver, the transfer not recorded.
    ClassicLent,
    /// Daemon, to a classic client: the transfer recorded, its number not told.
    ClassicDispatched,
    /// Daemon, classic client to a member: one message in the inbox, nobody woken.
    ClassicDelivered,
    /// Daemon, classic client: a transfer received, not answered.
    ClassicReceived,
    /// Daemon, classic client: its last connection has ended and the ledger knows nothing of it, the pool all.
    ClassicForgotten,
    /// Classic client: a command sent, no answer read.
    ClassicAsked,
    /// Classic client: an answer read, nothing done with it.
    ClassicAnswered,
    /// Member, connecting: the socket is connected, nothing said.
    ConnectOpened,
    /// Member, connecting: the daemon has answered with the descriptors.
    ConnectAnswered,
    /// Member, connecting: the pool is mapped.
    ConnectMapped,
    /// Member, connecting: it works as its endpoint.
    ConnectAttached,
    /// Member: connected again after a restart of the daemon, not resumed.
    ResumeOpened,
    /// Member: resumed.
    ResumeAnswered,
    /// Member: the way to an inbox has been answered.
    OpenAnswered,
    /// Member, to a classic client: the transfer's number is here, the daemon does not know that.
    TransferAnswered,
    /// Member, to a classic client: the transfer is confirmed, nobody told.
    TransferConfirmed,
    /// Member, end: everything given back, bye not said.
    ByeBefore,
    /// Member, end: bye answered.
    ByeAnswered,
}

#[cfg(feature = "armed")]
mod hook {
    use super::Point;
    use std::sync::OnceLock;

    static HOOK: OnceLock<fn(Point)> = OnceLock::new();

    /// Sets what happens at every point of this process; the first one counts.
    pub fn set_hook(hook: fn(Point)) {
        let _ = HOOK.set(hook);
    }

    /// What `step!` calls.
    pub fn reached(point: Point) {
        if let Some(hook) = HOOK.get() {
            hook(point);
        }
    }
}
#[cfg(feature = "armed")]
pub use hook::{reached, set_hook};

/// What `step!` calls: nothing.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub const fn reached(_: Point) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_list() {
        for (number, point) in Point::ALL.iter().enumerate() {
            assert_eq!(*point as usize, number);
        }
        step!(StartLocked);
    }

    #[cfg(feature = "armed")]
    #[test]
    fn the_hook_is_told_the_point() {
        use std::sync::atomic::{AtomicU32, Ordering};
        static SEEN: AtomicU32 = AtomicU32::new(0);
        set_hook(|point| SEEN.store(point as u32 + 1, Ordering::SeqCst));
        step!(KeepTook);
        assert_eq!(SEEN.load(Ordering::SeqCst), Point::KeepTook as u32 + 1);
    }
}
