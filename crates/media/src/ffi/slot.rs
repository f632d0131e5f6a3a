//! A block of the pool in FFmpeg's hands.
//!
//! ```text
//!  get_buffer2 ──▶ Slot in an AVBuffer, read-only flag set ── output ──▶ header written, shared (once: `taken`)
//!                     │ reference picture: the decoder keeps the AVBuffer
//!                     └── last reference gone, on any thread ──▶ free_slot: the block's `Writing` drops
//! ```
//!
//! The AVBuffer carries the read-only flag from the start. FFmpeg does not look at it when it fills a fresh picture, but
//! decoders that change the *previous* picture in place (`reget_buffer`) take a new buffer then and copy: so nobody
//! writes into a block that was handed on.
//!
//! # Safety
//! A `Slot` is owned by its AVBuffer as a raw `Box`; `free_slot` is called by FFmpeg exactly once, when the last
//! reference is gone. [`Slots::of`] answers only for addresses in the list of living slots, and the caller holds a
//! reference to the AVBuffer meanwhile.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aits_frame::{HEADER_LEN, MAX_SIDE};
use ffmpeg_sys_next as ff;

use super::Code;
use crate::memory::{Memory, NoMemory};

/// Bytes between planes and after the last: vector code may read, and at the edges write, a little past a row.
const GAP: usize = 64;

/// What `get_buffer2` and the frees share with the decoder's owner.
pub(super) struct Slots<M: Memory> {
    memory: M,
    /// Addresses of the slots that FFmpeg holds. Tells our buffers from FFmpeg's own.
    living: Mutex<HashSet<usize>>,
    failures: AtomicU64,
    last_failure: Mutex<Option<NoMemory>>,
}

pub(super) struct Slot<M: Memory> {
    pub(super) writing: M::Writing,
    /// Set when the block is handed on. A picture that comes out twice is copied the second time: its header must not
    /// change under its readers.
    pub(super) taken: AtomicBool,
    slots: Arc<Slots<M>>,
}

/// Where the planes of a picture of FFmpeg's choice lie in a block.
struct Plan {
    strides: [c_int; 3],
    offsets: [usize; 3],
    len: usize,
}

impl Plan {
    /// For planes of `width × height` pixels of luma, already rounded up to what the codec wants.
    fn new(width: u32, height: u32) -> Option<Self> {
        if width == 0 || height == 0 || width > MAX_SIDE + 128 || height > MAX_SIDE + 128 {
            return None;
        }
        // Chroma rows are half of luma rows, as FFmpeg's own pictures have it, and all are multiples of 64.
        let luma = (width as usize).next_multiple_of(128);
        let (chroma, rows) = (luma / 2, (height as usize).div_ceil(2));
        let first = (HEADER_LEN + luma * height as usize + GAP).next_multiple_of(64);
        let second = (first + chroma * rows + GAP).next_multiple_of(64);
        let len = second + chroma * rows + GAP;
        Some(Self {
            strides: [luma as c_int, chroma as c_int, chroma as c_int],
            offsets: [HEADER_LEN, first, second],
            len,
        })
    }
}

impl<M: Memory> Slots<M> {
    pub(super) fn new(memory: M) -> Arc<Self> {
        Arc::new(Self {
            memory,
            living: Mutex::default(),
            failures: AtomicU64::new(0),
            last_failure: Mutex::default(),
        })
    }

    /// How often there was no block, and why the last time.
    pub(super) fn failures(&self) -> (u64, Option<NoMemory>) {
        let last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.failures.load(Ordering::Relaxed), last)
    }

    /// A block, with failures counted.
    pub(super) fn alloc(&self, len: usize) -> Option<M::Writing> {
        match self.memory.alloc(len) {
            Ok(writing) => Some(writing),
            Err(failure) => {
                *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                self.failures.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// The slot behind a frame's only buffer, if the buffer is one of ours.
    pub(super) fn of<'a>(&self, frame: &'a ff::AVFrame) -> Option<&'a Slot<M>> {
        if frame.buf[0].is_null() || !frame.buf[1].is_null() {
            return None;
        }
        // SAFETY: a non-null `buf` of a frame is a reference to a living buffer.
        let opaque = unsafe { ff::av_buffer_get_opaque(frame.buf[0]) };
        if !self.living().contains(&opaque.addr()) {
            return None;
        }
        // SAFETY: the list has the addresses of slots made by `give` of this very type, until they are freed; the frame
        // holds a reference to the buffer for `'a`, so this one is not freed meanwhile.
        unsafe { opaque.cast::<Slot<M>>().as_ref() }
    }

    fn living(&self) -> MutexGuard<'_, HashSet<usize>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a block into `frame`, for a picture of `width × height` pixels (rounded up for the codec).
    fn give(self: &Arc<Self>, frame: &mut ff::AVFrame, width: u32, height: u32) -> Result<(), Code> {
        let plan = Plan::new(width, height).ok_or(Code::INVALID_DATA)?;
        let writing = self.alloc(plan.len).ok_or(Code::NO_MEMORY)?;
        let bytes = M::bytes(&writing);
        if bytes.len() < plan.len {
            return Err(Code::NO_MEMORY);
        }
        let start: *mut u8 = bytes.cast().as_ptr();
        let slot = Box::new(Slot { writing, taken: AtomicBool::new(false), slots: Arc::clone(self) });
        let slot = Box::into_raw(slot);
        self.living().insert(slot.addr());
        // SAFETY: the data is valid for the length as long as the slot lives, and `free_slot` fits to the opaque value.
        let buffer = unsafe {
            let payload = start.add(HEADER_LEN);
            let len = plan.len - HEADER_LEN;
            ff::av_buffer_create(payload, len, Some(free_slot::<M>), slot.cast(), ff::AV_BUFFER_FLAG_READONLY)
        };
        if buffer.is_null() {
            // SAFETY: FFmpeg did not take the slot, so it is still ours.
            unsafe { free_slot::<M>(slot.cast(), ptr::null_mut()) };
            return Err(Code::NO_MEMORY);
        }
        frame.buf[0] = buffer;
        for plane in 0..3 {
            // SAFETY: the offsets lie inside the `plan.len` bytes that the block has.
            frame.data[plane] = unsafe { start.add(plan.offsets[plane]) };
            frame.linesize[plane] = plan.strides[plane];
        }
        frame.extended_data = frame.data.as_mut_ptr();
        Ok(())
    }
}

