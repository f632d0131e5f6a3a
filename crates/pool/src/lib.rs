//! The pool: blocks, holders, inboxes and recovery, a state machine in shared memory.
//!
//! Processes share a *payload* (blocks of bytes) and *metadata* (who holds which block). One 128-bit word per block,
//! the **hold word**, lists its holders; it is the only truth. Every operation commits with exactly one
//! compare-and-swap on that word: before it nothing has happened, after it everything has. Everything else (free
//! index, inbox slots, tails) is a hint that is checked against the word before use and can be rebuilt. So a process
//! may be killed at any instruction, and recovery is: remove its number from all words.
//!
//! ```text
//!           alloc              freeze                send (move)                 receive
//!   free ──────────▶ BlockMut ────────▶ Block {A} ────────────▶ {B·INBOX} ────────────────▶ Block {B} ── drop ──▶ free
//!                  (exclusive)        (read-only)     └ share: {A, B·INBOX}
//! ```
//!
//! # Parts
//! | module | job |
//! |---|---|
//! | `word`, `slot` | the two words the protocol turns on, with drawings |
//! | `class`, `geometry` | sizes, and where everything lies |
//! | `extent`, `door` | what an extent is used for; where processes sleep |
//! | `region` | the metadata as arrays; every index is checked there |
//! | `blocks`, `send`, `receive`, `reap`, `retire` | the operations, each with its steps and what a kill leaves behind |
//! | `pool`, `steward`, `room`, `proxy` | create and open; what the daemon does: admit, reap, make room, work for others |
//! | `entries`, `magazine` | a process' private books: its blocks and handles, spare blocks |
//! | `waiting`, `quota`, `shortage` | sleeping until there is room, memory or a message; how much a process may hold; who has it all |
//! | `member`, `receiver`, `handles` | what a process uses: `Member`, `Receiver`, `BlockMut`, `Block` |
//!
//! # Who does what
//! The daemon creates the pool, admits members ([`Pool::admit`]), hands them the two descriptors and one eventfd per
//! inbox, and reaps them when the kernel says that they died ([`Pool::reap`]). Members work without it:
//! [`Pool::attach`], [`Member::alloc`], [`Member::send`], [`Receiver::try_recv`].
//!
//! # Order
//! What one thread sends to one inbox is received in the order in which it was sent, and every delivery names its
//! sender, whatever senders die, stall or are refused in between. Two exceptions:
//! * *newest wins*: the new message takes the place of the one that was taken back, so it may overtake older ones;
//! * a lane says that a block is for B, not by whose message. So when two senders (or two threads of one) send *the same
//!   block* to *the same inbox* at the same time (or one died at it), it is received as often as it was sent, but which
//!   delivery is whose, and its place among their other messages, is not promised.
//!
//! # What is trusted
//! Nothing that is read from the metadata: every number is range-checked, every loop is bounded, a foreign or double
//! free is refused by the word. A member that scribbles over the metadata can still break the pool for its peers (not
//! crash them, not make them read outside of the pool): one pool per tenant is the containment.
//! The bytes of a block are as trustworthy as its sender.
//!
//! # Kill points
//! With the feature `kill-points` the module `kill` numbers the points between the atomic steps, for tests that kill a
//! process exactly there.
#![deny(unsafe_code)]
#![cfg_attr(loom, allow(dead_code))]

// (rustdoc does not get the flags of .cargo/config.toml, and generates no code)
#[cfg(all(target_arch = "x86_64", not(target_feature = "cmpxchg16b"), not(any(loom, doc, doctest))))]
compile_error!(
    "the pool needs the processor's 128-bit compare-and-swap: build with RUSTFLAGS=\"-C target-feature=+cmpxchg16b\" \
     (the repository's .cargo/config.toml sets it; an environment variable RUSTFLAGS replaces that setting)"
);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", loom)))]
compile_error!("the pool needs a 128-bit compare-and-swap that is lock-free: x86-64 and arm64 have one");

/// The protocol itself: open to the model checker, private otherwise.
macro_rules! protocol {
    ($($module:ident),*) => { $(
        #[cfg(loom)]
        #[allow(missing_docs)]
        pub mod $module;
        #[cfg(not(loom))]
        mod $module;
    )* };
}

#[cfg(any(loom, feature = "kill-points"))]
pub mod kill;
#[cfg(not(any(loom, feature = "kill-points")))]
mod kill;

protocol!(
    blocks, class, door, extent, extra, geometry, ids, reap, receive, region, retire, send, slot, sync, word
);

pub use blocks::HoldError;
pub use geometry::{Geometry, GeometryError, PoolConfig};
pub use ids::{BlockId, EndpointId, EndpointRef, PoolId};
pub use receive::RecvError;
pub use send::{Pass, SendFailure};

#[cfg(not(loom))]
mod entries;
#[cfg(not(loom))]
mod handles;
#[cfg(not(loom))]
mod look;
#[cfg(not(loom))]
mod magazine;
#[cfg(not(loom))]
mod member;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
mod proxy;
#[cfg(not(loom))]
mod quota;
#[cfg(not(loom))]
mod receiver;
#[cfg(not(loom))]
mod report;
#[cfg(not(loom))]
mod room;
#[cfg(not(loom))]
mod shortage;
#[cfg(not(loom))]
mod steward;
#[cfg(not(loom))]
mod waiting;
#[cfg(not(loom))]
mod wakeup;

#[cfg(not(loom))]
pub use handles::{Block, BlockMut, Exposed};
#[cfg(not(loom))]
pub use look::LookError;
#[cfg(not(loom))]
pub use member::{Channel, Member, SendError, Sent};
#[cfg(not(loom))]
pub use pool::{AttachError, CreateError, OpenError, Pool, PoolFds};
#[cfg(not(loom))]
pub use proxy::{Lend, Proxy, Received};
#[cfg(not(loom))]
pub use receiver::{Delivery, Receiver};
#[cfg(not(loom))]
pub use report::{AuditReport, BlockView, ClassUsage, EndpointInfo, EndpointState, Finding, PoolUsage};
#[cfg(not(loom))]
pub use room::{MadeRoom, MakeRoomError};
#[cfg(not(loom))]
pub use shortage::{AllocError, LargestHolder, LargestHolders};
#[cfg(not(loom))]
pub use steward::{Admission, AdmitError, EndpointKind, ReapError, Reaped};
