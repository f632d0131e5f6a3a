//! The keeper itself: start or follow a daemon, hold, wait, start the next.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use baton_fdpass as fdpass;
use baton_killpoint::step;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use crate::backoff::Backoff;
use crate::daemon::{Daemon, watch};
use crate::message::{Message, PACKET_LEN_MAX};
use crate::store::{Said, Store};
use crate::systemd::Systemd;

/// Environment variable that tells a child that its standard input is the socket to its keeper.
pub(crate) const PARENT_ENV: &str = "BATON_KEEPER_PID";

/// Exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// Bounds of a keeper.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Descriptors held at most; further deposits are refused, and the daemon is told.
    pub deposits_max: usize,
    /// Children in a row that end without having been ready before the keeper gives up.
    pub failures_max: u32,
    /// How long a child may take to end after SIGTERM before it is killed.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { deposits_max: 4096, failures_max: 10, patience: Duration::from_secs(5) }
    }
}

/// How a keeper begins.
#[derive(Debug)]
pub enum Begin {
    /// With a daemon of its own, which gets what systemd kept of an earlier life.
    Start,
    /// With a daemon that runs already and made this socket for a keeper: it deposits everything, and when it ends, the
    /// next one is started from here.
    Follow {
        /// Our end of the daemon's socket pair.
        socket: OwnedFd,
        /// Have the daemon replaced by a new one, of the program's file as it is now, once everything is deposited.
        replace_daemon: bool,
    },
}

/// How a keeper ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The daemon ended with this code, or another keeper took over (0).
    Ended(u8),
    /// SIGHUP: another keeper holds everything now. The caller starts its program's file anew in this process and
    /// becomes the keeper again.
    Renew,
}

/// Why the keeper itself failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// Signals, sockets or the runtime could not be set up.
    #[error("the keeper cannot start: {0}")]
    Setup(#[source] io::Error),
    /// The child cannot be started at all.
    #[error("the daemon's process cannot be started: {0}")]
    Spawn(#[source] io::Error),
    /// Too many children ended without ever serving.
    #[error("the daemon ended {failures} times without ever serving (last: {status}); see its log above")]
    GaveUp {
        /// How many.
        failures: u32,
        /// How the last one ended.
        status: ExitStatus,
    },
}

/// Runs daemons made by `command` until one ends on its own, or until SIGTERM or SIGINT, which are passed on as SIGTERM.
///
/// # Errors
/// [`KeepError`].
pub fn keep(
    begin: Begin,
    command: impl FnMut() -> std::process::Command,
    limits: Limits,
) -> Result<Kept, KeepError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(KeepError::Setup)?;
    runtime.block_on(async {
        let found = if matches!(begin, Begin::Start) { Systemd::found() } else { Vec::new() };
        if !found.is_empty() {
            tracing::info!("keeper: systemd kept {} descriptors of the life before", found.len());
        }
        let keeper = Keeper {
            signals: All::new().map_err(KeepError::Setup)?,
            store: Store::new(limits.deposits_max, Systemd::from_env(), found),
            limits,
            backoff: Backoff::default(),
            reserve: Reserve::default(),
        };
        keeper.run(begin, command).await
    })
}

struct All {
    term: Signals,
    int: Signals,
    hup: Signals,
}

enum Order {
    End,
    Renew,
}

impl All {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn order(&mut self) -> Order {
        tokio::select! {
            _ = self.term.recv() => Order::End,
            _ = self.int.recv() => Order::End,
            _ = self.hup.recv() => Order::Renew,
        }
    }
}

/// What is known about the daemon that runs now.
#[derive(Default)]
struct Life {
    ready: bool,
    leaving: Option<u8>,
    dismissed: bool,
    /// Told by SIGHUP to begin anew: the daemon is looking for another keeper.
    renewing: bool,
    /// Its pid, if it is not our child.
    followed: u32,
    /// To be told to make room, once it is ready.
    retire: bool,
    /// How many descriptors of its predecessor it was given, and whether that was all.
    given: usize,
    handed_over: bool,
}

impl Life {
    /// Takes note of what it said; what to answer.
    fn hear(&mut self, said: Said, store: &Store) -> Vec<Message> {
        match said {
            Said::Nothing => {}
            Said::Ready => {
                self.ready = true;
                store.systemd.ready("serving");
                if self.followed != 0 {
                    tracing::info!(
                        "keeper pid={} follows daemon pid={}, {} descriptors held",
                        std::process::id(),
                        self.followed,
                        store.len()
                    );
                    step!(KeepFollowed);
                }
                let retire = std::mem::take(&mut self.retire).then_some(Message::Retire);
                return [Message::Complete].into_iter().chain(retire).collect();
            }
            Said::Leaving(code) => self.leaving = Some(code),
            Said::Dismissed => self.dismissed = true,
            Said::Alive => store.systemd.alive(),
            Said::Refused(key) => return vec![Message::Refused { key }],
            Said::Held(key) => return vec![Message::Held { key }],
            Said::Stay => {
                tracing::warn!(
                    "keeper: there is no other keeper, so this one goes on; the daemon's log says why"
                );
                self.renewing = false;
            }
        }
        Vec::new()
    }
}

