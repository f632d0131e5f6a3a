//! Turns a TensorFlow.js graph model (a JSON file and its weights) into an ONNX file, once, at set-up.
//!
//! ```text
//!  model.json ─▶ tfjs: nodes, attributes ─┐
//!  *.bin ──────▶ tfjs: weights to f32 ────┴▶ walk from the outputs ─▶ ops: one node at a time ─▶ graph ─▶ onnx ─▶ file
//!                                                                     fold: constants
//! ```
//!
//! It knows the two dozen operations of convolutional detectors, not TensorFlow: fixed input shape, pictures, no control
//! flow. Nodes of shape arithmetic are computed away, transposes between TensorFlow's N×H×W×C and ONNX' N×C×H×W cancel
//! (see `graph`), paddings go into the convolutions, biases and batch normalisation melt into the weights. The same
//! input gives the same bytes, so that a caller can know the result by its checksum.
//!
//! Failure paths: what is not such a model, lacks weights, or uses an operation that is not known, is a [`ConvertError`];
//! nothing is written then. The file appears whole or not at all (written beside its place, then renamed).
//!
//! ```no_run
//! let report = aits_tfjs2onnx::convert("nanodet.json".as_ref(), "nanodet.onnx".as_ref())?;
//! println!("{} nodes, {} parameters", report.nodes, report.parameters);
//! # Ok::<(), aits_tfjs2onnx::ConvertError>(())
//! ```

#![forbid(unsafe_code)]

mod fold;
mod graph;
pub mod onnx;
mod ops;
mod tfjs;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use graph::{Graph, Operand};
use onnx::{ModelProto, ValueInfoProto};
use prost::Message;
use tfjs::Node;

/// What a conversion made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Operations in the ONNX graph.
    pub nodes: usize,
    /// Operations in the TensorFlow graph, constants not counted.
    pub nodes_before: usize,
    /// Weights.
    pub parameters: usize,
    /// Name and shape of each input.
    pub inputs: Vec<(String, Vec<i64>)>,
    /// Name and shape of each output.
    pub outputs: Vec<(String, Vec<i64>)>,
    /// Length of the file in bytes.
    pub bytes: usize,
}

/// Why a model was not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; a model is a .json file with its weight files beside it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The JSON file is something else.
    #[error("{} is not a TensorFlow.js graph model: {why}", path.display())]
    NotAGraphModel {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The weight files do not belong to the model or are cut short.
    #[error("the weights do not belong to the model: {why}; download both again")]
    Weights {
        /// What is wrong.
        why: String,
    },
    /// An operation that this converter does not know.
    #[error(
        "the operation {op} (node `{node}`) is not known to this converter; convert with the outputs before it"
    )]
    UnknownOperation {
        /// TensorFlow's name of the operation.
        op: String,
        /// The node.
        node: String,
    },
    /// A known operation used in a way that is not supported, or a broken graph.
    #[error("node `{name}` ({op}) cannot be converted: {why}")]
    Node {
        /// The node.
        name: String,
        /// TensorFlow's name of the operation.
        op: String,
        /// What is wrong.
        why: String,
    },
    /// The result cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Converts the model at `json` with all outputs that its signature names and writes it to `out`.
///
/// # Errors
/// See [`ConvertError`]; `out` is untouched then.
pub fn convert(json: &Path, out: &Path) -> Result<Report, ConvertError> {
    convert_outputs(json, out, &[])
}

