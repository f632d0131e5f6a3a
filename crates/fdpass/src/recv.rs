//! Receiving bytes with the descriptors attached to them.

use crate::MAX_FDS;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// What one call of [`recv`] brought.
#[derive(Debug)]
#[must_use = "dropping it closes the descriptors"]
pub struct Received {
    /// Bytes written to the front of the buffer. 0 is the end of the stream (or an empty message of a packet
    /// socket). On a packet socket it never exceeds the buffer; a longer message sets [`Received::bytes_cut`].
    pub len: usize,
    /// The descriptors, in the order sent, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// The peer sent more descriptors than asked for, or this process has no room for more (`RLIMIT_NOFILE`); the
    /// missing ones are closed. [`Received::fds`] is then a beginning of what was sent.
    pub truncated: bool,
    /// A packet socket's message was longer than the buffer and lost its end.
    pub bytes_cut: bool,
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// With an empty buffer the end of the stream could not be told from data.
    #[error("the buffer to receive into is empty")]
    NoBuffer,
    /// The kernel refused; [`std::io::ErrorKind::WouldBlock`] on a non-blocking socket means "try again later".
    #[error("cannot receive from the Unix socket: {0}")]
    Socket(#[source] std::io::Error),
}

impl RecvError {
    /// Whether a non-blocking socket had nothing yet.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, RecvError::Socket(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl From<RecvError> for std::io::Error {
    /// Keeps the kind, so that event loops (`try_io`) recognise `WouldBlock`.
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Socket(e) => e,
            other => std::io::Error::new(std::io::ErrorKind::InvalidInput, other),
        }
    }
}

/// Receives up to `buf.len()` bytes and up to `max_fds` descriptors (at most [`MAX_FDS`]), in one call.
///
/// On a stream the bytes may be a part of what the peer sent, or several of its sends glued together; descriptors
/// come with the first byte of their send. Anything received is the peer's claim: check what a descriptor refers
/// to before using it.
///
/// # Errors
/// See [`RecvError`].
pub fn recv(socket: impl AsFd, buf: &mut [u8], max_fds: usize) -> Result<Received, RecvError> {
    if buf.is_empty() {
        return Err(RecvError::NoBuffer);
    }
    let max_fds = max_fds.min(MAX_FDS);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    // Room for no (or few) more than asked for, so that a peer cannot make the kernel install a heap of descriptors
    // here. Alignment may leave room for one or two extra; they are closed below.
    let room = if max_fds == 0 { 0 } else { space.len() - (MAX_FDS - max_fds) * size_of::<i32>() };
    let mut control = RecvAncillaryBuffer::new(&mut space[..room]);
    let message = loop {
        let mut iov = [IoSliceMut::new(buf)];
        match rustix::net::recvmsg(&socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(RecvError::Socket(errno.into())),
        }
    };
    let mut received = Received {
        len: message.bytes.min(buf.len()),
        fds: Vec::with_capacity(max_fds.min(8)),
        truncated: message.flags.contains(ReturnFlags::CTRUNC),
        bytes_cut: message.flags.contains(ReturnFlags::TRUNC),
    };
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            for fd in fds {
                if received.fds.len() < max_fds {
                    received.fds.push(fd);
                } else {
                    received.truncated = true; // and closed here, by dropping it
                }
            }
        }
    }
    Ok(received)
}
