//! The memory daemon: creates the pool, admits processes, notices their death, takes back what they held.
//!
//! ```text
//!   rmmt (keeper) ──spawns, restarts, holds descriptors──▶ rmmt (daemon)
//!                                                            │ listens on un://PATH, ip://HOST:PORT
//!                                                            │ door: member or classic client?
//!        member ── attach ──▶ session ── admitted ──▶ endpoint │ pidfd watched
//!
//!   one endpoint:
//!     (free) ──attach──▶ connected ──daemon restarts──▶ silent ──resume──▶ connected
//!                          │   │                          │
//!                          │   └─hang-up, process lives─▶ closed (inbox closed, blocks still its own)
//!                          │                              │
//!                          └───────── bye, death (pidfd) ─┴──▶ reaped: its blocks are free, one log line
//! ```
//!
//! The daemon is off the data path: members allocate, send and receive in shared memory and do not notice when it is
//! killed. The keeper then starts another one, which adopts the pool: from the descriptors the keeper held.
//!
//! # What goes wrong, and who cleans up
//! * **A member is killed**: its pidfd becomes readable; its endpoint is reaped at once.
//! * **A member hangs up but lives** (it closed the SDK while a decoder still writes, or it is confused): its inbox is
//!   closed, its name is free, but nothing it may still write to is taken from it.
//! * **A peer sends garbage, half a message, or nothing**: bounded buffers, time limits; the connection ends, nobody else
//!   notices. A flood of silent connections pushes out its own oldest ones.
//! * **The daemon is killed**: the next one gets memory files, listener, lock and event descriptors from the keeper, opens
//!   pidfds anew (comparing start times, since pids are reused) and reaps who died meanwhile.
//! * **SIGTERM, SIGINT**: inboxes are closed so that members learn of it, the socket file and the lock go, exit code 0.
#![forbid(unsafe_code)]

mod admission;
mod args;
mod base;
mod chest;
mod classic;
mod config;
mod daemon;
mod door;
mod follow;
mod keeping;
mod metrics;
mod quota;
mod registry;
mod report;
mod role;
mod session;
mod size;
mod watch;

pub use args::Args;
#[doc(hidden)]
pub use classic::run_ledger_script;
pub use daemon::run;
pub use size::{SizeError, parse_size};
