//! Who answers for a connection: a record in shared memory that every process of a cluster maps.
//!
//! A connection's socket may be held by several processes at once: the worker that serves it, the keeper that saves it
//! from the worker's death, the worker that it moved away from and that was stopped just then. Who may *touch* it is
//! said by its **record** alone, by one 64-bit word that changes by compare-and-swap. Bytes that were read and not
//! handled, and answers that were recorded and not sent, lie in the **arena** beside it, only as long as there are any.
//!
//! ```text
//!                accept                     claim (owner, epoch)
//!   free ───────────────────▶ idle(owner) ──────────────────────▶ busy ◀─────────▶ sending
//!    ▲                         ▲   │   ▲                           │  park, begin,     (bytes of an answer on
//!    │                    give │   │   └────────── release ────────┤  answer            their way to the kernel)
//!    │                 epoch+1 │   │ take                          │ close
//!    │                         │   ▼ epoch+1                       ▼
//!    └────────── close ────── moving(mover) ◀── recover ──       closing ──▶ free
//!                                             epoch+1, from any state, when the owner's pidfd says dead
//! ```
//! * **Before every read** a worker claims. If it was stopped and the connection moved meanwhile, the word is another
//!   (owner, epoch), the claim fails ([`NotYours`]), and it closes its descriptor without having touched anything.
//! * **A mover takes only idle connections.** Whoever stands still in the middle keeps what he has claimed, until he
//!   goes on or dies.
//! * **After a death** [`Ledger::recover`] takes over whatever the dead answered for and says for each what is to be
//!   done ([`Duty`]): nothing; deliver parked input; a request was being handled (error frame, or again if it is
//!   declared idempotent); ask the kernel how much of a read or a send took place.
//!
//! # The record: 128 bytes, two cache lines
//! ```text
//!   word  0 state (see `word`)          6 answered: offset and phase     written by whoever holds the record;
//!         1 read                        7 sent                           offsets count the bytes of the
//!         2 taking                      8 head of the input's chunks     connection from its beginning
//!         3 done                        9 head of the answers' chunks    (drawn in `hold`)
//!         4 request_end                10 acknowledged at accept
//!         5 handling                   11 listener (16), kind (8)        12…15 free
//!           begun at (61), idempotent, phase, one is
//! ```
//! # Parts
//! | module | job |
//! |---|---|
//! | `word` | the state word |
//! | `geometry` | where everything lies |
//! | `arena` | chunks and chains |
//! | `hold` | the steps and their commits; duties |
//! | `claim`, `moved` | what a worker does; what a mover does |
//! | `ledger` | create, open, accept, claim, take, recover |
//!
//! # What is trusted
//! Nothing that is read from the memory: record and chunk numbers are range-checked, offsets are checked against each
//! other, walks are bounded. A process that scribbles can break connections of its peers, not crash them and not make
//! them loop; what makes no sense is closed. Who maps a ledger belongs to one cluster.
//!
//! # Limits
//! * One request of a connection is handled at a time (pipelined ones wait, parked). Out-of-order answers would need a
//!   list of requests per record.
//! * The position of a killed read or send is the kernel's to tell: this crate names what has to be asked, and checks
//!   the answer against the record ([`Hold::resolve_taken`], [`Hold::resolve_sent`]).
//!
//! # Example
//! ```
//! use baton_ledger::{About, Config, Kind, Ledger, Slot};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (ledger, fd) = Ledger::create(&Config { connections: 64, workers: 4, arena_bytes: 1 << 16 })?;
//! let (master, worker) = (Slot::new(0).unwrap(), Slot::new(1).unwrap());
//! let ticket = ledger.accept(master, worker, About { listener: 0, kind: Kind::Unix, acked_base: 0 })?;
//!
//! let theirs = Ledger::open(&fd)?; // in the worker's process
//! let mut claim = theirs.claim(worker, ticket)?;
//! claim.park(b"ping")?; // what was peeked; then it is taken from the kernel
//! claim.taken(4)?;
//! claim.begin(4, true)?;
//! claim.answer(b"pong")?;
//! let sent = claim.send(&mut Vec::new(), 4096, |bytes| Ok(bytes.len()))?; // the socket's `send`
//! assert_eq!(sent, 4);
//! claim.release()?;
//! assert_eq!(ledger.chunks_taken(), 0);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(loom, allow(dead_code, missing_docs))]

#[cfg(any(loom, feature = "kill-points"))]
pub mod kill;
#[cfg(not(any(loom, feature = "kill-points")))]
mod kill;

mod arena;
mod claim;
mod geometry;
mod hold;
mod ledger;
mod moved;
mod sync;
mod word;

pub use arena::Corrupt;
pub use claim::{Claim, PutError, SendError};
pub use geometry::{Config, Geometry, GeometryError};
pub use hold::{Duty, Hold, Interrupted, NotYours, ResolveError};
#[cfg(not(loom))]
pub use ledger::LedgerError;
pub use ledger::{About, Kind, Ledger, NoRecord, NotIdle, Recovery, Ticket};
pub use moved::Moved;
pub use word::{Epoch, Slot, State, Word};

#[cfg(loom)]
mod model;
