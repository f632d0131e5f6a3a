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
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use baton_pool::{Delivery, Receiver};
use tokio::io::unix::AsyncFd;

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

/// The eventfd, registered with tokio once it was used there.
#[derive(Debug)]
enum Wake {
    Plain(OwnedFd),
    Registered(AsyncFd<OwnedFd>),
    /// Only while it moves from one to the other.
    Moving,
}

impl Inbox {
    pub(crate) fn new(receiver: Receiver, wake: OwnedFd, client: Client) -> Self {
        Self { receiver, wake: Wake::Plain(wake), client, spin: Spin::within(Duration::ZERO), turn: 0 }
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

    /// Waits for the next message inside a tokio runtime. Cancel-safe: a dropped future has taken nothing.
    ///
    /// # Errors
    /// As [`Inbox::try_recv`]; [`RecvError::Io`] outside of a runtime with I/O enabled.
    pub async fn recv_async(&mut self) -> Result<Delivery, RecvError> {
        loop {
            if let Some(delivery) = self.receiver.try_recv()? {
                return Ok(delivery);
            }
            self.register()?;
            if let Some(delivery) = self.receiver.prepare_sleep()? {
                return Ok(delivery);
            }
            // If this future is dropped here, "I sleep" stays said: the next sender writes the eventfd once too often.
            std::future::poll_fn(|cx| self.poll_wake(cx)).await?;
            self.receiver.woken();
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

    /// The eventfd, and [`empty`] for it.
    pub(crate) fn eventfd(&self) -> io::Result<&OwnedFd> {
        match &self.wake {
            Wake::Plain(fd) => Ok(fd),
            Wake::Registered(fd) => Ok(fd.get_ref()),
            Wake::Moving => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Ready when the eventfd was written to; emptied then.
    pub(crate) fn poll_wake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Wake::Registered(wake) = &self.wake else { return Poll::Ready(Ok(())) };
        let mut ready = std::task::ready!(wake.poll_read_ready(cx))?;
        empty(wake.get_ref());
        ready.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// Registers the eventfd with the runtime that this is called in.
    pub(crate) fn register(&mut self) -> io::Result<()> {
        if matches!(self.wake, Wake::Plain(_))
            && let Wake::Plain(fd) = std::mem::replace(&mut self.wake, Wake::Moving)
        {
            let duplicate = fd.try_clone();
            match duplicate.and_then(async_fd) {
                Ok(registered) => self.wake = Wake::Registered(registered),
                Err(error) => {
                    self.wake = Wake::Plain(fd);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Takes the counter to 0; it is non-blocking, so an empty one does no harm.
pub(crate) fn empty(fd: &OwnedFd) {
    let _ = rustix::io::read(fd, &mut [0u8; 8]);
}

/// An [`OwnedFd`] stays open and the same while it is owned, which is what tokio's unsafe replacement of this function
/// asks its caller to promise.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe function; for an OwnedFd its condition always holds"
)]
fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // `AsyncFd::new` panics outside of a runtime; this says it as an error.
    tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)
}
