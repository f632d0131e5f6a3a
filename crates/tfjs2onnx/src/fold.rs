//! Operations on constants alone are done here and now: what is left of a model's shape arithmetic.

use crate::{
    ConvertError,
    graph::Operand,
    ops::{Site, integers},
    tfjs::Tensor,
};

/// The result, if all inputs are constants.
pub(crate) fn fold(site: &Site) -> Result<Option<Tensor>, ConvertError> {
    let constants: Option<Vec<&Tensor>> = site
        .inputs
        .iter()
        .map(|input| match input {
            Operand::Constant(tensor) => Some(tensor),
            Operand::Value(_) => None,
        })
        .collect();
    let Some(constants) = constants else { return Ok(None) };
    let node = site.node;
    let ints = |index: usize| {
        let list = constants.get(index).and_then(|t| t.ints());
        list.ok_or_else(|| node.bad(format!("constant input {index} is not of an integer type")))
    };
    match node.op.as_str() {
        "Identity" if constants.len() == 1 => Ok(Some(constants[0].clone())),
        "Add" | "AddV2" => {
            let (left, right) = (ints(0)?, ints(1)?);
            if constants[0].shape != constants[1].shape {
                return Err(node.bad("two constants of different shapes"));
            }
            let sums = left.iter().zip(right).map(|(a, b)| a.checked_add(*b));
            let sums = sums.collect::<Option<Vec<_>>>().ok_or_else(|| node.bad("the sum is too large"))?;
            Ok(Some(integers(constants[0].shape.clone(), sums)))
        }
        "SparseToDense" => sparse_to_dense(ints(0)?, ints(1)?, ints(2)?, ints(3)?)
            .map(Some)
            .ok_or_else(|| node.bad("its indices, shape and values do not fit together")),
        _ => Err(ConvertError::UnknownOperation {
            op: format!("{} (of constants)", node.op),
            node: node.name.clone(),
        }),
    }
}

/// One-dimensional only: that is what shapes are.
fn sparse_to_dense(indices: &[i64], shape: &[i64], values: &[i64], default: &[i64]) -> Option<Tensor> {
    let &[len] = shape else { return None };
    let len = usize::try_from(len).ok().filter(|&n| n <= 64)?;
    let mut dense = vec![*default.first()?; len];
    if indices.len() != values.len() {
        return None;
    }
    for (&index, &value) in indices.iter().zip(values) {
        *dense.get_mut(usize::try_from(index).ok()?)? = value;
    }
    Some(integers(shape.to_vec(), dense))
}
