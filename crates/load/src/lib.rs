//! Loads a framed JSON server from many connections, checks every answer, and says how it fared.
//!
//! ```text
//!   Plan ──▶ run ──▶ connect all ──▶ send, check, reconnect ──▶ let what is under way be answered ──▶ Outcome
//!                        │                                                                              │
//!                        └── nobody listens: LoadError                        right · refused · wrong · … ┘
//! ```
//! # What becomes of a request
//! Each request that was sent ends as exactly one of these, so that the sum is what was sent:
//!
//! | fate | means |
//! |---|---|
//! | right | the answer to this very request, in time and in its turn |
//! | refused | an error frame; counted by its code, too |
//! | out of order | the right answer to another request of the same connection |
//! | wrong | an answer to no request of this connection, or none that could be read |
//! | timed out | not answered within [`Plan::timeout`]; its connection is given up |
//! | lost | the connection ended before the answer came |
//!
//! Answers that nobody asked for (an answer twice, or without a request) are counted beside that, and so is what becomes
//! of connections: attempts that failed, resets, ends that this side did not ask for, connections made anew.
//!
//! # Two loops
//! A *closed* loop sends the next request when an answer has come: it shows how much a server can do, and it slows down
//! with the server. An *open* loop ([`Pace::Rate`]) means to send at fixed instants, whatever the server does, and counts
//! latency from the instant at which a request *should* have left: a server that stands still for a second is late for
//! every request of that second, not for one (coordinated omission).
//!
//! One thread does everything, with one `epoll` and one read buffer. [`Outcome::client`] says how much of a core that took:
//! close to 1, the client is the limit and not the server.

#![forbid(unsafe_code)]

mod answers;
mod error;
mod fates;
mod link;
mod outcome;
mod plan;
mod request;
mod run;
mod share;
mod tally;
mod wheel;

pub use error::LoadError;
pub use fates::Fates;
pub use outcome::{Client, Latency, Links, Outcome, Spread, Verdict};
pub use plan::{Expect, Extent, Hot, Matching, Pace, Place, Plan, PlanError};
pub use run::{Progress, run};
