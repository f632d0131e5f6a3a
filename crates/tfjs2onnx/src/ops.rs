//! Each TensorFlow operation in terms of ONNX'. The shapes are those of a fixed input, so all sizes are known here.

use std::collections::HashMap;

use crate::{
    ConvertError,
    graph::{Graph, NHWC, Operand, Padding, Value},
    onnx::AttributeProto,
    tfjs::{Data, Node, Tensor},
};

type Converted = Result<Vec<Operand>, ConvertError>;

/// A node together with what its inputs are.
pub(crate) struct Site<'a> {
    pub node: &'a Node,
    pub inputs: Vec<Operand>,
}

impl Site<'_> {
    fn value(&self, index: usize) -> Result<&Value, ConvertError> {
        match self.inputs.get(index) {
            Some(Operand::Value(value)) => Ok(value),
            _ => Err(self.node.bad(format!("input {index} is not a computed tensor"))),
        }
    }

    fn constant(&self, index: usize) -> Result<&Tensor, ConvertError> {
        match self.inputs.get(index) {
            Some(Operand::Constant(tensor)) => Ok(tensor),
            _ => Err(self.node.bad(format!("input {index} is not a constant"))),
        }
    }

    fn floats(&self, index: usize) -> Result<&[f32], ConvertError> {
        let tensor = self.constant(index)?;
        tensor.floats().ok_or_else(|| self.node.bad(format!("input {index} is not of type float")))
    }

    fn ints(&self, index: usize) -> Result<&[i64], ConvertError> {
        let tensor = self.constant(index)?;
        tensor.ints().ok_or_else(|| self.node.bad(format!("input {index} is not of an integer type")))
    }

    /// An axis of TensorFlow's order: in range, negative ones counted from the end.
    fn axis(&self, axis: i64, rank: usize) -> Result<usize, ConvertError> {
        let from_start = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(from_start)
            .ok()
            .filter(|&a| a < rank)
            .ok_or_else(|| self.node.bad(format!("axis {axis} of a tensor with {rank} axes")))
    }

    fn first_int(&self, index: usize) -> Result<i64, ConvertError> {
        let list = self.ints(index)?;
        list.first().copied().ok_or_else(|| self.node.bad(format!("input {index} is empty")))
    }

    fn image(&self, graph: &mut Graph, index: usize) -> Result<Value, ConvertError> {
        let value = self.value(index)?;
        let format = self.node.text("data_format");
        if value.rank() != 4 || !(format.is_empty() || format == "NHWC") {
            return Err(self.node.bad(format!("needs a picture as N x H x W x C, not {format}")));
        }
        Ok(graph.in_order(value, &NHWC, &self.node.name))
    }
}

/// Converts one node.
pub(crate) fn convert(site: &Site, graph: &mut Graph) -> Converted {
    if let Some(folded) = crate::fold::fold(site)? {
        return Ok(vec![Operand::Constant(folded)]);
    }
    let one = |value: Value| Ok(vec![Operand::Value(value)]);
    let node = site.node;
    match node.op.as_str() {
        "Identity" => one(site.value(0)?.clone()),
        "Transpose" => one(transpose(site)?),
        "Pad" | "PadV2" => one(pad(site, graph)?),
        "Conv2D" | "_FusedConv2D" => one(convolution(site, graph, false)?),
        "DepthwiseConv2dNative" | "FusedDepthwiseConv2dNative" => one(convolution(site, graph, true)?),
        "MaxPool" => one(max_pool(site, graph)?),
        "Add" | "AddV2" | "BiasAdd" => one(binary(site, graph, "Add")?),
        "Mul" => one(binary(site, graph, "Mul")?),
        "Sub" => one(binary(site, graph, "Sub")?),
        "FusedBatchNorm" | "FusedBatchNormV3" => one(batch_norm(site, graph)?),
        "LeakyRelu" => {
            let alpha = AttributeProto::float("alpha", node.float("alpha").unwrap_or(0.2));
            one(unary(site.value(0)?, graph, "LeakyRelu", &node.name, vec![], vec![alpha]))
        }
        "Relu" | "Sigmoid" | "Elu" => one(unary(site.value(0)?, graph, &node.op, &node.name, vec![], vec![])),
        "Relu6" => one(relu6(site.value(0)?, graph, &node.name)),
        "ResizeBilinear" => one(resize(site, graph)?),
        "ConcatV2" => one(concat(site, graph)?),
        "SplitV" => split(site, graph),
        "Mean" => one(mean(site, graph)?),
        "Reshape" => one(reshape(site, graph)?),
        other => Err(ConvertError::UnknownOperation { op: other.into(), node: node.name.clone() }),
    }
}

