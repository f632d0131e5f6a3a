//! Who is at the other end, as the kernel knows it.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

/// The process at the other end of a connected Unix socket: the one that called `connect`, `listen` or
/// `socketpair`, as recorded by the kernel at that moment. The peer cannot forge it.
///
/// A pid is reused after its process is gone, and the socket may have been passed on since: to follow the process,
/// open a pidfd at once and compare its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id, always positive.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Why the peer is unknown.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kernel does not say who is at the other end of the socket (is it a connected Unix socket?): {0}"
)]
pub struct PeerError(#[from] std::io::Error);

/// Asks the kernel who is at the other end (`SO_PEERCRED`).
///
/// # Errors
/// [`PeerError`] if `socket` is no Unix socket or has no peer, or if the peer lives in a pid namespace that is not
/// visible from here.
pub fn peer_credentials(socket: impl AsFd) -> Result<PeerCredentials, PeerError> {
    let cred = rustix::net::sockopt::socket_peercred(socket).map_err(std::io::Error::from)?;
    // The kernel reports pid 0 for a peer whose pid namespace is not visible from here. The library's type has no
    // room for a zero, so the comparison is kept from being optimised away.
    let pid = std::hint::black_box(rustix::process::Pid::as_raw(Some(cred.pid)));
    if pid <= 0 {
        return Err(PeerError(std::io::Error::other("it lives in another pid namespace")));
    }
    Ok(PeerCredentials { pid, uid: cred.uid.as_raw(), gid: cred.gid.as_raw() })
}

/// What the kernel hands out as the process at the other end.
#[derive(Debug)]
pub enum PeerPidfd {
    /// A pidfd of the very process that connected, whatever became of its number.
    Process(OwnedFd),
    /// It has ended, and its parent has taken note.
    Ended,
    /// This kernel cannot say (it is older than Linux 6.5).
    Unsupported,
}

/// Asks the kernel for the process at the other end (`SO_PEERPIDFD`): the one that [`peer_credentials`] names, without
/// the doubt whether its number is another's by now.
///
/// # Errors
/// The kernel's error, in practice "too many open files", or that `socket` is no connected Unix socket.
pub fn peer_pidfd(socket: impl AsFd) -> std::io::Result<PeerPidfd> {
    match getsockopt(&socket, sockopt::PeerPidfd) {
        Ok(pidfd) => Ok(PeerPidfd::Process(pidfd)),
        // Which of the two depends on the kernel's version.
        Err(Errno::ESRCH | Errno::EINVAL) => Ok(PeerPidfd::Ended),
        Err(Errno::ENOPROTOOPT) => Ok(PeerPidfd::Unsupported),
        Err(errno) => Err(errno.into()),
    }
}
