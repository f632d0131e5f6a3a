//! Opening and reading a container (libavformat).
//!
//! # Safety
//! Pointers come from FFmpeg's own allocators, are checked for null once, and belong to exactly one of the structs here,
//! whose `Drop` frees them. The interrupt callback gets a pointer into an `Arc` that the `Input` holds until after the
//! context is closed. No struct here is `Send`: a source stays on the thread that opened it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use aits_frame::Micros;
use ffmpeg_sys_next as ff;

use super::Code;

/// What FFmpeg asks again and again while it waits: go on, or give up?
#[derive(Debug)]
pub(crate) struct Interrupt {
    stop: Arc<AtomicBool>,
    /// Monotonic microseconds; `i64::MAX` for none.
    deadline: AtomicI64,
}

impl Interrupt {
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self { stop, deadline: AtomicI64::new(i64::MAX) })
    }

    pub(crate) fn give_up_at(&self, deadline: Option<Micros>) {
        self.deadline.store(deadline.map_or(i64::MAX, |at| at.0), Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        self.is_stopped() || (deadline != i64::MAX && Micros::monotonic_now().0 >= deadline)
    }
}

unsafe extern "C" fn interrupted(opaque: *mut c_void) -> c_int {
    // SAFETY: `opaque` is the address of the `Interrupt` in the `Arc` of the `Input` (see `Input::open`), which outlives
    // the context that calls.
    let interrupt = unsafe { &*opaque.cast::<Interrupt>() };
    c_int::from(interrupt.is_over())
}

/// An AVPacket, empty or filled.
pub(crate) struct Packet {
    /// From `av_packet_alloc`; ours alone.
    raw: NonNull<ff::AVPacket>,
}

impl Packet {
    fn new() -> Result<Self, Code> {
        // SAFETY: no arguments; null is checked.
        NonNull::new(unsafe { ff::av_packet_alloc() }).map(|raw| Self { raw }).ok_or(Code::NO_MEMORY)
    }

    pub(super) fn as_ptr(&self) -> *const ff::AVPacket {
        self.raw.as_ptr()
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        let mut raw = self.raw.as_ptr();
        // SAFETY: allocated in `new`, freed here only; FFmpeg sets our copy of the pointer to null.
        unsafe { ff::av_packet_free(&mut raw) };
    }
}

/// An open container with its video stream.
pub(crate) struct Input {
    /// Open from `avformat_open_input` until `Drop`; ours alone.
    context: NonNull<ff::AVFormatContext>,
    /// Borrowed by `context` as a raw pointer.
    interrupt: Arc<Interrupt>,
    packet: Packet,
    /// Index into the streams of `context`, valid from `find_video` on.
    video: Option<usize>,
}

/// Why there is no video stream to decode.
pub(crate) enum NoVideo {
    /// The container has none.
    None,
    /// FFmpeg has no decoder for this codec.
    Codec(String),
    /// Reading failed.
    Failed(Code),
}

/// What the container says of its video.
pub(crate) struct VideoFacts {
    pub(crate) codec: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Frames per second, 0 for unknown.
    pub(crate) fps: f64,
    /// Seconds per unit of time stamps, as numerator and denominator, both positive.
    pub(crate) time_base: (i64, i64),
}

impl Input {
    /// Opens `url` and reads enough to know the streams.
    pub(crate) fn open(
        url: &CStr,
        options: &[(&CStr, &CStr)],
        interrupt: Arc<Interrupt>,
    ) -> Result<Self, Code> {
        let packet = Packet::new()?;
        // SAFETY: the level is a plain number. FFmpeg's own messages may hold URLs with passwords, so they are off.
        unsafe { ff::av_log_set_level(ff::AV_LOG_QUIET) };
        // SAFETY: no arguments; null is checked before use.
        let mut context = unsafe { ff::avformat_alloc_context() };
        if context.is_null() {
            return Err(Code::NO_MEMORY);
        }
        // SAFETY: `context` is fresh and ours. The callback and its argument fit together, see `interrupted`.
        unsafe {
            (*context).interrupt_callback = ff::AVIOInterruptCB {
                callback: Some(interrupted),
                opaque: Arc::as_ptr(&interrupt) as *mut c_void,
            };
        }
        let mut dictionary = ptr::null_mut();
        for (name, value) in options {
            // SAFETY: both strings end with 0 and are copied. If there is no memory, an option is missing.
            unsafe { ff::av_dict_set(&mut dictionary, name.as_ptr(), value.as_ptr(), 0) };
        }
        // SAFETY: `context` is ours, `url` ends with 0, a null format means "find out". On failure FFmpeg frees
        // `context` and sets our pointer to null.
        let opened =
            unsafe { ff::avformat_open_input(&mut context, url.as_ptr(), ptr::null(), &mut dictionary) };
        // SAFETY: what is left in the dictionary is ours; null is allowed.
        unsafe { ff::av_dict_free(&mut dictionary) };
        Code::check(opened)?;
        let context = NonNull::new(context).ok_or(Code::NO_MEMORY)?;
        let this = Self { context, interrupt, packet, video: None };
        // SAFETY: the context is open; no options.
        Code::check(unsafe { ff::avformat_find_stream_info(this.context.as_ptr(), ptr::null_mut()) })?;
        Ok(this)
    }

