//! Pixel formats that no reader knows, converted into a block (libswscale).
//!
//! # Safety
//! The context belongs to one [`Converter`] and is freed with it. Source planes come from a frame that is alive during
//! the call; the target lies inside a block that nobody else has yet.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use aits_frame::{ColorRange, HEADER_LEN, PictureLayout};
use ffmpeg_sys_next as ff;

use super::Code;

/// What a scaler was made for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    width: c_int,
    height: c_int,
    format: c_int,
    range: ColorRange,
}

/// A scaler that is kept as long as frames stay the same.
#[derive(Default)]
pub(super) struct Converter {
    /// From `sws_getContext`; ours alone.
    scaler: Option<(Key, NonNull<ff::SwsContext>)>,
}

impl Drop for Converter {
    fn drop(&mut self) {
        if let Some((_, scaler)) = self.scaler.take() {
            // SAFETY: made in `scaler_for`, freed here or there, never twice.
            unsafe { ff::sws_freeContext(scaler.as_ptr()) };
        }
    }
}

impl Converter {
    /// The layout that `frame` will have after [`convert`](Self::convert), and the bytes that it needs in all.
    pub(super) fn plan(frame: &ff::AVFrame) -> Option<(PictureLayout, usize)> {
        let (width, height) = (u32::try_from(frame.width).ok()?, u32::try_from(frame.height).ok()?);
        if width == 0 || height == 0 || width > aits_frame::MAX_SIDE || height > aits_frame::MAX_SIDE {
            return None;
        }
        let layout = PictureLayout { range: target_range(frame), ..PictureLayout::tight(width, height) };
        // Whole last rows and one vector more: swscale writes past the visible width.
        let end = layout.offsets[2] + layout.strides[2] * height.div_ceil(2);
        Some((layout, HEADER_LEN + end as usize + 64))
    }

    /// Writes `frame` as I420 behind the header of `block`. `layout` is the one of [`plan`](Self::plan).
    ///
    /// # Safety
    /// `block` is valid for writes, and nobody else uses it during the call.
    pub(super) unsafe fn convert(
        &mut self,
        frame: &ff::AVFrame,
        layout: &PictureLayout,
        block: NonNull<[u8]>,
    ) -> Result<(), Code> {
        let (_, need) = Self::plan(frame).ok_or(Code::INVALID_DATA)?;
        if block.len() < need {
            return Err(Code::NO_MEMORY);
        }
        let scaler = self.scaler_for(frame, layout.range)?;
        let start: *mut u8 = block.cast().as_ptr();
        // SAFETY: `plan` counted the planes inside `need` bytes, which the block has.
        let data = layout.offsets.map(|offset| unsafe { start.add(HEADER_LEN + offset as usize) });
        let data = [data[0], data[1], data[2], ptr::null_mut()];
        let strides = [layout.strides[0] as c_int, layout.strides[1] as c_int, layout.strides[2] as c_int, 0];
        // SAFETY: the scaler was made for the size and format of this frame, whose planes are alive; the target is
        // writable for its whole length (our caller's promise).
        let rows = unsafe {
            ff::sws_scale(
                scaler.as_ptr(),
                frame.data.as_ptr().cast(),
                frame.linesize.as_ptr(),
                0,
                frame.height,
                data.as_ptr(),
                strides.as_ptr(),
            )
        };
        if Code::check(rows)? == frame.height { Ok(()) } else { Err(Code::INVALID_DATA) }
    }

    fn scaler_for(
        &mut self,
        frame: &ff::AVFrame,
        range: ColorRange,
    ) -> Result<NonNull<ff::SwsContext>, Code> {
        let key = Key { width: frame.width, height: frame.height, format: frame.format, range };
        if let Some((made_for, scaler)) = self.scaler {
            if made_for == key {
                return Ok(scaler);
            }
            self.scaler = None;
            // SAFETY: taken out of `self`, so freed once.
            unsafe { ff::sws_freeContext(scaler.as_ptr()) };
        }
        let format = pixel_format(frame.format).ok_or(Code::INVALID_DATA)?;
        let (width, height) = (frame.width, frame.height);
        let target = ff::AVPixelFormat::AV_PIX_FMT_YUV420P;
        let flags = ff::SWS_BILINEAR;
        // SAFETY: plain numbers; null filters and parameters mean none. Null is checked.
        let scaler = unsafe {
            let (none, params) = (ptr::null_mut(), ptr::null());
            ff::sws_getContext(width, height, format, width, height, target, flags, none, none, params)
        };
        let scaler = NonNull::new(scaler).ok_or(Code::INVALID_DATA)?;
        self.scaler = Some((key, scaler));
        let full = c_int::from(range == ColorRange::Full);
        // SAFETY: the scaler is ours; the table is a constant of FFmpeg. The range stays what it is.
        unsafe {
            let table = ff::sws_getCoefficients(ff::SWS_CS_ITU601);
            ff::sws_setColorspaceDetails(scaler.as_ptr(), table, full, table, full, 0, 1 << 16, 1 << 16);
        }
        Ok(scaler)
    }
}

/// Whether the luma of a frame uses all of 0 … 255.
pub(super) fn range_of(frame: &ff::AVFrame) -> ColorRange {
    let full_by_name = super::slot::is_full_i420(frame.format) || unnamed(frame.format) != frame.format;
    if full_by_name || frame.color_range == ff::AVColorRange::AVCOL_RANGE_JPEG {
        ColorRange::Full
    } else {
        ColorRange::Limited
    }
}

/// RGB becomes limited range, YUV stays as it is.
fn target_range(frame: &ff::AVFrame) -> ColorRange {
    let is_rgb = pixel_format(frame.format).is_some_and(|format| {
        // SAFETY: a plain number in; a pointer to a constant, or null, out.
        let descriptor = unsafe { ff::av_pix_fmt_desc_get(format).as_ref() };
        descriptor.is_some_and(|d| d.flags & ff::AV_PIX_FMT_FLAG_RGB as u64 != 0)
    });
    if is_rgb { ColorRange::Limited } else { range_of(frame) }
}

/// The same layout under the name that says nothing of the range: swscale gets the range as a number.
fn unnamed(format: c_int) -> c_int {
    use ff::AVPixelFormat as F;
    let pairs = [
        (F::AV_PIX_FMT_YUVJ420P, F::AV_PIX_FMT_YUV420P),
        (F::AV_PIX_FMT_YUVJ422P, F::AV_PIX_FMT_YUV422P),
        (F::AV_PIX_FMT_YUVJ444P, F::AV_PIX_FMT_YUV444P),
        (F::AV_PIX_FMT_YUVJ440P, F::AV_PIX_FMT_YUV440P),
        (F::AV_PIX_FMT_YUVJ411P, F::AV_PIX_FMT_YUV411P),
    ];
    pairs.iter().find(|(named, _)| *named as c_int == format).map_or(format, |(_, plain)| *plain as c_int)
}

/// A format that swscale can read.
fn pixel_format(format: c_int) -> Option<ff::AVPixelFormat> {
    let format = unnamed(format);
    if format < 0 || format >= ff::AVPixelFormat::AV_PIX_FMT_NB as c_int {
        return None;
    }
    // SAFETY: the enum was made from the headers of the very library that is linked; it numbers its formats from 0 to
    // `AV_PIX_FMT_NB` without gaps, and the value was compared with both.
    let format = unsafe { std::mem::transmute::<c_int, ff::AVPixelFormat>(format) };
    // SAFETY: a plain number.
    (unsafe { ff::sws_isSupportedInput(format) } > 0).then_some(format)
}
