//! A small parent process that holds descriptors for a daemon and restarts it.
//!
//! A daemon that is killed loses its memory but must not lose what others rely on: the memory files of a pool, a
//! listening socket, event descriptors. So its parent, the keeper, holds duplicates of them. The keeper parses nothing
//! that comes from a peer, which is why it does not crash; the daemon parses everything, and may.
//!
//! ```text
//!            spawn                     ready                      killed, panicked
//!   (none) ────────▶ child starting ──────────▶ child serving ─────────────────────┐
//!      ▲                 │     │                     │ exit 0, SIGTERM to us        │
//!      │                 │     └─ exit code ─▶ end with that code ◀────────────────┘ (exit code other than a panic's)
//!      └── back-off ─────┴──────── signal, panic: descriptors stay, next child gets them
//! ```
//!
//! Parent and child talk over a socket pair that the child finds as its standard input: descriptors the child
//! [deposits](Ward::deposit) under a key, with a note that the keeper never looks into, and what the predecessor
//! deposited, handed to the next child at its start ([`Ward::from_parent`]).
//!
//! # What goes wrong
//! * **The child is killed.** What it had deposited before, even in the same microsecond, lies in the socket and is
//!   read before the next child starts: a deposit needs no acknowledgement.
//! * **The child fails again and again.** Back-off from 50 ms doubling to 5 s; after [`Limits::failures_max`] children in
//!   a row that never got [ready](Ward::ready), the keeper gives up with exit code 1, and the kernel frees everything.
//! * **The child ends on its own with an exit code** (a configuration error, a clean stop): passed on, no restart.
//! * **The keeper is killed.** The child gets SIGTERM (parent-death signal) and ends cleanly.
//! * **A stopped keeper.** Deposits wait at most [`Limits::patience`], then fail; the daemon refuses the work in question.
#![forbid(unsafe_code)]

mod backoff;
mod keep;
mod message;
mod ward;

pub use keep::{KeepError, Limits, keep};
pub use message::{KEY_LEN_MAX, NOTE_LEN_MAX};
pub use ward::{Deposit, Ward, WardError};