/// AVBuffer's free callback; called on any thread.
unsafe extern "C" fn free_slot<M: Memory>(opaque: *mut c_void, _data: *mut u8) {
    // SAFETY: `opaque` came from `Box::into_raw` in `give`, and a buffer is freed once.
    let slot = unsafe { Box::from_raw(opaque.cast::<Slot<M>>()) };
    slot.slots.living().remove(&opaque.addr());
}

/// AVCodecContext's `get_buffer2`: pictures in I420 get a block, all others FFmpeg's own memory (they are converted
/// into a block later).
///
/// # Safety
/// To be called by FFmpeg only, on a context whose `opaque` is the address of a living `Slots<M>` in an `Arc`.
pub(super) unsafe extern "C" fn get_buffer2<M: Memory>(
    context: *mut ff::AVCodecContext,
    frame: *mut ff::AVFrame,
    flags: c_int,
) -> c_int {
    // SAFETY: FFmpeg passes its frame, which nobody else uses during the call.
    let Some(picture) = (unsafe { frame.as_mut() }) else { return Code::INVALID_DATA.0 };
    if !is_direct(picture.format) {
        // SAFETY: the same arguments that we got.
        return unsafe { ff::avcodec_default_get_buffer2(context, frame, flags) };
    }
    let (mut width, mut height) = (picture.width, picture.height);
    let mut alignments = [0; ff::AV_NUM_DATA_POINTERS as usize];
    // SAFETY: the context is open (the callback belongs to it), the array has the length that the function wants.
    unsafe { ff::avcodec_align_dimensions2(context, &mut width, &mut height, alignments.as_mut_ptr()) };
    // SAFETY: `opaque` is the address inside an `Arc<Slots<M>>` that the decoder holds (our caller's promise); a second
    // handle is counted before it is used as one.
    let slots = unsafe {
        let Some(raw) = NonNull::new((*context).opaque.cast::<Slots<M>>()) else {
            return Code::INVALID_DATA.0;
        };
        Arc::increment_strong_count(raw.as_ptr().cast_const());
        Arc::from_raw(raw.as_ptr().cast_const())
    };
    let given = u32::try_from(width)
        .and_then(|width| u32::try_from(height).map(|height| (width, height)))
        .map_err(|_| Code::INVALID_DATA)
        .and_then(|(width, height)| slots.give(picture, width, height));
    given.map_or_else(|code| code.0, |()| 0)
}

/// Whether FFmpeg writes this pixel format straight into blocks.
pub(super) fn is_direct(format: c_int) -> bool {
    format == ff::AVPixelFormat::AV_PIX_FMT_YUV420P as c_int || is_full_i420(format)
}

/// The format that says by its name that it has the full range.
pub(super) fn is_full_i420(format: c_int) -> bool {
    format == ff::AVPixelFormat::AV_PIX_FMT_YUVJ420P as c_int
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_aligned_apart_and_inside() {
        for (width, height) in [(16, 16), (336, 258), (800, 610), (1920, 1090), (16_384, 16_400)] {
            let plan = Plan::new(width, height).unwrap();
            let rows = [height, height.div_ceil(2), height.div_ceil(2)];
            let mut end = HEADER_LEN;
            for (plane, rows) in rows.into_iter().enumerate() {
                assert_eq!((plan.strides[plane] % 64, plan.offsets[plane] % 64), (0, 0));
                assert!(plan.offsets[plane] >= end);
                end = plan.offsets[plane] + plan.strides[plane] as usize * rows as usize + GAP;
            }
            assert!(plan.strides[0] as u32 >= width && plan.len >= end);
        }
        assert!(Plan::new(0, 10).is_none() && Plan::new(10, 1 << 20).is_none());
    }
}
