//! The thread of one stream: open, decode, wait until due, publish; again from the start if so ordered.
//!
//! ```text
//!  open ──▶ wait until the next frame is expected ──▶ Source::next ──▶ Frame: wait until due, publish ─┐
//!   │              ▲                                     ├─ NoBlock: count, rest for a frame ──────────┤
//!   │              └─────────────────────────────────────┼─ Damaged: count ────────────────────────────┤
//!   ▼                                                    ├─ End: rewind, or ended                      ┘
//!  failed ◀── sentence ──────────────────────────────────┘
//! ```
//!
//! Files keep their own pace (or none, on request); cameras set theirs.

use std::time::{Duration, Instant};

use aits_media::memory::{Memory, NoMemoryKind};
use aits_media::{Counters, Next, OpenError, ReadError, Source, SourceOptions};
use aits_orders::{Pace, VasCounters, VideoInfo};

use crate::outlet::Outlet;
use crate::pace::Pacer;
use crate::stream::{Closed, Stream};

/// Least time between two lines in the log about the same stream's lack of blocks.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Why a player ended before the end of its file.
enum Stopped {
    Closed,
    Failed(String),
    /// This process is no member of the pool any more.
    Detached(String),
}

impl From<Closed> for Stopped {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<OpenError> for Stopped {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Stopped { .. } => Self::Closed,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Stopped { .. } => Self::Closed,
            ReadError::Memory { source, .. } if source.kind == NoMemoryKind::Detached => {
                Self::Detached(source.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Plays a stream until it ends, fails or is closed, and tells the stream which. A return value says that no stream can
/// go on in this process, and why.
pub(crate) fn play<M: Memory>(
    stream: &Stream,
    memory: M,
    outlet: &impl Outlet<M::Block>,
    threads: u8,
) -> Option<String> {
    let id = stream.id();
    match try_play(stream, memory, outlet, threads) {
        Ok(()) => {
            tracing::info!("stream {id}: read to its end");
            stream.finish(None);
            None
        }
        Err(Stopped::Closed) => {
            tracing::info!("stream {id}: closed");
            None
        }
        Err(Stopped::Failed(sentence)) => {
            tracing::warn!("stream {id}: {sentence}");
            stream.finish(Some(sentence));
            None
        }
        Err(Stopped::Detached(sentence)) => {
            stream.finish(Some(sentence.clone()));
            Some(sentence)
        }
    }
}

fn try_play<M: Memory>(
    stream: &Stream,
    memory: M,
    outlet: &impl Outlet<M::Block>,
    threads: u8,
) -> Result<(), Stopped> {
    let order = stream.order();
    let options = SourceOptions { threads, stop: stream.stop().clone(), ..SourceOptions::new(order.stream) };
    let mut source = Source::open(&order.url, memory, options)?;
    let mut video = orders_video(source.video());
    tracing::info!(
        "stream {}: {} is {} {}x{} at {:.3} frames/s",
        order.stream,
        source.url(),
        video.codec,
        video.width,
        video.height,
        video.fps
    );
    stream.set_video(video.clone());
    let mut pacer = Pacer::new(source.video().fps);
    let paced = order.pace == Pace::Realtime && !source.is_network();
    let (mut frames_this_round, mut starved) = (0_u64, None);
    let mut complained: Option<Instant> = None;
    loop {
        if let Some(due) = pacer.next_due().filter(|_| paced) {
            stream.wait_until(due)?;
        }
        match source.next()? {
            Next::Frame(header, block) => {
                frames_this_round += 1;
                starved = None;
                let now = Instant::now();
                let due = if paced { pacer.due(header.pts, now) } else { now };
                stream.wait_until(due)?;
                let so_far = source.counters();
                stream.publish(block, outlet, |counters| take_over(counters, so_far))?;
                let seen = orders_video(source.video());
                if seen != video {
                    tracing::info!(
                        "stream {}: pictures are {}x{} now",
                        order.stream,
                        seen.width,
                        seen.height
                    );
                    stream.set_video(seen.clone());
                    video = seen;
                }
            }
            Next::NoBlock(why) => {
                let sentence = format!("frames are lost: {why}");
                stream.starve(&sentence, |counters| take_over(counters, source.counters()));
                starved = Some(why.to_string());
                if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    complained = Some(Instant::now());
                    tracing::warn!("stream {}: {sentence}", order.stream);
                }
                // Blocks come back when readers drop theirs; reading on at once would only lose more frames.
                stream.wait_until(Instant::now() + pacer.interval())?;
            }
            Next::Damaged => stream.count(|counters| take_over(counters, source.counters())),
            // Not the file's fault: when there is room again, pictures come again.
            Next::End if frames_this_round == 0 && starved.is_some() && order.repeat => source.rewind()?,
            Next::End if frames_this_round == 0 && starved.is_some() => {
                let why = starved.unwrap_or_default();
                return Err(Stopped::Failed(format!("no picture of {} found room: {why}", source.url())));
            }
            Next::End if frames_this_round == 0 => {
                return Err(Stopped::Failed(format!(
                    "not one picture of {} could be decoded; check the file with ffplay, or record it again",
                    source.url()
                )));
            }
            Next::End if order.repeat => {
                frames_this_round = 0;
                source.rewind()?;
            }
            Next::End => return Ok(()),
        }
    }
}

/// The source counts what is not a published frame; `decoded` is counted at the hand-over (see [`Stream::publish`]).
fn take_over(counters: &mut VasCounters, source: Counters) {
    counters.copied = source.copied;
    counters.damaged = source.damaged;
    counters.pool_exhausted = source.pool_exhausted;
}

fn orders_video(video: &aits_media::VideoInfo) -> VideoInfo {
    VideoInfo { codec: video.codec.clone(), width: video.width, height: video.height, fps: video.fps }
}
