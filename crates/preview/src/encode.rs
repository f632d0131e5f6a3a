//! From a frame's block to a JPEG's block, in a thread of its own.
//!
//! ```text
//!  clean:      block ──────────────────────── encode ──▶ new block behind a header ──▶ shared with all its watchers
//!  annotated:  block ── copy ── draw boxes ── encode ──▶ new block behind a header ──▶ shared with all its watchers
//! ```
//!
//! The encoder writes straight into the pool. How long a JPEG gets is known only afterwards, so a block half as large
//! again as the last one is loaned, and one that suffices for any picture in the rare case that this is too small.
//!
//! Cost per frame and variant: one JPEG, for an annotated or limited-range picture one pass over its planes more, one
//! block loaned, and two atomic steps per receiver (no system call when it is awake), however many viewers there are.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aits_frame::{HEADER_LEN, Header, HeaderError, Picture};
use aits_media::jpeg::{Encoder, JpegError, encode_bound};
use aits_media::pixels::{Canvas, I420, shrink_for};
use aits_orders::FrameResult;
use aits_service::NamedSender;
use baton_client::{AllocError, Block, Client};

use crate::draw::annotate;
use crate::watches::{Encoded, Job, Shared};

/// First guess at the length of a JPEG.
const FIRST_GUESS: usize = 128 << 10;
/// Blocks are loaned in multiples of this, so that sizes that vary a little stay in one size class.
const STEP: usize = 32 << 10;
/// Least time between two complaints in the log about the same thing.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);

/// Why there is no JPEG of a frame.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// What wmits sent is no picture.
    #[error("the block is no picture: {0}")]
    Frame(#[from] HeaderError),
    /// The encoder refused.
    #[error(transparent)]
    Jpeg(#[from] JpegError),
    /// The pool has no room.
    #[error("no room for a JPEG: {0}")]
    Pool(#[from] AllocError),
}

/// Turns pictures into blocks that carry a JPEG behind a frame header. Keeps its buffers from frame to frame.
pub struct JpegWriter {
    encoder: Encoder,
    canvas: Canvas,
    max_width: usize,
    /// Bytes that the last JPEG of each variant took.
    last_len: [usize; 2],
}

impl JpegWriter {
    /// A writer of this quality (1…100) that makes pictures wider than `max_width` smaller by a whole factor.
    ///
    /// # Errors
    /// [`JpegError::Encoder`] if there is no memory.
    pub fn new(quality: u8, max_width: u32) -> Result<Self, JpegError> {
        let encoder = Encoder::new(quality)?;
        Ok(Self { encoder, canvas: Canvas::new(), max_width: max_width as usize, last_len: [FIRST_GUESS; 2] })
    }

    /// Encodes the picture in `frame` into a block loaned from `pool`: clean if `boxes` is `None`, else with the boxes of
    /// the result, if there is one yet.
    ///
    /// # Errors
    /// See [`EncodeError`]; nothing stays loaned.
    pub fn write(
        &mut self,
        frame: &[u8],
        boxes: Option<Option<&FrameResult>>,
        pool: &Client,
    ) -> Result<Block, EncodeError> {
        let picture = Picture::parse(frame)?;
        let planes = I420::from(&picture);
        let shrink = shrink_for(planes.width(), self.max_width);
        let annotated = boxes.is_some();
        let on_canvas = annotated || shrink > 1;
        if on_canvas {
            self.canvas.load(&planes, shrink);
        }
        if let Some(Some(result)) = boxes {
            annotate(&mut self.canvas, result, picture.header().pts);
        }
        let always = encode_bound(planes.width() / shrink + 2, planes.height() / shrink + 2);
        let guess = (self.last_len[usize::from(annotated)] * 3 / 2).next_multiple_of(STEP).min(always);
        for room in [guess, always] {
            let mut block = pool.alloc(HEADER_LEN + room)?;
            let out = &mut block[HEADER_LEN..];
            let encoded = if on_canvas {
                self.encoder.encode_canvas(&self.canvas, out)
            } else {
                self.encoder.encode(&planes, out)
            };
            let len = match encoded {
                Err(JpegError::NoRoom { .. }) if room < always => continue,
                other => other?,
            };
            self.last_len[usize::from(annotated)] = len;
            let header = Header { annotated, layout: None, payload_len: len as u64, ..*picture.header() };
            header.write_to(&mut block)?;
            return Ok(block.freeze());
        }
        // Not reached: the second round either fits or fails.
        Err(JpegError::NoRoom { have: always, need: always }.into())
    }
}

/// The encoding thread.
pub struct Encoding {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Encoding {
    /// Starts the thread.
    pub fn start(shared: Arc<Shared>, pool: Client, quality: u8, max_width: u32) -> io::Result<Self> {
        let writer = JpegWriter::new(quality, max_width).map_err(io::Error::other)?;
        let work = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("encode".into())
            .spawn(move || encode_all(&work, writer, &pool))?;
        Ok(Self { shared, thread })
    }

    /// Ends the thread after the picture that it is at.
    pub fn stop(self) {
        self.shared.stop();
        if self.thread.join().is_err() {
            tracing::error!("the encoder had panicked");
        }
    }
}

fn encode_all(shared: &Shared, mut writer: JpegWriter, pool: &Client) {
    let mut complained: Option<Instant> = None;
    while let Some(job) = shared.wait_for_job() {
        if let Err(error) = encode_job(shared, &mut writer, pool, &job)
            && complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY)
        {
            complained = Some(Instant::now());
            tracing::warn!("stream {}: a frame is not shown: {error}", job.stream);
        }
    }
}

fn encode_job(
    shared: &Shared,
    writer: &mut JpegWriter,
    pool: &Client,
    job: &Job<Block, NamedSender>,
) -> Result<(), EncodeError> {
    for annotated in [false, true] {
        let receivers = &job.receivers[usize::from(annotated)];
        if receivers.is_empty() {
            continue;
        }
        let block = writer.write(&job.block, annotated.then_some(job.result.as_deref()), pool)?;
        // A receiver that is gone, or one whose inbox is full of others' pictures, misses this one.
        let unsent = receivers.iter().filter(|receiver| receiver.send_newest(block.clone()).is_err()).count();
        let result = job.result.as_ref().map(|result| result.sequence);
        let picture = Encoded { frame: job.frame, result, at: Instant::now(), block };
        shared.lock().encoded(job.stream, annotated, picture, unsent as u64);
    }
    Ok(())
}
