//! The YOLO family: one list of boxes, each a centre, a size and scores.

use super::{CLASSES, Raw, STRIDES, best, grid};

fn around(class: aits_orders::ObjectClass, score: f32, centre: [f32; 2], size: [f32; 2]) -> Raw {
    let ([x, y], [w, h]) = (centre, [size[0] / 2.0, size[1] / 2.0]);
    Raw { class, score, sides: [x - w, y - h, x + w, y + h] }
}

/// YOLOX: centre relative to the cell's corner, logarithm of the size, both in cells (Ge et al. 2021, arXiv:2107.08430).
pub(super) fn decode_yolox(input: [u32; 2], rows: &[f32], floor: f32) -> Vec<Raw> {
    let cells = grid(input, &STRIDES).zip(rows.chunks_exact(5 + CLASSES));
    let found = cells.filter_map(|((stride, x, y), row)| {
        let object = row[4];
        let (class, score) = likely(object, &row[5..], floor)?;
        let centre = [(row[0] + x) * stride, (row[1] + y) * stride];
        Some(around(class, score, centre, [row[2].exp() * stride, row[3].exp() * stride]))
    });
    found.collect()
}

/// YOLOv5 and v7: rows in pixels.
pub(super) fn decode_v5(rows: &[f32], floor: f32) -> Vec<Raw> {
    let found = rows.chunks_exact(5 + CLASSES).filter_map(|row| {
        let (class, score) = likely(row[4], &row[5..], floor)?;
        Some(around(class, score, [row[0], row[1]], [row[2], row[3]]))
    });
    found.collect()
}

/// YOLOv8 to v11: columns in pixels, no score for "object".
pub(super) fn decode_v8(columns: &[f32], floor: f32) -> Vec<Raw> {
    let count = columns.len() / (4 + CLASSES);
    let found = (0..count).filter_map(|cell| {
        let at = |row: usize| columns[row * count + cell];
        let (class, score) = best(|i| at(4 + i), floor)?;
        Some(around(class, score, [at(0), at(1)], [at(2), at(3)]))
    });
    found.collect()
}

fn likely(object: f32, classes: &[f32], floor: f32) -> Option<(aits_orders::ObjectClass, f32)> {
    // Most cells see nothing: do not look at their eighty classes.
    if object >= floor { best(|i| object * classes[i], floor) } else { None }
}

#[cfg(test)]
mod tests {
    use aits_orders::ObjectClass;

    use super::*;

    #[test]
    fn yolox_cells_are_decoded_by_stride() {
        let mut rows = vec![0.0_f32; (64 + 16 + 4) * 85];
        // The second level (stride 16), column 3, row 1.
        let row = &mut rows[(64 + 4 + 3) * 85..][..85];
        row[..5].copy_from_slice(&[0.5, 0.25, 2_f32.ln(), 1_f32.ln(), 0.9]);
        row[5 + 7] = 0.8;
        let found = decode_yolox([64, 64], &rows, 0.3);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].class, ObjectClass::Truck);
        assert!((found[0].score - 0.72).abs() < 1e-6);
        let wanted = [40.0, 12.0, 72.0, 28.0];
        assert!(found[0].sides.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
    }

    #[test]
    fn the_decoded_kinds_agree_with_each_other() {
        let mut five = vec![0.0_f32; 2 * 85];
        five[85..89].copy_from_slice(&[30.0, 40.0, 20.0, 10.0]);
        five[89] = 1.0;
        five[90] = 0.5;
        let mut eight = vec![0.0_f32; 84 * 2];
        for (row, value) in [30.0, 40.0, 20.0, 10.0, 0.5].into_iter().enumerate() {
            eight[row * 2 + 1] = value;
        }
        let wanted = [Raw { class: ObjectClass::Person, score: 0.5, sides: [20.0, 35.0, 40.0, 45.0] }];
        assert_eq!(decode_v5(&five, 0.3), wanted);
        assert_eq!(decode_v8(&eight, 0.3), wanted);
    }
}
