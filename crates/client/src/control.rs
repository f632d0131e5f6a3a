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
//!
//! Every question has one deadline, which holds for all of it together: connecting, resuming, asking, and doing all that
//! again. A daemon that dies over and over, or answers one byte at a time, holds its caller no longer than one that is
//! silent.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_fdpass as fdpass;
use baton_killpoint::step;
use baton_wire::attach::{Answer, DecodeError, Failure, HEADER_LEN, Header, Kind, Request, Resume};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// For the farewell at the end of the last handle.
const PATIENCE_BYE: Duration = Duration::from_millis(250);

/// For a question in the middle of an allocation.
const PATIENCE_ASIDE: Duration = Duration::from_millis(100);

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
    /// Answers that were not waited for to the end: they come before the next one.
    owed: u32,
    /// What has come of the next one. Whoever gives up in the middle of an answer leaves it here.
    begun: Begun,
    /// A part of a request was written, and the rest will never be.
    torn: bool,
}

/// The first bytes of an answer, and the descriptors that came with them.
#[derive(Debug, Default)]
struct Begun {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Connection {
    /// Connects; the daemon has not said anything yet.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_by(path, Deadline::after(PATIENCE))
    }

    /// The time limit holds for connecting, too: when the queue of a daemon that does not accept (a stopped one) is full,
    /// the kernel lets a connect wait as long as a write.
    pub(crate) fn open_by(path: &Path, deadline: Deadline) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let stream = UnixStream::from(socket);
        loop {
            deadline.limit(&stream)?;
            match rustix::net::connect(&stream, &address) {
                Ok(()) => {
                    return Ok(Self { stream, serial: 0, owed: 0, begun: Begun::default(), torn: false });
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(deadline.explained(errno.into())),
            }
        }
    }

    /// Asks and waits for the answer, with exactly the descriptors that belong to it.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(Answer, Vec<OwnedFd>), AskError> {
        self.ask_by(request, Deadline::after(PATIENCE))
    }

    pub(crate) fn ask_by(
        &mut self,
        request: &Request,
        deadline: Deadline,
    ) -> Result<(Answer, Vec<OwnedFd>), AskError> {
        while self.owed > 0 {
            self.next_answer(deadline)?;
        }
        self.serial = self.serial.wrapping_add(1);
        let bytes = request.encode(self.serial).map_err(|error| AskError::Protocol(error.to_string()))?;
        self.send(&bytes, deadline)?;
        self.owed += 1;
        let (header, body, fds) = self.next_answer(deadline)?;
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
        if let Answer::Transfer { bid, .. } = &answer {
            step!(TransferAnswered);
            self.confirm(*bid, deadline)?;
            step!(TransferConfirmed);
        }
        Ok((answer, fds))
    }

    /// Here and not a question of its own: after an answer that came too late, or that somebody else's question threw away,
    /// the next that the daemon hears must be something else, so that it takes the transfer back.
    fn confirm(&mut self, bid: i64, deadline: Deadline) -> Result<(), AskError> {
        let bytes = Request::Confirm { bid }.encode(self.serial);
        let bytes = bytes.map_err(|error| AskError::Protocol(error.to_string()))?;
        Ok(self.send(&bytes, deadline)?)
    }

    fn next_answer(&mut self, deadline: Deadline) -> Result<(Header, Vec<u8>, Vec<OwnedFd>), AskError> {
        self.fill(HEADER_LEN, deadline)?;
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(&self.begun.bytes[..HEADER_LEN]);
        let header = Header::decode(&head, Kind::Answer)?;
        self.fill(HEADER_LEN + header.body_len, deadline)?;
        let Begun { mut bytes, fds } = std::mem::take(&mut self.begun);
        self.owed -= 1;
        Ok((header, bytes.split_off(HEADER_LEN), fds))
    }

    /// Whether only time ran out: the answer may still be read, later.
    fn is_late(&self, error: &AskError) -> bool {
        !self.torn && matches!(error, AskError::Away(error) if error.kind() == io::ErrorKind::TimedOut)
    }

    /// Not `fdpass::send_all`, which would wait for ever where a time limit of the socket ends a write.
    fn send(&mut self, bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            deadline.limit(&self.stream)?;
            let sent =
                fdpass::send(&self.stream, rest, &[]).map_err(|error| deadline.explained(error.into()))?;
            rest = rest.get(sent..).unwrap_or_default();
            self.torn = !rest.is_empty();
        }
        Ok(())
    }

    /// Reads until so much of the next answer is here, and nothing of the one after it.
    fn fill(&mut self, until: usize, deadline: Deadline) -> Result<(), AskError> {
        while self.begun.bytes.len() < until {
            deadline.limit(&self.stream)?;
            let mut more = vec![0; until - self.begun.bytes.len()];
            let received = fdpass::recv(&self.stream, &mut more, baton_wire::attach::ATTACHED_FDS)
                .map_err(|error| deadline.explained(error.into()))?;
            if received.len == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the memory daemon hung up").into());
            }
            if received.truncated {
                return Err(AskError::Protocol(
                    "descriptors were lost on the way; raise the limit of open files".to_owned(),
                ));
            }
            self.begun.bytes.extend_from_slice(more.get(..received.len).unwrap_or_default());
            self.begun.fds.extend(received.fds);
        }
        Ok(())
    }
}

