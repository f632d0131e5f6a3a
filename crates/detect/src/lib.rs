//! From a picture to boxes: ONNX models behind one trait.
//!
//! ```text
//!  block ─▶ Picture ─▶ scale (planes, region only) ─▶ colours, normalise ─▶ ONNX Runtime ─▶ head ─▶ non-maximum
//!                      I420 → I444 at model size      f32, channel by channel                decode  suppression ─▶ boxes
//! ```
//!
//! [`open`] loads a model file, recognises its *head* (what its outputs mean: see [`Head`]) by the outputs' names and
//! shapes, and returns a [`Detector`]. Classes are those of COCO, of which the six kinds of road users are kept.
//!
//! One detector runs on one thread: two inference threads gain little, so a system scales by processes. The threads of
//! the engine never spin.
//!
//! Failure paths: a missing library, a file that is no model, an unknown head or a strange input are an [`OpenError`] when
//! the detector is opened, each a sentence that says what to do. Later only the engine can fail ([`DetectError`]).

#![forbid(unsafe_code)]

mod detector;
mod error;
mod head;
mod pixels;
mod runtime;
mod suppress;

use std::path::PathBuf;

pub use aits_orders::{BBox, ObjectClass};
pub use detector::open;
pub use error::{DetectError, OpenError};
pub use head::{Head, HeadChoice};
pub use runtime::find as find_runtime;

use aits_frame::Picture;

/// A part of a picture, in its pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// One road user that a model claims to see.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Detection {
    /// What.
    pub class: ObjectClass,
    /// How sure the model is, 0…1; comparable only between detections of one model.
    pub score: f32,
    /// Where, in pixels of the full picture, clipped to the region that was looked at.
    pub bbox: BBox,
}

/// Something that finds road users in a picture.
pub trait Detector: Send {
    /// The road users in `region` of the picture (all of it if `None`), in descending order of score.
    ///
    /// Looking at a region makes distant objects larger for the model. A region that reaches beyond the picture is cut to
    /// it.
    ///
    /// # Errors
    /// [`DetectError`]: the region is outside the picture, or the engine failed.
    fn detect(&mut self, picture: &Picture<'_>, region: Option<Rect>) -> Result<Vec<Detection>, DetectError>;

    /// What runs here.
    fn info(&self) -> &ModelInfo;
}

/// What a detector runs.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelInfo {
    /// File name of the model.
    pub file: String,
    /// The head.
    pub head: Head,
    /// Width and height of the model's input in pixels.
    pub input: [u32; 2],
    /// Scores from here on deserve belief; the lower ones that are returned too help a tracker to keep what it has.
    pub confident: f32,
}

/// How to open a detector.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The ONNX file.
    pub model: PathBuf,
    /// The ONNX Runtime library; `None`: searched, see [`find_runtime`].
    pub runtime: Option<PathBuf>,
    /// Which head the model has.
    pub head: HeadChoice,
    /// [`ModelInfo::confident`]; `None`: what suits the head. Detections with at least half of it are returned.
    pub confident: Option<f32>,
}

impl Config {
    /// The model at this path, everything else found out.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self { model: model.into(), runtime: None, head: HeadChoice::Auto, confident: None }
    }
}
