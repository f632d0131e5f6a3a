//! Codecs of everything that crosses a socket: no I/O, no clock.

#![forbid(unsafe_code)]

pub mod attach;
pub mod classic;
pub mod code;
mod json_body;
pub mod json_frame;
pub mod report;
