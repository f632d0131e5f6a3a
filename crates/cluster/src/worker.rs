//! The worker's half: receives connections and serves them.
//!
//! ```text
//!   attach ─▶ own set-up ─▶ serve: ready ─▶ taking ──channel ends──▶ draining ──last connection ended──▶ returns
//!                                            └ receive, say "taken", spawn
//! ```
//! The channel to the master is the process' standard input: the one descriptor that a new process can be given without
//! agreeing on a number, and that safe code can take over. It is moved away at once and replaced by `/dev/null`, so that
//! no child of the worker inherits it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use baton_address::Stream;
use baton_fdpass::Received;
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::message::{Give, MAX_LEN, Word};
use crate::{Connection, Draining, Service};

/// This process as a worker of a cluster.
#[derive(Debug)]
pub struct Worker {
    channel: OwnedFd,
    drain: watch::Sender<bool>,
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
        Ok(Worker { channel, drain: watch::Sender::new(false) })
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
    pub async fn serve(self, service: impl Service) -> Result<(), WorkerError> {
        let Worker { channel, drain } = self;
        // Only its readiness is used, and that is the same for every kind of Unix socket.
        let channel = UnixDatagram::from_std(channel.into())?;
        let service = Arc::new(service);
        let mut connections = JoinSet::new();
        let mut open = say(&channel, Word::Ready).await?;
        while open {
            tokio::select! {
                Some(ended) = connections.join_next() => report(ended),
                received = receive(&channel) => match received? {
                    Incoming::End => break,
                    Incoming::Nothing => {}
                    Incoming::Lost(give) => open = say(&channel, Word::Refused(give.id)).await?,
                    Incoming::Connection(give, stream) => {
                        // Said before the first byte is read: until then the master may give it to another.
                        open = say(&channel, Word::Taken(give.id)).await?;
                        let stream = match stream {
                            Ok(stream) => stream,
                            Err(error) => {
                                tracing::warn!(%error, "a connection is of no use and closed");
                                continue;
                            }
                        };
                        let service = Arc::clone(&service);
                        let connection = Connection {
                            id: give.id,
                            stream,
                            peer: give.peer,
                            listener: usize::from(give.listener),
                            draining: Draining(drain.subscribe()),
                        };
                        connections.spawn(async move { service.serve(connection).await });
                    }
                },
            }
        }
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
    /// The connection's descriptor did not arrive: this process has no room for it, another one may.
    Lost(Give),
    /// The stream is an error if the socket is of no use, to this process or to any other.
    Connection(Give, io::Result<Stream>),
}

async fn receive(channel: &UnixDatagram) -> io::Result<Incoming> {
    let mut bytes = [0; MAX_LEN];
    let received = channel
        .async_io(Interest::READABLE, || baton_fdpass::recv(channel, &mut bytes, 1).map_err(io::Error::from))
        .await;
    let Received { len, mut fds, bytes_cut, .. } = match received {
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Incoming::End),
        Err(error) => return Err(error),
    };
    if len == 0 {
        return Ok(Incoming::End);
    }
    let Some(give) = Give::parse(&bytes[..len]).filter(|_| !bytes_cut) else {
        tracing::warn!(len, "a message of the master was not understood");
        return Ok(Incoming::Nothing);
    };
    let Some(socket) = fds.pop() else { return Ok(Incoming::Lost(give)) };
    Ok(Incoming::Connection(give, Stream::from_fd(socket)))
}

/// True while the master is there.
async fn say(channel: &UnixDatagram, word: Word) -> io::Result<bool> {
    let bytes = word.encode();
    let sent = channel
        .async_io(Interest::WRITABLE, || baton_fdpass::send(channel, &bytes, &[]).map_err(io::Error::from))
        .await;
    match sent {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
