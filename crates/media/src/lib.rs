//! Decoding straight into pool blocks (FFmpeg) and JPEG encoding (libjpeg-turbo).
//!
//! ```text
//!  file, camera ──▶ Source::next ──▶ (Header, Block)      FFmpeg writes the pixels into the block; nothing is copied
//!  block ──▶ pixels::Canvas (smaller, full range, drawn on) ──▶ jpeg::Encoder ──▶ another block
//! ```
//!
//! A block of the pool holds what `aits-frame` describes: 256 bytes of header, then the planes where FFmpeg wanted them
//! (strides are multiples of 64, heights padded). Pictures in 8-bit 4:2:0, which is nearly all video, are *direct*; other
//! formats are converted into a block and counted as copied.
//!
//! Foreign code is called in `src/ffi` and `memory.rs` only; everything else forbids `unsafe` by lint.
//!
//! ```no_run
//! use aits_frame::StreamId;
//! use aits_media::{Next, Source, SourceOptions};
//! # fn demo(pool: baton_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut source = Source::open("/data/clip.mp4", pool, SourceOptions::new(StreamId(1)))?;
//! while let Next::Frame(header, block) = source.next()? {
//!     println!("frame {:?} at {:?}: {} bytes", header.sequence, header.pts, block.len());
//! }
//! # Ok(()) }
//! ```

#![deny(unsafe_code)]

mod clock;
mod error;
mod ffi;
pub mod jpeg;
pub mod memory;
pub mod pixels;
mod redact;
mod source;

pub use error::{OpenError, ReadError};
pub use redact::redact;
pub use source::{Counters, Next, Source, SourceOptions, StopFlag, VideoInfo};
