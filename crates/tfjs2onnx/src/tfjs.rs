//! The TensorFlow.js graph model as it lies on disk: a JSON file with the graph, binary files with the weights.
//!
//! Everything read here comes from a file that somebody downloaded: each size is checked before it is used.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use serde::Deserialize;

use crate::ConvertError;

/// A constant: shape and elements. Integers and booleans are kept as `i64`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub shape: Vec<i64>,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl Tensor {
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Float(values) => Some(values),
            Data::Int(_) => None,
        }
    }

    pub fn ints(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Int(values) => Some(values),
            Data::Float(_) => None,
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Model {
    pub format: Option<String>,
    #[serde(rename = "modelTopology")]
    pub topology: Topology,
    pub signature: Option<Signature>,
    #[serde(rename = "weightsManifest")]
    pub weights: Vec<WeightGroup>,
}

#[derive(Deserialize)]
pub(crate) struct Topology {
    #[serde(default)]
    pub node: Vec<Node>,
}

#[derive(Deserialize, Default)]
pub(crate) struct Signature {
    #[serde(default)]
    pub outputs: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
pub(crate) struct Node {
    pub name: String,
    pub op: String,
    #[serde(default)]
    pub input: Vec<String>,
    #[serde(default)]
    pub attr: HashMap<String, Attr>,
}

/// An attribute's value; one of the fields is there.
#[derive(Deserialize, Default)]
pub(crate) struct Attr {
    s: Option<String>,
    f: Option<f64>,
    b: Option<bool>,
    list: Option<AttrList>,
    shape: Option<Shape>,
}

#[derive(Deserialize, Default)]
struct AttrList {
    #[serde(default)]
    i: Vec<Number>,
    #[serde(default)]
    s: Vec<String>,
}

#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    dim: Vec<Dim>,
}

#[derive(Deserialize)]
struct Dim {
    size: Number,
}

/// Protobuf's JSON writes 64-bit integers as strings; some writers do not.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(i64),
    Text(String),
}

