//! Stable codes of refusals, and why bytes do not decode.

use serde::{Deserialize, Serialize};

/// Why the daemon refused. The spelling on the wire is part of the protocol and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The two sides speak different versions: update the older one.
    Version,
    /// The request does not parse or is not allowed at this point. The connection ends.
    BadRequest,
    /// The peer's user may not attach.
    Denied,
    /// The peer is not the process it says it is, or it ended meanwhile.
    NotYou,
    /// A living process receives under this inbox name already.
    InboxTaken,
    /// Nobody receives under this inbox name.
    NotFound,
    /// The request needs an attached connection.
    NotAttached,
    /// The endpoint to resume is not there (any more): attach again.
    UnknownEndpoint,
    /// All endpoints are taken, or too many connections are open.
    Busy,
    /// The daemon failed; its log says more.
    Internal,
    /// A code of a newer daemon.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::BadRequest => "bad_request",
            Self::Denied => "denied",
            Self::NotYou => "not_you",
            Self::InboxTaken => "inbox_taken",
            Self::NotFound => "not_found",
            Self::NotAttached => "not_attached",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::Busy => "busy",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Does not start with [`crate::attach::MAGIC`].
    #[error("the message starts with {found:02x?}, not with the magic of this protocol")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// Neither request nor answer, or the other one was expected.
    #[error("message kind {found} where {expected} is expected")]
    Kind {
        /// What the header says.
        found: u16,
        /// What belongs here.
        expected: u16,
    },
    /// Another version; the rest of the header was fine.
    #[error("the peer speaks version {found} of the attach protocol, this build speaks {}", super::VERSION)]
    Version {
        /// The peer's version.
        found: u16,
    },
    /// The announced body is longer than any real one.
    #[error("a body of {len} bytes is announced, at most {max} are allowed")]
    TooLong {
        /// Announced length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The body is not the JSON of a known message.
    #[error("the body does not parse: {0}")]
    Body(#[from] serde_json::Error),
}

/// Why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The body came out longer than the peer accepts.
    #[error("the message has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Length of the body.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The body cannot be written as JSON.
    #[error("the message cannot be encoded: {0}")]
    Body(#[from] serde_json::Error),
}
