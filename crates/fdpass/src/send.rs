//! Sending bytes with descriptors attached.

use crate::MAX_FDS;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Descriptors need at least one byte to ride on.
    #[error("descriptors cannot be sent without at least one byte of data")]
    NoBytes,
    /// More descriptors than the kernel takes at once.
    #[error(
        "{count} descriptors in one message, the kernel takes at most {MAX_FDS}: send them in several messages"
    )]
    TooManyFds {
        /// How many were given.
        count: usize,
    },
    /// The kernel refused; [`std::io::ErrorKind::WouldBlock`] on a non-blocking socket means "try again later".
    #[error("cannot send on the Unix socket: {0}")]
    Socket(#[source] std::io::Error),
}

impl SendError {
    /// Whether a non-blocking socket was full: nothing was sent, wait until it is writable.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, SendError::Socket(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl From<SendError> for std::io::Error {
    /// Keeps the kind, so that event loops (`try_io`) recognise `WouldBlock`.
    fn from(error: SendError) -> Self {
        match error {
            SendError::Socket(e) => e,
            other => std::io::Error::new(std::io::ErrorKind::InvalidInput, other),
        }
    }
}

/// Sends `bytes` with `fds` attached in one message and returns how many bytes the socket took.
///
/// When it returns `Ok`, all the descriptors went with the first byte, even if only part of the bytes did: the rest
/// must then be sent *without* them ([`send_all`] does that). On an error neither bytes nor descriptors were sent.
///
/// # Errors
/// See [`SendError`].
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, SendError> {
    if fds.len() > MAX_FDS {
        return Err(SendError::TooManyFds { count: fds.len() });
    }
    if bytes.is_empty() && !fds.is_empty() {
        return Err(SendError::NoBytes);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(SendError::TooManyFds { count: fds.len() });
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => return Ok(sent),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SendError::Socket(errno.into())),
        }
    }
}

/// Like [`send`], but comes back only when all bytes are sent; on a non-blocking socket it waits for room.
///
/// # Errors
/// See [`SendError`]. After an error part of the bytes (and then all descriptors) may have been sent: a stream is
/// out of step and should be closed.
pub fn send_all(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
    let (mut rest, mut fds) = (bytes, fds);
    loop {
        match send(&socket, rest, fds) {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                fds = &[];
                if rest.is_empty() {
                    return Ok(());
                }
            }
            Err(error) if error.would_block() => wait_writable(&socket)?,
            Err(error) => return Err(error),
        }
    }
}

fn wait_writable(socket: &impl AsFd) -> Result<(), SendError> {
    use rustix::event::{PollFd, PollFlags, poll};
    match poll(&mut [PollFd::new(socket, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(SendError::Socket(errno.into())),
    }
}
