//! Numbered points between the steps, for the tests that kill or stop a process exactly there.
//!
//! Compiled in only under `--cfg loom` (where "killed" means that the model's thread unwinds) and with the feature
//! `kill-points` (where the test's hook decides). Also home of the deliberately broken variants of the protocol
//! ("mutants"): they show that the tests notice.

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
        /// Where a process can be killed, named after what has just been done.
        Point {
            /// A free record taken, nothing written.
            OpenTaken,
            /// Its fields are written, nobody owns it.
            OpenWritten,
            /// Given to its first owner.
            OpenGiven,
            /// Claimed.
            Claimed,
            /// A chunk taken, in no chain.
            ChunkTaken,
            /// A chunk is in its chain, its bytes are not written.
            ChunkLinked,
            /// Bytes written, nothing says so.
            ParkWritten,
            /// The record says which bytes are about to be taken from the kernel.
            ParkSaid,
            /// The record says that they have been taken.
            ParkTaken,
            /// The end of the request is written, it has not begun.
            BeginEnd,
            /// The request has begun.
            Begun,
            /// The bytes of an answer written, nothing says so.
            AnswerWritten,
            /// The answer counts, the request is still there.
            AnswerCounts,
            /// The request's bytes are no longer pending.
            AnswerDone,
            /// Nothing is being handled any more; the chunks are still there.
            AnswerEnded,
            /// About to hand bytes to the kernel.
            SendBegun,
            /// The kernel has some, the record does not know.
            SendTaken,
            /// The record knows how many.
            SendCounted,
            /// The head of a chain moved on, the old one is still taken.
            ChunkUnlinked,
            /// A chunk given back.
            ChunkFreed,
            /// Released.
            Released,
            /// Taken by a mover.
            MoveTaken,
            /// Given to a new owner.
            MoveGiven,
            /// Taken over from the dead.
            RecoverTaken,
            /// Closing has begun.
            CloseBegun,
            /// Its chunks are free, the record is not.
            CloseEmptied,
            /// The record is free.
            CloseFreed,
        }
    }

    numbered! {
        /// Deliberately broken variants of the protocol.
        Mutant {
            /// The real protocol.
            None,
            /// A claim is a load and a store.
            ClaimByStore,
            /// A claim does not look at the epoch.
            EpochIgnored,
            /// A mover takes what is busy, too.
            MovesBusy,
            /// The end of the handled request is written before its answer counts.
            DoneBeforeAnswer,
            /// Recovery forgets that a send was under way.
            SendForgotten,
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

    #[cfg(not(loom))]
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
    #[cfg(not(loom))]
    pub use hook::*;

    #[cfg(loom)]
    mod unwind {
        use super::Point;
        use std::cell::Cell;
        use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

        loom::thread_local! {
            /// The number of points until this thread "dies"; 0 = never.
            static LEFT: Cell<u32> = Cell::new(0);
            /// Whether it has: then nothing of it may touch the memory any more, destructors included.
            static DEAD: Cell<bool> = Cell::new(false);
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
            DEAD.with(|dead| dead.set(false));
            result.map_err(|payload| match payload.downcast::<Killed>() {
                Ok(killed) => *killed,
                Err(other) => resume_unwind(other),
            })
        }

        pub(crate) fn is_dead() -> bool {
            DEAD.with(Cell::get)
        }

        pub(crate) fn reached(_: Point) {
            let dies = LEFT.with(|left| {
                let n = left.get();
                left.set(n.saturating_sub(1));
                n == 1
            });
            if dies {
                DEAD.with(|dead| dead.set(true));
                resume_unwind(Box::new(Killed));
            }
        }
    }
    #[cfg(loom)]
    pub use unwind::*;
}
#[cfg(any(loom, feature = "kill-points"))]
pub use on::*;
