//! Receiving.
//!
//! ```text
//!   try ──nothing──▶ spin, if that pays off ──nothing──▶ say "I sleep", look once more ──nothing──▶ sleep ─┐
//!    ▲                                                                                                          │
//!    └──────────────────────────────── woken (or for no reason): look again ◀───────────────────────────────────┘
//! ```
//! A thread sleeps on a futex, a tokio task and [`crate::select`] on the inbox's eventfd. While the receiver is awake a
//! sender makes no system call.
//!
//! Whether it spins is learnt (see [`crate::spin`]).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use baton_pool::{Delivery, Receiver};
use tokio::io::unix::AsyncFd;
use tokio::runtime;

use crate::Client;
use crate::error::RecvError;
use crate::spin::Spin;

/// Looks between two looks at the clock.
const LOOKS: u32 = 16;

/// The receiving side of this endpoint. One per [`Client`]; can move between threads, not be shared.
#[derive(Debug)]
pub struct Inbox {
    /// Before `client`, so that the endpoint's farewell comes after it.
    receiver: Receiver,
    wake: Wake,
    client: Client,
    spin: Spin,
    /// Where the next [`crate::select`] that begins with this inbox looks first.
    pub(crate) turn: usize,
}

/// The eventfd, and where it is registered with tokio.
///
/// ```text
///   nowhere ── a task waits ──▶ with its runtime ── a task of another runtime waits ──▶ with that one
///      ▲                                └── that runtime has shut down: an error, and ──▶ nowhere
///      └────────────────────────────────────────────────────────────────────────────────────┘
/// ```
/// A registration wakes nobody unless its own runtime runs. So each poll compares; an event that came before is not
/// lost, because registering a readable descriptor says at once that it is readable.
#[derive(Debug)]
struct Wake {
    fd: Arc<OwnedFd>,
    registered: Option<(runtime::Id, AsyncFd<Arc<OwnedFd>>)>,
}

impl Wake {
    /// The registration with the runtime that this is called in.
    fn here(&mut self) -> io::Result<&AsyncFd<Arc<OwnedFd>>> {
        // `AsyncFd::new` panics outside of a runtime; this says it as an error.
        let here = runtime::Handle::try_current().map_err(io::Error::other)?.id();
        let kept = self.registered.take().filter(|(at, _)| *at == here);
        let registered = match kept {
            Some(kept) => kept,
            None => (here, async_fd(Arc::clone(&self.fd))?),
        };
        Ok(&self.registered.insert(registered).1)
    }
}

impl Inbox {
    pub(crate) fn new(receiver: Receiver, wake: OwnedFd, client: Client) -> Self {
        Self {
            receiver,
            wake: Wake { fd: Arc::new(wake), registered: None },
            client,
            spin: Spin::within(Duration::ZERO),
            turn: 0,
        }
    }

    /// With that budget.
    pub(crate) fn spinning(mut self, budget: Duration) -> Self {
        self.spin = Spin::within(budget);
        self
    }

    /// The endpoint that this inbox belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The next message, if one is there. No system call.
    ///
    /// # Errors
    /// [`RecvError::Closed`] when the daemon closed this endpoint (also: when the daemon was stopped for good).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Delivery>, RecvError> {
        Ok(self.receiver.try_recv()?)
    }

    /// Waits for the next message: a short spin, then sleep. A `timeout` of `None` waits for ever; `Ok(None)` means that
    /// the time is over.
    ///
    /// # Errors
    /// As [`Inbox::try_recv`].
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Option<Delivery>, RecvError> {
        if let Some(delivery) = self.receiver.try_recv()? {
            return Ok(Some(delivery));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let spun = match self.spin.now() {
            None => Duration::ZERO,
            Some(budget) => {
                if let Some(delivery) = self.look(budget.min(timeout.unwrap_or(budget)))? {
                    self.spin.found();
                    return Ok(Some(delivery));
                }
                budget
            }
        };
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return self.try_recv();
            }
            let found = self.receiver.sleep(left)?;
            self.spin.slept(self.receiver.would_have_come(spun));
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// Waits for the next message inside a tokio runtime. Cancel-safe: a dropped future has taken nothing. The inbox may
    /// be used in one runtime after the other, and in between with [`Inbox::recv`].
    ///
    /// # Errors
    /// As [`Inbox::try_recv`]; [`RecvError::Io`] outside of a runtime with I/O enabled.
    pub async fn recv_async(&mut self) -> Result<Delivery, RecvError> {
        loop {
            if let Some(delivery) = self.receiver.try_recv()? {
                return Ok(delivery);
            }
            if let Some(delivery) = self.receiver.prepare_sleep()? {
                return Ok(delivery);
            }
            // If this future is dropped here, "I sleep" stays said: the next sender writes the eventfd once too often.
            let slept = std::future::poll_fn(|cx| self.poll_wake(cx)).await;
            self.receiver.woken();
            slept?;
        }
    }

    /// Looks again and again, for that long.
    fn look(&mut self, most: Duration) -> Result<Option<Delivery>, RecvError> {
        let started = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if let Some(delivery) = self.receiver.try_recv()? {
                    return Ok(Some(delivery));
                }
                std::hint::spin_loop();
            }
            if started.elapsed() >= most {
                return Ok(None);
            }
        }
    }

    /// For [`crate::select`]: announces sleep on the eventfd and looks once more.
    pub(crate) fn prepare_sleep(&mut self) -> Result<Option<Delivery>, RecvError> {
        Ok(self.receiver.prepare_sleep()?)
    }

    /// Takes that announcement back.
    pub(crate) fn woken(&mut self) {
        self.receiver.woken();
    }

    /// The eventfd; [`empty`] is for it.
    pub(crate) fn eventfd(&self) -> &OwnedFd {
        &self.wake.fd
    }

    /// Ready when the eventfd was written to; emptied then.
    pub(crate) fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = std::task::ready!(self.wake.here()?.poll_read_ready(cx)).map(|mut ready| {
            empty(ready.get_inner());
            ready.clear_ready();
        });
        if ready.is_err() {
            self.wake.registered = None; // that runtime is shutting down; ids of ended ones may come again
        }
        Poll::Ready(ready)
    }
}

/// Takes the counter to 0; it is non-blocking, so an empty one does no harm.
pub(crate) fn empty(fd: &OwnedFd) {
    let _ = rustix::io::read(fd, &mut [0u8; 8]);
}

/// A shared [`OwnedFd`] stays open and the same while it is owned, which is what tokio's unsafe replacement of this function
/// asks its caller to promise.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe function; for an Arc<OwnedFd> its condition always holds"
)]
fn async_fd(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)
}
