//! Decoding packets into blocks (libavcodec).
//!
//! ```text
//!           send(packet)                     receive
//!  Hungry ───────────────▶ Fed ──────────────────────────▶ Picture … Picture ──▶ Hungry
//!     └── send(None): drain ──────────────▶ Picture … Picture ──▶ End ── flush ──▶ Hungry
//! ```
//!
//! A picture that the codec decoded into one of our slots is handed on as it lies: header in front, no copy. Any other
//! (another pixel format, a picture that comes out a second time, memory of a decoder that has its own) is converted
//! into a fresh block and counted as copied.
//!
//! # Safety
//! Context and frame come from FFmpeg's allocators, are checked for null, belong to one [`Decoder`] and are freed in its
//! `Drop`, before the slots that `get_buffer2` reaches through `opaque`.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aits_frame::{HEADER_LEN, Header, PictureLayout};
use ffmpeg_sys_next as ff;

use super::convert::{self, Converter};
use super::slot::{self, Slots};
use super::{Code, Input, Packet};
use crate::memory::{Memory, NoMemory};

/// What is known of a picture before it gets its header.
pub(crate) struct Raw {
    pub(crate) layout: PictureLayout,
    pub(crate) payload_len: u64,
    /// In units of the stream's time base.
    pub(crate) pts: Option<i64>,
}

/// What came out of the decoder.
pub(crate) enum Received<M: Memory> {
    /// A picture in a block, with its header.
    Picture {
        header: Header,
        block: M::Block,
        /// Its pixels were copied or converted.
        copied: bool,
    },
    /// It wants a packet.
    Hungry,
    /// Drained.
    End,
    /// A picture was there, but no block to convert it into.
    NoBlock,
    /// The decoder refused what it was given.
    Refused(Code),
}

pub(crate) struct Decoder<M: Memory> {
    /// Open from `open` until `Drop`; ours alone. Its `opaque` points into `slots`.
    context: NonNull<ff::AVCodecContext>,
    /// From `av_frame_alloc`; ours alone; empty between calls.
    frame: NonNull<ff::AVFrame>,
    converter: Converter,
    slots: Arc<Slots<M>>,
}

impl<M: Memory> Decoder<M> {
    /// A decoder for the video stream of `input` with `threads` threads (0: as many as there are cores).
    pub(crate) fn open(input: &Input, memory: M, threads: u8) -> Result<Self, Code> {
        let (Some(codec), Some(parameters), Some(stream)) =
            (input.decoder(), input.parameters(), input.stream())
        else {
            return Err(Code(ff::AVERROR_DECODER_NOT_FOUND));
        };
        let slots = Slots::new(memory);
        // SAFETY: `codec` is a constant of FFmpeg; null is checked.
        let context =
            NonNull::new(unsafe { ff::avcodec_alloc_context3(codec.as_ptr()) }).ok_or(Code::NO_MEMORY)?;
        // SAFETY: no arguments; null is checked.
        let Some(frame) = NonNull::new(unsafe { ff::av_frame_alloc() }) else {
            let mut context = context.as_ptr();
            // SAFETY: allocated above, used by nobody else.
            unsafe { ff::avcodec_free_context(&mut context) };
            return Err(Code::NO_MEMORY);
        };
        // From here on `Drop` frees both.
        let this = Self { context, frame, converter: Converter::default(), slots };
        let raw = context.as_ptr();
        // SAFETY: the context is ours and not open yet, which is when these fields may be set; the parameters live as
        // long as `input`. `opaque` stays valid: `slots` is dropped after the context.
        unsafe {
            Code::check(ff::avcodec_parameters_to_context(raw, parameters))?;
            (*raw).pkt_timebase = stream.time_base;
            (*raw).thread_count = c_int::from(threads);
            // Without this FFmpeg 5.1 refuses frame threads to whoever brings a `get_buffer2`.
            (*raw).thread_safe_callbacks = 1;
            // Cropping to the exact pixel: plane pointers may become unaligned, which none of our readers minds.
            (*raw).flags |= ff::AV_CODEC_FLAG_UNALIGNED as c_int;
            // A codec without this capability keeps its pictures in memory of its own.
            if codec.as_ref().capabilities & ff::AV_CODEC_CAP_DR1 as c_int != 0 {
                (*raw).opaque = Arc::as_ptr(&this.slots).cast_mut().cast();
                (*raw).get_buffer2 = Some(slot::get_buffer2::<M>);
            }
            Code::check(ff::avcodec_open2(raw, codec.as_ptr(), ptr::null_mut()))?;
        }
        Ok(this)
    }

    /// Feeds a packet; `None` asks for what is still inside.
    pub(crate) fn send(&mut self, packet: Option<&Packet>) -> Result<(), Code> {
        let packet = packet.map_or(ptr::null(), Packet::as_ptr);
        // SAFETY: the context is open; the packet is alive, null means "drain".
        Code::check(unsafe { ff::avcodec_send_packet(self.context.as_ptr(), packet) }).map(drop)
    }

