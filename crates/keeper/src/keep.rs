//! The keeper itself: spawn, hold, wait, spawn again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use baton_fdpass as fdpass;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::backoff::Backoff;
use crate::message::{Message, PACKET_LEN_MAX};

/// Environment variable that tells a child the process id of its keeper.
pub(crate) const PARENT_ENV: &str = "BATON_KEEPER_PID";

/// Exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// Bounds of a keeper.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Descriptors held at most; further deposits are dropped with a warning.
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

struct Held {
    note: Vec<u8>,
    fd: OwnedFd,
}

/// Runs children made by `command` until one ends on its own, or until SIGTERM or SIGINT, which are passed on as
/// SIGTERM. Returns the exit code of the last child.
///
/// Call it on the main thread of a process that does nothing else: a child's parent-death signal follows the thread.
///
/// # Errors
/// [`KeepError`].
pub fn keep(command: impl FnMut() -> std::process::Command, limits: Limits) -> Result<u8, KeepError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(KeepError::Setup)?;
    runtime.block_on(supervise(command, limits))
}

async fn supervise(
    mut command: impl FnMut() -> std::process::Command,
    limits: Limits,
) -> Result<u8, KeepError> {
    let mut term = signal(SignalKind::terminate()).map_err(KeepError::Setup)?;
    let mut int = signal(SignalKind::interrupt()).map_err(KeepError::Setup)?;
    let mut held = BTreeMap::<String, Held>::new();
    let mut backoff = Backoff::default();
    loop {
        let (ours, theirs) = fdpass::socket_pair(fdpass::PairKind::SeqPacket).map_err(KeepError::Setup)?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| KeepError::Setup(e.into()))?;
        let socket = watch(ours).map_err(KeepError::Setup)?;
        let mut command = command();
        command.stdin(Stdio::from(theirs)).env(PARENT_ENV, std::process::id().to_string());
        let mut child = Command::from(command).spawn().map_err(KeepError::Spawn)?;
        let pid = child.id();

        let mut ready = false;
        let stopping = tokio::select! {
            () = serve(&socket, &mut held, &mut ready, limits) => false,
            _ = child.wait() => false,
            _ = term.recv() => true,
            _ = int.recv() => true,
        };
        if stopping {
            let status = stop(child, limits).await.map_err(KeepError::Setup)?;
            // A child that had not set up its handler yet ends by our own signal: as asked.
            let obeyed = status.signal() == Some(Signal::TERM.as_raw());
            return Ok(if obeyed { 0 } else { status.code().map_or(1, exit_code) });
        }
        // Either the child has ended, or it closed its socket, which no healthy child does before it ends.
        let status = stop(child, limits).await.map_err(KeepError::Setup)?;
        drain(&socket, &mut held, &mut ready, limits);
        match status.code() {
            Some(code) if code != PANICKED => return Ok(exit_code(code)),
            _ => {}
        }
        let Some(pause) = backoff.failed(ready, limits.failures_max) else {
            return Err(KeepError::GaveUp { failures: limits.failures_max, status });
        };
        tracing::warn!(
            "keeper: daemon pid={} ended ({status}); {} descriptors kept, restarting in {} ms",
            pid.unwrap_or(0),
            held.len(),
            pause.as_millis()
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = term.recv() => return Ok(0),
            _ = int.recv() => return Ok(0),
        }
    }
}

/// An [`OwnedFd`] stays open and the same while it is owned, which is what tokio's unsafe replacement of this function
/// asks its caller to promise.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe function; for an OwnedFd its condition always holds"
)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

/// Waits for the end of a child that was told to end (or has ended): SIGTERM, then SIGKILL.
async fn stop(mut child: Child, limits: Limits) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        // Not reaped yet, so the number is still this child's.
        let _ = kill_process(pid, Signal::TERM);
    }
    if let Ok(status) = tokio::time::timeout(limits.patience, child.wait()).await {
        return status;
    }
    tracing::warn!("keeper: the daemon did not end within {:?} and is killed", limits.patience);
    child.kill().await?;
    child.wait().await
}

/// Gives the child what its predecessor left, then takes what it deposits, until it closes the socket.
async fn serve(
    socket: &AsyncFd<OwnedFd>,
    held: &mut BTreeMap<String, Held>,
    ready: &mut bool,
    limits: Limits,
) {
    if let Err(error) = hand_over(socket, held).await {
        tracing::warn!("keeper: the daemon did not take its descriptors: {error}");
        return;
    }
    let mut buffer = vec![0; PACKET_LEN_MAX];
    loop {
        let Ok(mut guard) = socket.readable().await else { return };
        match guard.try_io(|socket| Ok(fdpass::recv(socket, &mut buffer, 1)?)) {
            Ok(Ok(received)) if received.len == 0 => return,
            Ok(Ok(received)) => take(&buffer, received, held, ready, limits),
            Ok(Err(_)) => return,
            Err(_would_block) => {}
        }
    }
}

async fn hand_over(socket: &AsyncFd<OwnedFd>, held: &BTreeMap<String, Held>) -> io::Result<()> {
    for (key, Held { note, fd }) in held {
        let bytes = Message::Deposit { key: key.clone(), note: note.clone() }
            .encode()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        write(socket, &bytes, Some(fd)).await?;
    }
    let end = Message::End.encode().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    write(socket, &end, None).await
}

async fn write(socket: &AsyncFd<OwnedFd>, bytes: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
    loop {
        let mut guard = socket.writable().await?;
        if let Ok(result) = guard.try_io(|socket| Ok(fdpass::send(socket, bytes, &fds)?)) {
            return result.map(|_| ());
        }
    }
}

/// Reads what a child that has ended left in the socket.
fn drain(socket: &AsyncFd<OwnedFd>, held: &mut BTreeMap<String, Held>, ready: &mut bool, limits: Limits) {
    let mut buffer = vec![0; PACKET_LEN_MAX];
    while let Ok(received) = fdpass::recv(socket.get_ref(), &mut buffer, 1) {
        if received.len == 0 {
            return;
        }
        take(&buffer, received, held, ready, limits);
    }
}

fn take(
    buffer: &[u8],
    mut received: fdpass::Received,
    held: &mut BTreeMap<String, Held>,
    ready: &mut bool,
    limits: Limits,
) {
    let message = buffer.get(..received.len).and_then(Message::decode);
    match (message, received.fds.pop()) {
        (Some(Message::Deposit { key, note }), Some(fd)) => {
            if held.len() < limits.deposits_max || held.contains_key(&key) {
                held.insert(key, Held { note, fd });
            } else {
                tracing::warn!("keeper: {} descriptors are held already, `{key}` is dropped", held.len());
            }
        }
        (Some(Message::Withdraw { key }), None) => {
            held.remove(&key);
        }
        (Some(Message::Ready), None) => *ready = true,
        _ => tracing::warn!("keeper: the daemon sent something that is no message; ignored"),
    }
}
