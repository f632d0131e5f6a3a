//! One endpoint in the pool.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use baton_address::Address;
use baton_killpoint::step;
use baton_pool::{
    AllocError as PoolAllocError, BlockId, BlockMut, Channel, EndpointId, EndpointRef, Member as PoolMember,
    Pool,
};
use baton_wire::attach::{self, Answer, Attach, ErrorCode, Name, Request, Resume};
use baton_wire::report::{AuditReport, InboxInfo, Member, PoolInfo};

use crate::control::{AskError, Connection, Control, Deadline, PATIENCE};
use crate::error::{AllocError, ConnectError, OpenError, QueryError};
use crate::inbox::Inbox;
use crate::options::{Access, ConnectOptions};
use crate::query;
use crate::sender::Sender;

/// Pause between two tries to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Between two requests for room.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// One endpoint in the pool. A cheap handle: clones are the same endpoint, any thread may use it.
///
/// Blocks, senders and the inbox work without the daemon. When it was restarted, the next question to it reconnects by
/// itself. The endpoint is given back when the last `Client`, [`Inbox`] and [`Sender`] of it are gone; blocks that are
/// still alive then stay valid, and the endpoint goes with the last of them.
///
/// A connection that ends without a farewell (a `Client` that is leaked, its descriptor closed by force) closes the inbox,
/// but the endpoint stays until its process ends, since the process may still read its blocks. So endpoints can run out
/// in a process that does this over and over; the daemon then says that the pool is full of members, and how many it has.
///
/// A process that forks must not use a `Client` in the child: the mappings are not inherited, and the control connection
/// would be shared with the parent. Connect in the child instead (or fork before connecting).
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// Fields are dropped in this order: the farewell comes last, when spare blocks have been given back.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) member: PoolMember,
    pub(crate) control: Control,
    /// When the daemon was asked for room the last time, in milliseconds since `born`; 0: never.
    asked_for_room: AtomicU64,
    born: Instant,
}

impl Inner {
    /// Asks the daemon to take empty extents from other sizes. Rarely: in a pool that is simply full it would have to
    /// look in vain at every failing allocation of everybody.
    fn make_room(&self, len: usize) -> bool {
        let now = self.born.elapsed().as_millis() as u64 + 1;
        let last = self.asked_for_room.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= ROOM_PAUSE.as_millis() as u64;
        if !due
            || self.asked_for_room.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return false;
        }
        self.member.give_spares_back(); // an extent with one spare block in it holds something
        let request = Request::MakeRoom { bytes: len as u64 };
        matches!(self.control.ask_aside(&request), Some(Answer::MadeRoom { made: true }))
    }
}

/// Waits that grow, for tokio.
pub(crate) struct Pauses {
    next: Duration,
    deadline: Option<Instant>,
}

impl Pauses {
    pub(crate) fn until(deadline: Option<Instant>) -> Self {
        Self { next: Duration::from_millis(1), deadline }
    }

    /// False if the time is over.
    pub(crate) async fn next(&mut self) -> bool {
        let left = self.deadline.map_or(self.next, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.next.min(left)).await;
        self.next = (self.next * 2).min(Duration::from_millis(8));
        true
    }
}

