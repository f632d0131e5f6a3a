//! Calls to a server, over as many connections as there are calls under way.
//!
//! ```text
//!   call ──▶ permit ──▶ idle connection that is still alive? ──no──▶ connect (paced after a failure)
//!                              │ yes                                   │
//!                              └──────────────▶ send, receive ◀────────┘
//!                                   ├─ answer or error answer: the connection goes back to the idle ones
//!                                   └─ anything else (broken, timed out, call dropped): the connection is closed
//! ```
//! A connection is given back only after its answer was read whole, so a late answer can never meet a later call.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_address::{Address, Stream};
use baton_wire::json_frame::{BodyError, DEFAULT_MAX_BODY, Decoder, Reply, RequestOut, TooLarge, encode};
use rustix::net::RecvFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::{CallError, RpcError, Subscription};

/// How long a call may take unless it says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls under way at a time, and so connections; further calls wait their turn.
const MAX_CONNECTIONS: usize = 64;
/// Connections kept open for later calls.
const MAX_IDLE: usize = 8;
/// A connection idle for longer is not used again: the server may be about to close it ([`crate::Limits::idle`]).
const MAX_IDLE_TIME: Duration = Duration::from_secs(60);
/// After a failed connect, the next attempt is not made sooner than this: a caller that retries at once does not spin.
const CONNECT_PACE: Duration = Duration::from_millis(50);

/// A caller of one server. Cheap to clone; clones share the connections. Connects at the first call, and again by itself
/// at the next call after a failure. Needs a tokio runtime.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) uri: String,
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
    /// No connect before this instant.
    connect_after: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: Instant,
}

/// What happened to one exchange of frames.
enum Broken {
    Io(io::Error),
    TooLarge(TooLarge),
    Extra,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Io(error)
    }
}

impl Client {
    /// A client of the server at `uri` (`ip://HOST:PORT` or `un://PATH`). Nothing is connected yet, and a wrong address is
    /// reported by the calls.
    pub fn new(uri: impl Into<String>) -> Client {
        Client {
            shared: Arc::new(Shared {
                uri: uri.into(),
                idle: Mutex::new(Vec::new()),
                permits: Semaphore::new(MAX_CONNECTIONS),
                connect_after: Mutex::new(None),
            }),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// A handle on the same connections whose calls take `timeout` at most (default 15 s).
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client { shared: Arc::clone(&self.shared), timeout }
    }

    /// The server's address.
    pub fn uri(&self) -> &str {
        &self.shared.uri
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`CallError`]. Dropping the future closes the connection of this call; the method may run on.
    pub async fn call<P, R>(&self, method: &str, params: &P) -> Result<R, CallError>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call_with_timeout(method, params, self.timeout).await
    }

