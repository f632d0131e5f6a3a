//! Why an operation of a classic client is refused. Each message is the sentence that the client gets.

use std::net::IpAddr;

use baton_pool::SendFailure;
use baton_wire::classic::NO_MEMORY;

/// Why a client is not let in. It is told by a closed connection; the log gets the sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnterError {
    #[error("{claim} is no process id; 1 to 4194304 are possible")]
    NoPid { claim: i32 },
    #[error("it says that it is pid {claim}, the kernel says {real}; say your own pid in the hello")]
    NotYou { claim: i32, real: u32 },
    #[error("pid {pid} is a client that the kernel vouches for; take another number over ip://")]
    Taken { pid: u32 },
    #[error("pid {pid} has {max} connections already; close some")]
    Connections { pid: u32, max: usize },
    #[error("pid {pid} is a client at {at}; take another number, or connect from there")]
    Elsewhere { pid: u32, at: IpAddr },
    #[error(
        "pid {pid} wants one more than the {max} connections that the clients at {at} may have; close some, or raise \
         `connections` of [[admit_ip]] in rmmt's --config"
    )]
    ConnectionsAt { pid: u32, at: IpAddr, max: usize },
    #[error("{max} classic connections are open already; close some")]
    Full { max: usize },
    #[error("this pool has no name that a classic client could open; start rmmt with --shm-name /NAME")]
    NoName,
    #[error("the pool has {kib} KiB, more than the classic protocol's 32 bits can say; make it smaller")]
    TooLarge { kib: u64 },
    #[error("{0}")]
    Admit(#[from] baton_pool::AdmitError),
    #[error("{0}")]
    Attach(#[from] baton_pool::AttachError),
}

/// Why there is no block.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AllocError {
    #[error("{}", NO_MEMORY)]
    NoMemory,
    #[error("0 bytes asked; a block has at least 1")]
    Nothing,
    #[error(
        "{size} bytes asked, the largest block of this pool has {max}; start rmmt with a larger --max-block"
    )]
    TooLarge { size: u32, max: usize },
    #[error("alignment {align} asked; powers of two up to 4096 are possible (0 and 1: none)")]
    Align { align: u32 },
    #[error("this client is no member of the pool any more; connect again")]
    NotAdmitted,
    #[error(
        "{size} bytes asked, this client holds {held} of the {quota} bytes that it may; free blocks sooner, or raise its \
         quota in rmmt's --config"
    )]
    Quota { size: u32, held: u64, quota: u64 },
    #[error(
        "{size} bytes asked, the clients at {at} hold {held} of the {quota} bytes that they may together; free blocks \
         sooner, or raise the quota of [[admit_ip]] in rmmt's --config"
    )]
    QuotaAt { at: IpAddr, size: u32, held: u64, quota: u64 },
}

/// Why nothing was given back.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FreeError {
    #[error("pid {pid} holds no block at {node}; nothing was freed (freed before, or still to be received?)")]
    NotHeld { pid: u32, node: i64 },
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PreSendError {
    #[error("a transfer of no block; name at least one")]
    Nothing,
    #[error("pid {pid} holds no block at {node}; nothing was sent")]
    NotHeld { pid: u32, node: i64 },
    #[error("no client has pid {to_pid}; nothing was sent (has it said hello, does it live?)")]
    Unknown { to_pid: i32 },
    #[error(
        "the block at {node} has as many holders as it can have; nothing was sent, free it elsewhere first"
    )]
    FanOut { node: i64 },
    #[error("{max} references are on their way already; nothing was sent, receive some first")]
    InFlight { max: usize },
    #[error("the inbox of pid {to_pid} has no room for {count} more; nothing was sent, try again later")]
    Full { to_pid: u32, count: usize },
    #[error(
        "the inbox of pid {to_pid} became full: the receiver has taken {sent} of {count} blocks, the others were not sent"
    )]
    Partly { to_pid: u32, sent: usize, count: usize },
    #[error("the pool refused: {0}; nothing was sent")]
    Refused(SendFailure),
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum RecvError {
    #[error("there is no transfer {bid} for pid {pid} (received already, or a wrong number?)")]
    Unknown { bid: i64, pid: u32 },
    #[error("transfer {bid} comes from pid {from}, not from {claim}; nothing was received")]
    Sender { bid: i64, from: u32, claim: i32 },
    #[error("transfer {bid} has {count} blocks, not {claim}; nothing was received")]
    Count { bid: i64, count: usize, claim: u32 },
}
