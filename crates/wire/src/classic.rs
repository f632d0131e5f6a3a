//! The classic protocol: the memory daemon's original one, for clients that share nothing with us but its description.
//!
//! ```text
//!   client                                              daemon
//!     │── i32 pid ───────────────────────────────────────▶│ hello
//!     │◀── string: name of the shared memory, u32: KiB ───│
//!     │── i32 length, u64 ctx, i32 command, data ────────▶│ as many as it likes, without waiting
//!     │◀── i32 length, u64 ctx, i32 status, data ─────────│ `ctx` tells which command is answered
//!     │── end of stream ─────────────────────────────────▶│ pending answers, then everything it held is free
//! ```
//!
//! All integers are little-endian. A string is an `i32` length and that many bytes. `length` counts what follows it.
//!
//! | command | | data | answer's data | |
//! |---|---|---|---|---|
//! | 1 | alloc | `u32 size, u32 align` | `i64 node` | a block, one reference |
//! | 2 | free | `i64 node` | – | one reference less |
//! | 4 | pre-send | `u32 n, n × i64 node, i32 to_pid` | `i64 bid` | `n` references in flight |
//! | 5 | recv | `i64 bid, u32 n, i32 from_pid` | – | those references are the caller's now |
//!
//! Status 0 is done; -1 and a string, failed; 1001 and a string, no such command.
//!
//! # Our reading of what the description leaves open
//! * The pool's size is a `u32`; a string's length is an `i32` like every other length.
//! * `node` is the byte offset of the block from the start of the mapping.
//! * Command 3 is not described: 1001, like every other number.
//! * A command whose data does not have the length of its kind is answered with -1; the stream is still in step.
//! * A length below 12 or above [`COMMAND_LEN_MAX`] means that the stream is out of step: the connection is closed.
//!   There is no way to refuse a hello but to close.
//!
//! # What goes wrong
//! Every number is a claim: pids, nodes and transfer ids come out of here as they came in, and are looked up by the
//! daemon. Only lengths are judged here, before anything of that length is kept: [`DecodeError`] ends the connection,
//! [`CommandError`] is answered. Nothing here panics on any input, and a decoder keeps less than one message and what it
//! was last fed.

mod answer;
mod command;
mod frame;

pub use answer::{Answer, FromServer, ServerDecoder, ServerHello};
pub use command::{ClientDecoder, Command, CommandError, EncodeError, FromClient, Request, client_hello};
pub use frame::DecodeError;

/// Largest process id on Linux: 2²². Keeps the fourth byte of a hello 0, where an attached client's magic has `A1`.
pub const PID_MAX: i32 = 1 << 22;

/// Longest command: `ctx`, command and data. Enough for [`NODES_MAX`] nodes in one pre-send.
pub const COMMAND_LEN_MAX: usize = 64 * 1024;

/// Shortest command or answer: `ctx` and command or status.
pub const LEN_MIN: usize = 12;

/// Most nodes that fit one pre-send.
pub const NODES_MAX: usize = (COMMAND_LEN_MAX - LEN_MIN - 8) / 8;

/// Longest answer. Answers are short; what is longer is not ours.
pub const ANSWER_LEN_MAX: usize = 4 * 1024;

/// Longest name of a shared memory, as the kernel has it (`NAME_MAX`).
pub const NAME_LEN_MAX: usize = 255;

/// Done.
pub const STATUS_DONE: i32 = 0;
/// Failed; the answer's string says why.
pub const STATUS_FAILED: i32 = -1;
/// There is no such command.
pub const STATUS_INVALID_COMMAND: i32 = 1001;

/// The sentence of an allocation for which there is no memory now.
pub const NO_MEMORY: &str = "memory allocate failed!";
/// The sentence that goes with [`STATUS_INVALID_COMMAND`].
pub const INVALID_COMMAND: &str = "invalid command id!";
