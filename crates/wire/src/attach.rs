//! The control protocol between an attached member (the SDK) and the memory daemon, over a Unix stream socket.
//!
//! ```text
//!   member                                             daemon
//!     │── attach {name, inbox, access, token} ──────────▶│ admits by SO_PEERCRED, opens a pidfd
//!     │◀── attached {endpoint, …} + 3 descriptors ───────│ metadata, payload, own eventfd
//!     │── open_inbox {inbox} ───────────────────────────▶│
//!     │◀── opened {endpoint, incarnation} + 1 descriptor │ that inbox's eventfd
//!     │── inboxes | members | blocks | pool | audit ────▶│ (also without attaching)
//!     │── borrow {block} … return {block} ──────────────▶│ one more holder: the asker, while it looks
//!     │── send_to_pid {pid, blocks} ────────────────────▶│ lanes for that classic client
//!     │◀── transfer {bid, nodes} ────────────────────────│ what it receives them with
//!     │── confirm {bid} ────────────────────────────────▶│ (no answer) without it the transfer is taken back
//!     │── bye ──────────────────────────────────────────▶│ everything it held is free
//!
//!   after a restart of the daemon:
//!     │── resume {endpoint, incarnation} ───────────────▶│ same process, same endpoint: control is back
//! ```
//!
//! Blocks never travel here. Every message is a fixed [`Header`] and a JSON body; every request but `confirm` has one answer;
//! answers come in the order of the requests and carry the request's `serial`. Descriptors ride on the first byte of the answer that announces them.
//!
//! # Header (16 bytes, little-endian)
//! | bytes | field | |
//! |---|---|---|
//! | 0–3 | magic | `42 41 54 A1`. The classic protocol's hello is an `i32` pid, at most 2²² on Linux, so its fourth byte is 0: the two can share one socket |
//! | 4–5 | version | [`VERSION`] of the sender |
//! | 6–7 | kind | 1 request, 2 answer |
//! | 8–11 | serial | chosen by the requester, repeated in the answer |
//! | 12–15 | body length | at most [`REQUEST_BODY_MAX`] or [`ANSWER_BODY_MAX`] |
//!
//! The header and the form of an error answer stay the same in every version, so that a refusal for the version's sake
//! can be read by both sides.
//!
//! # What goes wrong
//! A header or body that does not decode is a [`DecodeError`]. The stream is out of step then: the daemon answers
//! `bad_request` and hangs up, a member hangs up and reports a protocol error. Nothing here panics on any input.

mod error;
mod header;
mod message;
mod name;

pub use error::{DecodeError, EncodeError, ErrorCode};
pub use header::{HEADER_LEN, Header, Kind, MAGIC};
pub use message::{
    Access, Answer, Attach, Attached, BLOCKS_PAGE_MAX, Failure, Opened, Request, Resume, Resumed,
};
pub use name::{NAME_LEN_MAX, Name, NameError};

/// Version of the protocol that this build speaks.
pub const VERSION: u16 = 1;

/// Longest request body in bytes: names are short, so anything longer is not ours.
pub const REQUEST_BODY_MAX: usize = 4 * 1024;

/// Longest answer body in bytes: a list of 2047 members with the longest names takes about 1 MiB.
pub const ANSWER_BODY_MAX: usize = 4 * 1024 * 1024;

/// Most blocks in one [`Request::SendToPid`]: that many fit a request.
pub const SEND_TO_PID_MAX: usize = 400;

/// Descriptors that come with [`Answer::Attached`]: metadata, payload, own eventfd, in this order.
pub const ATTACHED_FDS: usize = 3;

/// Descriptors that come with [`Answer::Opened`]: the inbox's eventfd.
pub const OPENED_FDS: usize = 1;
