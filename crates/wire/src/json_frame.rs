//! Frames of JSON: `u32` little-endian length, then that many bytes of JSON.
//!
//! ```text
//!   request   05 00 00 00 …   {"in": "ping", "params": X}
//!   answer                    {"out": "pong", "result": X}
//!   error (our extension)     {"error": {"code": "unknown_method", "message": "…"}}
//! ```
//! Further extensions, none of which a client of the document's protocol meets: see [`Request`].
//!
//! [`Decoder`] takes bytes in whatever pieces they arrive and gives bodies; [`encode`] makes prefix and body in one
//! buffer, so that an answer is one write. The length is a peer's claim:
//!
//! ```text
//!   AtBoundary ──1…3 bytes──▶ InPrefix ──length ≤ limit──▶ InBody ──all there──▶ body, AtBoundary
//!                                └──length > limit──▶ TooLarge (for good: the stream has no next boundary to find)
//! ```
//!
//! It is checked before anything is reserved, and memory grows with the bytes that came, never with the bytes that were
//! announced. A decoder at a boundary holds no buffer, so an idle connection costs nothing here. What a body says is
//! checked apart ([`Request::parse`], [`Reply::parse`]): a bad body leaves the framing intact, and the connection goes on.

use serde::Serialize;

pub use crate::json_body::*;

/// Bytes of the length before each body.
pub const PREFIX_LEN: usize = 4;

/// The largest body, in bytes, unless configured otherwise: 16 MiB.
pub const DEFAULT_MAX_BODY: usize = 16 << 20;

/// A frame longer than the limit, announced by a peer or about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes, the limit is {max}; send less at once or raise the limit at both ends")]
pub struct TooLarge {
    /// Length of the body in bytes.
    pub len: usize,
    /// The limit in bytes.
    pub max: usize,
}

/// Finds the frames in a stream of bytes.
#[derive(Debug)]
pub struct Decoder {
    /// Unread bytes are `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    max_body: usize,
}

impl Decoder {
    /// A decoder at a frame boundary that accepts bodies of up to `max_body` bytes.
    pub fn new(max_body: usize) -> Self {
        Decoder { buffer: Vec::new(), start: 0, max_body }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start >= self.buffer.len() / 2 {
            // At least as many bytes leave as move, so the cost per byte stays constant.
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole body, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`TooLarge`] as soon as the prefix says so, and again at each later call: the boundary is lost for good.
    pub fn next_body(&mut self) -> Result<Option<&[u8]>, TooLarge> {
        let unread = &self.buffer[self.start..];
        let Some((prefix, rest)) = unread.split_first_chunk::<PREFIX_LEN>() else {
            if unread.is_empty() {
                // Give the memory back: idle connections are many.
                self.buffer = Vec::new();
                self.start = 0;
            }
            return Ok(None);
        };
        let len = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > self.max_body {
            return Err(TooLarge { len, max: self.max_body });
        }
        if rest.len() < len {
            return Ok(None);
        }
        let from = self.start + PREFIX_LEN;
        self.start = from + len;
        Ok(Some(&self.buffer[from..from + len]))
    }

    /// True when no byte of a further frame has arrived: the only place where a stream may end.
    pub fn is_at_boundary(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// How many bytes were pushed and not given out.
    pub fn unread(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The bytes that were pushed and not given out, for whoever goes on with this stream.
    pub fn into_unread(mut self) -> Vec<u8> {
        self.buffer.drain(..self.start);
        self.buffer
    }
}

/// Why a value could not be made a frame.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Its JSON is longer than the limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It has no JSON form (a map with keys that are no text, or its `Serialize` failed).
    #[error("the value has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
}

/// One frame in one buffer: the prefix and the JSON of `value`.
///
/// # Errors
/// [`EncodeError`]; nothing is half done.
pub fn encode<T: Serialize + ?Sized>(value: &T, max_body: usize) -> Result<Vec<u8>, EncodeError> {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(&[0; PREFIX_LEN]);
    serde_json::to_writer(&mut frame, value)?;
    let len = frame.len() - PREFIX_LEN;
    let max = max_body.min(u32::MAX as usize);
    let prefix = u32::try_from(len).ok().filter(|_| len <= max).ok_or(TooLarge { len, max })?;
    frame[..PREFIX_LEN].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

#[cfg(test)]
#[path = "json_frame_tests.rs"]
mod tests;
