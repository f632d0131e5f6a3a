//! Models by file: a small YOLOX-shaped one that reacts to the picture, and everything that is no model.

mod common;

use std::path::{Path, PathBuf};

use aits_detect::{BBox, Config, DetectError, Head, HeadChoice, ObjectClass, OpenError, Rect, open};
use aits_frame::Picture;
use aits_tfjs2onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use prost::Message;

fn node(op: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: input.iter().map(|&s| s.into()).collect(),
        output: vec![output.into()],
        name: output.into(),
        op_type: op.into(),
        attribute,
    }
}

/// A model whose output is zero but for one cell: there, "object" is the mean of the input, so that a white picture has
/// a truck and a black one has nothing.
fn model(input: &[i64], output: &[i64], cell: usize, row: &[f32]) -> Vec<u8> {
    let count = output.iter().product::<i64>() as usize;
    let mut constant = vec![0.0; count];
    let mut factor = vec![0.0; count];
    constant[cell..][..row.len()].copy_from_slice(row);
    factor[cell + 4] = 1.0 / 255.0;
    let graph = GraphProto {
        name: "test".into(),
        node: vec![
            node("ReduceMean", &["picture"], "mean", vec![AttributeProto::int("keepdims", 0)]),
            node("Mul", &["factor", "mean"], "scaled", vec![]),
            node("Add", &["constant", "scaled"], "boxes", vec![]),
        ],
        initializer: vec![
            TensorProto::floats("constant", output, &constant),
            TensorProto::floats("factor", output, &factor),
        ],
        input: vec![ValueInfoProto::floats("picture", input)],
        output: vec![ValueInfoProto::floats("boxes", output)],
    };
    ModelProto::new(graph).encode_to_vec()
}

fn yolox() -> Vec<u8> {
    // Input 96 wide and 64 high: 96 + 24 + 6 cells. The row of stride 16, column 2, row 1: a box around (40, 24).
    let mut row = [0.0_f32; 85];
    row[..4].copy_from_slice(&[0.5, 0.5, 2_f32.ln(), 1_f32.ln()]);
    row[5 + 7] = 1.0;
    model(&[1, 3, 64, 96], &[1, 126, 85], (96 + 6 + 2) * 85, &row)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn config(model: &Path) -> Config {
    Config { runtime: Some(common::runtime()), ..Config::new(model) }
}

fn refused(config: &Config) -> OpenError {
    match open(config) {
        Ok(detector) => panic!("opened as {:?}", detector.info()),
        Err(error) => error,
    }
}

#[test]
fn a_small_yolox_sees_what_is_there_and_where() {
    let folder = Folder::new();
    let path = folder.file("tiny.onnx", &yolox());
    let mut detector = open(&config(&path)).unwrap();
    assert_eq!((detector.info().head, detector.info().input), (Head::Yolox, [96, 64]));
    assert_eq!(detector.info().file, "tiny.onnx");

    // Twice the size of the input and as wide: no border.
    let white = common::grey(192, 128, |_, _| 235);
    let found = detector.detect(&Picture::parse(&white).unwrap(), None).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].class, ObjectClass::Truck);
    assert!((found[0].score - 1.0).abs() < 0.01);
    near(found[0].bbox, [48.0, 32.0, 112.0, 64.0]);

    let black = common::grey(192, 128, |_, _| 16);
    assert_eq!(detector.detect(&Picture::parse(&black).unwrap(), None).unwrap(), []);

    // Only a quarter is white: seen in that region, not outside, and not believed in the whole.
    let corner = common::grey(192, 128, |x, y| if x >= 96 && y >= 64 { 235 } else { 16 });
    let picture = Picture::parse(&corner).unwrap();
    let region = Rect { x: 96, y: 64, width: 96, height: 64 };
    let found = detector.detect(&picture, Some(region)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    near(found[0].bbox, [120.0, 80.0, 152.0, 96.0]);
    let elsewhere = Rect { x: 0, ..region };
    assert_eq!(detector.detect(&picture, Some(elsewhere)).unwrap(), []);
    assert!(detector.detect(&picture, None).unwrap().iter().all(|d| d.score < detector.info().confident));

    // A region that reaches out is cut; one that is outside is refused.
    let reaching = Rect { width: 4000, height: 4000, ..region };
    near(detector.detect(&picture, Some(reaching)).unwrap()[0].bbox, [120.0, 80.0, 152.0, 96.0]);
    let outside = Rect { x: 192, ..region };
    assert!(matches!(detector.detect(&picture, Some(outside)), Err(DetectError::Region { .. })));
}