fn unary(
    input: &Value,
    graph: &mut Graph,
    op: &str,
    name: &str,
    more: Vec<String>,
    attribute: Vec<AttributeProto>,
) -> Value {
    let value = graph.padded(input, name);
    let mut inputs = vec![value.name.clone()];
    inputs.extend(more);
    Value { name: graph.node(op, name, inputs, attribute), shared: false, ..value }
}

fn relu6(input: &Value, graph: &mut Graph, name: &str) -> Value {
    let low = graph.floats(format!("{name}/low"), vec![], vec![0.0]);
    let high = graph.floats(format!("{name}/high"), vec![], vec![6.0]);
    unary(input, graph, "Clip", name, vec![low, high], vec![])
}

fn transpose(site: &Site) -> Result<Value, ConvertError> {
    let value = site.value(0)?;
    let wanted = site.ints(1)?;
    let perm = wanted.iter().map(|&axis| Ok(value.perm[site.axis(axis, value.rank())?]));
    let perm = perm.collect::<Result<Vec<_>, ConvertError>>()?;
    let mut seen = vec![false; value.rank()];
    perm.iter().for_each(|&axis| seen[axis] = true);
    if perm.len() != value.rank() || seen.contains(&false) {
        return Err(site.node.bad(format!("{wanted:?} is not an order of {} axes", value.rank())));
    }
    Ok(Value { perm, ..value.clone() })
}

fn pad(site: &Site, graph: &mut Graph) -> Result<Value, ConvertError> {
    let value = graph.padded(site.value(0)?, &site.node.name);
    let borders = site.ints(1)?;
    let fill = if site.inputs.len() > 2 { site.floats(2)?.first().copied().unwrap_or(0.0) } else { 0.0 };
    if borders.len() != 2 * value.rank() || borders.iter().any(|&b| !(0..1 << 20).contains(&b)) {
        return Err(site.node.bad("its borders do not fit its input"));
    }
    let mut padding = Padding { before: vec![0; value.rank()], after: vec![0; value.rank()], value: fill };
    for (axis, border) in borders.chunks_exact(2).enumerate() {
        padding.before[value.perm[axis]] = border[0];
        padding.after[value.perm[axis]] = border[1];
    }
    Ok(Value { pad: Some(padding), ..value })
}

/// The sliding window of a convolution or pooling: strides, dilations, and the borders that a waiting `Pad` and
/// TensorFlow's `SAME` rule ask for.
struct Window {
    input: Value,
    output: [i64; 2],
    attribute: Vec<AttributeProto>,
}

