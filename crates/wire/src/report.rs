//! What the memory daemon tells about itself: members, inboxes, the pool, the audit.
//!
//! These types are answers of the attached-client protocol ([`crate::attach`]) and at the same time what people get
//! from `baton ls --json` and `baton audit --json`. Fields are only ever added; a reader ignores what it does not know.

use serde::{Deserialize, Serialize};

/// One inbox that frames can be sent to, as listed by `who_receives`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxInfo {
    /// The registered name, for example `wmits.frames`.
    pub inbox: String,
    /// Number of the endpoint that reads it.
    pub endpoint: u16,
    /// Process that reads it.
    pub pid: u32,
    /// The name that process gave itself when it attached.
    pub name: String,
}

/// How a member works with the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberKind {
    /// In shared memory, through the SDK.
    #[default]
    Attached,
    /// Through the daemon, with the socket protocol of the original rmmt.
    Classic,
    /// The daemon itself, while it rearranges the pool.
    Daemon,
    /// A kind that a newer daemon knows.
    #[serde(other)]
    Unknown,
}

/// One process attached to the pool (a process that attached twice appears twice).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Number of its endpoint; reused after it has gone, with another `incarnation`.
    pub endpoint: u16,
    /// How often this endpoint number was used before.
    pub incarnation: u32,
    /// Process id.
    pub pid: u32,
    /// User id by the kernel's account (SO_PEERCRED), not by the process' own.
    pub uid: u32,
    /// The name the process gave itself.
    pub name: String,
    /// Name of its inbox, if it registered one.
    pub inbox: Option<String>,
    /// True if it maps pixels read-only.
    pub read_only: bool,
    /// True while its control connection is open. A living process without one still holds what it holds.
    pub connected: bool,
    /// False once its inbox was closed because it hung up.
    pub receiving: bool,
    /// Blocks whose hold word names this endpoint as a holder, queued ones not counted.
    pub blocks_held: u64,
    /// Bytes of those blocks (full block size, not the length asked for).
    pub bytes_held: u64,
    /// Blocks that wait in its inbox.
    pub queued: u64,
    /// How it works with the pool.
    #[serde(default)]
    pub kind: MemberKind,
    /// Messages that its inbox has room for.
    #[serde(default)]
    pub inbox_capacity: u64,
    /// Bytes that it may hold at once; 0: no limit.
    #[serde(default)]
    pub quota_bytes: u64,
    /// Messages it has sent since it attached. This and the other counts are its own account of itself.
    #[serde(default)]
    pub sent: u64,
    /// Messages it has received.
    #[serde(default)]
    pub received: u64,
    /// Messages of its own that it took back unread to make room for newer ones.
    #[serde(default)]
    pub dropped: u64,
    /// Times it had to wait for room in an inbox or for memory.
    #[serde(default)]
    pub waits: u64,
}

/// One holder of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// Number of the endpoint.
    pub endpoint: u16,
    /// True if the block is a message in its inbox that it has not received yet.
    pub inbox: bool,
}

/// One block that somebody holds, or that waits in an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// Its number.
    pub block: u32,
    /// How often it was allocated, modulo 256: tells one content from the next.
    pub generation: u16,
    /// Bytes in use: what its allocator asked for.
    pub len: u64,
    /// Bytes it occupies: the size of its class.
    pub class_bytes: u64,
    /// Who holds it; one entry per lane.
    pub holders: Vec<Holder>,
}

/// The pool as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Bytes of payload memory in all.
    pub bytes_total: u64,
    /// Bytes of blocks that somebody holds or that wait in an inbox (full block size).
    pub bytes_in_use: u64,
    /// Number of blocks that somebody holds or that wait in an inbox.
    pub blocks_in_use: u64,
    /// Largest block that can be asked for, in bytes.
    pub block_bytes_max: u64,
    /// One row per size class that has memory bound to it.
    pub classes: Vec<ClassInfo>,
    /// Times the daemon itself was restarted with this pool (0: never).
    pub adoptions: u32,
    /// Processes whose death this daemon has cleaned up after, since it was (re)started.
    #[serde(default)]
    pub deaths: u64,
    /// Process that answers.
    #[serde(default)]
    pub daemon_pid: u32,
    /// Tells this pool from those before and after it on the same machine: it stays the same as long as the memory does,
    /// whichever process answers.
    #[serde(default)]
    pub pool_id: u64,
}

/// One size class of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassInfo {
    /// Size of its blocks in bytes.
    pub block_bytes: u64,
    /// Blocks that have memory now.
    pub blocks: u64,
    /// Blocks somebody holds or that wait in an inbox.
    pub in_use: u64,
}

/// Result of comparing every block's hold word with the list of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// True if nothing is wrong.
    pub ok: bool,
    /// Blocks looked at.
    pub blocks: u64,
    /// Blocks nobody holds.
    pub free: u64,
    /// Holds of processes; a block may have up to eight holders.
    pub held: u64,
    /// Messages that wait in an inbox.
    pub queued: u64,
    /// One sentence per finding; empty when `ok`.
    pub problems: Vec<String>,
}
