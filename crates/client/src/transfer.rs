//! Blocks for a classic client: it has no inbox, it receives by the number of a transfer.
//!
//! ```text
//!   this member ── send_to_pid {pid, blocks} ──▶ daemon: lanes for that client ── bid, nodes ──▶ this member
//!      confirms, drops its own hold ───────────────────▶ (no answer)                  │
//!      tells the client bid, nodes and its own pid ────────(in its own way)────────────▶ client: recv
//! ```
//!
//! From the confirmation on the blocks are on their way: this member may end. If the client ends before it has received
//! them, they are free. If this member ends or gives up before it has confirmed, nobody will tell the client: the daemon
//! takes the blocks back. If no answer comes because the daemon was killed in the middle, the classic client's connection
//! has ended with that daemon, and with it whatever was on its way.

use baton_pool::Block;
use baton_wire::attach::{Answer, ErrorCode, Request, SEND_TO_PID_MAX};

use crate::client::Client;
use crate::control::AskError;

/// A transfer to a classic client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The number that the client receives the blocks with.
    pub bid: i64,
    /// Where each block begins, in the order given: bytes from the start of the memory that the client has mapped.
    pub nodes: Vec<i64>,
}

/// Blocks that were not sent to a classic client: here they are back, with the reason.
#[derive(thiserror::Error)]
#[error("the blocks were not sent to pid {pid}: {reason}")]
pub struct SendToPidError {
    /// The blocks, still held.
    pub blocks: Vec<Block>,
    /// Why.
    pub reason: SendToPidFailure,
    /// To whom they should have gone.
    pub pid: u32,
}

/// Why blocks were not sent to a classic client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendToPidFailure {
    /// No block, or more than fit one request.
    #[error("{count} blocks given, 1 to {SEND_TO_PID_MAX} can be sent at once")]
    Count {
        /// How many.
        count: usize,
    },
    /// No classic client of that pid is connected.
    #[error("no classic client has this pid now; `baton ls` lists who is here")]
    NotFound,
    /// The daemon is away; it will be tried again at the next call.
    #[error("the memory daemon does not answer: {0}")]
    Disconnected(#[source] std::io::Error),
    /// The daemon said no.
    #[error("the memory daemon refused: {message} (code {code})")]
    Refused {
        /// Stable code of the refusal.
        code: String,
        /// The daemon's sentence.
        message: String,
    },
}

impl std::fmt::Debug for SendToPidError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendToPidError")
            .field("pid", &self.pid)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Hands blocks over to the classic client `pid`, all or none. A round trip to the daemon. Tell the client the
    /// number of the transfer, its nodes and this process' pid: it receives with number, count and pid, and finds the
    /// blocks by the nodes.
    ///
    /// # Errors
    /// [`SendToPidError`] gives the blocks back.
    pub fn send_to_pid(&self, pid: u32, blocks: Vec<Block>) -> Result<Transfer, SendToPidError> {
        let count = blocks.len();
        let failed = |blocks, reason| Err(SendToPidError { blocks, reason, pid });
        if !(1..=SEND_TO_PID_MAX).contains(&count) {
            return failed(blocks, SendToPidFailure::Count { count });
        }
        // Before the daemon lends them: else a small one would go to our magazine when its handle goes, and be written to
        // while the client reads it.
        blocks.iter().for_each(Block::mark_shared);
        let numbers = blocks.iter().map(|block| block.id().get()).collect();
        let strange = || SendToPidFailure::Disconnected(std::io::Error::other("an answer to something else"));
        match self.inner.control.ask(&Request::SendToPid { pid, blocks: numbers }) {
            // The client has lanes of its own: ours go with the handles.
            Ok((Answer::Transfer { bid, nodes }, _)) => Ok(Transfer { bid, nodes }),
            Ok(_) | Err(AskError::Protocol(_)) => failed(blocks, strange()),
            Err(AskError::Away(error)) => failed(blocks, SendToPidFailure::Disconnected(error)),
            Err(AskError::Refused(no)) if no.code == ErrorCode::NotFound => {
                failed(blocks, SendToPidFailure::NotFound)
            }
            Err(AskError::Refused(no)) => {
                let (code, message) = (no.code.to_string(), no.message);
                failed(blocks, SendToPidFailure::Refused { code, message })
            }
        }
    }
}
