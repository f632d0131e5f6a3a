//! The control connection to the daemon: one request at a time, made again when the daemon was restarted.
//!
//! ```text
//!   connected ──request fails, end of stream──▶ away ──next request: connect, resume──▶ connected
//!                                                 │ resume refused (another pool, reaped)
//!                                                 ▼
//!                                              detached: says so at every request; the owner connects anew
//! ```
//!
//! Nothing here is on the path of a block. While a killed daemon is being restarted, its listening socket lives on at
//! the keeper, so a request made meanwhile just waits for the new daemon, at most [`PATIENCE`].

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_fdpass as fdpass;
use baton_wire::attach::{Answer, DecodeError, Failure, HEADER_LEN, Header, Kind, Request, Resume};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// For the farewell at the end of the last handle.
const PATIENCE_BYE: Duration = Duration::from_millis(250);

/// Between two tries, while a daemon is killed and its successor starts.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The daemon is away.
    #[error("{0}")]
    Away(#[from] io::Error),
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// What answers is no daemon of ours.
    #[error("{0}")]
    Protocol(String),
}

impl From<DecodeError> for AskError {
    fn from(error: DecodeError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
}

impl Connection {
    /// Connects; the daemon has not said anything yet.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, serial: 0 })
    }

    /// Asks and waits for the answer, with exactly the descriptors that belong to it.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(Answer, Vec<OwnedFd>), AskError> {
        self.serial = self.serial.wrapping_add(1);
        let bytes = request.encode(self.serial).map_err(|error| AskError::Protocol(error.to_string()))?;
        self.send(&bytes)?;
        let mut fds = Vec::new();
        let mut head = [0; HEADER_LEN];
        self.fill(&mut head, &mut fds)?;
        let header = Header::decode(&head, Kind::Answer)?;
        let mut body = vec![0; header.body_len];
        self.fill(&mut body, &mut fds)?;
        // The form of a refusal is the same in every version; of anything else it may differ.
        let answer = match (Answer::decode(&body), header.check_version()) {
            (Ok(Answer::Error(failure)), _) => return Err(AskError::Refused(failure)),
            (_, Err(version)) => return Err(version.into()),
            (Err(error), Ok(())) => return Err(error.into()),
            (Ok(answer), Ok(())) => answer,
        };
        if header.serial != self.serial {
            return Err(AskError::Protocol(format!("answer {} to request {}", header.serial, self.serial)));
        }
        if fds.len() != answer.fds() {
            return Err(AskError::Protocol(format!("{} descriptors instead of {}", fds.len(), answer.fds())));
        }
        Ok((answer, fds))
    }

    /// Not `fdpass::send_all`, which would wait for ever where a time limit of the socket ends a write.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = fdpass::send(&self.stream, rest, &[]).map_err(io::Error::from).map_err(overdue)?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(), AskError> {
        let mut at = 0;
        while at < buffer.len() {
            let received = fdpass::recv(&self.stream, &mut buffer[at..], baton_wire::attach::ATTACHED_FDS)
                .map_err(io::Error::from)
                .map_err(overdue)?;
            if received.len == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the memory daemon hung up").into());
            }
            if received.truncated {
                return Err(AskError::Protocol(
                    "descriptors were lost on the way; raise the limit of open files".to_owned(),
                ));
            }
            at += received.len;
            fds.extend(received.fds);
        }
        Ok(())
    }

    fn hurry(&self) {
        // Best effort: only how long the farewell may take depends on it.
        let _ = self.stream.set_read_timeout(Some(PATIENCE_BYE));
        let _ = self.stream.set_write_timeout(Some(PATIENCE_BYE));
    }
}

/// A time limit on a blocking socket shows as "try again".
fn overdue(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()))
    } else {
        error
    }
}

/// Whether a daemon was there and was killed in the middle. Its successor may be there already.
fn was_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// The member's way to the daemon, for as long as the member lives.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    identity: Resume,
    connection: Mutex<Option<Connection>>,
}

impl Control {
    pub(crate) fn new(path: PathBuf, identity: Resume, connection: Connection) -> Self {
        Self { path, identity, connection: Mutex::new(Some(connection)) }
    }

    /// Asks; if the connection turns out to be dead, connects, resumes and asks again, for at most [`PATIENCE`].
    pub(crate) fn ask(&self, request: &Request) -> Result<(Answer, Vec<OwnedFd>), AskError> {
        let mut place = self.lock();
        let started = Instant::now();
        loop {
            let connected = match place.take() {
                Some(connection) => Ok(connection),
                None => self.resume(),
            };
            let answered = connected.and_then(|mut connection| {
                let answered = connection.ask(request);
                // After anything else the stream is out of step: an answer may still come.
                if matches!(answered, Ok(_) | Err(AskError::Refused(_))) {
                    *place = Some(connection);
                }
                answered
            });
            match answered {
                Err(AskError::Away(error)) if was_cut(&error) && started.elapsed() < PATIENCE => {
                    std::thread::sleep(RETRY_PAUSE);
                }
                answered => return answered,
            }
        }
    }

    fn resume(&self) -> Result<Connection, AskError> {
        let mut connection = Connection::open(&self.path)?;
        match connection.ask(&Request::Resume(self.identity.clone()))? {
            (Answer::Resumed(_), _) => Ok(connection),
            _ => Err(AskError::Protocol("an answer to something else".to_owned())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Control {
    /// Says bye, so that the daemon takes the endpoint back and does not have to wait for the process to end. If the
    /// daemon is away, it will.
    fn drop(&mut self) {
        let place = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        let connection = match place.take() {
            Some(connection) => Ok(connection),
            None => self.resume(),
        };
        if let Ok(mut connection) = connection {
            connection.hurry();
            if let Err(error) = connection.ask(&Request::Bye) {
                tracing::debug!("the memory daemon was not told that this member leaves: {error}");
            }
        }
    }
}
