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

#![deny(unsafe_code)]

mod block;
mod client;
mod error;
mod exposed;
mod inbox;
mod options;
mod sender;

pub use baton_wire::report::{AuditReport, ClassInfo, InboxInfo, Member, PoolInfo};
pub use block::{Block, BlockId, BlockMut, EndpointId};
pub use client::Client;
pub use error::{AllocError, ConnectError, OpenError, QueryError, RecvError, SendError, SendFailure};
pub use exposed::Exposed;
pub use inbox::{Delivery, Inbox};
pub use options::{Access, ConnectOptions};
pub use sender::{Sender, Sent};
