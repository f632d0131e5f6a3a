//! Orders to vas: open, close, tell.

use serde::{Deserialize, Serialize};

use crate::StreamId;

/// How fast frames of a file are published.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// At the frame rate of the file, as a camera would.
    #[default]
    Realtime,
    /// As fast as frames can be decoded.
    Fast,
}

/// Open a source and publish its frames. Opening what is already open with the same parameters changes nothing.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct OpenStream {
    /// The number that every frame will carry.
    pub stream: StreamId,
    /// A path or URL that FFmpeg can open.
    pub url: String,
    /// How fast files are read.
    #[serde(default)]
    pub pace: Pace,
    /// Begin again at the end of a file.
    #[serde(default)]
    pub repeat: bool,
    /// Name of the inbox that receives the frames.
    pub inbox: String,
}

/// Answer to [`OpenStream`]. How the opening goes on is told by `vas.streams`.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The stream was open already.
    pub already: bool,
}

/// Close a stream; closing one that is not open is no error.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct CloseStream {
    /// Which.
    pub stream: StreamId,
}

/// Tell the state of all streams as soon as `version` is no longer the current one, or after `wait_ms`.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct StreamsQuery {
    /// The [`StreamsReply::version`] that the caller has seen; 0 for none.
    pub version: u64,
    /// Longest wait in milliseconds; at most 10,000 are granted.
    pub wait_ms: u32,
}

/// All streams of a vas.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct StreamsReply {
    /// Changes whenever a stream changes its state (not with each counter), and with each start of the process.
    pub version: u64,
    /// The streams, by number.
    pub streams: Vec<VasStream>,
}

/// One stream of a vas.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct VasStream {
    /// Its number.
    pub stream: StreamId,
    /// Its source, without credentials.
    pub url: String,
    /// What it does.
    pub state: SourceState,
    /// One sentence for people: what is wrong and what to do. When the state is `failed`, and while frames are lost for
    /// want of room in the pool.
    pub reason: Option<String>,
    /// What is in the source, once known.
    pub video: Option<VideoInfo>,
    /// What happened to the frames so far.
    pub counters: VasCounters,
}

/// State of a source: `opening → running → ended | failed`.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Being opened and probed.
    Opening,
    /// Frames come.
    Running,
    /// A file was read to its end.
    Ended,
    /// It could not be opened or read; the reason says why.
    Failed,
}

/// What is in a source.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct VideoInfo {
    /// Codec name, as `h264`.
    pub codec: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames per second as the container says; 0 if it does not say.
    pub fps: f64,
}

/// Frame counters of one stream. `decoded = published + no_receiver + inbox_full`, and what the pool had no room for
/// was never decoded.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VasCounters {
    /// Frames that came out of the decoder.
    pub decoded: u64,
    /// Frames handed to the receiver's inbox.
    pub published: u64,
    /// Of these: taken back unread, since the inbox was full and a newer frame needed the place.
    #[serde(default)]
    pub revoked: u64,
    /// Frames dropped since nobody had the inbox open.
    pub no_receiver: u64,
    /// Frames dropped since the inbox was full of frames that could not be revoked.
    pub inbox_full: u64,
    /// Times that the pool had no free block for the decoder.
    pub pool_exhausted: u64,
    /// Damaged packets or frames that the decoder refused.
    pub damaged: u64,
    /// Frames whose pixels had to be copied or converted, since the decoder could not write them into a block.
    pub copied: u64,
}
