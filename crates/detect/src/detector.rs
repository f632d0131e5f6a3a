//! The detector over ONNX Runtime.
//!
//! The engine allocates its working memory at the first run and keeps it; the input tensor is a buffer of ours that is
//! lent to it. So in steady state a detection allocates its outputs and a few small lists.

use std::fs;

use aits_frame::Picture;
use ort::{
    session::{Session, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType, TensorRef, ValueType},
};

use crate::{
    BBox, Config, DetectError, Detection, Detector, Head, HeadChoice, ModelInfo, OpenError, Rect,
    head::{Decoder, Raw},
    pixels::{Placement, Preparer},
    runtime, suppress,
};

/// Boxes thinner than this in the input are no objects (and would have no area).
const THINNEST: f32 = 1.0;

/// Loads a model.
///
/// # Errors
/// See [`OpenError`].
pub fn open(config: &Config) -> Result<Box<dyn Detector>, OpenError> {
    if let Some(score) = config.confident.filter(|s| !(*s > 0.0 && *s < 1.0)) {
        return Err(OpenError::Score(score));
    }
    // Read here rather than by the engine: its messages about files are not for people.
    let bytes = fs::read(&config.model)
        .map_err(|source| OpenError::Unreadable { path: config.model.clone(), source })?;
    let library = runtime::find(config.runtime.as_deref(), &config.model)?;
    let environment = runtime::load(&library)?;
    let session = session(&environment, &bytes).map_err(|why| {
        let why = why.trim().lines().next().unwrap_or_default().to_owned();
        OpenError::NotOnnx { path: config.model.clone(), why }
    })?;
    let input = input_size(session.inputs())
        .map_err(|found| OpenError::Input { path: config.model.clone(), found })?;
    let (head, decoder) = recognise(config, input, session.outputs())?;
    let file = config.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let info =
        ModelInfo { file, head, input, confident: config.confident.unwrap_or_else(|| head.confident()) };
    let input_name = session.inputs()[0].name().to_owned();
    let output_names = session.outputs().iter().map(|o| o.name().to_owned()).collect();
    let preparer = Preparer::new(input, head.normal());
    Ok(Box::new(OnnxDetector { session, decoder, info, preparer, input_name, output_names }))
}

fn session(environment: &ort::environment::Environment, bytes: &[u8]) -> Result<Session, String> {
    let build = || -> Result<Session, String> {
        let text = |e: ort::Error<ort::session::builder::SessionBuilder>| e.to_string();
        Session::builder(environment)
            .map_err(|e| e.to_string())?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(text)?
            .with_intra_threads(1)
            .map_err(text)?
            .with_inter_threads(1)
            .map_err(text)?
            .with_config_entry("session.intra_op.allow_spinning", "0")
            .map_err(text)?
            .commit_from_memory(bytes)
            .map_err(|e| e.to_string())
    };
    build()
}

fn shape_of(outlet: &Outlet) -> Option<Vec<i64>> {
    match outlet.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => Some(shape.to_vec()),
        _ => None,
    }
}

