//! Receiving.
//!
//! ```text
//!   try ──nothing──▶ spin a little ──nothing──▶ say "I sleep", look once more ──nothing──▶ wait on the eventfd ─┐
//!    ▲                                                                                                       │
//!    └────────────────────────────── woken (or spurious): empty the eventfd, look again ◀────────────────────┘
//! ```
//! While the receiver is awake a sender makes no system call; the spin keeps it awake for the messages of a burst.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use baton_pool::{Delivery, Receiver};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;

use crate::Client;
use crate::error::RecvError;

/// Looks before going to sleep: some microseconds, less than a wake-up costs.
const SPINS: u32 = 200;

/// The receiving side of this endpoint. One per [`Client`]; can move between threads, not be shared.
#[derive(Debug)]
pub struct Inbox {
    /// Before `client`, so that the endpoint's farewell comes after it.
    receiver: Receiver,
    wake: Wake,
    client: Client,
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
        Self { receiver, wake: Wake::Plain(wake), client }
    }

    /// The endpoint that this inbox belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The next message, if one is there. No system call.
    ///
    /// # Errors
    /// [`RecvError::Closed`] when the daemon closed this endpoint (also: when the daemon was stopped for good).
    pub fn try_recv(&mut self) -> Result<Option<Delivery>, RecvError> {
        Ok(self.receiver.try_recv()?)
    }

    /// Waits for the next message: a short spin, then sleep. A `timeout` of `None` waits for ever; `Ok(None)` means that
    /// the time is over.
    ///
    /// # Errors
    /// As [`Inbox::try_recv`].
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Option<Delivery>, RecvError> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            if let Some(delivery) = self.spin()? {
                return Ok(Some(delivery));
            }
            if let Some(delivery) = self.receiver.prepare_sleep()? {
                return Ok(Some(delivery));
            }
            let slept = self.sleep(deadline);
            self.receiver.woken();
            slept?;
            if deadline.is_some_and(|end| Instant::now() >= end) {
                return self.try_recv();
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
            if let Wake::Registered(wake) = &self.wake {
                let mut ready = wake.readable().await?;
                empty(wake.get_ref());
                ready.clear_ready();
            }
            self.receiver.woken();
        }
    }

    fn spin(&mut self) -> Result<Option<Delivery>, RecvError> {
        for _ in 0..SPINS {
            if let Some(delivery) = self.receiver.try_recv()? {
                return Ok(Some(delivery));
            }
            std::hint::spin_loop();
        }
        Ok(None)
    }

    fn sleep(&self, deadline: Option<Instant>) -> io::Result<()> {
        let fd = match &self.wake {
            Wake::Plain(fd) => fd,
            Wake::Registered(fd) => fd.get_ref(),
            Wake::Moving => return Err(io::ErrorKind::NotFound.into()),
        };
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        // A time too long for the kernel's type is as good as for ever.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], left.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(()),
            Ok(_) => {
                empty(fd);
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn register(&mut self) -> io::Result<()> {
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
fn empty(fd: &OwnedFd) {
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
