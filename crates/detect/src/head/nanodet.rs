//! NanoDet: each side of a box is a distribution over `bins` distances, whose mean counts (generalised focal loss,
//! Li et al. 2020, arXiv:2006.04388).

use super::{CLASSES, Raw, STRIDES, best, cells, cells_of, grid};

/// Strides of NanoDet-Plus.
const STRIDES_PLUS: [u32; 4] = [8, 16, 32, 64];

/// Which output holds what.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    levels: Vec<Level>,
    bins: usize,
    /// Where in its cell a centre is, in cells: NanoDet-Plus moved it to the corner.
    centre: f32,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    stride: u32,
    /// Output and column of the class scores, and columns of that output.
    classes: (usize, usize, usize),
    /// Row in that output of the level's first cell.
    first: usize,
    /// The same for the distances.
    sides: (usize, usize, usize),
}

impl Layout {
    /// The layout of outputs of these shapes, if they are NanoDet's.
    pub fn new(input: [u32; 2], outputs: &[Vec<i64>]) -> Option<Self> {
        let shapes: Option<Vec<(usize, usize)>> = outputs
            .iter()
            .map(|shape| match shape.as_slice() {
                &[1, rows, columns] => Some((usize::try_from(rows).ok()?, usize::try_from(columns).ok()?)),
                _ => None,
            })
            .collect();
        let shapes = shapes?;
        if let &[(rows, columns)] = shapes.as_slice() {
            return Self::in_one(input, rows, columns);
        }
        let mut levels = Vec::new();
        let mut bins = None;
        for stride in STRIDES {
            let cells = cells_of(input, stride);
            let find = |wanted: &dyn Fn(usize) -> bool| {
                let mut hits = (0..shapes.len()).filter(|&i| shapes[i].0 == cells && wanted(shapes[i].1));
                hits.next().filter(|_| hits.next().is_none())
            };
            let classes = find(&|columns| columns == CLASSES)?;
            let sides = find(&|columns| columns != CLASSES && columns % 4 == 0 && columns >= 8)?;
            let columns = shapes[sides].1;
            if *bins.get_or_insert(columns / 4) != columns / 4 {
                return None;
            }
            levels.push(Level {
                stride,
                classes: (classes, 0, CLASSES),
                first: 0,
                sides: (sides, 0, columns),
            });
        }
        (levels.len() * 2 == shapes.len()).then_some(Self { levels, bins: bins?, centre: 0.5 })
    }

    fn in_one(input: [u32; 2], rows: usize, columns: usize) -> Option<Self> {
        let plus = rows == cells(input, &STRIDES_PLUS);
        let sides = columns.checked_sub(CLASSES)?;
        if !(plus || rows == cells(input, &STRIDES)) || sides < 8 || sides % 4 != 0 {
            return None;
        }
        let strides: &[u32] = if plus { &STRIDES_PLUS } else { &STRIDES };
        let mut first = 0;
        let level = |&stride: &u32| {
            let start = first;
            first += cells_of(input, stride);
            Level { stride, classes: (0, 0, columns), first: start, sides: (0, CLASSES, columns) }
        };
        let levels = strides.iter().map(level).collect();
        Some(Self { levels, bins: sides / 4, centre: if plus { 0.0 } else { 0.5 } })
    }

    /// All detections with at least this score.
    pub fn decode(&self, input: [u32; 2], outputs: &[&[f32]], floor: f32) -> Vec<Raw> {
        let mut found = Vec::new();
        for level in &self.levels {
            let cells = cells_of(input, level.stride);
            let row = |(output, column, columns): (usize, usize, usize), cell: usize, len: usize| {
                let from = (level.first + cell) * columns + column;
                outputs.get(output).and_then(|values| values.get(from..from + len))
            };
            for (cell, (stride, x, y)) in grid(input, &[level.stride]).enumerate().take(cells) {
                let Some(scores) = row(level.classes, cell, CLASSES) else { break };
                let Some((class, score)) = best(|i| scores[i], floor) else { continue };
                let Some(sides) = row(level.sides, cell, 4 * self.bins) else { break };
                let [left, top, right, bottom] =
                    [0, 1, 2, 3].map(|side| stride * mean(&sides[side * self.bins..][..self.bins]));
                let (cx, cy) = ((x + self.centre) * stride, (y + self.centre) * stride);
                found.push(Raw { class, score, sides: [cx - left, cy - top, cx + right, cy + bottom] });
            }
        }
        found
    }
}

/// Mean of the distribution whose logits these are.
fn mean(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (step, &logit) in logits.iter().enumerate() {
        let weight = (logit - largest).exp();
        sum += weight;
        weighted += weight * step as f32;
    }
    weighted / sum
}

#[cfg(test)]
mod tests {
    use aits_orders::ObjectClass;

    use super::*;

    #[test]
    fn the_mean_of_a_sharp_distribution_is_its_peak() {
        assert!((mean(&[0.0, 0.0, 50.0, 0.0]) - 2.0).abs() < 1e-6);
        assert!((mean(&[1.0; 5]) - 2.0).abs() < 1e-6);
        assert!((mean(&[900.0, 900.0]) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn one_car_in_one_cell() {
        let input = [64, 64];
        let shapes: Vec<Vec<i64>> =
            [4, 16, 64].iter().flat_map(|&n| [vec![1, n, 44], vec![1, n, 80]]).collect();
        let layout = Layout::new(input, &shapes).unwrap();
        let mut outputs: Vec<Vec<f32>> = shapes.iter().map(|s| vec![0.0; (s[1] * s[2]) as usize]).collect();
        // Stride 16, cell (1, 2): the centre is at (24, 40); sides at 2, 1, 3 and 0 cells.
        let cell = 2 * 4 + 1;
        outputs[3][cell * 80 + 2] = 0.8;
        for (side, step) in [2, 1, 3, 0].into_iter().enumerate() {
            outputs[2][cell * 44 + side * 11 + step] = 60.0;
        }
        let views: Vec<&[f32]> = outputs.iter().map(Vec::as_slice).collect();
        let found = layout.decode(input, &views, 0.3);
        let car = Raw { class: ObjectClass::Car, score: 0.8, sides: [-8.0, 24.0, 72.0, 40.0] };
        assert_eq!(found, [car]);
    }
}