fn describe(outlets: &[Outlet]) -> String {
    let one = |outlet: &Outlet| {
        let shape = shape_of(outlet).map_or_else(
            || "not float".to_owned(),
            |dims| {
                dims.iter()
                    .map(|d| if *d < 0 { "?".into() } else { d.to_string() })
                    .collect::<Vec<_>>()
                    .join("x")
            },
        );
        format!("{} {shape}", outlet.name())
    };
    if outlets.is_empty() { "nothing".into() } else { outlets.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// Width and height, or what the model takes instead.
fn input_size(inputs: &[Outlet]) -> Result<[u32; 2], String> {
    let size = match inputs {
        [one] => match shape_of(one).as_deref() {
            // A free batch size is fine, one picture is given.
            Some(&[1 | -1, 3, height, width]) => Some([width, height]),
            _ => None,
        },
        _ => None,
    };
    let side = |n: i64| u32::try_from(n).ok().filter(|n| (32..=4096).contains(n));
    size.and_then(|[w, h]| Some([side(w)?, side(h)?])).ok_or_else(|| describe(inputs))
}

fn recognise(config: &Config, input: [u32; 2], outputs: &[Outlet]) -> Result<(Head, Decoder), OpenError> {
    let shapes: Option<Vec<Vec<i64>>> = outputs.iter().map(shape_of).collect();
    let mut shapes = shapes.unwrap_or_default();
    // A free batch size comes back as one.
    shapes.iter_mut().filter_map(|s| s.first_mut()).for_each(|batch| *batch = batch.abs());
    let candidates: &[Head] = match config.head {
        HeadChoice::Auto => &Head::ALL,
        HeadChoice::NanoDet => &[Head::NanoDet],
        HeadChoice::Yolox => &[Head::Yolox],
        HeadChoice::Yolo => &[Head::YoloV5, Head::YoloV8],
    };
    for &head in candidates {
        if let Some(decoder) = head.matches(input, &shapes) {
            return Ok((head, decoder));
        }
    }
    let expected = candidates.iter().map(|h| h.describe(input)).collect::<Vec<_>>().join(", ");
    let (path, found) = (config.model.clone(), describe(outputs));
    Err(match config.head {
        HeadChoice::Auto => OpenError::UnknownHead { path, found, known: expected },
        _ => OpenError::WrongHead { path, head: candidates[0].name(), found, expected },
    })
}

struct OnnxDetector {
    session: Session,
    decoder: Decoder,
    info: ModelInfo,
    preparer: Preparer,
    input_name: String,
    output_names: Vec<String>,
}

impl Detector for OnnxDetector {
    fn detect(&mut self, picture: &Picture<'_>, region: Option<Rect>) -> Result<Vec<Detection>, DetectError> {
        let source = inside(picture, region)?;
        let [width, height] = self.info.input;
        let (tensor, placement) = self.preparer.prepare(picture, source);
        let engine = |e: ort::Error| DetectError::Engine(e.to_string());
        let input = TensorRef::from_array_view(([1, 3, height as usize, width as usize], tensor));
        let input = input.map_err(engine)?;
        let outputs = self.session.run(ort::inputs![self.input_name.as_str() => input]).map_err(engine)?;
        let mut values: Vec<&[f32]> = Vec::with_capacity(self.output_names.len());
        for name in &self.output_names {
            let missing = || DetectError::Engine(format!("it gave no output `{name}`"));
            let (_, list) =
                outputs.get(name).ok_or_else(missing)?.try_extract_tensor::<f32>().map_err(engine)?;
            values.push(list);
        }
        let raw = self.decoder.decode(self.info.input, &values, self.info.confident / 2.0);
        Ok(suppress::suppress(raw.iter().filter_map(|r| placed(r, &placement)).collect()))
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }
}

/// The part of the region that is in the picture.
fn inside(picture: &Picture<'_>, region: Option<Rect>) -> Result<Rect, DetectError> {
    let (width, height) = (picture.layout().width, picture.layout().height);
    let Some(region) = region else { return Ok(Rect { x: 0, y: 0, width, height }) };
    let cut = Rect {
        width: region.width.min(width.saturating_sub(region.x)),
        height: region.height.min(height.saturating_sub(region.y)),
        ..region
    };
    if cut.width == 0 || cut.height == 0 {
        return Err(DetectError::Region { region, width, height });
    }
    Ok(cut)
}

/// In pixels of the picture; `None` if nothing of it is inside or a number is none.
fn placed(raw: &Raw, placement: &Placement) -> Option<Detection> {
    let [left, top, right, bottom] = raw.sides;
    if !(right - left >= THINNEST && bottom - top >= THINNEST) {
        return None;
    }
    let (x1, y1) = placement.back(left, top);
    let (x2, y2) = placement.back(right, bottom);
    let seen = x2 > x1 && y2 > y1 && [x1, y1, x2, y2].iter().all(|v| v.is_finite());
    seen.then_some(Detection { class: raw.class, score: raw.score, bbox: BBox { x1, y1, x2, y2 } })
}
