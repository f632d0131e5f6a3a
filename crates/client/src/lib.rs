//! The SDK: connect to rmmt, loan a block, publish it, receive it, drop it.
//!
//! ```no_run
//! use baton_client::{Client, ConnectOptions};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut inbox) = Client::connect("un:///run/baton/rmmt.sock", ConnectOptions::new("demo").inbox("demo.in"))?;
//! let mut frame = client.alloc(4096)?; // ours alone, writable
//! frame[0] = 7;
//! let frame = frame.freeze(); // read-only from here on, for everybody
//! client.sender("demo.in")?.send(frame)?; // handed over: no copy, no daemon
//! let delivery = inbox.recv(Some(Duration::from_secs(1)))?.expect("just sent");
//! assert_eq!(delivery.block[0], 7);
//! # Ok(()) } // dropped: the block is free again
//! ```

//!
//! # Which handle does what
//! ```text
//!            alloc                  freeze                        send (only local handle)
//!   (free) ────────▶ BlockMut ────────────────▶ Block ───────────────────────────────▶ receiver's Block
//!      ▲                │  └─expose─▶ Exposed ──share──▲  │ clone: local count            │
//!      └────── drop ────┴───────────────┴─────────────────┴──────── drop of the last ─────┘
//! ```
//! A frozen block cannot be written, by type:
//! ```compile_fail,E0594
//! # fn f(client: baton_client::Client) -> Result<(), baton_client::AllocError> {
//! let block = client.alloc(64)?.freeze();
//! block[0] = 1;
//! # Ok(()) }
//! ```
//! and the writable handle is gone:
//! ```compile_fail,E0382
//! # fn f(client: baton_client::Client) -> Result<(), baton_client::AllocError> {
//! let mut block = client.alloc(64)?;
//! let frozen = block.freeze();
//! block[0] = 1;
//! # Ok(()) }
//! ```
//!
//! # What goes wrong
//! * **The receiver is killed**: `send` says [`SendFailure::Gone`] and gives the block back; ask for the name again.
//! * **This process is killed**, at any instruction: the daemon takes back what it held.
//! * **The daemon is killed**: blocks, senders and inboxes work on; questions wait for its successor or say
//!   `Disconnected` and try again at the next call.
//! * **The daemon is stopped** (SIGTERM): the pool ends. Inboxes say [`RecvError::Closed`], blocks stay readable.
//! * **A peer writes nonsense into a block**: its bytes are its claims; check them like anything from outside.
#![forbid(unsafe_code)]

mod client;
mod control;
mod error;
mod inbox;
mod look;
mod options;
mod query;
mod select;
mod sender;
mod spin;
mod transfer;

pub use baton_pool::{
    Block, BlockId, BlockMut, Delivery, EndpointId, Exposed, LargestHolder, LargestHolders, SendFailure, Sent,
};
pub use baton_wire::report::{
    AuditReport, BlockInfo, ClassInfo, Holder, InboxInfo, Member, MemberKind, PoolInfo,
};
pub use client::Client;
pub use error::{AllocError, BorrowError, ConnectError, OpenError, QueryError, RecvError, SendError};
pub use inbox::Inbox;
pub use look::Snapshot;
pub use options::{Access, ConnectOptions};
pub use query::Observer;
pub use select::{select, select_async};
pub use sender::{Sender, WhenFull};
pub use transfer::{SendToPidError, SendToPidFailure, Transfer};
