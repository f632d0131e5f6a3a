//! What goes wrong, in sentences.

use std::path::PathBuf;

use crate::Rect;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such file, or not readable.
    #[error("cannot read the model {}: {source}; give another with --model, or run `cargo xtask setup` to install the default one", path.display())]
    Unreadable {
        /// The model.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The engine does not take the file.
    #[error("{} is not an ONNX model that can be run: {why}", path.display())]
    NotOnnx {
        /// The model.
        path: PathBuf,
        /// What the engine said.
        why: String,
    },
    /// The input is not one picture of fixed size.
    #[error("the model {} takes {found}, but one input of type float and shape 1 x 3 x height x width is needed; export it with a fixed input size", path.display())]
    Input {
        /// The model.
        path: PathBuf,
        /// What it takes.
        found: String,
    },
    /// The outputs are of no kind that is known.
    #[error("the model {} has an unknown head (outputs: {found}); known for its input size are: {known}", path.display())]
    UnknownHead {
        /// The model.
        path: PathBuf,
        /// Its outputs.
        found: String,
        /// What would have been understood.
        known: String,
    },
    /// The head asked for does not fit.
    #[error("the model {} cannot have the head `{head}` (outputs: {found}): that would be {expected}", path.display())]
    WrongHead {
        /// The model.
        path: PathBuf,
        /// The head asked for.
        head: &'static str,
        /// Its outputs.
        found: String,
        /// The outputs of the head asked for.
        expected: String,
    },
    /// The engine's library is not installed.
    #[error(
        "the ONNX Runtime library is not installed (looked at {}); run `cargo xtask setup`, or give its path with --runtime or ORT_DYLIB_PATH",
        list(tried)
    )]
    NoRuntime {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The engine's library is there and does not work.
    #[error("the ONNX Runtime library {} cannot be used: {why}; run `cargo xtask setup` to install version 1.32", path.display())]
    BadRuntime {
        /// The library.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A score outside 0…1.
    #[error("a score of {0} makes no sense: give a number above 0 and below 1")]
    Score(f32),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Why a picture was not judged.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// Nothing of the region is inside the picture.
    #[error("the region {region:?} has no pixel of a picture of {width}x{height}")]
    Region {
        /// The region.
        region: Rect,
        /// The picture's width.
        width: u32,
        /// The picture's height.
        height: u32,
    },
    /// The engine failed.
    #[error("the inference failed: {0}")]
    Engine(String),
}
