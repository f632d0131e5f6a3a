//! Codecs of everything that crosses a socket: no I/O, no clock.

#![forbid(unsafe_code)]

pub mod report;
