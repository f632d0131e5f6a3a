//! A worker as the master sees it: a process, a channel, and the connections that it has not taken yet.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use baton_fdpass::PairKind;
use rustix::process::{Pid, PidfdFlags};

use crate::ConnectionId;
use crate::addresses::AddressKey;
use crate::message::{BATCH, Give, Hello, MAX_LEN, Word};

/// How long a worker that refused a connection, or whose channel is full, is passed over.
const HOLD: Duration = Duration::from_millis(50);

/// A connection that no worker has taken yet; this is the copy that keeps it alive.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub give: Give,
    pub socket: OwnedFd,
    /// Under which address it is counted.
    pub address: Option<AddressKey>,
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
    /// Chosen for this worker in the present turn, to be sent in one message.
    pub outbox: Vec<Waiting>,
    /// Taken connections that are counted under an address, until the worker says that they are closed.
    pub counted: HashMap<ConnectionId, AddressKey>,
    /// Connections it has taken so far.
    pub taken: u64,
    /// Connections it has refused so far.
    pub refused: u64,
    /// Whether a timer is set for the oldest unread connection.
    pub watched: bool,
    /// When that one runs out.
    pub stuck_timer: Instant,
    pub hold_until: Option<Instant>,
    pub stuck: bool,
}

impl Recipe {
    /// Starts a worker. Must be called on the thread that lives as long as the worker shall: the parent-death signal
    /// follows the thread. The first message lies in the channel before the process exists.
    pub fn start(&self, hello: &Hello, fds: &[BorrowedFd<'_>]) -> io::Result<Process> {
        let (ours, theirs) = baton_fdpass::socket_pair(PairKind::SeqPacket)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        baton_fdpass::send(&ours, &hello.encode(), fds)?;
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
            outbox: Vec::new(),
            counted: HashMap::new(),
            taken: 0,
            refused: 0,
            watched: false,
            stuck_timer: Instant::now(),
            hold_until: None,
            stuck: false,
        })
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True if it may be sent a connection; whether it has room under its limit is another matter.
    pub fn is_open(&self, now: Instant, unread_max: usize) -> bool {
        self.ready
            && !self.stuck
            && self.channel.is_some()
            && self.unread.len() + self.outbox.len() < unread_max
            && self.hold_until.is_none_or(|until| until <= now)
    }

    /// Connections that it has or was sent, given how many it has closed.
    pub fn open(&self, closed: u64) -> u64 {
        let given = self.taken + (self.unread.len() + self.outbox.len()) as u64;
        given.saturating_sub(closed)
    }

    /// Sends what was chosen for it, in as few messages as possible, never waiting. What could not be sent comes back.
    pub fn flush(&mut self, now: Instant) -> Vec<Waiting> {
        while !self.outbox.is_empty() {
            let count = self.outbox.len().min(BATCH);
            let batch = &self.outbox[..count];
            let bytes = Give::encode_all(batch.iter().map(|waiting| &waiting.give));
            let fds: Vec<BorrowedFd<'_>> = batch.iter().map(|waiting| waiting.socket.as_fd()).collect();
            let sent = self.channel.as_ref().map(|channel| baton_fdpass::send(channel, &bytes, &fds));
            match sent {
                Some(Ok(_)) => {
                    for mut waiting in self.outbox.drain(..count) {
                        waiting.sent = Some(now);
                        self.unread.push_back(waiting);
                    }
                    continue;
                }
                // Full, or too many descriptors in flight: passes. A closed channel shows as such when it is read.
                Some(Err(error)) if !error.would_block() => {
                    tracing::debug!(pid = self.pid(), %error, "connections could not be sent");
                }
                _ => {}
            }
            self.hold_until = Some(now + HOLD);
            return std::mem::take(&mut self.outbox);
        }
        Vec::new()
    }

    /// Hears all that the worker has said; gives what it refused.
    pub fn hear(&mut self, now: Instant) -> Heard {
        let mut heard = Heard::default();
        let mut bytes = [0; MAX_LEN];
        while let Some(channel) = &self.channel {
            match baton_fdpass::recv(channel, &mut bytes, 0) {
                Ok(received) if received.len == 0 => {
                    heard.ended = true;
                    break;
                }
                Ok(received) => match Word::parse(&bytes[..received.len]) {
                    Some(Word::Ready) => {
                        heard.became_ready |= !self.ready;
                        self.ready = true;
                    }
                    Some(Word::Taken(ids)) => ids.into_iter().for_each(|id| self.take(id)),
                    Some(Word::Refused(ids)) => {
                        let before = heard.refused.len();
                        heard.refused.extend(ids.into_iter().filter_map(|id| self.forget(id)));
                        self.refused += (heard.refused.len() - before) as u64;
                        self.hold_until = Some(now + HOLD);
                    }
                    Some(Word::Closed(ids)) => {
                        heard.released.extend(ids.iter().filter_map(|id| self.counted.remove(id)));
                    }
                    // Hearing it was its purpose: the master hands out after each turn.
                    Some(Word::Room) => {}
                    None => tracing::warn!(pid = self.pid(), "a worker's message was not understood"),
                },
                Err(error) if error.would_block() => break,
                Err(_) => {
                    heard.ended = true;
                    break;
                }
            }
        }
        heard
    }

    fn take(&mut self, id: ConnectionId) {
        let Some(waiting) = self.forget(id) else { return };
        self.taken += 1;
        if let Some(address) = waiting.address {
            self.counted.insert(id, address);
        }
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
    /// Nothing comes any more: the channel is to be closed.
    pub ended: bool,
    pub refused: Vec<Waiting>,
    /// Addresses of counted connections that were closed.
    pub released: Vec<AddressKey>,
}
