//! Pure traffic logic: time-stamped detections of one stream become tracks, counts and speeds.
//!
//! ```text
//!  detections ─▶ sanitise ─▶ Tracker: predict ─▶ match (sure ones, then the rest) ─▶ Verdict
//!  + pts          drop NaN,            │                  │                           tracks, velocity,
//!                 empty boxes          └── Kalman ◀───────┘                           counts, mean speed
//! ```
//!
//! No I/O, no clock, no threads: the same calls give the same verdicts, and a shift of all times changes nothing. All
//! results are **provisional**: tracks and pixels, no calibration, no events.
//!
//! Failure paths: input that cannot be true (boxes without area or with numbers that are none, scores outside 0…1) is
//! dropped and counted ([`Verdict::dropped`]); time that does not move forward is a [`TimeError`] and changes nothing.
//!
//! Why no library: the trackers that exist (`trackforge` and its relatives) count frames. Here frames come at some
//! five a second with gaps of any length (the newest frame wins when the detector is behind), so a prediction must be
//! for a *time*, and a track must end after *seconds*.

#![forbid(unsafe_code)]

mod assign;
mod geometry;
mod kalman;
mod scene;
mod tracker;

pub use aits_orders::{BBox, ClassCount, Micros, ObjectClass, TrackedObject};
pub use scene::{Scene, Verdict};
pub use tracker::{Settings, TimeError};

/// One detection, as a detector claims it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Observation {
    /// What.
    pub class: ObjectClass,
    /// How sure, 0…1.
    pub score: f32,
    /// Where, in pixels of the picture.
    pub bbox: BBox,
}