/// Converts the part of the model at `json` that computes `outputs` (names of nodes; none means those that the model's
/// signature names) and writes it to `out`.
///
/// # Errors
/// See [`ConvertError`]; `out` is untouched then.
pub fn convert_outputs(json: &Path, out: &Path, outputs: &[&str]) -> Result<Report, ConvertError> {
    let model = tfjs::read_model(json)?;
    let weights = tfjs::read_weights(&model, json)?;
    let names = output_names(&model, outputs);
    let by_name: HashMap<&str, &Node> = model.topology.node.iter().map(|n| (n.name.as_str(), n)).collect();
    let order = evaluation_order(&by_name, &names, json)?;
    let mut readers: HashMap<&str, usize> = HashMap::new();
    for node in &order {
        node.input.iter().for_each(|input| *readers.entry(plain(input)).or_default() += 1);
    }
    names.iter().for_each(|name| *readers.entry(name).or_default() += 1);

    let mut graph = Graph::default();
    let mut inputs = Vec::new();
    let mut done: HashMap<String, Vec<Operand>> = HashMap::new();
    for node in &order {
        let operands = match ops::source(node, &weights, &mut inputs) {
            Some(operands) => operands?,
            None => {
                let read = data_inputs(node);
                let operand = |input: &str| {
                    let (name, port) = endpoint(input);
                    let found = done.get(name).and_then(|list| list.get(port));
                    let missing = || node.bad(format!("its input `{input}` does not exist"));
                    let mut operand = found.cloned().ok_or_else(missing)?;
                    if let Operand::Value(value) = &mut operand {
                        value.shared |= readers.get(name) != Some(&1);
                    }
                    Ok(operand)
                };
                let site =
                    ops::Site { node, inputs: read.iter().map(|i| operand(i)).collect::<Result<_, _>>()? };
                ops::convert(&site, &mut graph)?
            }
        };
        done.insert(node.name.clone(), operands);
    }

    let mut made = Vec::new();
    for name in &names {
        let node = by_name[name.as_str()];
        let Some(Operand::Value(value)) = done[name].first() else {
            return Err(node.bad("the output does not depend on the input"));
        };
        let value = graph.plain(value, &format!("{name}/output"));
        // The file's outputs bear the names of the original ones, whatever node makes them.
        let value_name = graph.node("Identity", &format!("{name}:0"), vec![value.name], vec![]);
        made.push((value_name, value.shape));
    }
    let mut report = Report {
        nodes: graph.len(),
        nodes_before: model.topology.node.iter().filter(|n| n.op != "Const").count(),
        parameters: graph.parameters(),
        inputs: inputs.clone(),
        outputs: made.clone(),
        bytes: 0,
    };
    let info = |list: Vec<(String, Vec<i64>)>| {
        list.iter().map(|(name, shape)| ValueInfoProto::floats(name, shape)).collect()
    };
    let bytes = ModelProto::new(graph.finish(info(inputs), info(made))).encode_to_vec();
    report.bytes = bytes.len();
    write(out, &bytes)?;
    Ok(report)
}

fn write(out: &Path, bytes: &[u8]) -> Result<(), ConvertError> {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let beside = out.with_file_name(name);
    let result = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, out));
    result.map_err(|source| {
        let _ = fs::remove_file(&beside);
        ConvertError::Write { path: out.into(), source }
    })
}

/// The node names of the outputs, sorted.
fn output_names(model: &tfjs::Model, chosen: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = match (chosen, &model.signature) {
        ([], Some(signature)) if !signature.outputs.is_empty() => {
            signature.outputs.keys().map(|key| plain(key).to_owned()).collect()
        }
        ([], _) => {
            // No signature: the outputs are what nobody reads.
            let read: HashSet<&str> =
                model.topology.node.iter().flat_map(|n| n.input.iter().map(|i| plain(i))).collect();
            let unread = model.topology.node.iter().filter(|n| !read.contains(n.name.as_str()));
            unread.map(|n| n.name.clone()).collect()
        }
        (chosen, _) => chosen.iter().map(|name| plain(name).to_owned()).collect(),
    };
    names.sort();
    names.dedup();
    names
}

/// `^name` is an order of execution, not data.
fn data_inputs(node: &Node) -> Vec<&str> {
    node.input.iter().map(String::as_str).filter(|input| !input.starts_with('^')).collect()
}

/// The node and which of its outputs: `split:1`.
fn endpoint(input: &str) -> (&str, usize) {
    match input.rsplit_once(':') {
        Some((name, port)) => port.parse().map_or((input, 0), |port| (name, port)),
        None => (input, 0),
    }
}

/// The name of the node in `^node` or `node:1`.
fn plain(input: &str) -> &str {
    endpoint(input.trim_start_matches('^')).0
}

/// What the outputs need, each node after its inputs; the order depends on the file only.
fn evaluation_order<'a>(
    by_name: &HashMap<&str, &'a Node>,
    outputs: &[String],
    json: &Path,
) -> Result<Vec<&'a Node>, ConvertError> {
    let mut order = Vec::new();
    let mut finished: HashSet<&str> = HashSet::new();
    let mut open: HashSet<&str> = HashSet::new();
    for output in outputs {
        let Some(&node) = by_name.get(output.as_str()) else {
            let why = format!("it has no output named `{output}`");
            return Err(ConvertError::NotAGraphModel { path: json.into(), why });
        };
        // Depth first with a stack of our own: a graph may be deep, and it may be a circle.
        let mut stack = vec![(node, 0_usize)];
        while let Some((node, next)) = stack.pop() {
            if finished.contains(node.name.as_str()) {
                continue;
            }
            if next == 0 && !open.insert(&node.name) {
                return Err(node.bad("it depends on itself"));
            }
            match data_inputs(node).get(next) {
                None => {
                    finished.insert(&node.name);
                    order.push(node);
                }
                Some(input) => {
                    let child = by_name.get(plain(input)).copied();
                    let child =
                        child.ok_or_else(|| node.bad(format!("its input `{input}` does not exist")))?;
                    stack.push((node, next + 1));
                    if open.contains(child.name.as_str()) && !finished.contains(child.name.as_str()) {
                        return Err(child.bad("it depends on itself"));
                    }
                    stack.push((child, 0));
                }
            }
        }
    }
    Ok(order)
}
