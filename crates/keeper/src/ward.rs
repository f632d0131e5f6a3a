//! The child's side: what it gives to the keeper and gets from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use baton_fdpass as fdpass;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::keep::PARENT_ENV;
use crate::message::{Message, PACKET_LEN_MAX};

/// How long to wait for a keeper that does not read.
const PATIENCE: Duration = Duration::from_secs(2);

/// A descriptor held by the keeper.
#[derive(Debug)]
pub struct Deposit {
    /// What it was deposited as.
    pub key: String,
    /// Bytes deposited with it; the keeper never looks at them.
    pub note: Vec<u8>,
    /// The same kernel object, a descriptor of our own.
    pub fd: OwnedFd,
}

/// The child's end of the socket to its keeper.
#[derive(Debug)]
pub struct Ward {
    socket: OwnedFd,
}

/// Why the keeper cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WardError {
    /// The role was set in the environment, but the parent is no keeper.
    #[error("this process was started as a daemon under a keeper, but its keeper has gone")]
    NoKeeper,
    /// A key or note is too long.
    #[error("{0}")]
    TooLong(String),
    /// The socket failed.
    #[error("the keeper cannot be reached: {0}")]
    Io(#[from] std::io::Error),
    /// The keeper did not read or write in time.
    #[error("the keeper does not answer; is it stopped?")]
    Timeout,
    /// The keeper sent something else than deposits.
    #[error("the keeper sent something that is no deposit")]
    Protocol,
}

impl Ward {
    /// Takes up the socket to the keeper (standard input) and everything the predecessor deposited.
    ///
    /// `Ok(None)` if this process was not started by a keeper. From here on, the end of the keeper sends SIGTERM to
    /// this process. Call it once, early, on the main thread.
    ///
    /// # Errors
    /// [`WardError`]: the keeper is gone or does not follow the protocol.
    pub fn from_parent() -> Result<Option<(Self, Vec<Deposit>)>, WardError> {
        let Some(keeper) = std::env::var(PARENT_ENV).ok().and_then(|pid| pid.parse().ok()) else {
            return Ok(None);
        };
        set_parent_process_death_signal(Some(Signal::TERM)).map_err(std::io::Error::from)?;
        // The keeper may have ended before the signal was asked for: then we have another parent already.
        if getppid() != Pid::from_raw(keeper) {
            return Err(WardError::NoKeeper);
        }
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        Self::take_up(socket).map(Some)
    }

    pub(crate) fn take_up(socket: OwnedFd) -> Result<(Self, Vec<Deposit>), WardError> {
        let ward = Self { socket };
        let mut deposits = Vec::new();
        let mut buffer = vec![0; PACKET_LEN_MAX];
        loop {
            ward.wait(PollFlags::IN)?;
            let mut received = fdpass::recv(&ward.socket, &mut buffer, 1).map_err(std::io::Error::from)?;
            if received.len == 0 {
                return Err(WardError::NoKeeper);
            }
            match (Message::decode(&buffer[..received.len]), received.fds.pop()) {
                (Some(Message::Deposit { key, note }), Some(fd)) => deposits.push(Deposit { key, note, fd }),
                (Some(Message::End), None) => return Ok((ward, deposits)),
                _ => return Err(WardError::Protocol),
            }
        }
    }

    /// Has the keeper hold a duplicate of `fd` under `key`, instead of what it held there. When this returns, the
    /// deposit survives this process.
    ///
    /// # Errors
    /// [`WardError`]; nothing is held then.
    pub fn deposit(&self, key: &str, note: &[u8], fd: BorrowedFd<'_>) -> Result<(), WardError> {
        self.say(&Message::Deposit { key: key.to_owned(), note: note.to_vec() }, &[fd])
    }

    /// Has the keeper close what it holds under `key`, if anything.
    ///
    /// # Errors
    /// [`WardError`].
    pub fn withdraw(&self, key: &str) -> Result<(), WardError> {
        self.say(&Message::Withdraw { key: key.to_owned() }, &[])
    }

    /// Tells the keeper that this child serves: if it is killed now, the next one starts at once.
    ///
    /// # Errors
    /// [`WardError`].
    pub fn ready(&self) -> Result<(), WardError> {
        self.say(&Message::Ready, &[])
    }

    fn say(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), WardError> {
        let bytes = message.encode().map_err(|error| WardError::TooLong(error.to_string()))?;
        self.wait(PollFlags::OUT)?;
        fdpass::send(&self.socket, &bytes, fds).map_err(std::io::Error::from)?;
        Ok(())
    }

    fn wait(&self, what: PollFlags) -> Result<(), WardError> {
        let timeout = Timespec::try_from(PATIENCE).map_err(|_| WardError::Timeout)?;
        loop {
            match poll(&mut [PollFd::new(&self.socket, what)], Some(&timeout)) {
                Ok(0) => return Err(WardError::Timeout),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(std::io::Error::from(errno).into()),
            }
        }
    }
}
