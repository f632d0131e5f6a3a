//! The platform's side of wmits: tasks, results, watching.

use serde::{Deserialize, Serialize};

use crate::{FrameResult, Pace, Sequence, StreamId, VasCounters, VideoInfo};

/// Start a task. With an `id` that exists and the same parameters, the task that exists is answered (and started again
/// if it was stopped, ended or failed); with other parameters it is an error.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct StartTask {
    /// The platform's own name for it (1–64 of `A–Z a–z 0–9 . _ -`); one is made up when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A path or URL that FFmpeg can open.
    pub url: String,
    /// How fast files are read.
    #[serde(default)]
    pub pace: Pace,
    /// Begin again at the end of a file.
    #[serde(default)]
    pub repeat: bool,
    /// Frames judged per second, 0.1–30.
    #[serde(default = "default_detect_hz")]
    pub detect_hz: f64,
}

fn default_detect_hz() -> f64 {
    5.0
}

/// Names a task.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct TaskRef {
    /// Its id.
    pub id: String,
}

/// All tasks.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct TaskList {
    /// In the order in which they were created.
    pub tasks: Vec<Task>,
}

/// State of a task: `starting → running → ended | failed`, and `stopped` by order.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// vas has been or will be asked to open the source.
    Starting,
    /// Frames come.
    Running,
    /// A file was read to its end.
    Ended,
    /// It cannot run; `reason` says why and what to do.
    Failed,
    /// Stopped by order.
    Stopped,
}

/// A task and how it goes.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The stream that it reads.
    pub stream: StreamId,
    /// What it does.
    pub state: TaskState,
    /// Its source, without credentials.
    pub url: String,
    /// One sentence for people, when the state is `failed`, or while frames are lost for want of room in the pool.
    pub reason: Option<String>,
    /// How fast files are read.
    pub pace: Pace,
    /// Whether a file is read again and again.
    pub repeat: bool,
    /// Frames judged per second, at most.
    pub detect_hz: f64,
    /// When it was created, RFC 3339 in UTC.
    pub created_at: String,
    /// What is in the source, once known.
    pub video: Option<VideoInfo>,
    /// What happened to its frames.
    pub counters: TaskCounters,
    /// From decoded frame to result, over the last results; `None` before the first.
    pub latency: Option<Latency>,
    /// The newest result; `None` before the first.
    pub result: Option<FrameResult>,
}

/// Counters of a task since its stream was opened.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TaskCounters {
    /// What vas counted.
    pub vas: VasCounters,
    /// Frames that reached wmits.
    pub received: u64,
    /// Of these: dropped since a newer frame had overtaken them (an inbox that overflows is not in order).
    #[serde(default)]
    pub late: u64,
    /// Frames that were moved on to a vss.
    pub judged: u64,
    /// Frames due for judging that were replaced by a newer one while the vss was busy.
    pub replaced: u64,
    /// Results that came back.
    pub results: u64,
}

/// Distribution of a latency, milliseconds.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct Latency {
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// Number of results that this is made of.
    pub samples: u32,
}

/// The newest result of a stream, as soon as it is newer than `after`.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct ResultsQuery {
    /// Which stream.
    pub stream: StreamId,
    /// [`ResultsReply::version`] of the last answer; 0 for none.
    pub after: u64,
    /// Longest wait in milliseconds; at most 10,000 are granted.
    pub wait_ms: u32,
}

/// Answer to [`ResultsQuery`].
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ResultsReply {
    /// To be given as `after` next time.
    pub version: u64,
    /// The newest result, if it is newer than what the caller has seen.
    pub result: Option<FrameResult>,
}

/// Share the frames of a stream with an inbox for the next `ttl_ms`; to be renewed. The newest frame, if there is one,
/// is shared at once (also of a stream that has ended).
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct WatchStream {
    /// Which stream.
    pub stream: StreamId,
    /// Name of the inbox.
    pub inbox: String,
    /// For how long, milliseconds, at most 60,000.
    pub ttl_ms: u32,
}

/// Answer to a watch.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watching {
    /// The newest frame at this moment, `None` if the stream has shown none yet.
    pub newest: Option<Sequence>,
}
