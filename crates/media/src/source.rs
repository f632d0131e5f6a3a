//! A source of pictures: a file or a camera, decoded into blocks.
//!
//! ```text
//!        open                     next                              next
//!  URL ───────▶ Source ── packets ──────▶ Frame | NoBlock | Damaged ─────▶ … ──▶ End ── rewind ──▶ Source
//!    └─ OpenError                  └─ ReadError: the source is done
//! ```
//!
//! [`Source::next`] reads packets until a picture comes out. What goes wrong with one picture is told and passed over:
//! [`Next::NoBlock`] when the pool is full (the reader may be slow; later pictures may be smeared until the next key
//! frame, as after a lost packet), [`Next::Damaged`] when the decoder refuses data. What ends the source is a
//! [`ReadError`].
//!
//! Cost per frame of a direct format: one allocation in the pool, no copy; the decoder goes on holding the blocks that
//! it refers to (2–3 usually, up to 16 and one per thread).
//!
//! A source blocks its thread while it reads. It ends early when its [`StopFlag`] is set (within 100 ms, FFmpeg's pace),
//! or, for a network source, when nothing comes for `read_timeout`.

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aits_frame::{Header, Micros, Sequence, StreamId};
use baton_client::Client;

use crate::clock::Clock;
use crate::error::{Attempt, OpenError, ReadError};
use crate::ffi::{Code, Decoder, Input, Interrupt, NoVideo, Received};
use crate::memory::{Memory, NoMemory, NoMemoryKind};
use crate::redact::redact;

/// Schemes of network sources. Files are named by a path or `file://`. All else that FFmpeg can open (pipes, parts and
/// chains of other addresses, data in the address itself) is refused: whoever may name a source must not thereby read
/// what is none.
pub(crate) const SCHEMES: [&str; 10] =
    ["rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp", "rtp", "tcp"];

/// What FFmpeg may open on behalf of a network source: also what a playlist names, or a server redirects to. No files.
const NETWORK_PROTOCOLS: &CStr = c"http,https,httpproxy,rtmp,rtmps,rtp,srtp,srt,tcp,tls,udp";
/// The same for a file: a playlist may name other files, and nothing else.
const FILE_PROTOCOLS: &CStr = c"file";

/// Asks a source on another thread to end. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Whatever the source does, it is to end soon.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a source is opened.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// The number that every frame will carry.
    pub stream: StreamId,
    /// Threads of the decoder; 0 for one per core. More threads hold more blocks and add a frame of delay each; one
    /// keeps up with 1080p at 25 frames per second easily.
    pub threads: u8,
    /// Longest time that opening may take.
    pub open_timeout: Duration,
    /// Longest silence of a network source.
    pub read_timeout: Duration,
    /// Ends it from elsewhere.
    pub stop: StopFlag,
}

impl SourceOptions {
    /// One thread, 5 seconds for opening, 5 seconds of silence.
    pub fn new(stream: StreamId) -> Self {
        Self {
            stream,
            threads: 1,
            open_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(5),
            stop: StopFlag::default(),
        }
    }
}

/// What is in a source.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoInfo {
    /// FFmpeg's name of the codec, as `h264`.
    pub codec: String,
    /// Width in pixels of the latest frame; before the first, what the container says.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames per second as the container says; 0 if it does not say.
    pub fps: f64,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came out.
    pub decoded: u64,
    /// Frames whose pixels were copied or converted into the block.
    pub copied: u64,
    /// Times that there was no block.
    pub pool_exhausted: u64,
    /// Packets or pictures that the decoder refused.
    pub damaged: u64,
}

/// What [`Source::next`] found.
#[derive(Debug)]
pub enum Next<B> {
    /// A picture, with its header parsed.
    Frame(Header, B),
    /// There was no block for a picture; it is lost. Go on.
    NoBlock(NoMemory),
    /// The decoder refused a packet or a picture. Go on.
    Damaged,
    /// The file is over.
    End,
}

/// An open source. It stays on the thread that opened it.
pub struct Source<M: Memory = Client> {
    // The decoder goes before the input whose parameters it was made from.
    decoder: Decoder<M>,
    input: Input,
    clock: Clock,
    video: VideoInfo,
    counters: Counters,
    options: SourceOptions,
    /// Redacted.
    url: String,
    is_network: bool,
    /// All packets are read; the decoder is being emptied.
    draining: bool,
}

