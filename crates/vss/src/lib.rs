//! The algorithms: reads frames in place, detects, tracks, judges.
//!
//! ```text
//!  pool: inbox vss-<N>.frames                                   socket vss-<N>.sock
//!        │ block                                                      ▲
//!        ▼                                                            │ vss.results (long poll)
//!  judging thread: parse header ─▶ detect in place ─▶ track ─▶ Ring ──┘ vss.forget, vss.info
//!                  (drop the block)                            bounded, counts what is lost
//! ```
//!
//! One thread judges, one frame after the other; a system that needs more starts more of these processes. The frames are
//! mapped read-only, and a block is held only while it is looked at: 0 copies of pixels, the first thing written is the
//! small input of the model.
//!
//! Results are **provisional**: tracks, counts and speeds in pixels, no calibration, no events.
//!
//! Failure paths: a block that carries no sound picture is counted as refused and dropped. A model that cannot be used
//! ends the process at its start with a sentence and exit code 78, before it joins the pool. wmits gone: results wait in
//! the ring, the oldest are lost and counted. The memory daemon gone: frames that are here are judged; when the pool
//! closes this inbox, the process ends with exit code 1 and its supervisor starts it again. Killed: the pool takes back
//! the block at hand, wmits gives the stream to another vss; tracks and counts begin anew.

#![forbid(unsafe_code)]

mod judge;
mod ring;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use aits_detect::HeadChoice;
use aits_service::{CommonArgs, run_service};

/// Command line of `aits vss`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Number of this vss: it receives frames at `vss-<N>.frames` and answers at `vss-<N>.sock`
    #[arg(long, default_value_t = 0, value_name = "N")]
    index: u32,

    /// The ONNX model
    #[arg(long, env = "AITS_MODEL", value_name = "PATH")]
    model: PathBuf,

    /// What the model's outputs mean; found out by their shapes if not said
    #[arg(long, value_enum, default_value_t = HeadArg::Auto, value_name = "HEAD")]
    head: HeadArg,

    /// The ONNX Runtime library; searched beside the model and in the system if not said
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "PATH")]
    runtime: Option<PathBuf>,

    /// Score from which a detection is believed, between 0 and 1; what suits the model if not said
    #[arg(long, value_name = "SCORE")]
    score: Option<f32>,
}

/// Values of `--head`.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum HeadArg {
    /// Found out
    Auto,
    /// NanoDet, NanoDet-Plus
    Nanodet,
    /// YOLOX
    Yolox,
    /// YOLOv5 to v11
    Yolo,
}

impl From<HeadArg> for HeadChoice {
    fn from(arg: HeadArg) -> Self {
        match arg {
            HeadArg::Auto => Self::Auto,
            HeadArg::Nanodet => Self::NanoDet,
            HeadArg::Yolox => Self::Yolox,
            HeadArg::Yolo => Self::Yolo,
        }
    }
}

impl Args {
    /// The name of this service, of its socket and of its endpoint in the pool.
    fn name(&self) -> String {
        format!("vss-{}", self.index)
    }

    fn detector(&self) -> aits_detect::Config {
        aits_detect::Config {
            model: self.model.clone(),
            runtime: self.runtime.clone(),
            head: self.head.into(),
            confident: self.score,
        }
    }
}

/// Runs a vss until it is told to stop.
pub fn run(args: Args) -> ExitCode {
    run_service(&args.name(), &args.common, |context| serve::serve(context, &args))
}
