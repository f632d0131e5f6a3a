//! Waiting for several inboxes at once.
//!
//! ```text
//!   look at each, in turn ──nothing──▶ each says "I sleep" and looks once more ──nothing──▶ poll all eventfds ─┐
//!    ▲                                                                                                       │
//!    └──────────────────────────── all awake again: empty those that are readable ◀──────────────────────────┘
//! ```
//! Fair: the look begins after the inbox that gave the last message, so one that is never empty cannot starve the others.
//! Whatever ends the wait, no inbox is left saying that it sleeps (else its senders would make system calls for nothing).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use baton_pool::Delivery;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::RecvError;
use crate::inbox::{Inbox, empty};

/// Waits for the next message of any of these inboxes, at most for `timeout` (`None`: for ever). Which inbox, by its place
/// in `inboxes`, and the message; `None` when the time is over.
///
/// # Errors
/// [`RecvError`] of the first inbox that has one: take a closed one out and go on. [`RecvError::Io`] if there is no inbox.
pub fn select(
    inboxes: &mut [&mut Inbox],
    timeout: Option<Duration>,
) -> Result<Option<(usize, Delivery)>, RecvError> {
    some(inboxes)?;
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    loop {
        if let Some(found) = look(inboxes, Inbox::try_recv)? {
            return Ok(Some(found));
        }
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        let asleep = look(inboxes, Inbox::prepare_sleep);
        let slept = match &asleep {
            Ok(None) => sleep(inboxes, left),
            _ => Ok(()),
        };
        inboxes.iter_mut().for_each(|inbox| inbox.woken());
        if let Some(found) = asleep? {
            return Ok(Some(found));
        }
        slept?;
    }
}

/// [`select`] for a tokio runtime, which may be another one each time. Cancel-safe: a dropped future has taken nothing.
///
/// # Errors
/// As [`select`]; [`RecvError::Io`] outside of a runtime with I/O enabled.
pub async fn select_async(inboxes: &mut [&mut Inbox]) -> Result<(usize, Delivery), RecvError> {
    some(inboxes)?;
    loop {
        if let Some(found) = look(inboxes, Inbox::try_recv)? {
            return Ok(found);
        }
        let asleep = look(inboxes, Inbox::prepare_sleep);
        let slept = match &asleep {
            // Dropped here, all go on saying that they sleep: each costs its next sender one system call.
            Ok(None) => poll_fn(|cx| any_woken(inboxes, cx)).await,
            _ => Ok(()),
        };
        inboxes.iter_mut().for_each(|inbox| inbox.woken());
        if let Some(found) = asleep? {
            return Ok(found);
        }
        slept?;
    }
}

fn some(inboxes: &[&mut Inbox]) -> Result<(), RecvError> {
    if inboxes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no inbox to wait for").into());
    }
    Ok(())
}

/// Asks each in turn, beginning after the one that gave something the last time.
fn look(
    inboxes: &mut [&mut Inbox],
    mut ask: impl FnMut(&mut Inbox) -> Result<Option<Delivery>, RecvError>,
) -> Result<Option<(usize, Delivery)>, RecvError> {
    let first = inboxes.first().map_or(0, |inbox| inbox.turn);
    for k in 0..inboxes.len() {
        let i = (first % inboxes.len() + k) % inboxes.len();
        if let Some(delivery) = ask(inboxes[i])? {
            inboxes[0].turn = i + 1;
            return Ok(Some((i, delivery)));
        }
    }
    Ok(None)
}

fn sleep(inboxes: &[&mut Inbox], left: Option<Duration>) -> io::Result<()> {
    let mut fds = Vec::with_capacity(inboxes.len());
    for inbox in inboxes {
        fds.push(PollFd::new(inbox.eventfd(), PollFlags::IN));
    }
    // A time too long for the kernel's type is as good as for ever.
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let readable: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    for (inbox, _) in inboxes.iter().zip(readable).filter(|(_, readable)| *readable) {
        empty(inbox.eventfd());
    }
    Ok(())
}

fn any_woken(inboxes: &mut [&mut Inbox], cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut woken = Poll::Pending;
    for inbox in inboxes {
        if let Poll::Ready(result) = inbox.poll_wake(cx) {
            result?;
            woken = Poll::Ready(Ok(()));
        }
    }
    woken
}