impl<M: Memory> Source<M> {
    /// Opens a path or a URL. Blocks until the first pictures are understood, or `open_timeout` is over.
    ///
    /// # Errors
    /// See [`OpenError`]; its sentences can be shown to people as they are.
    pub fn open(url: &str, memory: M, options: SourceOptions) -> Result<Self, OpenError> {
        let shown = redact(url);
        let is_network = url.contains("://") && !url.starts_with("file://");
        if is_network && !has_known_scheme(url) {
            return Err(OpenError::UnknownScheme { url: shown });
        }
        let local = (!is_network).then(|| Path::new(url.strip_prefix("file://").unwrap_or(url)));
        let looks_like_mp4 = local.map(|path| look_at(path, &shown)).transpose()?.unwrap_or(false);
        // "file:" keeps a colon in a path from being taken for the end of a scheme.
        let spelled = match local {
            Some(path) => CString::new([b"file:", path.as_os_str().as_bytes()].concat()),
            None => CString::new(url),
        };
        let spelled = spelled.map_err(|_| OpenError::Missing { url: shown.clone() })?;
        let interrupt = Interrupt::new(Arc::clone(&options.stop.0));
        interrupt.give_up_at(Some(after(options.open_timeout)));
        let explain = |code| {
            let attempt = Attempt {
                url: &shown,
                is_network,
                looks_like_mp4,
                stopped: interrupt.is_stopped(),
                too_late: interrupt.is_over(),
                timeout_seconds: options.open_timeout.as_secs(),
            };
            attempt.explain(code)
        };
        let mut input = Input::open(&spelled, &container_options(url, is_network), Arc::clone(&interrupt))
            .map_err(explain)?;
        input.find_video().map_err(|why| match why {
            NoVideo::None => OpenError::NoVideo { url: shown.clone() },
            NoVideo::Codec(codec) => OpenError::UnsupportedCodec { url: shown.clone(), codec },
            NoVideo::Failed(code) => explain(code),
        })?;
        let facts = input.facts().ok_or_else(|| OpenError::NoVideo { url: shown.clone() })?;
        let decoder = Decoder::open(&input, memory, options.threads)
            .map_err(|_| OpenError::UnsupportedCodec { url: shown.clone(), codec: facts.codec.clone() })?;
        interrupt.give_up_at(None);
        Ok(Self {
            decoder,
            input,
            clock: Clock::new(facts.time_base, facts.fps),
            video: VideoInfo { codec: facts.codec, width: facts.width, height: facts.height, fps: facts.fps },
            counters: Counters::default(),
            options,
            url: shown,
            is_network,
            draining: false,
        })
    }

    /// What is in the source.
    pub fn video(&self) -> &VideoInfo {
        &self.video
    }

    /// What happened so far; not reset by [`rewind`](Self::rewind).
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the source is a camera or server, which sets the pace by itself.
    pub fn is_network(&self) -> bool {
        self.is_network
    }

