//! Requests and answers.

use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, ErrorCode, HEADER_LEN, Header, Kind, Name, VERSION};
use crate::report::{AuditReport, BlockInfo, InboxInfo, Member, PoolInfo};

/// Rows of one [`Answer::Blocks`] at most: with eight holders each they take about 1.6 MB.
pub const BLOCKS_PAGE_MAX: u32 = 4096;

/// What a member may do with the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// The payload descriptor is writable.
    ReadWrite,
    /// The payload descriptor was opened read-only by the daemon.
    ReadOnly,
}

/// What a member asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Become a member. Once per connection.
    Attach(Attach),
    /// Be the member again that one was before the daemon restarted.
    Resume(Resume),
    /// A way to the inbox of that name.
    OpenInbox {
        /// The registered name.
        inbox: Name,
    },
    /// List the inboxes.
    Inboxes,
    /// Become the keeper of the daemon's descriptors, in the place of one that was killed. For the daemon's own user only.
    Keep,
    /// List the members.
    Members,
    /// The pool as a whole.
    Pool,
    /// Check every block's holders.
    Audit,
    /// This member found no free block: let a block of that size be possible, if only extents of other sizes are in the
    /// way that hold nothing.
    MakeRoom {
        /// Its size.
        bytes: u64,
    },
    /// Blocks that this member holds are on their way to a classic client, if [`Request::Confirm`] is the next that is
    /// said. The member drops its own hold then.
    SendToPid {
        /// The client's.
        pid: u32,
        /// Numbers of the blocks, at most [`super::SEND_TO_PID_MAX`].
        blocks: Vec<u32>,
    },
    /// The answer to [`Request::SendToPid`] has come: the transfer counts. Not answered. If anything else is said, or
    /// nothing any more, the daemon takes the transfer back: nobody could tell the client of it.
    Confirm {
        /// The number in that answer.
        bid: i64,
    },
    /// List blocks that somebody holds, by number, a page at a time.
    Blocks {
        /// Only those of this endpoint, its unread messages included.
        held_by: Option<u16>,
        /// The first number to look at: 0, or `next` of the page before.
        from: u32,
        /// At most so many rows; never more than [`BLOCKS_PAGE_MAX`].
        limit: u32,
    },
    /// Become one more holder of a block that others hold, to look into it. Until [`Request::Return`], or the end.
    Borrow {
        /// Its number.
        block: u32,
    },
    /// Give a borrowed block back.
    Return {
        /// Its number.
        block: u32,
    },
    /// Leave: nothing of the pool is used by this endpoint any more, its blocks may be taken.
    Bye,
}

/// Body of [`Request::Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Shown in listings and in the log.
    pub name: Name,
    /// Name to register the inbox under.
    pub inbox: Option<Name>,
    /// Read-write or read-only.
    pub access: Access,
    /// Start time of the process in clock ticks since boot (field 22 of /proc/PID/stat): tells a process from a later
    /// one with the same pid. Compared with what the daemon reads itself.
    pub start_time: u64,
    /// Random number of this attempt. Repeated on a retry: if the daemon died after it had registered the endpoint and
    /// before the answer arrived, the retry gets that same endpoint and not a second one.
    pub token: u64,
}

/// Body of [`Request::Resume`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Number of the endpoint.
    pub endpoint: u16,
    /// Its incarnation.
    pub incarnation: u32,
    /// The token it was attached with.
    pub token: u64,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// To [`Request::Attach`]; comes with [`super::ATTACHED_FDS`] descriptors.
    Attached(Attached),
    /// To [`Request::Resume`].
    Resumed(Resumed),
    /// To [`Request::OpenInbox`]; comes with [`super::OPENED_FDS`] descriptor.
    Opened(Opened),
    /// To [`Request::Inboxes`].
    Inboxes {
        /// One row per registered inbox.
        inboxes: Vec<InboxInfo>,
    },
    /// To [`Request::Keep`]; comes with one descriptor, the keeper's end of a socket pair made by the daemon.
    Kept,
    /// To [`Request::Members`].
    Members {
        /// One row per endpoint.
        members: Vec<Member>,
    },
    /// To [`Request::Pool`].
    Pool(PoolInfo),
    /// To [`Request::Audit`].
    Audit(AuditReport),
    /// To [`Request::MakeRoom`].
    MadeRoom {
        /// Whether such a block may be had now; somebody else may be faster.
        made: bool,
    },
    /// To [`Request::SendToPid`]; asks for [`Request::Confirm`].
    Transfer {
        /// The number that the client receives the blocks with.
        bid: i64,
        /// Where each block begins: bytes from the start of the payload.
        nodes: Vec<i64>,
    },
    /// To [`Request::Blocks`].
    Blocks {
        /// One row per block.
        blocks: Vec<BlockInfo>,
        /// Where the next page starts; `None` after the last.
        next: Option<u32>,
    },
    /// To [`Request::Borrow`]: the asker is a holder now.
    Borrowed {
        /// The block, as it was just before.
        block: BlockInfo,
    },
    /// To [`Request::Return`].
    Returned,
    /// To [`Request::Bye`]; the daemon closes the connection after it.
    Bye,
    /// A refusal, to any request.
    Error(Failure),
}

/// Body of [`Answer::Attached`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Number of the new endpoint.
    pub endpoint: u16,
    /// How often that number was used before.
    pub incarnation: u32,
}

/// Body of [`Answer::Resumed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Number of the endpoint, as asked.
    pub endpoint: u16,
}

/// Body of [`Answer::Opened`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Endpoint that reads this inbox.
    pub endpoint: u16,
    /// Its incarnation: a later reader of the same name has another endpoint or incarnation.
    pub incarnation: u32,
}

/// Body of [`Answer::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code.
    pub code: ErrorCode,
    /// One sentence for a person; may change.
    pub message: String,
}

impl Failure {
    /// A refusal with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Request {
    /// The whole message.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] cannot happen with names of legal length; it is checked all the same.
    pub fn encode(&self, serial: u32) -> Result<Vec<u8>, EncodeError> {
        encode(self, Kind::Request, serial)
    }

    /// Parses a body whose header was checked.
    ///
    /// # Errors
    /// [`DecodeError::Body`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Ok(serde_json::from_slice(body)?)
    }
}

impl Answer {
    /// The whole message.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`].
    pub fn encode(&self, serial: u32) -> Result<Vec<u8>, EncodeError> {
        encode(self, Kind::Answer, serial)
    }

    /// Parses a body whose header was checked.
    ///
    /// # Errors
    /// [`DecodeError::Body`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Ok(serde_json::from_slice(body)?)
    }

    /// How many descriptors come with this answer.
    pub fn fds(&self) -> usize {
        match self {
            Self::Attached(_) => super::ATTACHED_FDS,
            Self::Opened(_) => super::OPENED_FDS,
            _ => 0,
        }
    }
}

fn encode(message: &impl Serialize, kind: Kind, serial: u32) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0; HEADER_LEN];
    serde_json::to_writer(&mut bytes, message)?;
    let body_len = bytes.len() - HEADER_LEN;
    if body_len > kind.body_max() {
        return Err(EncodeError::TooLong { len: body_len, max: kind.body_max() });
    }
    let header = Header { version: VERSION, kind, serial, body_len };
    bytes[..HEADER_LEN].copy_from_slice(&header.encode());
    Ok(bytes)
}
