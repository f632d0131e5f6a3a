//! Sending.

use std::sync::Arc;

use baton_pool::{Block, Channel, EndpointId, Sent};

use crate::Client;
use crate::error::SendError;

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
    pub fn send(&self, block: Block) -> Result<(), SendError> {
        let sent = self.client.inner.member.send(&self.channel, block);
        sent.map_err(|error| SendError {
            block: error.block,
            reason: error.reason,
            inbox: Arc::clone(&self.name),
        })
    }

    /// Like [`Sender::send`], but when the inbox is full, this sender's own oldest unread messages are taken back to
    /// make room.
    ///
    /// # Errors
    /// [`SendError`] gives the block back; still `Full` when none of the unread messages is this sender's own.
    pub fn send_newest(&self, block: Block) -> Result<Sent, SendError> {
        let sent = self.client.inner.member.send_newest(&self.channel, block);
        sent.map_err(|error| SendError {
            block: error.block,
            reason: error.reason,
            inbox: Arc::clone(&self.name),
        })
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
