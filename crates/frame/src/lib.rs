//! The header in front of every picture in a block, and safe views of its planes.
//!
//! A block of the pool that carries a picture looks like this:
//!
//! ```text
//! byte 0            256                                         256 + payload_len ≤ block length
//!   ├── RawHeader ──┼── plane 0 (Y) ──┼── plane 1 (U) ──┼── plane 2 (V) ──┤     (Kind::Picture)
//!   ├── RawHeader ──┼── JPEG file ───────────────────────────────────────-┤     (Kind::Jpeg)
//! ```
//!
//! The process that fills the block writes the header last, before it shares the block ([`Header::write_to`]). Everybody
//! else gets the bytes from shared memory, so they are a claim: [`Picture::parse`] and [`Jpeg::parse`] copy the header
//! out once, check every number against the length of the block, and hand out views that cannot leave it.
//!
//! Failure paths: a header that does not parse is a [`HeaderError`]; the reader drops the block and counts it.

#![forbid(unsafe_code)]

mod header;
mod view;

pub use header::{
    ColorRange, HEADER_LEN, Header, HeaderError, Kind, MAX_SIDE, Micros, PictureLayout, PixelFormat,
    Sequence, StreamId,
};
pub use view::{Jpeg, Picture, Plane};
