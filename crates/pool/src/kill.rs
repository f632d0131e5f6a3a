//! Numbered points between the atomic steps, for the tests that kill a process exactly there.
//!
//! Compiled in only under `--cfg loom` (where "killed" means that the model's thread unwinds) and with the feature
//! `kill-points` (where the test's hook decides, and means it: SIGKILL). Also home of the deliberately broken
//! variants of the protocol ("mutants"): they show that the tests notice.

/// Marks a point at which a process may be killed in tests; nothing otherwise.
macro_rules! kill_point {
    ($point:ident) => {
        #[cfg(any(loom, feature = "kill-points"))]
        $crate::kill::reached($crate::kill::Point::$point);
    };
}

/// Whether this deliberately broken variant is switched on; always `false` outside of tests.
macro_rules! mutant {
    ($mutant:ident) => {{
        #[cfg(any(loom, feature = "kill-points"))]
        {
            $crate::kill::mutant_is($crate::kill::Mutant::$mutant)
        }
        #[cfg(not(any(loom, feature = "kill-points")))]
        {
            false
        }
    }};
}
pub(crate) use {kill_point, mutant};

#[cfg(any(loom, feature = "kill-points"))]
mod on {
    macro_rules! numbered {
        ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident,)* }) => {
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            #[repr(u32)]
            pub enum $name { $($(#[$vdoc])* $variant,)* }
            impl $name {
                /// All of them, in order of their numbers.
                pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            }
        };
    }

    numbered! {
        /// Where a process can be killed. Each name says what has just been done, or is about to be.
        Point {
            /// Extent found unbound, not bound yet.
            BeforeBind,
            /// Extent bound to a class, none of its blocks taken.
            AfterBind,
            /// Summary bit cleared, leaf not looked at again.
            SummaryCleared,
            /// Hint bits cleared, no word claimed.
            HintsCleared,
            /// About to claim a word.
            BeforeClaim,
            /// Word claimed.
            AfterClaim,
            /// About to remove the own lane.
            BeforeRelease,
            /// Lane removed, the free block not indexed.
            AfterRelease,
            /// Free block indexed.
            AfterIndex,
            /// About to claim an inbox slot.
            BeforeHint,
            /// Slot claimed, tail not moved.
            AfterHint,
            /// Tail moved.
            AfterTail,
            /// Word loaded, slot not looked at again.
            BeforeCheck,
            /// Slot still standing, about to commit.
            BeforeCommit,
            /// Message committed, nobody woken.
            AfterCommit,
            /// `sleeping` taken back, nobody woken.
            BeforeWake,
            /// Room or freed memory counted, nobody woken.
            BeforeKnock,
            /// About to take a message back.
            BeforeRevoke,
            /// Message taken back, its slot still names it.
            AfterRevoke,
            /// Slot names the new message, nothing committed.
            AfterReplace,
            /// Inbox slot read, the block it names not looked at.
            SlotRead,
            /// About to accept a message.
            BeforeAccept,
            /// Message accepted, slot not emptied.
            AfterAccept,
            /// About to withdraw an uncommitted hint.
            BeforeWithdraw,
            /// Hint withdrawn, word not bumped.
            AfterWithdraw,
            /// Word bumped, slot not emptied.
            AfterBump,
            /// About to empty a slot.
            BeforeEmpty,
            /// About to let go of a word that was claimed for a block which is no more.
            BeforeStray,
            /// Let go of, what lives there now not indexed.
            AfterStray,
            /// Retiring: one block claimed.
            RetireClaimed,
            /// Retiring: extent marked.
            RetireMarked,
            /// Retiring: one word let go of.
            RetireLetGo,
            /// Retiring: all indexed, not unbound.
            RetireIndexed,
            /// Retiring: unbound.
            RetireDone,
            /// A run: one follower bound.
            RunFollowerBound,
            /// A run: all followers bound, about to bind the head.
            RunBeforeHead,
            /// A run: one follower free again.
            RunFollowerFreed,
            /// Reaper: endpoint marked dead.
            ReapMarked,
            /// Reaper: slot closed, block not bumped.
            ReapClosed,
            /// Reaper: block bumped.
            ReapBumped,
            /// Reaper: lane removed.
            ReapSwept,
            /// Reaper: all swept.
            ReapSweptAll,
            /// Reaper: incarnation raised.
            ReapIncarnation,
            /// Reaper: tail and head moved to a new lap.
            ReapLap,
            /// Reaper: one slot reopened.
            ReapReopened,
            /// Reaper: about to mark the endpoint free.
            ReapBeforeFree,
        }
    }

    numbered! {
        /// Deliberately broken variants of the protocol.
        Mutant {
            /// The real protocol.
            None,
            /// The reaper closes slots without bumping the blocks they name.
            NoBumpAtClose,
            /// A sender commits without looking whether its hint still stands.
            NoHintCheck,
            /// A receiver skips a hint without bumping its block.
            NoBumpAtSkip,
            /// The reaper does not index free blocks again.
            NoIndexRebuild,
            /// A withdrawn slot forgets which block it named.
            WithdrawnForgets,
            /// A sender does not check the receiver's incarnation.
            NoIncarnationCheck,
            /// A receiver accepts a message without looking whether the slot still stands.
            NoSlotCheck,
            /// A sender leaves a hint that the receiver is just withdrawing as it is.
            NotGivenUp,
            /// An allocator gives up a block when its compare-and-swap fails.
            NoSecondLook,
            /// Nobody looks whether the extent changed hands while he stalled.
            NoCellCheck,
            /// The daemon lets go of the blocks before the extent is marked as retired.
            RetiredSkipped,
            /// The reaper looks only at the words that the extent's present class uses.
            RawNotSwept,
            /// A sender that wakes leaves no trace of what it owes until the receiver is up.
            WakeForgotten,
        }
    }

    static MUTANT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

    /// Switches a broken variant on, for this process.
    pub fn set_mutant(mutant: Mutant) {
        MUTANT.store(mutant as u32, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn mutant_is(mutant: Mutant) -> bool {
        MUTANT.load(std::sync::atomic::Ordering::Relaxed) == mutant as u32
    }

    #[cfg(all(not(loom), feature = "kill-points"))]
    mod hook {
        use super::Point;
        use std::sync::OnceLock;
        static HOOK: OnceLock<fn(Point)> = OnceLock::new();

        /// Sets what happens at every point of this process, once.
        pub fn set_hook(hook: fn(Point)) {
            let _ = HOOK.set(hook);
        }

        pub(crate) fn reached(point: Point) {
            if let Some(hook) = HOOK.get() {
                hook(point);
            }
        }
    }
    #[cfg(all(not(loom), feature = "kill-points"))]
    pub use hook::*;

    #[cfg(loom)]
    mod unwind {
        use super::Point;
        use std::cell::Cell;
        use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

        loom::thread_local! {
            /// The number of points until this thread "dies"; 0 = never.
            static LEFT: Cell<u32> = Cell::new(0);
        }

        /// How a thread of the model ends at its point.
        #[derive(Debug, PartialEq, Eq)]
        pub struct Killed;

        /// Runs `f` and "kills" it at its `k`-th point (0 = never).
        ///
        /// # Errors
        /// [`Killed`] if it got that far.
        pub fn dying_at<T>(k: u32, f: impl FnOnce() -> T) -> Result<T, Killed> {
            LEFT.with(|left| left.set(k));
            let result = catch_unwind(AssertUnwindSafe(f));
            LEFT.with(|left| left.set(0));
            result.map_err(|payload| match payload.downcast::<Killed>() {
                Ok(killed) => *killed,
                Err(other) => resume_unwind(other),
            })
        }

        pub(crate) fn reached(_: Point) {
            let dies = LEFT.with(|left| {
                let n = left.get();
                left.set(n.saturating_sub(1));
                n == 1
            });
            if dies {
                resume_unwind(Box::new(Killed));
            }
        }
    }
    #[cfg(loom)]
    pub use unwind::*;
}
#[cfg(any(loom, feature = "kill-points"))]
pub use on::*;
