//! Answers that the socket has not taken yet.
//!
//! ```text
//!   push ─▶ waiting ──poll_write, one write for all that waits──▶ empty (the memory is given back)
//!              └─ fewer than 64 KiB (or all) taken within the time ─▶ overdue
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::time::Instant;

/// A reader that takes so much is not slow.
const QUANTUM: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
    /// Taken since `clock`.
    taken: usize,
    /// When the peer was given its present time.
    clock: Instant,
}

impl Unsent {
    pub fn new(now: Instant) -> Unsent {
        Unsent { bytes: Vec::new(), sent: 0, taken: 0, clock: now }
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since when the peer is owed progress.
    pub fn clock(&self) -> Instant {
        self.clock
    }

    pub fn push(&mut self, frame: Vec<u8>) {
        if self.is_empty() {
            (self.bytes, self.sent, self.taken, self.clock) = (frame, 0, 0, Instant::now());
        } else {
            if self.sent >= self.bytes.len() / 2 {
                // At least as many bytes leave as move, so the cost per byte stays constant.
                self.bytes.drain(..self.sent);
                self.sent = 0;
            }
            self.bytes.extend_from_slice(&frame);
        }
    }

    /// Writes until nothing is left or the socket is full.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = match Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            self.sent += written;
            self.taken += written;
            if self.taken >= QUANTUM {
                (self.taken, self.clock) = (0, Instant::now());
            }
        }
        // Idle connections are many.
        (self.bytes, self.sent) = (Vec::new(), 0);
        // A stream that buffers (TLS) is told that this was all; a socket does nothing here.
        Pin::new(stream).poll_flush(cx)
    }
}
