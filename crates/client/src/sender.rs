//! Sending.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_pool::{Block, Channel, EndpointId, SendFailure, Sent};

use crate::Client;
use crate::client::Pauses;
use crate::error::SendError;

/// What a send does when the inbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Fails at once: the caller has the block back and decides.
    Refuse,
    /// Waits for room, at most so long. The receiver wakes the sender; nothing is polled.
    Wait(Duration),
    /// Takes this sender's own oldest unread message back and drops it. Nobody else's is touched.
    DropOldest,
}

/// A way to one inbox of one life of its reader. Clones are the same way; any thread may use it.
///
/// When the reader has ended, every send says [`Gone`](crate::SendFailure::Gone): ask [`Client::sender`] for the name
/// again, its successor has another endpoint.
#[derive(Debug, Clone)]
pub struct Sender {
    client: Client,
    name: Arc<str>,
    channel: Channel,
}

impl Sender {
    pub(crate) fn new(client: Client, name: &str, channel: Channel) -> Self {
        Self { client, name: name.into(), channel }
    }

    /// Hands the block over. Moves this process' hold if `block` is its only local handle, adds the receiver as a
    /// further holder otherwise. No round trip to the daemon; a system call only if the receiver sleeps.
    ///
    /// # Errors
    /// [`SendError`] gives the block back.
    #[inline]
    pub fn send(&self, block: Block) -> Result<(), SendError> {
        self.client.inner.member.send(&self.channel, block).map_err(|error| self.error(error))
    }

    /// Like [`Sender::send`], but when the inbox is full, this sender's own oldest unread messages are taken back to
    /// make room.
    ///
    /// # Errors
    /// [`SendError`] gives the block back; still `Full` when none of the unread messages is this sender's own.
    pub fn send_newest(&self, block: Block) -> Result<Sent, SendError> {
        self.client.inner.member.send_newest(&self.channel, block).map_err(|error| self.error(error))
    }

    /// Hands the block over, and does `when_full` when the inbox is full.
    ///
    /// # Errors
    /// [`SendError`] gives the block back: `Full` if it was refused, the time is over, or none of the unread messages is
    /// this sender's own.
    pub fn send_with(&self, block: Block, when_full: WhenFull) -> Result<Sent, SendError> {
        let none = Sent { replaced: 0 };
        match when_full {
            WhenFull::Refuse => self.send(block).map(|()| none),
            WhenFull::DropOldest => self.send_newest(block),
            WhenFull::Wait(timeout) => {
                let deadline = Instant::now().checked_add(timeout);
                let sent = self.client.inner.member.send_until(&self.channel, block, deadline);
                sent.map(|()| none).map_err(|error| self.error(error))
            }
        }
    }

    /// [`Sender::send_with`] for a tokio runtime. Waiting for room is trying again after growing pauses of 1 to 8 ms. A
    /// future that is dropped while it waits drops the block.
    ///
    /// # Errors
    /// As [`Sender::send_with`].
    pub async fn send_async(&self, block: Block, when_full: WhenFull) -> Result<Sent, SendError> {
        let WhenFull::Wait(timeout) = when_full else { return self.send_with(block, when_full) };
        let mut pauses = Pauses::until(Instant::now().checked_add(timeout));
        let mut block = block;
        loop {
            match self.send_with(block, WhenFull::Refuse) {
                Err(error) if error.reason == SendFailure::Full => {
                    if !pauses.next().await {
                        return Err(error);
                    }
                    block = error.block;
                }
                other => return other,
            }
        }
    }

    #[cold]
    fn error(&self, error: baton_pool::SendError) -> SendError {
        SendError { block: error.block, reason: error.reason, inbox: Arc::clone(&self.name) }
    }

    /// Name of the inbox.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the endpoint that reads it.
    pub fn to(&self) -> EndpointId {
        self.channel.to().id
    }
}
