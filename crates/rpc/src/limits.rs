//! How much one peer may ask of a server.

use std::time::Duration;

use baton_wire::json_frame::DEFAULT_MAX_BODY;

/// Bounds of a server and of each of its connections. Start from `Limits::default()` and change what must differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Largest frame in bytes, both ways, checked before any memory is taken for it. Default 16 MiB.
    pub frame_bytes: usize,
    /// A frame must be complete this long after its first byte was seen. Default 30 s.
    pub half_frame: Duration,
    /// A connection without a request for this long is closed. Default 5 min.
    pub idle: Duration,
    /// A method that has not answered after this long is dropped at its next await, and the caller is told
    /// [`code::TIMEOUT`](crate::code::TIMEOUT). Longer than any long poll. Default 60 s.
    pub request: Duration,
    /// A peer that does not take an answer for this long is cut off. Default 10 s.
    pub write: Duration,
    /// Connections at a time; one more is told [`code::BUSY`](crate::code::BUSY) and closed. Default 1024.
    pub connections: usize,
    /// At shutdown, how long requests under way may take to finish. Default 1 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes: DEFAULT_MAX_BODY,
            half_frame: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            request: Duration::from_secs(60),
            write: Duration::from_secs(10),
            connections: 1024,
            drain: Duration::from_secs(1),
        }
    }
}