struct Keeper {
    signals: All,
    store: Store,
    limits: Limits,
    backoff: Backoff,
    reserve: Reserve,
}

impl Keeper {
    async fn run(
        mut self,
        begin: Begin,
        mut command: impl FnMut() -> std::process::Command,
    ) -> Result<Kept, KeepError> {
        let mut life = Life::default();
        let (mut daemon, mut socket) = match begin {
            Begin::Start => self.reserve.spawn(command())?,
            Begin::Follow { socket, replace_daemon } => {
                life.retire = replace_daemon;
                follow(socket)?
            }
        };
        self.reserve.fill();
        loop {
            life.handed_over = !daemon.is_child();
            life.followed = if daemon.is_child() { 0 } else { daemon.pid() };
            loop {
                tokio::select! {
                    () = serve(&socket, &mut self.store, &mut life) => break,
                    () = daemon.ended() => break,
                    order = self.signals.order() => match order {
                        Order::End => {
                            self.store.systemd.stopping();
                            return self.end(daemon).await.map(Kept::Ended);
                        }
                        Order::Renew => {
                            // Ends with its dismissal, or not at all: then this one stays.
                            life.renewing = true;
                            tracing::info!("keeper: told to begin anew; waiting for another keeper");
                            let _ended_meanwhile = say(&socket, &Message::Replace, None).await;
                        }
                    },
                }
            }
            if !life.dismissed {
                // Either it has ended, or it closed its socket, which no healthy daemon does before it ends.
                daemon.stop(self.limits.patience).await;
            }
            step!(KeepChildEnded);
            drain(&socket, &mut self.store, &mut life);
            step!(KeepDrained);
            if life.dismissed {
                return Ok(if life.renewing { Kept::Renew } else { Kept::Ended(0) });
            }
            let status = daemon.status();
            if let Some(code) = life.leaving {
                return Ok(Kept::Ended(code));
            }
            if let Some(code) = status.and_then(|status| status.code())
                && code != PANICKED
                && code != i32::from(RETIRED)
            {
                return Ok(Kept::Ended(exit_code(code)));
            }
            let Some(pause) = self.backoff.failed(life.ready, self.limits.failures_max) else {
                let status = status.unwrap_or_default();
                return Err(KeepError::GaveUp { failures: self.limits.failures_max, status });
            };
            tracing::warn!(
                "keeper: daemon pid={} ended{}; {} descriptors kept, restarting in {} ms",
                daemon.pid(),
                status.map(|status| format!(" ({status})")).unwrap_or_default(),
                self.store.len(),
                pause.as_millis()
            );
            self.store.systemd.status("the daemon is restarted");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                order = self.signals.order() => if matches!(order, Order::End) {
                    return Ok(Kept::Ended(0));
                }
            }
            (daemon, socket) = self.next(&mut command).await?;
            life = Life::default();
        }
    }

    /// Starts the next daemon. What it shall be given is held here alone, so this is tried again and again where a first
    /// start would fail: for want of memory or descriptors, or because the program's file is being replaced.
    async fn next(
        &mut self,
        command: &mut impl FnMut() -> std::process::Command,
    ) -> Result<(Daemon, AsyncFd<OwnedFd>), KeepError> {
        loop {
            let error = match self.reserve.spawn(command()) {
                Ok(spawned) => return Ok(spawned),
                Err(error) => error,
            };
            let Some(pause) = self.backoff.failed(false, self.limits.failures_max) else { return Err(error) };
            tracing::error!(
                "keeper: {error}; {} descriptors kept, trying again in {} ms",
                self.store.len(),
                pause.as_millis()
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                order = self.signals.order() => if matches!(order, Order::End) {
                    return Err(error);
                }
            }
        }
    }

    /// SIGTERM to the daemon, and how it ended.
    async fn end(&mut self, mut daemon: Daemon) -> Result<u8, KeepError> {
        daemon.stop(self.limits.patience).await;
        let Some(status) = daemon.status() else { return Ok(0) };
        // A child that had not set up its handler yet ends by our own signal: as asked.
        let obeyed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::TERM.as_raw());
        Ok(if obeyed { 0 } else { status.code().map_or(1, exit_code) })
    }
}