    /// Forgets everything fed so far, after a seek.
    pub(crate) fn flush(&mut self) {
        // SAFETY: the context is open.
        unsafe { ff::avcodec_flush_buffers(self.context.as_ptr()) };
    }

    /// How often there was no block, and why the last time.
    pub(crate) fn failures(&self) -> (u64, Option<NoMemory>) {
        self.slots.failures()
    }

    /// Takes the next picture; `label` makes the header that is written in front of it.
    pub(crate) fn receive(&mut self, label: impl FnOnce(Raw) -> Header) -> Received<M> {
        // SAFETY: both are ours, and the context is open; FFmpeg empties the frame first.
        let got = unsafe { ff::avcodec_receive_frame(self.context.as_ptr(), self.frame.as_ptr()) };
        match Code::check(got) {
            Ok(_) => {}
            Err(Code::AGAIN) => return Received::Hungry,
            Err(Code::END) => return Received::End,
            Err(code) => return Received::Refused(code),
        }
        let received = self.hand_on(label);
        // SAFETY: our own frame; the decoder keeps references of its own to what it still needs.
        unsafe { ff::av_frame_unref(self.frame.as_ptr()) };
        received
    }

    fn hand_on(&mut self, label: impl FnOnce(Raw) -> Header) -> Received<M> {
        // SAFETY: ours, and filled by `avcodec_receive_frame`.
        let frame = unsafe { self.frame.as_ref() };
        let pts = Some(frame.best_effort_timestamp).filter(|pts| *pts != ff::AV_NOPTS_VALUE);
        if let Some(slot) = self.slots.of(frame).filter(|_| slot::is_direct(frame.format))
            && let Some(layout) = layout_in(frame, M::bytes(&slot.writing))
            && !slot.taken.swap(true, Ordering::Relaxed)
        {
            return finish::<M>(&slot.writing, layout, pts, false, label);
        }
        let Some((layout, len)) = Converter::plan(frame) else {
            return Received::Refused(Code::INVALID_DATA);
        };
        let Some(writing) = self.slots.alloc(len) else { return Received::NoBlock };
        // SAFETY: the block is fresh, so nobody else uses it; `Memory` promises that it may be written.
        match unsafe { self.converter.convert(frame, &layout, M::bytes(&writing)) } {
            Ok(()) => finish::<M>(&writing, layout, pts, true, label),
            Err(code) => Received::Refused(code),
        }
    }
}

impl<M: Memory> Drop for Decoder<M> {
    fn drop(&mut self) {
        let (mut context, mut frame) = (self.context.as_ptr(), self.frame.as_ptr());
        // SAFETY: allocated in `open`, freed here only. Afterwards no thread of FFmpeg's runs, so that `slots` may go.
        unsafe {
            ff::av_frame_free(&mut frame);
            ff::avcodec_free_context(&mut context);
        }
    }
}

/// Writes the header and shares the block.
fn finish<M: Memory>(
    writing: &M::Writing,
    layout: PictureLayout,
    pts: Option<i64>,
    copied: bool,
    label: impl FnOnce(Raw) -> Header,
) -> Received<M> {
    let mut bytes = M::bytes(writing);
    let header = label(Raw { layout, payload_len: (bytes.len() - HEADER_LEN) as u64, pts });
    // SAFETY: the block was not shared yet (`taken`, or it is fresh), so no other reference to its bytes exists. Threads
    // of the decoder may *read* the planes meanwhile; `write_to` writes the first `HEADER_LEN` bytes only, which no
    // plane reaches.
    let written = header.write_to(unsafe { bytes.as_mut() });
    if written.is_err() {
        return Received::Refused(Code::INVALID_DATA);
    }
    // SAFETY: FFmpeg hands out a picture when all its writing is done; later it only reads it as a reference, since the
    // AVBuffer is marked read-only (see `slot`). Whoever converted has finished as well.
    Received::Picture { header, block: unsafe { M::share(writing) }, copied }
}

/// Where the planes of a frame lie behind the header of `block`, if they all do.
fn layout_in(frame: &ff::AVFrame, block: NonNull<[u8]>) -> Option<PictureLayout> {
    let payload = block.cast::<u8>().as_ptr().addr() + HEADER_LEN;
    let end = block.cast::<u8>().as_ptr().addr() + block.len();
    let mut layout = PictureLayout {
        range: convert::range_of(frame),
        ..PictureLayout::tight(u32::try_from(frame.width).ok()?, u32::try_from(frame.height).ok()?)
    };
    for plane in 0..3 {
        let at = frame.data[plane].addr();
        if at < payload || at >= end {
            return None;
        }
        layout.offsets[plane] = u32::try_from(at - payload).ok()?;
        // A negative stride (a picture stored upside down) is nothing for our readers: it is converted.
        layout.strides[plane] = u32::try_from(frame.linesize[plane]).ok()?;
    }
    let fits = HEADER_LEN as u64 + layout.payload_len() <= block.len() as u64;
    let big_enough = (0..3).all(|plane| layout.strides[plane] >= layout.plane_size(plane).0);
    (fits && big_enough).then_some(layout)
}
