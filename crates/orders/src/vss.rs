//! Results of vss.

use serde::{Deserialize, Serialize};

use crate::{Micros, Sequence, StreamId};

/// The [`ForgetStream::stream`] that means "all".
pub const FORGET_ALL: StreamId = StreamId(0);

/// Classes of road users that are told apart.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[serde(rename_all = "lowercase")]
pub enum ObjectClass {
    /// On foot.
    Person,
    /// Bicycle with or without rider.
    Bicycle,
    /// Passenger car, van.
    Car,
    /// Motorcycle.
    Motorcycle,
    /// Bus.
    Bus,
    /// Truck.
    Truck,
}

impl ObjectClass {
    /// All classes, in the order in which people read them.
    pub const ALL: [Self; 6] =
        [Self::Car, Self::Truck, Self::Bus, Self::Motorcycle, Self::Bicycle, Self::Person];

    /// The English name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Bicycle => "bicycle",
            Self::Car => "car",
            Self::Motorcycle => "motorcycle",
            Self::Bus => "bus",
            Self::Truck => "truck",
        }
    }
}

/// A rectangle in pixels of the full picture: left, top, right, bottom; `x1 < x2`, `y1 < y2`.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct BBox {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
}

impl From<[f32; 4]> for BBox {
    fn from([x1, y1, x2, y2]: [f32; 4]) -> Self {
        Self { x1, y1, x2, y2 }
    }
}

impl From<BBox> for [f32; 4] {
    fn from(b: BBox) -> Self {
        [b.x1, b.y1, b.x2, b.y2]
    }
}

/// One tracked road user in one frame.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct TrackedObject {
    /// Number of the track, unique in its stream as long as the vss lives.
    pub track: u64,
    /// Class by majority over the track so far.
    pub class: ObjectClass,
    /// The detector's score of this detection, 0…1.
    pub score: f32,
    /// Where it is.
    pub bbox: BBox,
    /// How it moves in the picture, in pixels per second: right, down. `None` until it has been seen twice.
    pub velocity: Option<[f32; 2]>,
}

/// How many different tracks of a class a stream has shown.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassCount {
    /// The class.
    pub class: ObjectClass,
    /// Tracks seen since the stream was opened.
    pub total: u64,
    /// Tracks visible in this frame.
    pub now: u32,
}

/// What vss found in one frame. **Provisional**: counts of tracks and speeds in pixels, no calibration, no events yet.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct FrameResult {
    /// Which stream.
    pub stream: StreamId,
    /// Which frame of it.
    pub sequence: Sequence,
    /// The frame's presentation time.
    pub pts: Micros,
    /// When it was decoded (`CLOCK_MONOTONIC`).
    pub decoded_at: Micros,
    /// When this result was ready (`CLOCK_MONOTONIC`).
    pub finished_at: Micros,
    /// Time spent in the detector, milliseconds.
    pub detect_ms: f32,
    /// Width and height of the picture in pixels.
    pub size: [u32; 2],
    /// The road users.
    pub tracks: Vec<TrackedObject>,
    /// Counts by class.
    pub counts: Vec<ClassCount>,
    /// Mean speed of the moving tracks in this frame, pixels per second; `None` when nothing moves or is known.
    pub mean_speed_px_s: Option<f32>,
    /// Always true in this version: see the type.
    pub provisional: bool,
}

/// Results newer than `after`, at once if there are any, else after `wait_ms`.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct VssResultsQuery {
    /// [`VssResultsReply::process`] of the last answer; another process starts anew. 0 for none.
    pub process: u64,
    /// [`VssResultsReply::next`] of the last answer; 0 for none.
    pub after: u64,
    /// Longest wait in milliseconds; at most 10,000 are granted.
    pub wait_ms: u32,
}

/// Results in order. A bounded number is kept; a caller that is too slow sees `lost > 0`.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct VssResultsReply {
    /// Identity of this vss process (random at its start).
    pub process: u64,
    /// To be given as `after` next time.
    pub next: u64,
    /// Results that were dropped unseen.
    pub lost: u64,
    /// The results.
    pub results: Vec<FrameResult>,
}

/// Forget tracks and counts of a stream.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct ForgetStream {
    /// Which; [`FORGET_ALL`] for all.
    pub stream: StreamId,
}

/// What a vss runs.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct VssInfo {
    /// File name of the model.
    pub model: String,
    /// Head that was recognised, as `nanodet` or `yolox`.
    pub head: String,
    /// Input width and height.
    pub input: [u32; 2],
    /// Frames judged so far.
    pub processed: u64,
    /// Blocks that carried no usable picture.
    pub refused: u64,
}
