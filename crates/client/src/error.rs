//! One error type per operation; every variant is something a caller can act on.

use std::sync::Arc;

use baton_pool::{Block, LargestHolder, LargestHolders, SendFailure};

/// Why attaching to the daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `un://PATH`.
    #[error("`{uri}` is no address of the memory daemon: write un://PATH")]
    BadUri {
        /// What was given.
        uri: String,
    },
    /// A name that cannot be registered.
    #[error("cannot attach as `{name}`: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What names look like.
        reason: String,
    },
    /// Nobody listens there, and nobody came within the timeout.
    #[error("no memory daemon answers at {uri}: {source}; start one with `baton rmmt --listen {uri}`")]
    Unreachable {
        /// Where we tried.
        uri: String,
        /// What the last try gave.
        source: std::io::Error,
    },
    /// The daemon said no.
    #[error("the memory daemon at {uri} refused: {message} (code {code})")]
    Refused {
        /// Where we tried.
        uri: String,
        /// Stable code of the refusal, see `baton_wire::attach::ErrorCode`.
        code: String,
        /// The daemon's sentence.
        message: String,
    },
    /// What answered does not speak our protocol, or another version of it.
    #[error("what listens at {uri} is not this version's memory daemon: {detail}")]
    Protocol {
        /// Where we tried.
        uri: String,
        /// What was wrong with the answer.
        detail: String,
    },
    /// The pool could not be mapped here.
    #[error("the pool of {uri} cannot be mapped: {detail}")]
    Map {
        /// Where we tried.
        uri: String,
        /// What the kernel or the pool said.
        detail: String,
    },
}

/// Why there is no block.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// All blocks that could serve are in use.
    #[error(
        "no free block of {len} bytes: {bytes_in_use} of {bytes_total} bytes are in use, most by {}; drop blocks sooner, \
         or start rmmt with a larger --size (`baton ls` shows who holds what)",
        LargestHolders(holders)
    )]
    Exhausted {
        /// Bytes asked for.
        len: usize,
        /// Bytes of blocks in use, whole pool.
        bytes_in_use: u64,
        /// Bytes of the pool.
        bytes_total: u64,
        /// Who holds most, the largest first, at most three.
        holders: Vec<LargestHolder>,
    },
    /// This process would hold more than it may.
    #[error(
        "{len} bytes asked, this process holds {held} of the {quota} bytes that it may: drop blocks sooner, or raise its \
         quota in rmmt's configuration"
    )]
    Quota {
        /// Bytes asked for.
        len: usize,
        /// Bytes in this process' hands, all its endpoints in this pool together.
        held: u64,
        /// Its limit.
        quota: u64,
    },
    /// No block is ever that large.
    #[error(
        "{len} bytes asked, the largest block of this pool has {max}; start rmmt with a larger --max-block"
    )]
    TooLarge {
        /// Bytes asked for.
        len: usize,
        /// Largest possible.
        max: usize,
    },
    /// This member attached read-only.
    #[error("this process attached read-only: connect without `read_only()` to allocate")]
    ReadOnly,
    /// The daemon has reaped this endpoint: attach again.
    #[error("this process is no member of the pool any more: connect again")]
    Detached,
}

impl From<baton_pool::AllocError> for AllocError {
    fn from(error: baton_pool::AllocError) -> Self {
        use baton_pool::AllocError as Pool;
        match error {
            Pool::TooLarge { len, largest } => Self::TooLarge { len, max: largest },
            Pool::Exhausted { len, in_use, total, holders } => {
                Self::Exhausted { len, bytes_in_use: in_use, bytes_total: total, holders }
            }
            Pool::Quota { len, held, quota } => Self::Quota { len, held, quota },
            Pool::ReadOnly => Self::ReadOnly,
            _ => Self::Detached,
        }
    }
}

/// Why an inbox cannot be opened by name.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody receives under that name now.
    #[error("nobody receives at inbox `{inbox}` now; `baton ls` lists who does")]
    NotFound {
        /// The name asked for.
        inbox: String,
    },
    /// The daemon is away; it will be tried again at the next call.
    #[error("the memory daemon cannot be asked for inbox `{inbox}`: {source}")]
    Disconnected {
        /// The name asked for.
        inbox: String,
        /// What failed.
        source: std::io::Error,
    },
    /// The daemon said no, for another reason than "not found".
    #[error("the memory daemon refused to open inbox `{inbox}`: {message} (code {code})")]
    Refused {
        /// The name asked for.
        inbox: String,
        /// Stable code of the refusal.
        code: String,
        /// The daemon's sentence.
        message: String,
    },
}

/// Why a question to the daemon stayed unanswered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
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

/// Why an inbox gives nothing any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The daemon closed this endpoint (it was stopped, or it saw this member hang up): attach again.
    #[error("this inbox was closed by the memory daemon: connect again")]
    Closed,
    /// The inbox never stood still.
    #[error(
        "the pool's metadata keeps changing under this reader: some member corrupts it, see `baton audit`"
    )]
    Disturbed,
    /// The kernel refused to wait.
    #[error("waiting on the inbox failed: {0}")]
    Io(#[from] std::io::Error),
}

impl From<baton_pool::RecvError> for RecvError {
    fn from(error: baton_pool::RecvError) -> Self {
        match error {
            baton_pool::RecvError::Closed => Self::Closed,
            baton_pool::RecvError::Disturbed => Self::Disturbed,
        }
    }
}

/// A block that was not sent: here it is back, with the reason.
#[derive(thiserror::Error)]
#[error("the block was not sent to `{inbox}`: {reason}")]
pub struct SendError {
    /// The block, still held.
    pub block: Block,
    /// Why.
    pub reason: SendFailure,
    /// Name of the inbox it should have gone to.
    pub inbox: Arc<str>,
}

impl std::fmt::Debug for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendError")
            .field("inbox", &self.inbox)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Why a block could not be looked into.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BorrowError {
    /// Nobody holds it, so it has no contents.
    #[error("{message}; `baton ls --held-by MEMBER` lists the blocks that somebody holds")]
    Free {
        /// The block.
        block: baton_pool::BlockId,
        /// The daemon's sentence.
        message: String,
    },
    /// Another reason of the daemon.
    #[error("the memory daemon does not lend block {block}: {message}")]
    Refused {
        /// The block.
        block: baton_pool::BlockId,
        /// The daemon's sentence.
        message: String,
    },
    /// The daemon is away.
    #[error("the memory daemon is not reachable now: {0}; try again")]
    Disconnected(#[from] std::io::Error),
}