/// Exit code of a daemon that makes room for the next one (EX_TEMPFAIL of sysexits).
pub const RETIRED: u8 = 75;

/// Descriptors to give up for a moment, so that a keeper that holds as many as it may can still start a daemon.
#[derive(Default)]
struct Reserve(Vec<OwnedFd>);

impl Reserve {
    /// A socket pair, the pipe that tells whether the program could be started, a pidfd; twice that.
    const SIZE: usize = 10;

    /// Sets descriptors aside, as far as there are any.
    fn fill(&mut self) {
        while self.0.len() < Self::SIZE {
            match rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
                Ok(fd) => self.0.push(fd),
                Err(_) => return,
            }
        }
    }

    fn spawn(&mut self, command: std::process::Command) -> Result<(Daemon, AsyncFd<OwnedFd>), KeepError> {
        self.0.clear();
        let spawned = spawn(command);
        self.fill();
        spawned
    }
}

fn spawn(mut command: std::process::Command) -> Result<(Daemon, AsyncFd<OwnedFd>), KeepError> {
    let (ours, theirs) = fdpass::socket_pair(fdpass::PairKind::SeqPacket).map_err(KeepError::Setup)?;
    let socket = ready_socket(ours)?;
    command.stdin(Stdio::from(theirs)).env(PARENT_ENV, std::process::id().to_string());
    let child = tokio::process::Command::from(command).spawn().map_err(KeepError::Spawn)?;
    step!(KeepSpawned);
    Ok((Daemon::child(child), socket))
}

fn follow(socket: OwnedFd) -> Result<(Daemon, AsyncFd<OwnedFd>), KeepError> {
    let daemon = Daemon::behind(&socket).map_err(KeepError::Setup)?;
    Ok((daemon, ready_socket(socket)?))
}

fn ready_socket(socket: OwnedFd) -> Result<AsyncFd<OwnedFd>, KeepError> {
    rustix::io::ioctl_fionbio(&socket, true).map_err(|e| KeepError::Setup(e.into()))?;
    watch(socket).map_err(KeepError::Setup)
}

fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

/// Gives a child what its predecessor left (a daemon that is followed has it all), then takes what it deposits, until it
/// closes the socket or dismisses this keeper.
/// It may be given up and called again at any point.
async fn serve(socket: &AsyncFd<OwnedFd>, store: &mut Store, life: &mut Life) {
    if !life.handed_over
        && let Err(error) = hand_over(socket, store, life).await
    {
        tracing::warn!("keeper: the daemon did not take its descriptors: {error}");
        return;
    }
    let mut buffer = vec![0; PACKET_LEN_MAX];
    loop {
        let Ok(mut guard) = socket.readable().await else { return };
        match guard.try_io(|socket| Ok(fdpass::recv(socket, &mut buffer, 1)?)) {
            Ok(Ok(received)) if received.len == 0 => return,
            Ok(Ok(received)) => {
                drop(guard);
                let len = received.len;
                let said = store.take(buffer.get(..len).unwrap_or_default(), received);
                step!(KeepTook);
                for answer in life.hear(said, store) {
                    let _ended_meanwhile = say(socket, &answer, None).await;
                }
                if life.dismissed {
                    return;
                }
            }
            Ok(Err(_)) => return,
            Err(_would_block) => {}
        }
    }
}

async fn hand_over(socket: &AsyncFd<OwnedFd>, store: &Store, life: &mut Life) -> io::Result<()> {
    for (key, held) in store.iter().skip(life.given) {
        let message = Message::Deposit { key: key.clone(), note: held.note.clone() };
        say(socket, &message, Some(&held.fd)).await?;
        step!(KeepHandedOne);
        life.given += 1; // nothing is awaited between the sending and this
    }
    say(socket, &Message::End, None).await?;
    life.handed_over = true;
    step!(KeepHandedAll);
    Ok(())
}

async fn say(socket: &AsyncFd<OwnedFd>, message: &Message, fd: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = message.encode().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
    loop {
        let mut guard = socket.writable().await?;
        if let Ok(result) = guard.try_io(|socket| Ok(fdpass::send(socket, &bytes, &fds)?)) {
            return result.map(|_| ());
        }
    }
}

/// Reads what a daemon that has ended left in the socket.
fn drain(socket: &AsyncFd<OwnedFd>, store: &mut Store, life: &mut Life) {
    let mut buffer = vec![0; PACKET_LEN_MAX];
    while let Ok(received) = fdpass::recv(socket.get_ref(), &mut buffer, 1) {
        if received.len == 0 {
            return;
        }
        let len = received.len;
        let said = store.take(buffer.get(..len).unwrap_or_default(), received);
        let _nobody_to_tell: Vec<Message> = life.hear(said, store);
    }
}
