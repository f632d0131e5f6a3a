//! Why a command ended without doing what it was asked, as a sentence and an exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use baton_client::{BlockId, BorrowError, ConnectError, QueryError, RecvError};

/// The one error type of the commands: each variant is something the person at the keyboard can act on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No daemon, or it said no.
    #[error("{}{}", if matches!(.0, ConnectError::BadUri { .. }) { "--connect: " } else { "" }, .0)]
    Connect(#[from] ConnectError),
    /// A question was not answered.
    #[error("{0}")]
    Query(#[from] QueryError),
    /// No member is called like that.
    #[error("no member has the name, process id or endpoint number `{asked}`; `baton ls` lists who is there")]
    NoMember {
        /// What was asked for.
        asked: String,
    },
    /// Nobody receives there.
    #[error("nobody receives at inbox `{asked}` now; `baton ls` lists the inboxes")]
    NoInbox {
        /// What was asked for.
        asked: String,
    },
    /// The block cannot be held.
    #[error("{0}")]
    Borrow(#[from] BorrowError),
    /// No picture in there.
    #[error(
        "block {block} carries no picture: {reason}; look at its bytes with --hex N, save them with --raw FILE"
    )]
    NoPicture {
        /// The block.
        block: BlockId,
        /// What it is instead.
        reason: String,
    },
    /// The picture cannot be written as PNG.
    #[error("the picture cannot be written to {}: {source}", .path.display())]
    Png {
        /// Where to.
        path: PathBuf,
        /// The encoder's reason.
        source: png::EncodingError,
    },
    /// A file or directory.
    #[error("{}: {source}; choose a place that exists and that you may write to", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The terminal cannot be drawn on.
    #[error("the terminal cannot be used: {0}; try `baton top --batch`")]
    Terminal(std::io::Error),
    /// The daemon stayed away.
    #[error("no memory daemon has answered for {seconds} s: {error}; is it running?")]
    Away {
        /// For how long.
        seconds: u64,
        /// What the last try gave.
        error: String,
    },
    /// The pool ended while it was watched.
    #[error("the pool has ended: {0}; start a daemon with `baton rmmt` and look again")]
    Ended(#[from] RecvError),
    /// No load could be made.
    #[error("{0}")]
    Load(#[from] baton_load::LoadError),
    /// A value cannot be written as JSON.
    #[error("the answer cannot be written as JSON: {0}; ask without --json")]
    Json(#[from] serde_json::Error),
    /// All has been said; only the exit code is left.
    #[error("")]
    Told,
}

impl Failure {
    /// What to print, if anything.
    pub(crate) fn sentence(&self) -> Option<String> {
        (!matches!(self, Self::Told)).then(|| self.to_string())
    }

    /// 2 for what the caller wrote, 1 for everything else.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_)
            | Self::Connect(ConnectError::BadUri { .. })
            | Self::Load(baton_load::LoadError::Plan(_)) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}
