//! How much one peer may ask of a server.

use std::time::Duration;

use baton_wire::json_frame::{DEFAULT_MAX_BODY, MAX_DEPTH};

/// Bounds of a server and of each of its connections. Start from `Limits::default()` and change what must differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Largest frame in bytes, both ways, checked before any memory is taken for it. Default 16 MiB.
    pub frame_bytes: usize,
    /// Deepest nesting of a request's JSON. Default (and most) 127; what a method's type reads is bounded by that anyway.
    pub depth: usize,
    /// Requests of one connection that run at the same time; only those with an `id` do. While so many run, no further
    /// frame is begun. Default 128.
    pub in_flight: usize,
    /// Subscriptions of one connection; one more is told [`code::OVERLOADED`](crate::code::OVERLOADED). Default 32.
    pub subscriptions: usize,
    /// Requests under way in this process; one more is told [`code::OVERLOADED`](crate::code::OVERLOADED). Default 65,536.
    pub requests: usize,
    /// Bytes of answers that may wait for a slow reader. While more do, nothing is read from it and its methods rest.
    /// Default 1 MiB, and one answer may go beyond.
    pub unsent_bytes: usize,
    /// A frame must be complete this long after its first byte was seen. Default 30 s.
    pub half_frame: Duration,
    /// A connection without a request or a subscription for this long is closed. Default 5 min.
    pub idle: Duration,
    /// A method that has not answered after this long is dropped at its next await, and the caller is told
    /// [`code::TIMEOUT`](crate::code::TIMEOUT). Longer than any long poll. Default 60 s.
    pub request: Duration,
    /// A peer that has ended its sending is answered as long as one request after the other ends within this time; then
    /// it is taken to be gone, and the methods that still run are dropped. Its subscriptions end at once. Default 5 s.
    pub half_close: Duration,
    /// A peer must take what waits for it, or at least 64 KiB of that, within this time; else it is cut off. Default 10 s.
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
            depth: MAX_DEPTH,
            in_flight: 128,
            subscriptions: 32,
            requests: 65_536,
            unsent_bytes: 1 << 20,
            half_frame: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            request: Duration::from_secs(60),
            half_close: Duration::from_secs(5),
            write: Duration::from_secs(10),
            connections: 1024,
            drain: Duration::from_secs(1),
        }
    }
}
