//! What the AITS services say to each other: the typed parameters and results of their RPC methods.
//!
//! ```text
//!            task.*  results  watch                 vas.*
//!  gateway ───────────────────────▶ wmits ───────────────────▶ vas      (vas and vss never talk to each other)
//!     │                       ▲        └──── vss.* ──────────▶ vss
//!     └── preview.watch ──▶ preview
//! ```
//!
//! Everything here travels as the JSON of one frame of `baton-rpc`; pictures never do, they travel as blocks of the pool
//! to the inboxes named in [`inbox`]. Each method is a constant in [`method`], whose doc names its parameter and result.
//!
//! Methods that wait (`results`, `vas.streams`, `vss.results`) are *long polls*: the caller names what it has seen, the
//! answer comes as soon as there is something newer, or empty after `wait_ms`. So a server needs no connection to its
//! client, and either side may be killed and started again without a word.

#![forbid(unsafe_code)]

mod place;
mod platform;
mod preview;
mod up;
mod vas;
mod vss;

pub use aits_frame::{Micros, Sequence, StreamId};
pub use place::{RunDir, inbox, method};
pub use platform::{
    Latency, ResultsQuery, ResultsReply, StartTask, Task, TaskCounters, TaskList, TaskRef, TaskState,
    WatchStream, Watching,
};
pub use preview::WatchPreview;
pub use up::{Process, ProcessList, ProcessState};
pub use vas::{
    CloseStream, OpenStream, Opened, Pace, SourceState, StreamsQuery, StreamsReply, VasCounters, VasStream,
    VideoInfo,
};
pub use vss::{
    BBox, ClassCount, FORGET_ALL, ForgetStream, FrameResult, ObjectClass, TrackedObject, VssInfo,
    VssResultsQuery, VssResultsReply,
};