fn near(bbox: BBox, wanted: [f32; 4]) {
    let got = <[f32; 4]>::from(bbox);
    assert!(got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 0.5), "{got:?} instead of {wanted:?}");
}

#[test]
fn a_tall_picture_is_fitted_and_mapped_back() {
    let folder = Folder::new();
    let path = folder.file("tiny.onnx", &yolox());
    let mut detector = open(&config(&path)).unwrap();
    // 64 of 96 columns are covered; the rest is grey, so the mean is lower but high enough.
    let white = common::grey(256, 256, |_, _| 235);
    let found = detector.detect(&Picture::parse(&white).unwrap(), None).unwrap();
    near(found[0].bbox, [96.0, 64.0, 224.0, 128.0]);
}

#[test]
fn what_is_no_model_is_refused_with_advice() {
    let folder = Folder::new();
    let missing = refused(&config(&folder.0.path().join("none.onnx")));
    assert!(matches!(missing, OpenError::Unreadable { .. }));
    assert!(missing.to_string().contains("cargo xtask setup"), "{missing}");

    for bytes in [&b"This is a letter, not a model.\n"[..], b"", &yolox()[..600]] {
        let text = refused(&config(&folder.file("letter.onnx", bytes)));
        assert!(matches!(text, OpenError::NotOnnx { .. }), "{text}");
        assert!(!text.to_string().contains('\n'), "{text}");
    }

    let classifier = folder.file("classifier.onnx", &model(&[1, 3, 64, 96], &[1, 1000], 0, &[0.0]));
    let unknown = refused(&config(&classifier));
    let sentence = unknown.to_string();
    assert!(matches!(unknown, OpenError::UnknownHead { .. }), "{sentence}");
    for word in ["boxes 1x1000", "yolox (1x126x85)", "nanodet", "yolov5 (1x378x85)", "yolov8 (1x84x126)"] {
        assert!(sentence.contains(word), "{sentence}");
    }

    let audio = folder.file("audio.onnx", &model(&[1, 16000], &[1, 126, 85], 0, &[0.0]));
    let input = refused(&config(&audio));
    assert!(matches!(input, OpenError::Input { .. }), "{input}");
    assert!(input.to_string().contains("picture 1x16000"), "{input}");
}

#[test]
fn a_head_can_be_forced_but_must_fit() {
    let folder = Folder::new();
    let path = folder.file("tiny.onnx", &yolox());
    let forced = Config { head: HeadChoice::Yolox, ..config(&path) };
    assert_eq!(open(&forced).unwrap().info().head, Head::Yolox);
    let wrong = refused(&Config { head: HeadChoice::NanoDet, ..config(&path) });
    assert!(matches!(wrong, OpenError::WrongHead { head: "nanodet", .. }), "{wrong}");
    let score = refused(&Config { confident: Some(1.5), ..config(&path) });
    assert!(matches!(score, OpenError::Score(_)), "{score}");
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let folder = Folder::new();
    let path = folder.file("tiny.onnx", &yolox());
    let nowhere = folder.0.path().join("libonnxruntime.so");
    let error = refused(&Config { runtime: Some(nowhere.clone()), ..config(&path) });
    assert!(matches!(error, OpenError::NoRuntime { .. }), "{error}");
    let sentence = error.to_string();
    assert!(
        sentence.contains("cargo xtask setup") && sentence.contains(nowhere.to_str().unwrap()),
        "{sentence}"
    );
}
