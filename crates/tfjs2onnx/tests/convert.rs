//! Small TensorFlow.js models, made here, and what becomes of them.

use std::path::{Path, PathBuf};

use aits_tfjs2onnx::{ConvertError, convert, convert_outputs, onnx::ModelProto};
use prost::Message;
use serde_json::{Value, json};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn model(&self, model: &Value, weights: &[u8]) -> PathBuf {
        std::fs::write(self.path("model.bin"), weights).unwrap();
        let path = self.path("model.json");
        std::fs::write(&path, model.to_string()).unwrap();
        path
    }

    fn converted(&self, model: &Value, weights: &[u8]) -> Result<ModelProto, ConvertError> {
        let out = self.path("model.onnx");
        convert(&self.model(model, weights), &out)?;
        Ok(ModelProto::decode(std::fs::read(out).unwrap().as_slice()).unwrap())
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn ints(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// As detectors converted to and fro look: N×C×H×W outside, transposes around each convolution, a `Pad` before it, a
/// bias after it. `strides` and `filter` (base64 of VALID or SAME) vary.
fn padded_convolution() -> (Value, Vec<u8>) {
    let node = |name: &str, op: &str, input: &[&str], attr: Value| json!({"name": name, "op": op, "input": input, "attr": attr});
    let model = json!({
        "format": "graph-model",
        "signature": {"outputs": {"out:0": {"name": "out:0"}}},
        "modelTopology": {"node": [
            node("in", "Placeholder", &[], json!({"shape": {"shape": {"dim": [{"size": "1"}, {"size": "2"}, {"size": "4"}, {"size": "4"}]}}})),
            node("pads", "Const", &[], json!({})),
            node("there", "Const", &[], json!({})),
            node("back", "Const", &[], json!({})),
            node("filter", "Const", &[], json!({})),
            node("bias", "Const", &[], json!({})),
            node("pad", "Pad", &["in", "pads"], json!({})),
            node("nhwc", "Transpose", &["pad", "there"], json!({})),
            node("conv", "Conv2D", &["nhwc", "filter"], json!({
                "padding": {"s": "VkFMSUQ="}, "data_format": {"s": "TkhXQw=="},
                "strides": {"list": {"i": ["1", "2", "2", "1"]}}, "dilations": {"list": {"i": ["1", "1", "1", "1"]}},
            })),
            node("add", "Add", &["conv", "bias"], json!({})),
            node("nchw", "Transpose", &["add", "back"], json!({})),
            node("out", "LeakyRelu", &["nchw"], json!({"alpha": {"f": 0.1}})),
        ]},
        "weightsManifest": [{"paths": ["model.bin"], "weights": [
            {"name": "pads", "shape": [4, 2], "dtype": "int32"},
            {"name": "there", "shape": [4], "dtype": "int32"},
            {"name": "back", "shape": [4], "dtype": "int32"},
            {"name": "filter", "shape": [1, 3, 2, 1], "dtype": "float32"},
            {"name": "bias", "shape": [1], "dtype": "float32"},
        ]}],
    });
    let mut weights = ints(&[0, 0, 0, 0, 0, 0, 1, 2, 0, 2, 3, 1, 0, 3, 1, 2]);
    weights.extend(floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5]));
    (model, weights)
}

#[test]
fn transposes_vanish_padding_and_bias_go_into_the_convolution() {
    let folder = Folder::new();
    let (model, weights) = padded_convolution();
    let graph = folder.converted(&model, &weights).unwrap().graph.unwrap();
    let operations: Vec<&str> = graph.node.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(operations, ["Conv", "LeakyRelu", "Identity"]);
    let conv = &graph.node[0];
    let ints = |name: &str| &conv.attribute.iter().find(|a| a.name == name).unwrap().ints;
    assert_eq!(*ints("pads"), [0, 1, 0, 2]);
    assert_eq!(*ints("strides"), [2, 2]);
    let constant = |name: &str| {
        let tensor = graph.initializer.iter().find(|t| t.name == name).unwrap();
        let values: Vec<f32> =
            tensor.raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (tensor.dims.clone(), values)
    };
    // 1 x 3 x 2 x 1 (height, width, in, out) becomes 1 x 2 x 1 x 3 (out, in, height, width).
    assert_eq!(constant(&conv.input[1]), (vec![1, 2, 1, 3], vec![1.0, 3.0, 5.0, 2.0, 4.0, 6.0]));
    assert_eq!(constant(&conv.input[2]), (vec![1], vec![0.5]));
    assert_eq!(graph.output[0].name, "out:0");
    let shape =
        graph.output[0].r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap();
    assert_eq!(
        shape.dim.iter().map(|d| d.dim_value).collect::<Vec<_>>(),
        [Some(1), Some(1), Some(2), Some(3)]
    );
}

