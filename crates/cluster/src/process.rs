//! A worker as the master sees it: a process, a channel, and the connections that it has not taken yet.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use baton_fdpass::PairKind;
use rustix::process::{Pid, PidfdFlags};

use crate::ConnectionId;
use crate::message::{Give, MAX_LEN, Word};

/// How long a worker that refused a connection, or whose channel is full, is passed over.
const HOLD: Duration = Duration::from_millis(50);

/// A connection that no worker has taken yet; this is the copy that keeps it alive.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub give: Give,
    pub socket: OwnedFd,
    /// When it was put into its worker's channel.
    pub sent: Option<Instant>,
}

/// How to start a worker.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// A worker process that has been started and not been reaped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub pidfd: OwnedFd,
    /// Our end; `None` once the worker has closed its own.
    pub channel: Option<OwnedFd>,
    pub ready: bool,
    pub started: Instant,
    /// Sent and not taken, in the order sent.
    pub unread: VecDeque<Waiting>,
    /// Connections it has taken so far.
    pub taken: u64,
    pub hold_until: Option<Instant>,
    pub stuck: bool,
}

/// What became of an attempt to send a connection to a worker.
pub(crate) enum Sent {
    Yes,
    /// Not now; the connection comes back.
    NotNow(Waiting),
}

impl Recipe {
    /// Starts a worker. Must be called on the thread that lives as long as the worker shall: the parent-death signal
    /// follows the thread.
    pub fn start(&self) -> io::Result<Process> {
        let (ours, theirs) = baton_fdpass::socket_pair(PairKind::SeqPacket)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let mut child = Command::new(&self.program)
            .arg0(std::env::args_os().next().unwrap_or_else(|| self.program.clone().into()))
            .args(&self.args)
            .stdin(Stdio::from(theirs))
            // A Ctrl-C in the terminal is for the master: it decides how the workers end.
            .process_group(0)
            .spawn()?;
        let pidfd = Pid::from_child(&child);
        let pidfd = match rustix::process::pidfd_open(pidfd, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        Ok(Process {
            child,
            pidfd,
            channel: Some(ours),
            ready: false,
            started: Instant::now(),
            unread: VecDeque::new(),
            taken: 0,
            hold_until: None,
            stuck: false,
        })
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True if it may be sent a connection.
    pub fn is_open(&self, now: Instant, unread_max: usize) -> bool {
        self.ready
            && !self.stuck
            && self.channel.is_some()
            && self.unread.len() < unread_max
            && self.hold_until.is_none_or(|until| until <= now)
    }

    /// Puts a connection into the channel, never waiting.
    pub fn send(&mut self, mut waiting: Waiting, now: Instant) -> Sent {
        let Some(channel) = &self.channel else { return Sent::NotNow(waiting) };
        match baton_fdpass::send(channel, &waiting.give.encode(), &[waiting.socket.as_fd()]) {
            Ok(_) => {
                waiting.sent = Some(now);
                self.unread.push_back(waiting);
                Sent::Yes
            }
            Err(error) => {
                // Full, or too many descriptors in flight: passes. A closed channel shows as such when it is read.
                if !error.would_block() {
                    tracing::debug!(pid = self.pid(), %error, "a connection could not be sent");
                }
                self.hold_until = Some(now + HOLD);
                Sent::NotNow(waiting)
            }
        }
    }

    /// Hears all that the worker has said; gives what it refused. Closes the channel at its end.
    pub fn hear(&mut self, now: Instant) -> Heard {
        let mut heard = Heard::default();
        let mut bytes = [0; MAX_LEN];
        while let Some(channel) = &self.channel {
            match baton_fdpass::recv(channel, &mut bytes, 0) {
                Ok(received) if received.len == 0 => self.channel = None,
                Ok(received) => match Word::parse(&bytes[..received.len]) {
                    Some(Word::Ready) => {
                        heard.became_ready |= !self.ready;
                        self.ready = true;
                    }
                    Some(Word::Taken(id)) => self.taken += u64::from(self.forget(id).is_some()),
                    Some(Word::Refused(id)) => {
                        heard.refused.extend(self.forget(id));
                        self.hold_until = Some(now + HOLD);
                    }
                    None => tracing::warn!(pid = self.pid(), "a worker's message was not understood"),
                },
                Err(error) if error.would_block() => break,
                Err(_) => self.channel = None,
            }
        }
        heard
    }

    fn forget(&mut self, id: ConnectionId) -> Option<Waiting> {
        // Nearly always the first: workers take in order.
        let at = self.unread.iter().position(|waiting| waiting.give.id == id)?;
        self.unread.remove(at)
    }

    /// Says that no more connections come: the worker finishes what it has and ends.
    pub fn close_channel(&self) {
        if let Some(channel) = &self.channel {
            let _ = rustix::net::shutdown(channel, rustix::net::Shutdown::Write);
        }
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Collects the process if it has ended.
    pub fn try_reap(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only after an early return is it still alive; a reaped child is neither killed nor waited for again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a worker has said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub became_ready: bool,
    pub refused: Vec<Waiting>,
}
