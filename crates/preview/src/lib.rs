//! Encodes a watched stream once per frame, into pool blocks.
#![forbid(unsafe_code)]
pub mod draw;