    /// Chooses the best video stream; all others are skipped from here on.
    pub(crate) fn find_video(&mut self) -> Result<(), NoVideo> {
        let context = self.context.as_ptr();
        let video = ff::AVMediaType::AVMEDIA_TYPE_VIDEO;
        // SAFETY: the context is open; no decoder is asked for.
        let found = unsafe { ff::av_find_best_stream(context, video, -1, -1, ptr::null_mut(), 0) };
        let index = match Code::check(found) {
            Ok(index) => index as usize,
            Err(Code(ff::AVERROR_STREAM_NOT_FOUND)) => return Err(NoVideo::None),
            Err(code) => return Err(NoVideo::Failed(code)),
        };
        self.video = Some(index);
        // SAFETY: `streams` has `nb_streams` valid pointers as long as the context is open, and `discard` is a field
        // that users of the library set.
        unsafe {
            for other in (0..(*context).nb_streams as usize).filter(|i| *i != index) {
                (**(*context).streams.add(other)).discard = ff::AVDiscard::AVDISCARD_ALL;
            }
        }
        if self.decoder().is_none() { Err(NoVideo::Codec(self.codec_name())) } else { Ok(()) }
    }

    /// The stream that `find_video` chose.
    pub(super) fn stream(&self) -> Option<&ff::AVStream> {
        let index = self.video?;
        // SAFETY: `index` came from FFmpeg for this context; streams are never removed. The reference ends before the
        // next call that takes `&mut self`.
        unsafe { (*(*self.context.as_ptr()).streams.add(index)).as_ref() }
    }

    pub(super) fn parameters(&self) -> Option<&ff::AVCodecParameters> {
        // SAFETY: a stream's `codecpar` is allocated and freed with the stream.
        self.stream().and_then(|stream| unsafe { stream.codecpar.as_ref() })
    }

    pub(super) fn decoder(&self) -> Option<NonNull<ff::AVCodec>> {
        let id = self.parameters()?.codec_id;
        // SAFETY: a plain number in, a pointer to a constant or null out.
        NonNull::new(unsafe { ff::avcodec_find_decoder(id) }.cast_mut())
    }

    fn codec_name(&self) -> String {
        let Some(parameters) = self.parameters() else { return "unknown".into() };
        // SAFETY: never null; a constant string of FFmpeg.
        unsafe { CStr::from_ptr(ff::avcodec_get_name(parameters.codec_id)) }.to_string_lossy().into_owned()
    }

    pub(crate) fn facts(&self) -> Option<VideoFacts> {
        let (stream, parameters) = (self.stream()?, self.parameters()?);
        let rate = [stream.avg_frame_rate, stream.r_frame_rate].into_iter().find(|r| r.num > 0 && r.den > 0);
        let base = stream.time_base;
        Some(VideoFacts {
            codec: self.codec_name(),
            width: parameters.width.max(0) as u32,
            height: parameters.height.max(0) as u32,
            fps: rate.map_or(0.0, |r| f64::from(r.num) / f64::from(r.den)),
            time_base: (i64::from(base.num).max(1), i64::from(base.den).max(1)),
        })
    }

    /// Reads the next packet of the video stream. The packet is valid until the next read.
    pub(crate) fn read(&mut self) -> Result<&Packet, Code> {
        loop {
            let packet = self.packet.raw.as_ptr();
            // SAFETY: both are ours; the packet is emptied before it is filled again.
            let got = unsafe {
                ff::av_packet_unref(packet);
                ff::av_read_frame(self.context.as_ptr(), packet)
            };
            Code::check(got)?;
            // SAFETY: filled by the call above.
            if usize::try_from(unsafe { (*packet).stream_index }).ok() == self.video {
                return Ok(&self.packet);
            }
            if self.interrupt.is_stopped() {
                return Err(Code::INTERRUPTED);
            }
        }
    }

    /// Goes back to the beginning.
    pub(crate) fn seek_to_start(&mut self) -> Result<(), Code> {
        let context = self.context.as_ptr();
        // SAFETY: the context is open, and its format is a constant of FFmpeg, set since then.
        let flags = unsafe { (*context).iformat.as_ref() }.map_or(0, |format| format.flags);
        let times_jump = flags & ff::AVFMT_TS_DISCONT != 0 && flags & ff::AVFMT_NO_BYTE_SEEK == 0;
        let to_first_byte = || {
            // SAFETY: the context is open; the rest are plain numbers.
            Code::check(unsafe { ff::avformat_seek_file(context, -1, 0, 0, 0, ff::AVSEEK_FLAG_BYTE) })
                .map(drop)
        };
        let to_first_time = || {
            // SAFETY: as above.
            Code::check(unsafe {
                let start =
                    if (*context).start_time == ff::AV_NOPTS_VALUE { 0 } else { (*context).start_time };
                ff::avformat_seek_file(context, -1, i64::MIN, start, start, 0)
            })
            .map(drop)
        };
        // Where time stamps may occur twice (MPEG-TS) a time is no place in the file; raw streams have no times at all.
        if times_jump { to_first_byte() } else { to_first_time().or_else(|_| to_first_byte()) }
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let mut context = self.context.as_ptr();
        // Saying goodbye to a dead camera must not take longer than it is worth.
        self.interrupt.give_up_at(Some(Micros(Micros::monotonic_now().0 + 200_000)));
        // SAFETY: open until here, and nobody else has the pointer. The interrupt callback may run inside, its `Arc` is
        // dropped afterwards.
        unsafe { ff::avformat_close_input(&mut context) };
    }
}

/// FFmpeg's words for a code.
pub(super) fn code_text(code: Code) -> String {
    let mut text = [0; 128];
    // SAFETY: the buffer is as long as said and ends with 0 in any case.
    unsafe {
        ff::av_strerror(code.0, text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    }
}