fn window(
    site: &Site,
    graph: &mut Graph,
    kernel: [i64; 2],
    absorbs: fn(f32) -> bool,
) -> Result<Window, ConvertError> {
    let node = site.node;
    let image = site.image(graph, 0)?;
    let spatial = |list: &Vec<i64>| match list.as_slice() {
        &[_, h, w, _] if h > 0 && w > 0 => Some([h, w]),
        [] => Some([1, 1]),
        _ => None,
    };
    let strides = spatial(&node.int_list("strides")).ok_or_else(|| node.bad("its strides are odd"))?;
    let dilations = spatial(&node.int_list("dilations")).ok_or_else(|| node.bad("its dilations are odd"))?;
    let absorbed = image
        .pad
        .as_ref()
        .is_none_or(|p| absorbs(p.value) && p.before[..2] == [0, 0] && p.after[..2] == [0, 0]);
    let input = if absorbed { image } else { graph.padded(&image, &node.name) };
    let mode = node.text("padding");
    let mut pads = [0_i64; 4];
    let mut output = [0_i64; 2];
    for side in 0..2 {
        let axis = side + 2;
        let (before, after) = input.pad.as_ref().map_or((0, 0), |p| (p.before[axis], p.after[axis]));
        let size = input.shape[axis] + before + after;
        let reach = (kernel[side] - 1) * dilations[side] + 1;
        let (low, high) = match mode.as_str() {
            "VALID" => (0, 0),
            "SAME" => {
                let steps = (size + strides[side] - 1) / strides[side];
                let total = ((steps - 1) * strides[side] + reach - size).max(0);
                (total / 2, total - total / 2)
            }
            other => return Err(node.bad(format!("padding `{other}` is not supported"))),
        };
        pads[side] = before + low;
        pads[side + 2] = after + high;
        output[side] = (size + low + high - reach) / strides[side] + 1;
        if size + low + high < reach {
            return Err(node.bad("its window is larger than its input"));
        }
    }
    let mut attribute = vec![
        AttributeProto::ints("kernel_shape", kernel),
        AttributeProto::ints("strides", strides),
        AttributeProto::ints("pads", pads),
    ];
    if dilations != [1, 1] {
        attribute.push(AttributeProto::ints("dilations", dilations));
    }
    Ok(Window { input: Value { pad: None, ..input }, output, attribute })
}

fn convolution(site: &Site, graph: &mut Graph, depthwise: bool) -> Result<Value, ConvertError> {
    let node = site.node;
    let filter = site.constant(1)?;
    let &[height, width, depth, last] = filter.shape.as_slice() else {
        return Err(node.bad("its filter has not four axes"));
    };
    let source = site.floats(1)?;
    let Window { input, output, mut attribute } = window(site, graph, [height, width], |fill| fill == 0.0)?;
    // TensorFlow: H x W x in x out (depthwise: H x W x in x multiplier). ONNX: out x in/group x H x W.
    let channels = if depthwise { depth * last } else { last };
    if input.shape[1] % depth.max(1) != 0 || depth == 0 || last == 0 || (depthwise && input.shape[1] != depth)
    {
        return Err(node.bad(format!("a filter of depth {depth} on {} channels", input.shape[1])));
    }
    let group = if depthwise { depth } else { input.shape[1] / depth };
    attribute.push(AttributeProto::int("group", group));
    let (h, w, d, l) = (height as usize, width as usize, depth as usize, last as usize);
    let mut weights = Vec::with_capacity(source.len());
    let (outer, inner) = if depthwise { (d * l, 1) } else { (l, d) };
    for o in 0..outer {
        for i in 0..inner {
            for at in 0..h * w {
                let element = if depthwise { at * d * l + o } else { (at * d + i) * l + o };
                weights.push(source[element]);
            }
        }
    }
    let shape = vec![channels, inner as i64, height, width];
    let name = graph.convolution(&node.name, input.name, (shape, weights), attribute);
    let mut value = Value {
        name,
        shape: vec![input.shape[0], channels, output[0], output[1]],
        perm: NHWC.to_vec(),
        pad: None,
        shared: false,
    };
    for (k, fused) in node.text_list("fused_ops").iter().enumerate() {
        let name = format!("{}/{fused}", node.name);
        value = match fused.as_str() {
            "BiasAdd" => {
                if !graph.melt(&value, None, Some(site.floats(2)?)) {
                    return Err(node.bad("its bias does not fit its filter"));
                }
                value
            }
            "Relu" | "Elu" => unary(&value, graph, fused, &name, vec![], vec![]),
            "Relu6" => relu6(&value, graph, &name),
            "LeakyRelu" => {
                let alpha = AttributeProto::float("alpha", node.float("leakyrelu_alpha").unwrap_or(0.2));
                unary(&value, graph, fused, &name, vec![], vec![alpha])
            }
            other => {
                return Err(node.bad(format!("fused operation {k} is `{other}`, which is not supported")));
            }
        };
    }
    Ok(value)
}