impl Number {
    fn get(&self) -> Option<i64> {
        match self {
            Self::Plain(n) => Some(*n),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct WeightGroup {
    pub paths: Vec<String>,
    pub weights: Vec<WeightSpec>,
}

#[derive(Deserialize)]
pub(crate) struct WeightSpec {
    name: String,
    shape: Vec<i64>,
    dtype: String,
    quantization: Option<Quantization>,
}

#[derive(Deserialize)]
struct Quantization {
    dtype: String,
    #[serde(default)]
    min: f64,
    #[serde(default)]
    scale: f64,
}

impl Node {
    /// A refusal that names this node.
    pub fn bad(&self, why: impl Into<String>) -> ConvertError {
        ConvertError::Node { name: self.name.clone(), op: self.op.clone(), why: why.into() }
    }

    pub fn int_list(&self, name: &str) -> Vec<i64> {
        let list = self.attr.get(name).and_then(|a| a.list.as_ref());
        list.map(|l| l.i.iter().filter_map(Number::get).collect()).unwrap_or_default()
    }

    pub fn text(&self, name: &str) -> String {
        self.attr.get(name).and_then(|a| a.s.as_deref()).map(base64).unwrap_or_default()
    }

    pub fn text_list(&self, name: &str) -> Vec<String> {
        let list = self.attr.get(name).and_then(|a| a.list.as_ref());
        list.map(|l| l.s.iter().map(|s| base64(s)).collect()).unwrap_or_default()
    }

    pub fn float(&self, name: &str) -> Option<f32> {
        self.attr.get(name).and_then(|a| a.f).map(|f| f as f32)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.attr.get(name).and_then(|a| a.b).unwrap_or(false)
    }

    pub fn shape(&self) -> Option<Vec<i64>> {
        let shape = self.attr.get("shape")?.shape.as_ref()?;
        shape.dim.iter().map(|d| d.size.get()).collect()
    }
}

/// Reads the JSON file.
pub(crate) fn read_model(path: &Path) -> Result<Model, ConvertError> {
    let text = fs::read(path).map_err(|source| ConvertError::Read { path: path.into(), source })?;
    let model: Model = serde_json::from_slice(&text)
        .map_err(|source| ConvertError::NotAGraphModel { path: path.into(), why: source.to_string() })?;
    match model.format.as_deref() {
        Some("graph-model") | None => {}
        Some(other) => {
            let why = format!("its format is `{other}`");
            return Err(ConvertError::NotAGraphModel { path: path.into(), why });
        }
    }
    if model.topology.node.is_empty() {
        return Err(ConvertError::NotAGraphModel { path: path.into(), why: "it has no nodes".into() });
    }
    Ok(model)
}

/// Reads the weight files that lie beside the JSON file.
pub(crate) fn read_weights(model: &Model, json: &Path) -> Result<HashMap<String, Tensor>, ConvertError> {
    let folder = json.parent().unwrap_or(Path::new("."));
    let mut tensors = HashMap::new();
    for group in &model.weights {
        let mut bytes = Vec::new();
        for name in &group.paths {
            // A shard lies beside its model: a name that leads elsewhere is not followed.
            let plain = Path::new(name).file_name().is_some_and(|f| f == name.as_str());
            if !plain {
                return Err(ConvertError::Weights {
                    why: format!("the shard name `{name}` is not a file name"),
                });
            }
            let path = folder.join(name);
            bytes.extend(fs::read(&path).map_err(|source| ConvertError::Read { path, source })?);
        }
        let mut rest = bytes.as_slice();
        for spec in &group.weights {
            let tensor = read_tensor(spec, &mut rest)?;
            tensors.insert(spec.name.clone(), tensor);
        }
        if !rest.is_empty() {
            let why = format!("{} bytes are left over after the last weight", rest.len());
            return Err(ConvertError::Weights { why });
        }
    }
    Ok(tensors)
}

fn read_tensor(spec: &WeightSpec, rest: &mut &[u8]) -> Result<Tensor, ConvertError> {
    let stored = spec.quantization.as_ref().map_or(spec.dtype.as_str(), |q| q.dtype.as_str());
    let width = match stored {
        "float32" | "int32" => 4,
        "float16" | "uint16" => 2,
        "uint8" | "bool" => 1,
        other => {
            return Err(ConvertError::Weights {
                why: format!("weight `{}` is stored as {other}, which is not supported", spec.name),
            });
        }
    };
    let len = spec.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
    let bytes = len.and_then(|n| n.checked_mul(width)).filter(|&n| n <= rest.len());
    let Some(bytes) = bytes else {
        return Err(ConvertError::Weights {
            why: format!("weight `{}` of shape {:?} reaches past the end", spec.name, spec.shape),
        });
    };
    let (mine, others) = rest.split_at(bytes);
    *rest = others;
    let affine = |v: f64| spec.quantization.as_ref().map_or(v, |q| v * q.scale + q.min) as f32;
    let pairs = || mine.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let quads = || mine.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    let integer = spec.dtype != "float32";
    let data = match stored {
        "float32" => Data::Float(quads().map(f32::from_le_bytes).collect()),
        "float16" => Data::Float(pairs().map(half).collect()),
        "int32" => Data::Int(quads().map(|b| i64::from(i32::from_le_bytes(b))).collect()),
        "uint16" if !integer => Data::Float(pairs().map(|v| affine(f64::from(v))).collect()),
        "uint8" if !integer => Data::Float(mine.iter().map(|&v| affine(f64::from(v))).collect()),
        "uint16" => Data::Int(pairs().map(|v| affine(f64::from(v)).round() as i64).collect()),
        _ => Data::Int(mine.iter().map(|&v| affine(f64::from(v)).round() as i64).collect()),
    };
    Ok(Tensor { shape: spec.shape.clone(), data })
}

/// IEEE 754 binary16 to binary32; every value has an exact counterpart.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2_f32.powi(exponent - 15),
    }
}

/// Base64 as protobuf's JSON uses it for byte strings. What is not base64 gives fewer letters, and the caller refuses
/// the word that comes out.
fn base64(text: &str) -> String {
    let mut out = String::new();
    let (mut bits, mut have) = (0_u32, 0);
    for c in text.bytes() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(six);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push(char::from((bits >> have) as u8));
            bits &= (1 << have) - 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2_f32.powi(-24)),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan());
        assert_eq!(half(0xfc00), f32::NEG_INFINITY);
    }

    #[test]
    fn base64_of_the_words_in_use() {
        assert_eq!(base64("VkFMSUQ="), "VALID");
        assert_eq!(base64("U0FNRQ=="), "SAME");
        assert_eq!(base64("TkhXQw=="), "NHWC");
    }
}
