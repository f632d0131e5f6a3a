//! The ONNX graph under construction, and the lazy layout that lets transposes vanish.
//!
//! TensorFlow keeps pictures as N×H×W×C, ONNX as N×C×H×W. A [`Value`] is an ONNX tensor *plus* how the TensorFlow tensor
//! is got from it: an order of axes (and zeros or a constant around it, if a `Pad` came last). `Transpose` and `Pad` only
//! change that description:
//!
//! ```text
//!   tf:    Conv2D(NHWC) ─ Transpose(NCHW) ─ LeakyRelu ─ Pad ─ Transpose(NHWC) ─ Conv2D
//!   here:  Conv ───────────────────────────  LeakyRelu ──────────────────────── Conv(pads)
//! ```
//!
//! Only an operation that needs another order than its input has ([`Graph::in_order`]) makes a node of it.

use crate::{
    onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto},
    tfjs::Tensor,
};

/// Axis order of N×H×W×C over N×C×H×W: TensorFlow's axis `i` is ONNX' axis `NHWC[i]`.
pub(crate) const NHWC: [usize; 4] = [0, 2, 3, 1];

/// A TensorFlow tensor described by an ONNX one.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// Name of the ONNX value.
    pub name: String,
    /// Its shape, in ONNX' order, without the padding.
    pub shape: Vec<i64>,
    /// TensorFlow's axis `i` is ONNX' axis `perm[i]`.
    pub perm: Vec<usize>,
    /// What is still to be put around it.
    pub pad: Option<Padding>,
    /// Whether several nodes read the ONNX value (in this order of axes or another).
    pub shared: bool,
}

/// A border of one value, in ONNX' order of axes.
#[derive(Clone, Debug)]
pub(crate) struct Padding {
    pub before: Vec<i64>,
    pub after: Vec<i64>,
    pub value: f32,
}

/// What an input of a TensorFlow node turned out to be.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Constant(Tensor),
    Value(Value),
}

impl Value {
    /// A value whose axes are in TensorFlow's order.
    pub fn plain(name: String, shape: Vec<i64>) -> Self {
        let perm = (0..shape.len()).collect();
        Self { name, shape, perm, pad: None, shared: false }
    }

    /// The shape that TensorFlow sees.
    pub fn tf_shape(&self) -> Vec<i64> {
        let border = |axis: usize| self.pad.as_ref().map_or(0, |p| p.before[axis] + p.after[axis]);
        self.perm.iter().map(|&axis| self.shape[axis] + border(axis)).collect()
    }

    pub fn rank(&self) -> usize {
        self.perm.len()
    }
}

/// A convolution whose weights may still be changed: nothing but its one consumer has seen its result.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    /// Name of its result.
    output: String,
    node: usize,
    weights: usize,
    bias: Option<usize>,
}

/// The graph so far.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<NodeProto>,
    constants: Vec<(String, Vec<i64>, Vec<f32>)>,
    shapes: Vec<TensorProto>,
    convolutions: Vec<Convolution>,
}

impl Graph {
    /// Adds a node with one output and returns the output's name.
    pub fn node(
        &mut self,
        op: &str,
        name: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) -> String {
        self.nodes(op, name, input, vec![name.to_owned()], attribute);
        name.to_owned()
    }

    /// Adds a node with the outputs named.
    pub fn nodes(
        &mut self,
        op: &str,
        name: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        self.nodes.push(NodeProto { input, output, name: name.into(), op_type: op.into(), attribute });
    }

    /// Adds constants of type float.
    pub fn floats(&mut self, name: String, shape: Vec<i64>, values: Vec<f32>) -> String {
        self.constants.push((name.clone(), shape, values));
        name
    }

    /// Adds a list of integers (a shape, sizes, borders).
    pub fn ints(&mut self, name: String, values: &[i64]) -> String {
        self.shapes.push(TensorProto::ints(&name, &[values.len() as i64], values));
        name
    }

    /// The value with its padding made real.
    pub fn padded(&mut self, value: &Value, at: &str) -> Value {
        let Some(pad) = &value.pad else { return value.clone() };
        let borders: Vec<i64> = pad.before.iter().chain(&pad.after).copied().collect();
        let shape = (0..value.rank()).map(|i| value.shape[i] + pad.before[i] + pad.after[i]).collect();
        let pads = self.ints(format!("{at}/pads"), &borders);
        let fill = self.floats(format!("{at}/fill"), vec![], vec![pad.value]);
        let name = self.node("Pad", &format!("{at}/pad"), vec![value.name.clone(), pads, fill], vec![]);
        Value { name, shape, perm: value.perm.clone(), pad: None, shared: false }
    }