fn max_pool(site: &Site, graph: &mut Graph) -> Result<Value, ConvertError> {
    let &[1, height, width, 1] = site.node.int_list("ksize").as_slice() else {
        return Err(site.node.bad("its window is not 1 x H x W x 1"));
    };
    // ONNX pads the input of a MaxPool with minus infinity: so may we, for anything as small.
    let Window { input, output, attribute } = window(site, graph, [height, width], |fill| fill <= -65504.0)?;
    let name = graph.node("MaxPool", &site.node.name, vec![input.name], attribute);
    let shape = vec![input.shape[0], input.shape[1], output[0], output[1]];
    Ok(Value { name, shape, perm: NHWC.to_vec(), pad: None, shared: false })
}

fn binary(site: &Site, graph: &mut Graph, op: &str) -> Result<Value, ConvertError> {
    let node = site.node;
    match (site.inputs.first(), site.inputs.get(1)) {
        (Some(Operand::Value(_)), Some(Operand::Constant(_))) => with_constant(site, graph, op, 0, 1),
        (Some(Operand::Constant(_)), Some(Operand::Value(_))) if op != "Sub" => {
            with_constant(site, graph, op, 1, 0)
        }
        (Some(Operand::Value(left)), Some(Operand::Value(right))) if left.rank() == right.rank() => {
            let left = graph.padded(left, &format!("{}/left", node.name));
            let right = graph.padded(right, &format!("{}/right", node.name));
            let right = graph.in_order(&right, &left.perm, &node.name);
            let mut shape = Vec::new();
            for (&a, &b) in left.shape.iter().zip(&right.shape) {
                if a != b && a != 1 && b != 1 {
                    let (a, b) = (left.tf_shape(), right.tf_shape());
                    return Err(node.bad(format!("shapes {a:?} and {b:?} do not go together")));
                }
                shape.push(a.max(b));
            }
            let name = graph.node(op, &node.name, vec![left.name, right.name], vec![]);
            Ok(Value { name, shape, ..left })
        }
        _ => Err(node.bad("its inputs are not two tensors of the same rank, or a tensor and a constant")),
    }
}

fn with_constant(
    site: &Site,
    graph: &mut Graph,
    op: &str,
    value: usize,
    constant: usize,
) -> Result<Value, ConvertError> {
    let node = site.node;
    let (input, list) = (site.value(value)?, site.floats(constant)?);
    let shape = &site.constant(constant)?.shape;
    let rank = input.rank();
    let tf_shape = input.tf_shape();
    // TensorFlow's broadcasting: missing axes are in front and of size one.
    let full: Vec<i64> =
        std::iter::repeat_n(1, rank.saturating_sub(shape.len())).chain(shape.iter().copied()).collect();
    if shape.len() > rank || full.iter().zip(&tf_shape).any(|(&c, &v)| c != 1 && c != v) {
        return Err(node.bad(format!("a constant of shape {shape:?} on a tensor of shape {tf_shape:?}")));
    }
    let channelwise = rank == 4 && (0..4).all(|axis| input.perm[axis] == 1 || full[axis] == 1);
    if channelwise && op != "Sub" {
        let list = if list.len() == 1 { vec![list[0]; input.shape[1] as usize] } else { list.to_vec() };
        let (scale, shift) = if op == "Mul" { (Some(&*list), None) } else { (None, Some(&*list)) };
        if graph.melt(input, scale, shift) {
            return Ok(input.clone());
        }
    }
    if full.iter().filter(|&&n| n != 1).count() > 1 {
        return Err(
            node.bad(format!("a constant that varies along several axes ({shape:?}) is not supported"))
        );
    }
    let mut dims = vec![1; rank];
    (0..rank).for_each(|axis| dims[input.perm[axis]] = full[axis]);
    let name = graph.floats(format!("{}/constant", node.name), dims, list.to_vec());
    Ok(unary(input, graph, op, &node.name, vec![name], vec![]))
}