impl Client {
    /// Attaches this process to the pool of the daemon at `uri` (`un://PATH`).
    ///
    /// Keeps trying for `options.timeout` while the socket is absent, refuses, or hangs up in the middle (a daemon being
    /// restarted). A try takes at most 3 s, whatever the daemon does, so this comes back at most that much later. A
    /// refusal by the daemon itself is final at once. An inbox name that a living process has is retried,
    /// too: its owner may be about to end.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(uri: &str, options: ConnectOptions) -> Result<(Client, Inbox), ConnectError> {
        let path = socket_path(uri)?;
        let ask = attach_request(uri, &options)?;
        let deadline = Instant::now().checked_add(options.timeout);
        let (connection, endpoint, fds) = loop {
            let error = match try_attach(&path, &ask) {
                Ok(attached) => break attached,
                Err(error) => error,
            };
            let passing = match &error {
                AskError::Away(_) => true,
                AskError::Refused(failure) => matches!(failure.code, ErrorCode::InboxTaken | ErrorCode::Busy),
                AskError::Protocol(_) => false,
            };
            if !passing || deadline.is_some_and(|end| Instant::now() >= end) {
                return Err(connect_error(uri, error));
            }
            std::thread::sleep(RETRY_PAUSE);
        };
        let (client, inbox) = enter(uri, path, ask.token, connection, endpoint, fds)?;
        Ok((client, inbox.spinning(options.spin)))
    }

    /// Loans a block that shows exactly `len` bytes: ours alone, writable, contents undefined. Never waits for memory; if
    /// there is none, the daemon is asked to take empty extents from other sizes, at most ten times a second and only if
    /// it answers at once.
    ///
    /// # Errors
    /// [`AllocError`].
    #[inline(always)]
    pub fn alloc(&self, len: usize) -> Result<BlockMut, AllocError> {
        match self.inner.member.alloc(len) {
            Ok(block) => Ok(block),
            Err(error) => self.alloc_again(len, error),
        }
    }

    #[cold]
    fn alloc_again(&self, len: usize, error: PoolAllocError) -> Result<BlockMut, AllocError> {
        if matches!(error, PoolAllocError::Exhausted { .. }) && self.inner.make_room(len) {
            return Ok(self.inner.member.alloc(len)?);
        }
        Err(error.into())
    }

    /// Like [`Client::alloc`], but waits for a free block, at most for `timeout`. As long as somebody waits, no member of
    /// the pool keeps spare blocks.
    ///
    /// # Errors
    /// [`AllocError`]; `Exhausted` when the time is over.
    pub fn alloc_wait(&self, len: usize, timeout: Duration) -> Result<BlockMut, AllocError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match self.alloc(len) {
                Err(AllocError::Exhausted { .. }) => {}
                other => return other,
            }
            // Whoever frees a block wakes us. That an extent of another size became empty wakes nobody: ask again then.
            let again = Instant::now().checked_add(ROOM_PAUSE);
            let until = deadline.map_or(again, |end| again.map(|again| again.min(end)));
            match self.inner.member.alloc_until(len, until) {
                Err(PoolAllocError::Exhausted { .. }) if deadline.is_none_or(|end| Instant::now() < end) => {}
                other => return Ok(other?),
            }
        }
    }

    /// [`Client::alloc_wait`] for a tokio runtime: tries again after growing pauses of 1 to 8 ms.
    ///
    /// # Errors
    /// As [`Client::alloc_wait`].
    pub async fn alloc_async(&self, len: usize, timeout: Duration) -> Result<BlockMut, AllocError> {
        let mut pauses = Pauses::until(Instant::now().checked_add(timeout));
        loop {
            match self.alloc(len) {
                Err(error @ AllocError::Exhausted { .. }) => {
                    if !pauses.next().await {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    /// Opens the inbox registered as `inbox`. A round trip to the daemon (well under a millisecond, blocking; seconds
    /// if the daemon is being restarted).
    ///
    /// # Errors
    /// [`OpenError::NotFound`] while nobody receives there.
    pub fn sender(&self, inbox: &str) -> Result<Sender, OpenError> {
        let not_found = || OpenError::NotFound { inbox: inbox.to_owned() };
        let name: Name = inbox.parse().map_err(|_| not_found())?;
        let answered = self.inner.control.ask(&Request::OpenInbox { inbox: name });
        step!(OpenAnswered);
        let strange = || AskError::Protocol("an answer to something else".to_owned());
        let answered = answered.and_then(|(answer, mut fds)| match (answer, fds.pop()) {
            (Answer::Opened(opened), Some(wake)) => {
                let id = EndpointId::new(opened.endpoint).ok_or_else(strange)?;
                Ok(Channel::new(EndpointRef { id, incarnation: opened.incarnation }, wake))
            }
            _ => Err(strange()),
        });
        match answered {
            Ok(channel) => Ok(Sender::new(self.clone(), inbox, channel)),
            Err(AskError::Refused(failure)) if failure.code == ErrorCode::NotFound => Err(not_found()),
            Err(AskError::Refused(failure)) => Err(OpenError::Refused {
                inbox: inbox.to_owned(),
                code: failure.code.to_string(),
                message: failure.message,
            }),
            Err(AskError::Away(source)) => Err(OpenError::Disconnected { inbox: inbox.to_owned(), source }),
            Err(AskError::Protocol(detail)) => {
                Err(OpenError::Disconnected { inbox: inbox.to_owned(), source: io::Error::other(detail) })
            }
        }
    }

    /// Like [`Client::sender`], but waits until somebody receives under that name, at most for `timeout`; asks the daemon
    /// every 20 ms.
    ///
    /// # Errors
    /// [`OpenError`]; `NotFound` when the time is over.
    pub fn sender_wait(&self, inbox: &str, timeout: Duration) -> Result<Sender, OpenError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match self.sender(inbox) {
                Err(OpenError::NotFound { .. }) if deadline.is_none_or(|end| Instant::now() < end) => {
                    std::thread::sleep(RETRY_PAUSE);
                }
                other => return other,
            }
        }
    }

    /// Who receives under that name: endpoint, process and its name; `None` if nobody does.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn receiver_of(&self, inbox: &str) -> Result<Option<InboxInfo>, QueryError> {
        Ok(self.who_receives()?.into_iter().find(|info| info.inbox == inbox))
    }

    /// Lists the inboxes that can be sent to.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn who_receives(&self) -> Result<Vec<InboxInfo>, QueryError> {
        query::inboxes(self.inner.control.ask(&Request::Inboxes))
    }

    /// Lists the members of the pool.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn members(&self) -> Result<Vec<Member>, QueryError> {
        query::members(self.inner.control.ask(&Request::Members))
    }

    /// The pool as a whole.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn pool(&self) -> Result<PoolInfo, QueryError> {
        query::pool(self.inner.control.ask(&Request::Pool))
    }

    /// Has the daemon check every block's holders.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn audit(&self) -> Result<AuditReport, QueryError> {
        query::audit(self.inner.control.ask(&Request::Audit))
    }

    /// The spare blocks in this endpoint's magazine: held according to the pool, in nobody's hands. For audits.
    pub fn spare_blocks(&self) -> Vec<BlockId> {
        self.inner.member.spare_blocks()
    }

    /// This endpoint's number.
    pub fn endpoint(&self) -> EndpointId {
        self.inner.member.endpoint().id
    }
}