    /// The URL, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Decodes until a picture comes out or something is to be told.
    ///
    /// # Errors
    /// [`ReadError`]: nothing more will come; drop the source.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end at the first error; this goes on"
    )]
    pub fn next(&mut self) -> Result<Next<M::Block>, ReadError> {
        loop {
            if self.options.stop.is_stopped() {
                return Err(ReadError::Stopped { url: self.url.clone() });
            }
            match self.receive() {
                Received::Picture { header, block, copied } => return Ok(self.count(header, block, copied)),
                Received::Hungry => {
                    if let Some(event) = self.feed()? {
                        return Ok(event);
                    }
                }
                Received::End => {
                    return Ok(self.missed_block()?.unwrap_or(Next::End));
                }
                Received::NoBlock => return Ok(self.missed_block()?.unwrap_or(Next::Damaged)),
                Received::Refused(code) => return self.refused(code),
            }
        }
    }

    /// Goes back to the beginning of a file; times and sequence numbers go on.
    ///
    /// # Errors
    /// [`ReadError::NoRewind`] if the container has no way back.
    pub fn rewind(&mut self) -> Result<(), ReadError> {
        self.input
            .seek_to_start()
            .map_err(|code| ReadError::NoRewind { url: self.url.clone(), reason: code.text() })?;
        self.decoder.flush();
        self.clock.rewind();
        self.draining = false;
        Ok(())
    }

    fn receive(&mut self) -> Received<M> {
        let (clock, stream, sequence) =
            (&mut self.clock, self.options.stream, Sequence(self.counters.decoded));
        self.decoder.receive(|raw| Header {
            stream,
            sequence,
            pts: clock.time(raw.pts),
            decoded_at: Micros::monotonic_now(),
            payload_len: raw.payload_len,
            annotated: false,
            layout: Some(raw.layout),
        })
    }

    fn count(&mut self, header: Header, block: M::Block, copied: bool) -> Next<M::Block> {
        self.counters.decoded += 1;
        self.counters.copied += u64::from(copied);
        if let Some(layout) = header.layout {
            (self.video.width, self.video.height) = (layout.width, layout.height);
        }
        Next::Frame(header, block)
    }

    /// Reads a packet and gives it to the decoder. `Some` is something to tell.
    fn feed(&mut self) -> Result<Option<Next<M::Block>>, ReadError> {
        if self.is_network {
            self.input.interrupt().give_up_at(Some(after(self.options.read_timeout)));
        }
        let fed = match self.input.read() {
            Ok(packet) => self.decoder.send(Some(packet)),
            Err(Code::END) if !self.draining => {
                self.draining = true;
                self.decoder.send(None)
            }
            // The decoder wants more although it was told that there is no more.
            Err(Code::END) => return Ok(Some(Next::End)),
            Err(code) => return Err(self.read_error(code)),
        };
        match fed {
            Ok(()) => self.missed_block(),
            Err(code) => self.refused(code).map(Some),
        }
    }

    /// The decoder said no: for want of a block, or since it does not like the data.
    fn refused(&mut self, code: Code) -> Result<Next<M::Block>, ReadError> {
        if let Some(missed) = self.missed_block()? {
            return Ok(missed);
        }
        self.counters.damaged += 1;
        tracing::debug!(url = self.url, "the decoder refused data: {}", code.text());
        Ok(Next::Damaged)
    }

    /// Tells of blocks that were not there since it was asked last. (FFmpeg itself often swallows that error.)
    fn missed_block(&mut self) -> Result<Option<Next<M::Block>>, ReadError> {
        let (failures, last) = self.decoder.failures();
        if failures == self.counters.pool_exhausted {
            return Ok(None);
        }
        self.counters.pool_exhausted = failures;
        match last {
            Some(why) if why.kind != NoMemoryKind::Exhausted => {
                Err(ReadError::Memory { url: self.url.clone(), source: why })
            }
            last => Ok(last.map(Next::NoBlock)),
        }
    }

    fn read_error(&self, code: Code) -> ReadError {
        let url = self.url.clone();
        if self.options.stop.is_stopped() {
            ReadError::Stopped { url }
        } else if self.input.interrupt().is_over() {
            ReadError::Timeout { url, seconds: self.options.read_timeout.as_secs() }
        } else if self.is_network {
            ReadError::Lost { url, reason: code.text() }
        } else {
            ReadError::Damaged { url, reason: code.text() }
        }
    }
}

/// Looks at a local file before FFmpeg does: its messages would not tell these cases apart. Answers whether it begins
/// like an MP4.
fn look_at(path: &Path, shown: &str) -> Result<bool, OpenError> {
    let url = || shown.to_owned();
    let explain = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => OpenError::Missing { url: url() },
        std::io::ErrorKind::PermissionDenied => OpenError::Denied { url: url() },
        _ => OpenError::Other { url: url(), reason: error.to_string() },
    };
    let found = std::fs::metadata(path).map_err(explain)?;
    let kind = found.file_type();
    if kind.is_dir() {
        return Err(OpenError::NotAFile { url: url(), what: "a directory" });
    }
    if kind.is_fifo() || kind.is_socket() {
        // Opening a pipe would wait for its writer, and nothing could stop it.
        return Err(OpenError::NotAFile { url: url(), what: "a pipe or socket" });
    }
    if !kind.is_file() {
        return Ok(false);
    }
    if found.len() == 0 {
        return Err(OpenError::Empty { url: url() });
    }
    let mut start = [0; 12];
    let read = std::fs::File::open(path).map_err(explain)?.read(&mut start).map_err(explain)?;
    Ok(read == start.len() && &start[4..8] == b"ftyp")
}

fn has_known_scheme(url: &str) -> bool {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    SCHEMES.contains(&scheme)
}

/// What FFmpeg is told beyond the URL.
fn container_options(url: &str, is_network: bool) -> Vec<(&'static CStr, &'static CStr)> {
    let protocols = if is_network { NETWORK_PROTOCOLS } else { FILE_PROTOCOLS };
    let mut options = vec![(c"protocol_whitelist", protocols)];
    // Over UDP a camera's packets get lost without a word.
    if url.starts_with("rtsp://") || url.starts_with("rtsps://") {
        options.push((c"rtsp_transport", c"tcp"));
    }
    options
}

fn after(wait: Duration) -> Micros {
    let wait = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX / 2);
    Micros(Micros::monotonic_now().0.saturating_add(wait))
}
