//! FFmpeg behind safe types. All of this crate's foreign calls are in this folder.
//!
//! ```text
//!  Input (AVFormatContext) ── packet ──▶ Decoder (AVCodecContext) ── AVFrame ──▶ block
//!     │ interrupt callback                  │ get_buffer2 ◀── Memory              ▲
//!     ▼                                     ▼                                     │ other pixel formats
//!  stop flag, deadline                 slot: a block in FFmpeg's hands         Converter (swscale)
//! ```
//!
//! Nothing here makes a decision of its own about streams: that is [`source`](crate::source). Codes of FFmpeg leave this
//! folder as [`Code`].

mod convert;
mod decoder;
mod input;
mod slot;

pub(crate) use decoder::{Decoder, Received};
pub(crate) use input::{Input, Interrupt, NoVideo, Packet};

use ffmpeg_sys_next as ff;

/// A negative return value of FFmpeg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Code(pub(crate) i32);

impl Code {
    pub(crate) const AGAIN: Self = Self(ff::AVERROR(ff::EAGAIN));
    pub(crate) const END: Self = Self(ff::AVERROR_EOF);
    pub(crate) const NO_MEMORY: Self = Self(ff::AVERROR(ff::ENOMEM));
    pub(crate) const INVALID_DATA: Self = Self(ff::AVERROR_INVALIDDATA);
    pub(crate) const INTERRUPTED: Self = Self(ff::AVERROR_EXIT);

    /// A return value as a result.
    pub(crate) fn check(value: i32) -> Result<i32, Self> {
        if value < 0 { Err(Self(value)) } else { Ok(value) }
    }

    /// The number of the operating system's error, if it is one.
    pub(crate) fn errno(self) -> Option<i32> {
        // FFmpeg's own codes are four letters, far below any errno.
        (self.0 > -4096).then_some(-self.0)
    }

    /// FFmpeg's words for it.
    pub(crate) fn text(self) -> String {
        input::code_text(self)
    }
}