/// When a question is given up, whatever it is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    end: Instant,
    patience: Duration,
}

impl Deadline {
    pub(crate) fn after(patience: Duration) -> Self {
        Self { end: Instant::now() + patience, patience }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Has the next system call on this socket end in time.
    fn limit(&self, stream: &UnixStream) -> io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.error());
        }
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))
    }

    /// A time limit on a blocking socket shows as "try again", and a daemon's death as one of three things.
    fn explained(&self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.error(),
            kind if was_cut(&error) => io::Error::new(kind, "the memory daemon hung up"),
            _ => error,
        }
    }

    fn error(&self) -> io::Error {
        let text = match self.patience.as_secs() {
            0 => format!("no answer within {} ms", self.patience.as_millis()),
            seconds => format!("no answer within {seconds} s"),
        };
        io::Error::new(io::ErrorKind::TimedOut, text)
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
        self.ask_within(request, PATIENCE)
    }

    fn ask_within(&self, request: &Request, patience: Duration) -> Result<(Answer, Vec<OwnedFd>), AskError> {
        let started = Instant::now();
        let mut place = self.lock();
        if place.is_none() && started.elapsed() >= patience / 2 {
            // Another thread asked meanwhile, in vain. Asking again would have every thread wait for all before it.
            return Err(Deadline::after(patience).error().into());
        }
        // From here: who had the lock before had a time of its own.
        let deadline = Deadline::after(patience);
        loop {
            let connected = match place.take() {
                Some(connection) => Ok(connection),
                None => self.resume(deadline),
            };
            let answered = connected.and_then(|mut connection| {
                let answered = connection.ask_by(request, deadline);
                // After anything else the stream is out of step: an answer may still come.
                if matches!(answered, Ok(_) | Err(AskError::Refused(_))) {
                    *place = Some(connection);
                }
                answered
            });
            match answered {
                Err(AskError::Away(error)) if was_cut(&error) && !deadline.is_over() => {
                    std::thread::sleep(RETRY_PAUSE);
                }
                answered => return answered,
            }
        }
    }

    /// Asks only if that takes no time worth speaking of: nobody else is asking, the daemon was there the last time, and
    /// it answers within [`PATIENCE_ASIDE`]. `None` otherwise. A daemon that is only slow keeps the connection: to hang up
    /// would close our inbox. If something is wrong with it, the next real question finds out.
    pub(crate) fn ask_aside(&self, request: &Request) -> Option<Answer> {
        let mut place = self.connection.try_lock().ok()?;
        let mut connection = place.take()?;
        let answered = connection.ask_by(request, Deadline::after(PATIENCE_ASIDE));
        let is_usable = match &answered {
            Ok(_) | Err(AskError::Refused(_)) => true,
            Err(error) => connection.is_late(error),
        };
        if is_usable {
            *place = Some(connection);
        }
        answered.ok().map(|(answer, _)| answer)
    }

    fn resume(&self, deadline: Deadline) -> Result<Connection, AskError> {
        let mut connection = Connection::open_by(&self.path, deadline)?;
        step!(ResumeOpened);
        match connection.ask_by(&Request::Resume(self.identity.clone()), deadline)? {
            (Answer::Resumed(_), _) => {
                step!(ResumeAnswered);
                Ok(connection)
            }
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
        let deadline = Deadline::after(PATIENCE_BYE);
        let place = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        let connection = match place.take() {
            Some(connection) => Ok(connection),
            None => self.resume(deadline),
        };
        if let Ok(mut connection) = connection {
            step!(ByeBefore);
            if let Err(error) = connection.ask_by(&Request::Bye, deadline) {
                tracing::debug!("the memory daemon was not told that this member leaves: {error}");
            }
            step!(ByeAnswered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, listen};

    fn listener(path: &Path) -> OwnedFd {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        listen(&socket, 0).unwrap();
        socket
    }

    #[test]
    fn a_full_queue_of_a_stopped_daemon_does_not_hold_a_caller_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stopped.sock");
        let _never_accepts = listener(&path);
        let patience = Duration::from_millis(20);
        let (done, waits) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut queued = Vec::new();
            let error = loop {
                match Connection::open_by(&path, Deadline::after(patience)) {
                    Ok(connection) => queued.push(connection),
                    Err(error) => break error,
                }
            };
            done.send((queued.len(), error)).unwrap();
        });
        let (queued, error) = waits.recv_timeout(Duration::from_secs(30)).expect("connect waits for ever");
        assert!(queued > 0);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn threads_do_not_wait_in_a_row_for_a_daemon_that_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deaf.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let identity = Resume { endpoint: 1, incarnation: 0, token: 0 };
        let control = Control::new(path.clone(), identity, Connection::open(&path).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let error = control.ask(&Request::Pool).unwrap_err();
                    assert!(error.to_string().contains("no answer within 3 s"), "{error}");
                });
            }
        });
        // One of them asked; the others would have opened connections of their own.
        listener.set_nonblocking(true).unwrap();
        assert_eq!(std::iter::from_fn(|| listener.accept().ok()).count(), 1);
        drop(listener); // so that the farewell fails at once
    }

    #[test]
    fn a_question_aside_that_is_answered_late_keeps_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slow.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let identity = Resume { endpoint: 1, incarnation: 0, token: 0 };
        let control = Control::new(path.clone(), identity, Connection::open(&path).unwrap());
        let (mut daemon, _) = listener.accept().unwrap();
        assert_eq!(control.ask_aside(&Request::MakeRoom { bytes: 1 }), None, "nobody answers");
        assert_eq!(
            control.ask_aside(&Request::MakeRoom { bytes: 2 }),
            None,
            "not asked: the first is not answered"
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (serial, made) in [(1, false), (2, true)] {
                    let mut head = [0; HEADER_LEN];
                    io::Read::read_exact(&mut daemon, &mut head).unwrap();
                    let header = Header::decode(&head, Kind::Request).unwrap();
                    assert_eq!(header.serial, serial);
                    io::Read::read_exact(&mut daemon, &mut vec![0; header.body_len]).unwrap();
                    let answer = Answer::MadeRoom { made }.encode(serial).unwrap();
                    io::Write::write_all(&mut daemon, &answer).unwrap();
                }
            });
            let (answer, _) = control.ask(&Request::MakeRoom { bytes: 3 }).unwrap();
            assert_eq!(answer, Answer::MadeRoom { made: true }, "its own, not the late one");
        });
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "it connected anew");
        drop((daemon, listener)); // so that the farewell fails at once
    }

    #[test]
    fn a_question_aside_is_given_up_at_any_byte_and_the_connection_is_kept() {
        use io::Write;
        let dir = tempfile::tempdir().unwrap();
        for cut in [0, 3, HEADER_LEN, HEADER_LEN + 2] {
            let path = dir.path().join(cut.to_string());
            let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            let mut connection = Connection::open(&path).unwrap();
            // A caller that lost the processor before it could ask.
            let error = connection.ask_by(&Request::Pool, Deadline::after(Duration::ZERO)).unwrap_err();
            assert!(connection.is_late(&error) && connection.owed == 0, "{error}");
            let identity = Resume { endpoint: 1, incarnation: 0, token: 0 };
            let control = Control::new(path, identity, connection);
            let (mut daemon, _) = listener.accept().unwrap();
            let (given_up, goes_on) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let answer = |serial, made| Answer::MadeRoom { made }.encode(serial).unwrap();
                    let (serial, _) = hear(&mut daemon).unwrap();
                    let late = answer(serial, false);
                    daemon.write_all(&late[..cut]).unwrap();
                    goes_on.recv().unwrap();
                    daemon.write_all(&late[cut..]).unwrap();
                    let (serial, _) = hear(&mut daemon).expect("it hung up");
                    daemon.write_all(&answer(serial, true)).unwrap();
                });
                assert_eq!(control.ask_aside(&Request::MakeRoom { bytes: 1 }), None);
                given_up.send(()).unwrap();
                let (answer, _) = control.ask(&Request::MakeRoom { bytes: 2 }).unwrap();
                assert_eq!(answer, Answer::MadeRoom { made: true }, "its own, not the late one");
            });
            drop(listener); // so that the farewell fails at once
        }
    }

    /// What a daemon does that dies in the middle, over and over. Each on a listener of its own.
    fn dying(path: &Path, dies: fn(std::os::unix::net::UnixStream)) {
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(dies));
    }

    fn hear(stream: &mut std::os::unix::net::UnixStream) -> Option<(u32, Request)> {
        use std::io::Read;
        let mut head = [0; HEADER_LEN];
        stream.read_exact(&mut head).ok()?;
        let header = Header::decode(&head, Kind::Request).unwrap();
        let mut body = vec![0; header.body_len];
        stream.read_exact(&mut body).ok()?;
        Some((header.serial, Request::decode(&body).unwrap()))
    }

    /// The answer to the wish to resume, at most this many bytes of it; none to anything else.
    fn part(stream: &mut std::os::unix::net::UnixStream, bytes: usize) {
        use std::io::Write;
        let Some((serial, Request::Resume(_))) = hear(stream) else { return };
        let answer = Answer::Resumed(baton_wire::attach::Resumed { endpoint: 1 }).encode(serial).unwrap();
        let _gone = stream.write_all(&answer[..bytes.min(answer.len())]);
    }

    #[test]
    fn a_daemon_that_dies_again_and_again_is_given_up_in_bounded_time_and_named() {
        type Dies = fn(std::os::unix::net::UnixStream);
        const STEPS: [(&str, Dies, &str); 6] = [
            ("at the door", drop, "hung up"),
            ("with the request", |mut it| drop(hear(&mut it)), "hung up"),
            ("in the head", |mut it| part(&mut it, 3), "hung up"),
            ("in the body", |mut it| part(&mut it, HEADER_LEN + 3), "hung up"),
            // The endpoint can be resumed, but no question is answered.
            ("after resuming", |mut it| part(&mut it, usize::MAX), "hung up"),
            (
                "of slowness",
                |mut it| {
                    use std::io::Write;
                    let Some((serial, _)) = hear(&mut it) else { return };
                    let failure = Failure::new(baton_wire::attach::ErrorCode::Busy, "a".repeat(3000));
                    let answer = Answer::Error(failure).encode(serial).unwrap();
                    for byte in answer {
                        if it.write_all(&[byte]).is_err() {
                            return;
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                },
                "no answer within 200 ms",
            ),
        ];
        let dir = tempfile::tempdir().unwrap();
        for (step, dies, says) in STEPS {
            let path = dir.path().join(step);
            dying(&path, dies);
            let (done, waits) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let identity = Resume { endpoint: 1, incarnation: 0, token: 0 };
                let control = Control::new(path.clone(), identity, Connection::open(&path).unwrap());
                let error = control.ask_within(&Request::Pool, Duration::from_millis(200)).unwrap_err();
                done.send(error.to_string()).unwrap();
                drop(control); // its farewell is bounded, too
                done.send(String::new()).unwrap();
            });
            let watchdog = Duration::from_secs(30);
            let error =
                waits.recv_timeout(watchdog).unwrap_or_else(|_| panic!("dies {step}: waits for ever"));
            // The time may be over in any step of a try.
            let over = "no answer within 200 ms";
            assert!(error.contains(says) || error.contains(over), "dies {step}: {error}");
            waits.recv_timeout(watchdog).unwrap_or_else(|_| panic!("dies {step}: says farewell for ever"));
        }
    }
}