    /// Calls a method with a time limit of its own (for a long poll: longer than the poll).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_with_timeout<P, R>(
        &self,
        method: &str,
        params: &P,
        after: Duration,
    ) -> Result<R, CallError>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let frame = encode(&RequestOut::plain(method, params), DEFAULT_MAX_BODY)
            .map_err(|source| CallError::Encode { method: method.to_owned(), source })?;
        let body =
            tokio::time::timeout(after, self.exchange(method, &frame)).await.map_err(|_elapsed| {
                CallError::Timeout { uri: self.uri().to_owned(), method: method.to_owned(), after }
            })??;
        let decode = |reason: String| CallError::Decode {
            uri: self.uri().to_owned(),
            method: method.to_owned(),
            reason,
        };
        match Reply::parse(&body).map_err(|error: BodyError| decode(error.to_string()))? {
            Reply::Result { result, .. } => {
                serde_json::from_str(result).map_err(|error| decode(error.to_string()))
            }
            Reply::Error(error) => {
                Err(CallError::Remote(RpcError::new(error.code.into_owned(), error.message)))
            }
        }
    }

    /// Subscribes to a streaming method, over a connection of its own: a slow reader holds up nobody else, and dropping the
    /// subscription ends it at the server.
    ///
    /// # Errors
    /// [`CallError::Connect`], [`CallError::Encode`], [`CallError::Disconnected`]. What the server says comes from
    /// [`Subscription::next`].
    pub async fn subscribe<P, T>(&self, method: &str, params: &P) -> Result<Subscription<T>, CallError>
    where
        P: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        Subscription::begin(&self.shared, method, params).await
    }

    /// Sends a notification: the method runs, and nothing comes back, not even an error.
    ///
    /// # Errors
    /// [`CallError`] if it could not be sent. That it could says no more.
    pub async fn notify<P>(&self, method: &str, params: &P) -> Result<(), CallError>
    where
        P: Serialize + ?Sized,
    {
        let request = RequestOut { notify: true, ..RequestOut::plain(method, params) };
        let frame = encode(&request, DEFAULT_MAX_BODY)
            .map_err(|source| CallError::Encode { method: method.to_owned(), source })?;
        let send = async {
            let _permit = self.shared.permits.acquire().await;
            let mut stream = self.shared.take_or_connect().await?;
            stream.write_all(&frame).await.map_err(|source| CallError::Disconnected {
                uri: self.uri().to_owned(),
                method: method.to_owned(),
                source,
            })?;
            self.shared.give_back(stream);
            Ok(())
        };
        let late = |_elapsed| CallError::Timeout {
            uri: self.uri().to_owned(),
            method: method.to_owned(),
            after: self.timeout,
        };
        tokio::time::timeout(self.timeout, send).await.map_err(late)?
    }

    async fn exchange(&self, method: &str, frame: &[u8]) -> Result<Vec<u8>, CallError> {
        let shared = &*self.shared;
        // The semaphore is never closed; if it were, the call would merely go unbounded.
        let _permit = shared.permits.acquire().await;
        let mut stream = shared.take_or_connect().await?;
        match send_and_receive(&mut stream, frame).await {
            Ok(body) => {
                shared.give_back(stream);
                Ok(body)
            }
            Err(Broken::Io(source)) => {
                Err(CallError::Disconnected { uri: shared.uri.clone(), method: method.to_owned(), source })
            }
            Err(broken) => Err(CallError::Decode {
                uri: shared.uri.clone(),
                method: method.to_owned(),
                reason: match broken {
                    Broken::TooLarge(error) => error.to_string(),
                    _ => "more than one answer came".to_owned(),
                },
            }),
        }
    }
}

impl Shared {
    fn take_idle(&self) -> Option<Stream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < MAX_IDLE_TIME);
        // The latest first: the others grow old and go.
        while let Some(Idle { stream, .. }) = idle.pop() {
            if is_quiet(&stream) {
                return Some(stream);
            }
        }
        None
    }

    async fn take_or_connect(&self) -> Result<Stream, CallError> {
        match self.take_idle() {
            Some(stream) => Ok(stream),
            None => {
                self.connect().await.map_err(|source| CallError::Connect { uri: self.uri.clone(), source })
            }
        }
    }

    fn give_back(&self, stream: Stream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(Idle { stream, since: Instant::now() });
        }
    }

    pub(crate) async fn connect(&self) -> io::Result<Stream> {
        let address: Address =
            self.uri.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let after = *self.connect_after.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(after) = after {
            tokio::time::sleep_until(after).await;
        }
        let connected = address.connect().await;
        *self.connect_after.lock().unwrap_or_else(PoisonError::into_inner) =
            connected.is_err().then(|| Instant::now() + CONNECT_PACE);
        connected
    }
}

/// True if the connection is open and nothing has arrived on it. Asks the kernel: what the runtime knows may be older.
fn is_quiet(stream: &Stream) -> bool {
    let peeked = rustix::net::recv(stream.as_fd(), &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peeked, Err(rustix::io::Errno::AGAIN))
}

async fn send_and_receive(stream: &mut Stream, frame: &[u8]) -> Result<Vec<u8>, Broken> {
    stream.write_all(frame).await?;
    let mut decoder = Decoder::new(DEFAULT_MAX_BODY);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(Broken::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        decoder.push(&buffer[..read]);
        if let Some(body) = decoder.next_body().map_err(Broken::TooLarge)? {
            let body = body.to_vec();
            return if decoder.is_at_boundary() { Ok(body) } else { Err(Broken::Extra) };
        }
    }
}