    /// The value with TensorFlow's axis `i` as ONNX' axis `perm[i]`, padding left as it is.
    pub fn in_order(&mut self, value: &Value, perm: &[usize], at: &str) -> Value {
        if value.perm == perm {
            return value.clone();
        }
        let mut order = vec![0_usize; perm.len()];
        for (axis, &target) in perm.iter().enumerate() {
            order[target] = value.perm[axis];
        }
        let moved = |list: &[i64]| order.iter().map(|&axis| list[axis]).collect::<Vec<_>>();
        let attribute = AttributeProto::ints("perm", order.iter().map(|&axis| axis as i64));
        let name = self.node("Transpose", &format!("{at}/order"), vec![value.name.clone()], vec![attribute]);
        let pad = value.pad.as_ref().map(|p| Padding {
            before: moved(&p.before),
            after: moved(&p.after),
            value: p.value,
        });
        Value { name, shape: moved(&value.shape), perm: perm.to_vec(), pad, shared: false }
    }

    /// The value exactly as TensorFlow sees it.
    pub fn plain(&mut self, value: &Value, at: &str) -> Value {
        let padded = self.padded(value, at);
        let identity: Vec<usize> = (0..padded.rank()).collect();
        self.in_order(&padded, &identity, at)
    }

    /// Adds a convolution without bias.
    pub fn convolution(
        &mut self,
        name: &str,
        input: String,
        weights: (Vec<i64>, Vec<f32>),
        attribute: Vec<AttributeProto>,
    ) -> String {
        let constant = self.floats(format!("{name}/weights"), weights.0, weights.1);
        let (node, weights) = (self.nodes.len(), self.constants.len() - 1);
        self.node("Conv", name, vec![input, constant], attribute);
        self.convolutions.push(Convolution { output: name.into(), node, weights, bias: None });
        name.into()
    }

    /// `value · scale + shift` for each channel (ONNX' axis 1), melted into the convolution that made the value if nobody
    /// else reads its result. Returns false if that is not possible; nothing has changed then.
    pub fn melt(&mut self, value: &Value, scale: Option<&[f32]>, shift: Option<&[f32]>) -> bool {
        let found = self.convolutions.iter().position(|c| c.output == value.name);
        let Some(index) = found.filter(|_| !value.shared && value.pad.is_none()) else { return false };
        let Convolution { node, weights, bias, .. } = self.convolutions[index].clone();
        let channels = self.constants[weights].1[0] as usize;
        if [scale, shift].into_iter().flatten().any(|list| list.len() != channels) {
            return false;
        }
        let bias = bias.unwrap_or_else(|| {
            let name = format!("{}/bias", value.name);
            self.nodes[node].input.push(name.clone());
            self.constants.push((name, vec![channels as i64], vec![0.0; channels]));
            self.constants.len() - 1
        });
        self.convolutions[index].bias = Some(bias);
        if let Some(scale) = scale {
            let filters = &mut self.constants[weights].2;
            let each = filters.len() / channels.max(1);
            for (channel, filter) in filters.chunks_mut(each.max(1)).enumerate() {
                filter.iter_mut().for_each(|w| *w *= scale[channel]);
            }
            self.constants[bias].2.iter_mut().zip(scale).for_each(|(b, s)| *b *= s);
        }
        if let Some(shift) = shift {
            self.constants[bias].2.iter_mut().zip(shift).for_each(|(b, s)| *b += s);
        }
        true
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Number of elements in all float constants.
    pub fn parameters(&self) -> usize {
        self.constants.iter().map(|c| c.2.len()).sum()
    }

    /// The finished graph.
    pub fn finish(self, input: Vec<ValueInfoProto>, output: Vec<ValueInfoProto>) -> GraphProto {
        let floats = self.constants.iter().map(|(name, dims, v)| TensorProto::floats(name, dims, v));
        let initializer = floats.chain(self.shapes).collect();
        GraphProto { node: self.nodes, name: "model".into(), initializer, input, output }
    }
}
