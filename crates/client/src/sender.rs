//! Sending.

use std::sync::Arc;

use crate::block::Block;
use crate::error::SendError;

/// What became of a `send_newest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many of this sender's own unread messages were taken back to make room.
    pub replaced: u32,
}

/// A way to one inbox. Clones are the same way; any thread may use it.
#[derive(Debug, Clone)]
pub struct Sender {
    never: Arc<std::convert::Infallible>,
}

impl Sender {
    /// Hands the block over. Moves this process' hold if `block` is its only local handle, adds the receiver as a
    /// further holder otherwise. On failure the block comes back in the error.
    pub fn send(&self, block: Block) -> Result<(), SendError> {
        let _ = block;
        match *self.never {}
    }

    /// Like [`Sender::send`], but when the inbox is full, this sender's own oldest unread messages are taken back to
    /// make room. Still `Full` when none of the unread ones is its own.
    pub fn send_newest(&self, block: Block) -> Result<Sent, SendError> {
        let _ = block;
        match *self.never {}
    }

    /// Name of the inbox.
    pub fn name(&self) -> &str {
        match *self.never {}
    }
}
