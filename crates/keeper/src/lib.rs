//! A small process that holds descriptors for a daemon and restarts it; the daemon restarts the keeper.
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
//! Keeper and daemon talk over a socket pair that a child finds as its standard input: descriptors the daemon
//! [deposits](Ward::deposit) under a key, with a note that the keeper never looks into, and what the predecessor
//! deposited, handed to the next child at its start ([`Ward::from_parent`]).
//!
//! The daemon is not always a child. When its keeper is killed, it starts another one as *its* child, gives it the other
//! end of a [pair](Ward::pair) and deposits everything again; that keeper watches it through a pidfd
//! ([`Begin::Follow`]). In the same way a keeper takes over from another one that is still there: the daemon deposits
//! everything with the new one, then [dismisses](Ward::dismiss) the old one.
//!
//! ```text
//!   keeper K ──child──▶ daemon D             K killed          D ──child──▶ K'     K' follows D
//!                                       ─────────────────▶
//!   K' killed: D starts K''                  D killed          K' ──child──▶ D'    as in the beginning
//!
//!   SIGHUP to K: "replace me" ─▶ D starts K', dismisses K ─▶ K runs the program's file anew, takes over from K',
//!                tells D to retire ─▶ K starts D' from the program's file
//! ```
//!
//! Under systemd the keeper is the main process: what it holds lies in systemd's descriptor store as well, it says when
//! the daemon serves, and passes on the daemon's signs of life.
//!
//! # What goes wrong
//! * **The child is killed.** What it had deposited before, even in the same microsecond, lies in the socket and is
//!   read before the next child starts: a deposit needs no acknowledgement.
//! * **The child fails again and again.** Back-off from 50 ms doubling to 5 s; after [`Limits::failures_max`] children in
//!   a row that never got [ready](Ward::ready), the keeper gives up with exit code 1, and the kernel frees everything.
//! * **The child ends on its own with an exit code** (a configuration error, a clean stop): passed on, no restart. One
//!   that is followed says its code before it [leaves](Ward::leaving), since nobody else would.
//! * **The keeper is killed.** The daemon [hears](Heard::Gone) it and starts another one.
//! * **Keeper and daemon are killed at once**, before either replaced the other: the pool is gone, unless systemd's store
//!   has it.
//! * **The keeper has no descriptor left.** The daemon hears which deposit was [refused](Heard::Refused).
//! * **A stopped keeper.** Deposits wait at most [`Limits::patience`], then fail; the daemon refuses the work in question.
#![forbid(unsafe_code)]

mod backoff;
mod daemon;
mod keep;
mod message;
mod store;
mod systemd;
mod ward;

pub use keep::{Begin, KeepError, Kept, Limits, RETIRED, keep};
pub use message::{KEY_LEN_MAX, Message, NOTE_LEN_MAX, TooLong};
pub use ward::{Deposit, Heard, Ward, WardError};
