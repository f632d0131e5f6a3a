//! The default model, converted from TensorFlow.js to ONNX, gives the numbers that TensorFlow.js gives.
//!
//! The reference was made by `crates/tfjs2onnx/tests/reference/reference.mjs`.

mod common;

use ort::{session::Session, value::TensorRef};
use serde_json::Value;

/// The formula of `reference.mjs`.
fn input(a: usize, b: usize, c: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(a * b * c);
    for a in 0..a {
        for b in 0..b {
            for c in 0..c {
                let hash = (values.len() as u32).wrapping_mul(0x9E37_79B1) >> 24;
                let pattern = ((b >> 4) * 31 + (c >> 4) * 17 + a * 7) % 23;
                values.push(pattern as f32 / 8.0 - 1.375 + hash as f32 / 512.0);
            }
        }
    }
    values
}

#[test]
fn the_default_model_gives_what_the_original_gives() {
    let text = include_str!("../../tfjs2onnx/tests/reference/nanodet.reference.json");
    let reference: Value = serde_json::from_str(text).unwrap();
    let environment = ort::init_from(common::runtime()).unwrap().build().unwrap();
    let model = common::cached("models/nanodet.onnx");
    let mut session = Session::builder(&environment).unwrap().commit_from_file(model).unwrap();
    let shape = [1_usize, 3, 416, 416];
    assert_eq!(serde_json::from_value::<Vec<usize>>(reference["input"].clone()).unwrap(), shape);
    let values = input(shape[1], shape[2], shape[3]);
    let tensor = TensorRef::from_array_view((shape, values.as_slice())).unwrap();
    let outputs = session.run(ort::inputs![tensor]).unwrap();
    let (mut compared, mut worst) = (0, 0.0_f64);
    for wanted in reference["outputs"].as_array().unwrap() {
        let name = format!("{}:0", wanted["name"].as_str().unwrap());
        let (shape, got) = outputs[name.as_str()].try_extract_tensor::<f32>().unwrap();
        assert_eq!(shape.to_vec(), serde_json::from_value::<Vec<i64>>(wanted["shape"].clone()).unwrap());
        let stride = wanted["stride"].as_u64().unwrap() as usize;
        for (k, sample) in wanted["sample"].as_array().unwrap().iter().enumerate() {
            let (sample, got) = (sample.as_f64().unwrap(), f64::from(got[k * stride]));
            let error = (sample - got).abs() / (1.0 + sample.abs());
            assert!(error < 1e-3, "{name}[{}]: {got} instead of {sample}", k * stride);
            worst = worst.max(error);
            compared += 1;
        }
    }
    assert!(compared > 600, "only {compared} values were compared");
    println!("{compared} values, largest relative difference {worst:.1e}");
}
