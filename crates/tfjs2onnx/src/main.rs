//! `tfjs2onnx MODEL.json OUT.onnx [OUTPUT …]`: converts a TensorFlow.js graph model to ONNX.

#![forbid(unsafe_code)]

use std::{env, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [json, out, outputs @ ..] = arguments.as_slice() else {
        eprintln!("usage: tfjs2onnx MODEL.json OUT.onnx [OUTPUT ...]");
        return ExitCode::from(2);
    };
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    match aits_tfjs2onnx::convert_outputs(Path::new(json), Path::new(out), &outputs) {
        Ok(report) => {
            println!(
                "{out}: {} nodes (of {}), {} parameters, {} bytes",
                report.nodes, report.nodes_before, report.parameters, report.bytes
            );
            for (what, list) in [("input", report.inputs), ("output", report.outputs)] {
                list.iter().for_each(|(name, shape)| println!("  {what} {name} {shape:?}"));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tfjs2onnx: {error}");
            ExitCode::FAILURE
        }
    }
}
