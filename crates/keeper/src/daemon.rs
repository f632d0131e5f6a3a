//! The daemon as its keeper sees it: a child, or a process that was there before this keeper.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use baton_fdpass::peer_credentials;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, waitpid,
};
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// A running daemon.
pub(crate) struct Daemon {
    pid: u32,
    handle: Handle,
}

enum Handle {
    Child {
        child: Child,
        status: Option<ExitStatus>,
    },
    /// Not our child: watched, and signalled, through its pidfd. Nobody tells us its exit code.
    Stranger(AsyncFd<OwnedFd>),
}

impl Daemon {
    pub(crate) fn child(child: Child) -> Self {
        Self { pid: child.id().unwrap_or(0), handle: Handle::Child { child, status: None } }
    }

    /// The process that made the socket pair of which `socket` is one end.
    pub(crate) fn behind(socket: &OwnedFd) -> io::Result<Self> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the daemon has ended");
        let peer = peer_credentials(socket).map_err(io::Error::other)?;
        let pid = Pid::from_raw(peer.pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // The other end closes with the process. Still open after the pidfd was: so the number was not another's yet.
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
        poll(&mut fds, Some(&now))?;
        if fds[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR) {
            return Err(gone());
        }
        Ok(Self { pid: peer.pid.unsigned_abs(), handle: Handle::Stranger(watch(pidfd)?) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_child(&self) -> bool {
        matches!(self.handle, Handle::Child { .. })
    }

    /// How a child ended, if it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        match &self.handle {
            Handle::Child { status, .. } => *status,
            Handle::Stranger(_) => None,
        }
    }

    /// Comes back when it has ended.
    pub(crate) async fn ended(&mut self) {
        match &mut self.handle {
            Handle::Child { child, status } => match child.wait().await {
                Ok(ended) => *status = Some(ended),
                Err(error) => tracing::error!("keeper: the daemon cannot be waited for: {error}"),
            },
            Handle::Stranger(pidfd) => {
                // An error means that the runtime ends, and we with it.
                let _ready = pidfd.readable().await;
                // A keeper that began anew (exec) may still be its parent, and then has to bury it.
                let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
                let _not_ours = waitpid(pid, WaitOptions::NOHANG);
            }
        }
    }

    /// Waits for the end of a daemon that shall end (or has ended): SIGTERM, then SIGKILL.
    pub(crate) async fn stop(&mut self, patience: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(patience, self.ended()).await.is_ok() {
            return;
        }
        tracing::warn!("keeper: the daemon did not end within {patience:?} and is killed");
        self.signal(Signal::KILL);
        self.ended().await;
    }

    fn signal(&self, signal: Signal) {
        // It may have ended already, which is what is wanted.
        let _ended = match &self.handle {
            // Until it is waited for, the number is this child's; `id` gives none after that.
            Handle::Child { child, .. } => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
                pid.map_or(Ok(()), |pid| kill_process(pid, signal))
            }
            Handle::Stranger(pidfd) => pidfd_send_signal(pidfd.get_ref(), signal),
        };
    }
}

/// An [`OwnedFd`] stays open and the same while it is owned, which is what tokio's unsafe replacement of this function
/// asks its caller to promise.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe function; for an OwnedFd its condition always holds"
)]
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}
