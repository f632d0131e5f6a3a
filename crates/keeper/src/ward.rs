//! The child's side: what it gives to the keeper and gets from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use baton_fdpass as fdpass;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
    /// The keeper has ended.
    #[error("the keeper of this process has gone")]
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
    /// `Ok(None)` if this process was not started by a keeper. Call it once, early.
    ///
    /// # Errors
    /// [`WardError`]: the keeper is gone or does not follow the protocol.
    pub fn from_parent() -> Result<Option<(Self, Vec<Deposit>)>, WardError> {
        if std::env::var_os(PARENT_ENV).is_none() {
            return Ok(None);
        }
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        Self::take_up(socket).map(Some)
    }

    /// A socket pair for a keeper that is not there yet: the daemon's end, and the one to give to the keeper, as the
    /// standard input of its process or over another socket. The keeper finds out who the daemon is by asking the kernel
    /// who made the pair, so the daemon itself must make it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn pair() -> std::io::Result<(Self, OwnedFd)> {
        let (socket, keeper) = fdpass::socket_pair(fdpass::PairKind::SeqPacket)?;
        Ok((Self { socket }, keeper))
    }

    /// Another descriptor of this socket, to wait for what the keeper says or for its end, and to read it with
    /// [`Heard::read`].
    ///
    /// # Errors
    /// The kernel's error.
    pub fn ears(&self) -> std::io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Whether the keeper has ended by now.
    pub fn is_gone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }

    fn take_up(socket: OwnedFd) -> Result<(Self, Vec<Deposit>), WardError> {
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

    /// Tells the keeper that another one holds everything now. It ends.
    ///
    /// # Errors
    /// [`WardError`].
    pub fn dismiss(&self) -> Result<(), WardError> {
        self.say(&Message::Dismissed, &[])
    }

    /// Tells the keeper that wants to be replaced that no other one can be had: it stays.
    ///
    /// # Errors
    /// [`WardError`].
    pub fn stay(&self) -> Result<(), WardError> {
        self.say(&Message::Stay, &[])
    }

    /// Tells the keeper that this daemon ends on purpose, with this exit code.
    ///
    /// # Errors
    /// [`WardError`].
    pub fn leaving(&self, code: u8) -> Result<(), WardError> {
        self.say(&Message::Leaving { code }, &[])
    }

    /// Tells the keeper that the daemon's loop turns, for a watchdog.
    ///
    /// # Errors
    /// [`WardError`].
    pub fn alive(&self) -> Result<(), WardError> {
        self.say(&Message::Alive, &[])
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
        match fdpass::send(&self.socket, &bytes, fds).map_err(std::io::Error::from) {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(WardError::NoKeeper)
            }
            Err(error) => Err(error.into()),
        }
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

/// What a keeper says to a daemon that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It could not hold what was deposited under this key.
    Refused(String),
    /// It holds now what it had refused under this key.
    Held(String),
    /// It has dealt with everything that was deposited before [`Ward::ready`].
    Complete,
    /// It wants to be replaced by another keeper.
    Replace,
    /// The daemon shall end without cleaning up: the keeper starts the next one from the program's file.
    Retire,
    /// It has ended.
    Gone,
}

impl Heard {
    /// Reads one word from [`Ward::ears`], without waiting. `None`: nothing there (any more).
    pub fn read(ears: &OwnedFd) -> Option<Self> {
        let mut buffer = [0; PACKET_LEN_MAX];
        loop {
            match poll(&mut [PollFd::new(ears, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            let Ok(received) = fdpass::recv(ears, &mut buffer, 1) else { return Some(Self::Gone) };
            if received.len == 0 {
                return Some(Self::Gone);
            }
            match buffer.get(..received.len).and_then(Message::decode) {
                Some(Message::Refused { key }) => return Some(Self::Refused(key)),
                Some(Message::Held { key }) => return Some(Self::Held(key)),
                Some(Message::Complete) => return Some(Self::Complete),
                Some(Message::Replace) => return Some(Self::Replace),
                Some(Message::Retire) => return Some(Self::Retire),
                _ => tracing::warn!("ward: the keeper sent something that is no message; ignored"),
            }
        }
    }
}
