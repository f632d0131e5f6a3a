//! The worker's half: receives connections and serves them.
//!
//! ```text
//!   attach ─▶ own set-up ─▶ serve: ready ─▶ taking ──channel ends──▶ draining ──last connection ended──▶ returns
//!                                            ├ receive up to 16, say "taken", spawn
//!                                            └ or: accept, spawn (policies without passing)
//! ```
//! The channel to the master is the process' standard input: the one descriptor that a new process can be given without
//! agreeing on a number, and that safe code can take over. It is moved away at once and replaced by `/dev/null`, so that
//! no child of the worker inherits it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use baton_fdpass::{MAX_FDS, Received};
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::acceptor::{Accepted, Acceptor};
use crate::host::Host;
use crate::load::{BEAT, Load, Pulse};
use crate::message::{BATCH, Give, Hello, MAX_LEN, Word};
use crate::{Draining, Service, descriptors};

/// This process as a worker of a cluster.
#[derive(Debug)]
pub struct Worker {
    channel: OwnedFd,
    drain: watch::Sender<bool>,
    hello: Hello,
    load: Load,
    listeners: Vec<OwnedFd>,
}

/// Why this process cannot be a worker.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Its standard input is not the channel of a cluster's master: somebody started it by hand.
    #[error("this command is started by the master of a cluster, not by hand")]
    NotAWorker,
    /// The master ended meanwhile.
    #[error("the master of this worker has ended")]
    Orphan,
    /// The system refused.
    #[error("cannot attach to the master: {0}")]
    Io(#[from] io::Error),
}

/// Why a worker stopped before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("the channel to the master broke: {0}")]
pub struct WorkerError(#[from] io::Error);

impl Worker {
    /// Takes over the channel from standard input, and arranges that this process is killed when its master ends. Call it
    /// once, early: before it, a killed master would leave this process behind.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach() -> Result<Worker, AttachError> {
        let stdin = io::stdin();
        let kind = rustix::net::sockopt::socket_type(stdin.as_fd());
        if kind != Ok(rustix::net::SocketType::SEQPACKET) {
            return Err(AttachError::NotAWorker);
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
        let channel = stdin.as_fd().try_clone_to_owned()?;
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null).map_err(io::Error::from)?;
        // The signal is for deaths from now on; an earlier one shows in a parent that did not make the channel.
        let master = baton_fdpass::peer_credentials(&channel).map_err(|_| AttachError::NotAWorker)?.pid;
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        if parent != Some(master) {
            return Err(AttachError::Orphan);
        }
        rustix::io::ioctl_fionbio(&channel, true).map_err(io::Error::from)?;
        descriptors::raise_limit();
        // It was put into the channel before this process was started.
        let mut bytes = [0; MAX_LEN];
        let received = baton_fdpass::recv(&channel, &mut bytes, MAX_FDS).map_err(io::Error::from)?;
        let hello = Hello::parse(&bytes[..received.len]).ok_or(AttachError::NotAWorker)?;
        let mut fds = received.fds.into_iter();
        let page = fds.next().filter(|_| fds.len() == usize::from(hello.listeners));
        let page =
            page.ok_or_else(|| io::Error::other("this process has too few descriptors to start with"))?;
        let slot = usize::try_from(hello.slot).unwrap_or(usize::MAX);
        let load = Load::attach(page, slot, usize::try_from(hello.workers).unwrap_or(usize::MAX))?;
        Ok(Worker { channel, drain: watch::Sender::new(false), hello, load, listeners: fds.collect() })
    }

    /// Where this worker publishes what it has to do, for services that count requests before they have a connection.
    pub fn load(&self) -> Load {
        self.load.clone()
    }

    /// Becomes ready when the cluster shuts down, for background tasks of this process.
    pub fn draining(&self) -> Draining {
        Draining(self.drain.subscribe())
    }

    /// Tells the master that this worker is ready, and serves what it sends, each connection in a task of its own.
    /// Returns when the master has closed the channel and the last connection has ended. The master bounds that time.
    ///
    /// # Errors
    /// [`WorkerError`] if the channel breaks.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub async fn serve(self, service: impl Service) -> Result<(), WorkerError> {
        let Worker { channel, drain, hello, load, listeners } = self;
        // Only its readiness is used, and that is the same for every kind of Unix socket.
        let channel = UnixDatagram::from_std(channel.into())?;
        let mut acceptor = Acceptor::new(listeners, &hello)?;
        let host = Arc::new(Host::new(service, load.clone(), Draining(drain.subscribe())));
        let mut connections = JoinSet::new();
        let mut pulse = Pulse::new(load);
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let connections_max = usize::try_from(hello.connections_max).unwrap_or(usize::MAX);
        let mut open = say(&channel, &Word::Ready).await?;
        while open {
            let has_room = connections.len() < connections_max;
            tokio::select! {
                Some(ended) = connections.join_next() => {
                    report(ended);
                    while let Some(ended) = connections.try_join_next() {
                        report(ended);
                    }
                    for word in host.news() {
                        open = open && say(&channel, &word).await?;
                    }
                }
                _ = beat.tick() => pulse.beat(),
                received = receive(&channel) => match received? {
                    Incoming::End => break,
                    Incoming::Nothing => {}
                    Incoming::Connections { taken, lost } => {
                        // Said before the first byte is read: until then the master may give them to another.
                        let ids = taken.iter().map(|(give, _)| give.id).collect();
                        open = say(&channel, &Word::Taken(ids)).await?;
                        for (give, socket) in taken {
                            host.take(&mut connections, &give, socket, None);
                        }
                        open = open && say(&channel, &Word::Refused(lost)).await?;
                    }
                },
                accepted = acceptor.accept(), if has_room => match accepted {
                    Accepted::Nothing => {}
                    Accepted::Connection(give, socket, place) => {
                        host.take(&mut connections, &give, socket, place);
                    }
                },
            }
        }
        drop(acceptor);
        drain.send_replace(true);
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
        Ok(())
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the service failed on a connection");
    }
}

enum Incoming {
    End,
    /// A packet that is no connection: the master's of another version; there is nothing to answer.
    Nothing,
    Connections {
        taken: Vec<(Give, OwnedFd)>,
        /// Their descriptors did not arrive: this process has no room for them, another one may.
        lost: Vec<crate::ConnectionId>,
    },
}

async fn receive(channel: &UnixDatagram) -> io::Result<Incoming> {
    let mut bytes = [0; MAX_LEN];
    let received = channel
        .async_io(Interest::READABLE, || {
            baton_fdpass::recv(channel, &mut bytes, BATCH).map_err(io::Error::from)
        })
        .await;
    let Received { len, fds, bytes_cut, .. } = match received {
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Incoming::End),
        Err(error) => return Err(error),
    };
    if len == 0 {
        return Ok(Incoming::End);
    }
    let Some(gives) = Give::parse_all(&bytes[..len]).filter(|_| !bytes_cut) else {
        tracing::warn!(len, "a message of the master was not understood");
        return Ok(Incoming::Nothing);
    };
    // The kernel delivers as many as there is room for, the first ones first.
    let lost = gives.iter().skip(fds.len()).map(|give| give.id).collect();
    Ok(Incoming::Connections { taken: gives.into_iter().zip(fds).collect(), lost })
}

/// True while the master is there.
async fn say(channel: &UnixDatagram, word: &Word) -> io::Result<bool> {
    for bytes in word.encode() {
        let send = || baton_fdpass::send(channel, &bytes, &[]).map_err(io::Error::from);
        match channel.async_io(Interest::WRITABLE, send).await {
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
