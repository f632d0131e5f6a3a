//! Waiting for the death of a process, and descriptors in tokio.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use baton_fdpass::{PeerPidfd, peer_pidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

/// A process that was alive when this was made, held so that its number cannot stand for another one.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: AsyncFd<OwnedFd>,
}

/// Why a process cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// It has ended, or the number belongs to a later process.
    #[error("process {pid} has ended")]
    Ended { pid: u32 },
    /// The kernel refuses, in practice for want of descriptors.
    #[error("process {pid} cannot be followed: {source}")]
    Io { pid: u32, source: io::Error },
}

impl Process {
    /// Opens the process `pid` that started at `start_time` (clock ticks since boot).
    ///
    /// The start time is read *after* the pidfd is open, and the pidfd is looked at after that: if it is still alive
    /// then, the time read was its own and not that of a later process with the same number.
    pub(crate) fn open(pid: u32, start_time: u64) -> Result<Self, ProcessError> {
        let ended = || ProcessError::Ended { pid };
        let io = |source| ProcessError::Io { pid, source };
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(ended)?;
        let pidfd = match pidfd_open(number, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Err(ended()),
            Err(errno) => return Err(io(errno.into())),
        };
        Self::behind(pidfd, pid, start_time)
    }

    /// Opens the process that connected `socket`, of which the kernel says that it was `pid`, and which says that it
    /// started at `start_time`.
    ///
    /// Since Linux 6.5 the kernel hands out the very process that connected (SO_PEERPIDFD). Older ones know its number
    /// only: if it ended, left its socket to somebody else, and its number was given to a third, that one would be
    /// followed instead, provided that its start time is what was said.
    pub(crate) fn of_peer(socket: impl AsFd, pid: u32, start_time: u64) -> Result<Self, ProcessError> {
        match peer_pidfd(socket) {
            Ok(PeerPidfd::Process(pidfd)) => Self::behind(pidfd, pid, start_time),
            Ok(PeerPidfd::Ended) => Err(ProcessError::Ended { pid }),
            Ok(PeerPidfd::Unsupported) => Self::open(pid, start_time),
            Err(source) => Err(ProcessError::Io { pid, source }),
        }
    }

    fn behind(pidfd: OwnedFd, pid: u32, start_time: u64) -> Result<Self, ProcessError> {
        let ended = || ProcessError::Ended { pid };
        let io = |source| ProcessError::Io { pid, source };
        let found = start_time_of(pid).map_err(|_| ended())?;
        let process = Self { pidfd: async_fd(pidfd).map_err(io)? };
        if found != start_time || process.has_ended() {
            return Err(ended());
        }
        Ok(process)
    }

    /// Whether it has ended by now.
    pub(crate) fn has_ended(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }

    /// Comes back when it has ended.
    pub(crate) async fn ended(&self) {
        loop {
            match self.pidfd.readable().await {
                Ok(_) if self.has_ended() => return,
                Ok(mut early) => early.clear_ready(),
                // The runtime ends; nobody may conclude from it that the process has.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// Start time of a process in clock ticks since boot: field 22 of /proc/PID/stat, proc_pid_stat(5).
pub(crate) fn start_time_of(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Field 2 is the program's name in parentheses and may contain anything, also parentheses.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    after_name
        .and_then(|rest| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Nanoseconds of the host's monotonic clock.
pub(crate) fn monotonic_now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// An [`OwnedFd`] stays open and the same while it is owned, which is what tokio's unsafe replacement of this function
/// asks its caller to promise.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe function; for an OwnedFd its condition always holds"
)]
pub(crate) fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn death_is_noticed_and_a_wrong_start_time_is_another_process() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let start = start_time_of(child.id()).unwrap();
        let process = Process::open(child.id(), start).unwrap();
        assert!(matches!(Process::open(child.id(), start + 1), Err(ProcessError::Ended { .. })));
        assert!(!process.has_ended());
        child.kill().unwrap();
        process.ended().await;
        assert!(process.has_ended());
        // A zombie still has a pid and a start time, but it is dead.
        assert!(matches!(Process::open(child.id(), start), Err(ProcessError::Ended { .. })));
        child.wait().unwrap();
        assert!(matches!(Process::open(child.id(), start), Err(ProcessError::Ended { .. })));
    }
}
