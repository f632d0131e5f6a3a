//! Non-maximum suppression: of boxes that mean the same object, the best stays.

use aits_orders::ObjectClass;

use crate::{BBox, Detection};

/// Overlap from which two boxes of one class are one object.
const SAME_CLASS: f32 = 0.5;
/// Overlap from which two boxes of different classes of motor vehicles are one object: a van is called car, truck and
/// bus at once, but nothing is in the same place as another vehicle.
const SAME_PLACE: f32 = 0.7;

/// Overlap of two boxes: intersection over union.
pub(crate) fn iou(a: &BBox, b: &BBox) -> f32 {
    let width = a.x2.min(b.x2) - a.x1.max(b.x1);
    let height = a.y2.min(b.y2) - a.y1.max(b.y1);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let area = |r: &BBox| (r.x2 - r.x1) * (r.y2 - r.y1);
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}

fn motor_vehicle(class: ObjectClass) -> bool {
    matches!(class, ObjectClass::Car | ObjectClass::Truck | ObjectClass::Bus)
}

/// Keeps the best detection of each object, in descending order of score. The order of the input does not matter.
pub(crate) fn suppress(mut found: Vec<Detection>) -> Vec<Detection> {
    let key = |d: &Detection| <[f32; 4]>::from(d.bbox);
    found.sort_by(|a, b| {
        let places = || key(a).iter().zip(key(b)).map(|(x, y)| x.total_cmp(&y)).find(|o| o.is_ne());
        b.score.total_cmp(&a.score).then_with(|| places().unwrap_or(a.class.cmp(&b.class)))
    });
    let mut kept: Vec<Detection> = Vec::new();
    for candidate in found {
        let known = kept.iter().any(|k| {
            let overlap = iou(&k.bbox, &candidate.bbox);
            (k.class == candidate.class && overlap > SAME_CLASS)
                || (motor_vehicle(k.class) && motor_vehicle(candidate.class) && overlap > SAME_PLACE)
        });
        if !known {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f32, class: ObjectClass, score: f32) -> Detection {
        Detection { class, score, bbox: BBox { x1: x, y1: 0.0, x2: x + 10.0, y2: 10.0 } }
    }

    #[test]
    fn the_best_of_each_object_stays() {
        let found = vec![
            at(1.0, ObjectClass::Car, 0.5),
            at(0.0, ObjectClass::Car, 0.9),
            at(0.5, ObjectClass::Truck, 0.6),
            at(0.5, ObjectClass::Person, 0.4),
            at(30.0, ObjectClass::Car, 0.3),
        ];
        let expected = [found[1], found[3], found[4]];
        assert_eq!(suppress(found.clone()), expected);
        let mut turned = found;
        turned.reverse();
        assert_eq!(suppress(turned), expected);
    }

    #[test]
    fn overlap_of_halves() {
        assert_eq!(
            iou(&at(0.0, ObjectClass::Car, 1.0).bbox, &at(5.0, ObjectClass::Car, 1.0).bbox),
            1.0 / 3.0
        );
        assert_eq!(iou(&at(0.0, ObjectClass::Car, 1.0).bbox, &at(10.0, ObjectClass::Car, 1.0).bbox), 0.0);
    }
}
