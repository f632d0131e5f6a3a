//! Receiving.

use std::time::Duration;

use crate::block::{Block, EndpointId};
use crate::error::RecvError;

/// The receiving side of this endpoint. One per [`crate::Client`]; can move between threads, not be shared.
#[derive(Debug)]
pub struct Inbox {
    never: std::convert::Infallible,
}

/// A block that arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The block; this process is a holder now.
    pub block: Block,
    /// Endpoint that sent it.
    pub from: EndpointId,
}

impl Inbox {
    /// The next message, if one is there.
    pub fn try_recv(&mut self) -> Result<Option<Delivery>, RecvError> {
        match self.never {}
    }

    /// Waits for the next message: a short spin, then sleep. `None` waits for ever; `Ok(None)` means that the time is
    /// over.
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Option<Delivery>, RecvError> {
        let _ = timeout;
        match self.never {}
    }

    /// Waits for the next message inside a tokio runtime. Cancel-safe: a dropped future has taken nothing.
    pub async fn recv_async(&mut self) -> Result<Delivery, RecvError> {
        match self.never {}
    }
}