pub(crate) fn socket_path(uri: &str) -> Result<PathBuf, ConnectError> {
    match uri.parse::<Address>() {
        Ok(Address::Unix { path }) => Ok(path),
        _ => Err(ConnectError::BadUri { uri: uri.to_owned() }),
    }
}

pub(crate) fn connect_error(uri: &str, error: AskError) -> ConnectError {
    let uri = uri.to_owned();
    match error {
        AskError::Away(source) => ConnectError::Unreachable { uri, source },
        AskError::Refused(failure) => {
            ConnectError::Refused { uri, code: failure.code.to_string(), message: failure.message }
        }
        AskError::Protocol(detail) => ConnectError::Protocol { uri, detail },
    }
}

fn attach_request(uri: &str, options: &ConnectOptions) -> Result<Attach, ConnectError> {
    let name = |text: &str| {
        text.parse::<Name>()
            .map_err(|error| ConnectError::BadName { name: text.to_owned(), reason: error.to_string() })
    };
    let system = |error: io::Error| ConnectError::Unreachable { uri: uri.to_owned(), source: error };
    let mut token = [0u8; 8];
    rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| system(errno.into()))?;
    Ok(Attach {
        name: name(&options.name)?,
        inbox: options.inbox.as_deref().map(name).transpose()?,
        access: match options.access {
            Access::ReadWrite => attach::Access::ReadWrite,
            Access::ReadOnly => attach::Access::ReadOnly,
        },
        start_time: own_start_time().map_err(system)?,
        token: u64::from_le_bytes(token),
    })
}

/// Field 22 of proc_pid_stat(5). Field 2, the program's name in parentheses, may contain anything.
fn own_start_time() -> io::Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat does not parse"))
}

fn try_attach(path: &Path, ask: &Attach) -> Result<(Connection, EndpointRef, [OwnedFd; 3]), AskError> {
    let strange = || AskError::Protocol("an answer to something else".to_owned());
    let deadline = Deadline::after(PATIENCE);
    let mut connection = Connection::open_by(path, deadline)?;
    step!(ConnectOpened);
    let (answer, fds) = connection.ask_by(&Request::Attach(ask.clone()), deadline)?;
    step!(ConnectAnswered);
    let Answer::Attached(attached) = answer else { return Err(strange()) };
    let id = EndpointId::new(attached.endpoint).ok_or_else(strange)?;
    let fds = fds.try_into().map_err(|_| strange())?;
    Ok((connection, EndpointRef { id, incarnation: attached.incarnation }, fds))
}

fn enter(
    uri: &str,
    path: PathBuf,
    token: u64,
    connection: Connection,
    endpoint: EndpointRef,
    [metadata, payload, wake]: [OwnedFd; 3],
) -> Result<(Client, Inbox), ConnectError> {
    let map = |detail: String| ConnectError::Map { uri: uri.to_owned(), detail };
    let pool = Pool::open(&metadata, &payload).map_err(|error| map(error.to_string()))?;
    step!(ConnectMapped);
    let (member, receiver) = pool.attach(endpoint).map_err(|error| map(error.to_string()))?;
    step!(ConnectAttached);
    warm_up(pool);
    let identity = Resume { endpoint: endpoint.id.get(), incarnation: endpoint.incarnation, token };
    let control = Control::new(path, identity, connection);
    let client = Client {
        inner: Arc::new(Inner { member, control, asked_for_room: AtomicU64::new(0), born: Instant::now() }),
    };
    let inbox = Inbox::new(receiver, wake, client.clone());
    Ok((client, inbox))
}

/// Touches every page of the pool once, beside the work, so that no frame pays for a page fault.
fn warm_up(pool: Pool) {
    let spawned = std::thread::Builder::new().name("baton-warm-up".to_owned()).spawn(move || {
        if let Err(error) = pool.populate() {
            tracing::debug!("the pool's pages are mapped on first use: {error}");
        }
    });
    if let Err(error) = spawned {
        tracing::debug!("the pool's pages are mapped on first use: {error}");
    }
}