fn batch_norm(site: &Site, graph: &mut Graph) -> Result<Value, ConvertError> {
    let node = site.node;
    let input = site.image(graph, 0)?;
    let epsilon = node.float("epsilon").unwrap_or(1e-3);
    let (gamma, beta, mean, variance) = (site.floats(1)?, site.floats(2)?, site.floats(3)?, site.floats(4)?);
    let channels = input.shape[1] as usize;
    if [gamma, beta, mean, variance].iter().any(|list| list.len() != channels) {
        return Err(node.bad(format!("its constants are not {channels} numbers each")));
    }
    let scale: Vec<f32> = gamma.iter().zip(variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
    let shift: Vec<f32> = (0..channels).map(|c| beta[c] - mean[c] * scale[c]).collect();
    if graph.melt(&input, Some(&scale), Some(&shift)) {
        return Ok(input);
    }
    let dims = vec![1, channels as i64, 1, 1];
    let scale = graph.floats(format!("{}/scale", node.name), dims.clone(), scale);
    let shift = graph.floats(format!("{}/shift", node.name), dims, shift);
    let scaled = unary(&input, graph, "Mul", &format!("{}/scaled", node.name), vec![scale], vec![]);
    Ok(unary(&scaled, graph, "Add", &node.name, vec![shift], vec![]))
}

fn resize(site: &Site, graph: &mut Graph) -> Result<Value, ConvertError> {
    let node = site.node;
    let image = site.image(graph, 0)?;
    let input = graph.padded(&image, &node.name);
    let &[height, width] = site.ints(1)? else { return Err(node.bad("its size is not two numbers")) };
    if !(1..1 << 16).contains(&height) || !(1..1 << 16).contains(&width) {
        return Err(node.bad(format!("a size of {height} x {width}")));
    }
    let mode = match (node.flag("half_pixel_centers"), node.flag("align_corners")) {
        (true, _) => "half_pixel",
        (_, true) => "align_corners",
        _ => "asymmetric",
    };
    let shape = vec![input.shape[0], input.shape[1], height, width];
    let sizes = graph.ints(format!("{}/sizes", node.name), &shape);
    let attribute = vec![
        AttributeProto::string("mode", "linear"),
        AttributeProto::string("coordinate_transformation_mode", mode),
    ];
    let inputs = vec![input.name, String::new(), String::new(), sizes];
    let name = graph.node("Resize", &node.name, inputs, attribute);
    Ok(Value { name, shape, ..image })
}

fn concat(site: &Site, graph: &mut Graph) -> Result<Value, ConvertError> {
    let node = site.node;
    let parts = site.inputs.len().saturating_sub(1);
    let first = graph.padded(site.value(0)?, &format!("{}/0", node.name));
    let axis = first.perm[site.axis(site.first_int(parts)?, first.rank())?];
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    let mut names = Vec::new();
    for index in 0..parts {
        let at = format!("{}/{index}", node.name);
        let part = site.value(index)?;
        if part.rank() != first.rank() {
            return Err(node.bad("its inputs have different numbers of axes"));
        }
        let part = if index == 0 { first.clone() } else { graph.padded(part, &at) };
        let part = graph.in_order(&part, &first.perm, &at);
        if (0..shape.len()).any(|i| i != axis && part.shape[i] != shape[i]) {
            return Err(node.bad("its inputs differ in more than one axis"));
        }
        shape[axis] += part.shape[axis];
        names.push(part.name);
    }
    let name = graph.node("Concat", &node.name, names, vec![AttributeProto::int("axis", axis as i64)]);
    Ok(Value { name, shape, ..first })
}

fn split(site: &Site, graph: &mut Graph) -> Converted {
    let node = site.node;
    let value = graph.padded(site.value(0)?, &node.name);
    let sizes = site.ints(1)?;
    let axis = value.perm[site.axis(site.first_int(2)?, value.rank())?];
    if sizes.iter().sum::<i64>() != value.shape[axis] || sizes.iter().any(|&n| n < 1) {
        return Err(node.bad(format!("parts of {sizes:?} of an axis of {}", value.shape[axis])));
    }
    let list = graph.ints(format!("{}/parts", node.name), sizes);
    let names: Vec<String> = (0..sizes.len()).map(|i| format!("{}/{i}", node.name)).collect();
    let attribute = vec![AttributeProto::int("axis", axis as i64)];
    graph.nodes("Split", &node.name, vec![value.name.clone(), list], names.clone(), attribute);
    let part = |(name, &size): (String, &i64)| {
        let mut shape = value.shape.clone();
        shape[axis] = size;
        Operand::Value(Value { name, shape, ..value.clone() })
    };
    Ok(names.into_iter().zip(sizes).map(part).collect())
}

fn mean(site: &Site, graph: &mut Graph) -> Result<Value, ConvertError> {
    let node = site.node;
    let value = graph.padded(site.value(0)?, &node.name);
    if !node.flag("keep_dims") {
        return Err(node.bad("without keep_dims it is not supported"));
    }
    let axes = site.ints(1)?.iter().map(|&a| Ok(value.perm[site.axis(a, value.rank())?]));
    let mut axes = axes.collect::<Result<Vec<_>, ConvertError>>()?;
    axes.sort_unstable();
    let mut shape = value.shape.clone();
    axes.iter().for_each(|&axis| shape[axis] = 1);
    let attribute = vec![
        AttributeProto::ints("axes", axes.iter().map(|&a| a as i64)),
        AttributeProto::int("keepdims", 1),
    ];
    let name = graph.node("ReduceMean", &node.name, vec![value.name.clone()], attribute);
    Ok(Value { name, shape, ..value })
}

fn reshape(site: &Site, graph: &mut Graph) -> Result<Value, ConvertError> {
    let node = site.node;
    let value = graph.plain(site.value(0)?, &node.name);
    let mut shape = site.ints(1)?.to_vec();
    let total: i64 = value.shape.iter().product();
    let known: i64 = shape.iter().filter(|&&n| n != -1).product();
    if let Some(free) = shape.iter().position(|&n| n == -1) {
        shape[free] = if known > 0 { total / known } else { 0 };
    }
    if shape.iter().any(|&n| n < 1) || shape.iter().product::<i64>() != total {
        return Err(node.bad(format!("{:?} does not become {shape:?}", value.shape)));
    }
    let target = graph.ints(format!("{}/shape", node.name), &shape);
    let name = graph.node("Reshape", &node.name, vec![value.name, target], vec![]);
    Ok(Value::plain(name, shape))
}

/// The outputs of a constant or placeholder, which need no conversion.
pub(crate) fn source(
    node: &Node,
    weights: &HashMap<String, Tensor>,
    graph_inputs: &mut Vec<(String, Vec<i64>)>,
) -> Option<Converted> {
    match node.op.as_str() {
        "Const" => Some(match weights.get(&node.name) {
            Some(tensor) => Ok(vec![Operand::Constant(tensor.clone())]),
            None => Err(node.bad("the weights lack it")),
        }),
        "Placeholder" => {
            let shape = node.shape().filter(|s| s.iter().all(|d| (1..1 << 20).contains(d)));
            Some(match shape {
                Some(shape) => {
                    graph_inputs.push((node.name.clone(), shape.clone()));
                    Ok(vec![Operand::Value(Value::plain(node.name.clone(), shape))])
                }
                None => Err(node.bad("an input without a fixed shape is not supported")),
            })
        }
        _ => None,
    }
}

/// A tensor of integers.
pub(crate) fn integers(shape: Vec<i64>, values: Vec<i64>) -> Tensor {
    Tensor { shape, data: Data::Int(values) }
}