#[test]
fn a_convolution_that_others_read_keeps_its_result() {
    let folder = Folder::new();
    let (mut model, weights) = padded_convolution();
    model["signature"]["outputs"]["conv:0"] = json!({});
    let graph = folder.converted(&model, &weights).unwrap().graph.unwrap();
    let conv = graph.node.iter().find(|n| n.op_type == "Conv").unwrap();
    assert_eq!(conv.input.len(), 2, "the bias must not reach the other reader");
    assert!(graph.node.iter().any(|n| n.op_type == "Add"));
    // The other reader gets N x H x W x C, as TensorFlow's node had it.
    assert!(graph.node.iter().any(|n| n.op_type == "Transpose"));
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let folder = Folder::new();
    let (model, weights) = padded_convolution();
    let json = folder.model(&model, &weights);
    let bytes = [0, 1, 2].map(|n| {
        let out = folder.path(&format!("{n}.onnx"));
        convert(&json, &out).unwrap();
        std::fs::read(out).unwrap()
    });
    assert!(bytes[0] == bytes[1] && bytes[1] == bytes[2]);
}

#[test]
fn what_is_no_graph_model_is_refused_and_nothing_is_written() {
    let folder = Folder::new();
    let out = folder.path("model.onnx");
    let refused = |path: &Path| convert(path, &out).unwrap_err();
    assert!(matches!(refused(&folder.path("none.json")), ConvertError::Read { .. }));
    for text in ["not json", "{}", r#"{"format":"layers-model","modelTopology":{},"weightsManifest":[]}"#] {
        let path = folder.path("other.json");
        std::fs::write(&path, text).unwrap();
        let error = refused(&path);
        assert!(matches!(error, ConvertError::NotAGraphModel { .. }), "{error}");
    }
    let (model, weights) = padded_convolution();
    let error = refused(&folder.model(&model, &weights[..weights.len() - 1]));
    assert!(matches!(error, ConvertError::Weights { .. }), "{error}");
    let error = refused(&folder.model(&model, &[&weights[..], &[0]].concat()));
    assert!(matches!(error, ConvertError::Weights { .. }), "{error}");
    let mut elsewhere = model.clone();
    elsewhere["weightsManifest"][0]["paths"] = json!(["../model.bin"]);
    assert!(matches!(refused(&folder.model(&elsewhere, &weights)), ConvertError::Weights { .. }));
    assert!(!out.exists());
}

#[test]
fn broken_and_unknown_graphs_are_refused() {
    let folder = Folder::new();
    let out = folder.path("model.onnx");
    let (model, weights) = padded_convolution();
    let with = |at: usize, key: &str, value: Value| {
        let mut changed = model.clone();
        changed["modelTopology"]["node"][at][key] = value;
        convert(&folder.model(&changed, &weights), &out).unwrap_err()
    };
    let unknown = with(11, "op", json!("Fft"));
    assert!(matches!(&unknown, ConvertError::UnknownOperation { op, .. } if op == "Fft"), "{unknown}");
    for (at, key, value) in [
        (6, "input", json!(["out", "pads"])),      // a circle
        (6, "input", json!(["nowhere", "pads"])),  // a missing node
        (8, "input", json!(["nhwc"])),             // a missing input
        (8, "input", json!(["nhwc", "bias"])),     // a filter of the wrong rank
        (8, "input", json!(["nhwc", "filter:7"])), // an output that does not exist
        (7, "input", json!(["pad", "bias"])),      // an order of axes that is none
        (0, "attr", json!({"shape": {"shape": {"dim": [{"size": "-1"}]}}})),
    ] {
        let error = with(at, key, value);
        assert!(matches!(error, ConvertError::Node { .. }), "{error}");
    }
    let missing = convert_outputs(&folder.model(&model, &weights), &out, &["nothing"]).unwrap_err();
    assert!(missing.to_string().contains("`nothing`"), "{missing}");
    assert!(!out.exists());
}
