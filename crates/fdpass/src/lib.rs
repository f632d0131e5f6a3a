//! File descriptors that travel over Unix sockets (SCM_RIGHTS), owned at both ends.
//!
//! A descriptor is a reference to something inside the kernel: a connected client, a piece of shared memory, an
//! eventfd. Passing it to another process makes that process a second owner of the same thing. The sender lends
//! ([`BorrowedFd`]) and keeps its own; the receiver gets [`OwnedFd`]s that close themselves.
//!
//! ```text
//!   sender                        kernel                         receiver
//!   send(sock, b"x", &[fd]) ──▶  byte + reference in flight ──▶  recv(sock, buf, max) → Received { len, fds, … }
//!   (keeps its own fd)           (dropped if the socket dies)    (new numbers, close-on-exec, closed on drop)
//! ```
//!
//! Rules of the kernel that shape this interface (unix(7)):
//! * descriptors ride on bytes: on a stream at least one byte is needed, and they arrive with the first byte of
//!   the call that sent them. A `recv` never returns bytes of two sends that both carried descriptors;
//! * at most [`MAX_FDS`] in one message;
//! * what does not fit the receiver's space is closed by the kernel and reported ([`Received::truncated`]).
//!
//! # What goes wrong, and who cleans up
//! * The receiver dies before it reads: the kernel drops the references in flight; the sender still has its own.
//! * The peer sends more descriptors than asked for: the extra ones are closed, `truncated` is set; the caller
//!   should treat the peer as broken.
//! * `SIGPIPE` never fires: a closed peer is an error of the call.
//! * A signal interrupts the call: it is repeated here.
#![forbid(unsafe_code)]

mod credentials;
mod recv;
mod send;

pub use credentials::{PeerCredentials, PeerError, PeerPidfd, peer_credentials, peer_pidfd};
pub use recv::{Received, RecvError, recv};
pub use send::{SendError, send, send_all};

use std::os::fd::{BorrowedFd, OwnedFd};

/// The most descriptors that the kernel takes in one message (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// Which kind of socket pair to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairKind {
    /// A byte stream: what is sent in one call may arrive in several.
    Stream,
    /// Whole messages in order; a message arrives in one piece or not at all, and the end of the stream is seen.
    SeqPacket,
}

/// Makes two connected Unix sockets, close-on-exec and blocking. [`peer_credentials`] of either end names the
/// process that called this.
///
/// # Errors
/// The kernel's error, in practice only "too many open files".
pub fn socket_pair(kind: PairKind) -> std::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let kind = match kind {
        PairKind::Stream => SocketType::STREAM,
        PairKind::SeqPacket => SocketType::SEQPACKET,
    };
    Ok(socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

/// Another reference to the same kernel object, close-on-exec. For keeping a duplicate of what is passed on.
///
/// # Errors
/// The kernel's error, in practice only "too many open files".
pub fn duplicate(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}
