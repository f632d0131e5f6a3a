//! Heads: what the outputs of a model mean.
//!
//! | head | outputs, for an input of W×H and C classes | box | score |
//! |---|---|---|---|
//! | NanoDet | per stride 8, 16, 32 a pair N×C and N×4(r+1), or all in one N×(C+4(r+1)) | distances to four sides, each the mean of a distribution over r+1 steps | class |
//! | YOLOX | N×(5+C), one row per cell of strides 8, 16, 32 | centre and log size relative to the cell | object · class |
//! | YOLOv5, v7 | N×(5+C), three rows per cell | centre and size in pixels | object · class |
//! | YOLOv8, v11 | (4+C)×N, one column per cell | centre and size in pixels | class |
//!
//! C is 80: the classes of COCO. The number of cells of an input size is known, so the shapes alone tell the heads apart.

mod nanodet;
mod yolo;

use std::fmt;

use aits_orders::ObjectClass;

use crate::pixels::Normal;

/// Number of classes of COCO.
const CLASSES: usize = 80;

/// Which of COCO's classes are road users.
const ROAD_USERS: [(usize, ObjectClass); 6] = [
    (0, ObjectClass::Person),
    (1, ObjectClass::Bicycle),
    (2, ObjectClass::Car),
    (3, ObjectClass::Motorcycle),
    (5, ObjectClass::Bus),
    (7, ObjectClass::Truck),
];

/// What the outputs of a model mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head {
    /// NanoDet and NanoDet-Plus.
    NanoDet,
    /// YOLOX, exported without decoding.
    Yolox,
    /// YOLOv5 and YOLOv7, exported with decoding.
    YoloV5,
    /// YOLOv8 to v11, exported with decoding and without suppression.
    YoloV8,
}

/// Which head a model has, as far as its user says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HeadChoice {
    /// Recognised by the outputs.
    #[default]
    Auto,
    /// NanoDet.
    NanoDet,
    /// YOLOX.
    Yolox,
    /// One of the YOLOv5 to v11 kinds, told apart by the outputs.
    Yolo,
}

impl Head {
    pub(crate) const ALL: [Self; 4] = [Self::NanoDet, Self::Yolox, Self::YoloV5, Self::YoloV8];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::NanoDet => "nanodet",
            Self::Yolox => "yolox",
            Self::YoloV5 => "yolov5",
            Self::YoloV8 => "yolov8",
        }
    }

    /// The score from which a detection deserves belief, chosen on two real road clips (`examples/boxes.rs` against
    /// the detections that come with them): where recall of vehicles begins to fall faster than precision rises.
    pub fn confident(self) -> f32 {
        match self {
            Self::NanoDet => 0.35,
            Self::Yolox => 0.4,
            Self::YoloV5 | Self::YoloV8 => 0.4,
        }
    }

    pub(crate) fn normal(self) -> Normal {
        let plain = Normal {
            bgr: false,
            mean: [0.0; 3],
            deviation: [255.0; 3],
            fill: 114.0,
            centred: true,
            stretch: false,
        };
        match self {
            // Trained on stretched pictures. The means and deviations are ImageNet's in the order blue, green, red, while
            // the model finds more with red first: measured on the road clips, .71/.67 and 1.0/.96 (recall/precision of
            // vehicles at 0.35) against .61/.58 and 1.0/.64 with blue first.
            Self::NanoDet => Normal {
                mean: [103.53, 116.28, 123.675],
                deviation: [57.375, 57.12, 58.395],
                stretch: true,
                ..plain
            },
            Self::Yolox => Normal { bgr: true, deviation: [1.0; 3], centred: false, ..plain },
            Self::YoloV5 | Self::YoloV8 => plain,
        }
    }

    /// The outputs of this head for an input, for people.
    pub(crate) fn describe(self, input: [u32; 2]) -> String {
        let cells = cells(input, &STRIDES);
        match self {
            Self::NanoDet => {
                let [a, b, c] = STRIDES.map(|s| cells_of(input, s));
                format!("nanodet ({a}, {b} and {c} rows of 80 and of 4(r+1) columns, or all in one)")
            }
            Self::Yolox => format!("yolox (1x{cells}x85)"),
            Self::YoloV5 => format!("yolov5 (1x{}x85)", 3 * cells),
            Self::YoloV8 => format!("yolov8 (1x84x{cells})"),
        }
    }

    /// How outputs of these shapes are read, if they are of this head.
    pub(crate) fn matches(self, input: [u32; 2], outputs: &[Vec<i64>]) -> Option<Decoder> {
        let cells = cells(input, &STRIDES) as i64;
        let classes = CLASSES as i64;
        match (self, outputs) {
            (Self::NanoDet, _) => nanodet::Layout::new(input, outputs).map(Decoder::NanoDet),
            (Self::Yolox, [one]) if **one == [1, cells, 5 + classes] => Some(Decoder::Yolox),
            (Self::YoloV5, [one]) if **one == [1, 3 * cells, 5 + classes] => Some(Decoder::YoloV5),
            (Self::YoloV8, [one]) if **one == [1, 4 + classes, cells] => Some(Decoder::YoloV8),
            _ => None,
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Strides that nearly all heads have: pixels of the input per cell.
const STRIDES: [u32; 3] = [8, 16, 32];

fn cells_of([width, height]: [u32; 2], stride: u32) -> usize {
    width.div_ceil(stride) as usize * height.div_ceil(stride) as usize
}

fn cells(input: [u32; 2], strides: &[u32]) -> usize {
    strides.iter().map(|&s| cells_of(input, s)).sum()
}

/// The cells of an input in the order in which heads list them: stride, column, row.
fn grid(input: [u32; 2], strides: &[u32]) -> impl Iterator<Item = (f32, f32, f32)> {
    strides.iter().flat_map(move |&stride| {
        let (columns, rows) = (input[0].div_ceil(stride), input[1].div_ceil(stride));
        (0..rows).flat_map(move |y| (0..columns).map(move |x| (stride as f32, x as f32, y as f32)))
    })
}

/// A detection in pixels of the input: left, top, right, bottom.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Raw {
    pub class: ObjectClass,
    pub score: f32,
    pub sides: [f32; 4],
}

/// How the outputs are read.
#[derive(Clone, Debug)]
pub(crate) enum Decoder {
    NanoDet(nanodet::Layout),
    Yolox,
    YoloV5,
    YoloV8,
}

impl Decoder {
    /// All detections with at least this score. `outputs` have the shapes that the decoder was made for.
    pub fn decode(&self, input: [u32; 2], outputs: &[&[f32]], floor: f32) -> Vec<Raw> {
        match (self, outputs) {
            (Self::NanoDet(layout), _) => layout.decode(input, outputs, floor),
            (Self::Yolox, [one]) => yolo::decode_yolox(input, one, floor),
            (Self::YoloV5, [one]) => yolo::decode_v5(one, floor),
            (Self::YoloV8, [one]) => yolo::decode_v8(one, floor),
            _ => Vec::new(),
        }
    }
}

/// The best road user among the class scores, if it has the score and nothing else is likelier.
fn best(scores: impl Fn(usize) -> f32, floor: f32) -> Option<(ObjectClass, f32)> {
    let mut top: Option<(usize, ObjectClass, f32)> = None;
    for (index, class) in ROAD_USERS {
        let score = scores(index);
        if score >= floor && top.is_none_or(|(_, _, s)| score > s) {
            top = Some((index, class, score));
        }
    }
    let (index, class, score) = top?;
    let other = (0..CLASSES).any(|i| i != index && scores(i) > score);
    (!other).then_some((class, score.min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_tell_the_heads_apart() {
        let recognise = |input, outputs: &[Vec<i64>]| {
            let heads = Head::ALL.into_iter().filter(|h| h.matches(input, outputs).is_some());
            heads.map(Head::name).collect::<Vec<_>>()
        };
        let square = [416, 416];
        assert_eq!(recognise(square, &[vec![1, 3549, 85]]), ["yolox"]);
        assert_eq!(recognise([640, 640], &[vec![1, 25200, 85]]), ["yolov5"]);
        assert_eq!(recognise([640, 640], &[vec![1, 84, 8400]]), ["yolov8"]);
        assert_eq!(recognise([640, 384], &[vec![1, 84, 5040]]), ["yolov8"]);
        let levels = |c: i64, b: i64| {
            [2704, 676, 169].iter().flat_map(|&n| [vec![1, n, c], vec![1, n, b]]).collect::<Vec<_>>()
        };
        assert_eq!(recognise(square, &levels(80, 44)), ["nanodet"]);
        assert_eq!(recognise(square, &[vec![1, 3598, 112]]), ["nanodet"]);
        assert_eq!(recognise(square, &levels(20, 44)), [""; 0]);
        assert_eq!(recognise(square, &[vec![1, 1000]]), [""; 0]);
        assert_eq!(recognise(square, &[]), [""; 0]);
    }

    #[test]
    fn what_is_likelier_something_else_is_no_road_user() {
        let scores = |dog: f32| {
            move |class| {
                if class == 2 {
                    0.5
                } else if class == 16 {
                    dog
                } else {
                    0.1
                }
            }
        };
        assert_eq!(best(scores(0.4), 0.3), Some((ObjectClass::Car, 0.5)));
        assert_eq!(best(scores(0.6), 0.3), None);
        assert_eq!(best(scores(0.4), 0.51), None);
        assert_eq!(best(|_| f32::NAN, 0.3), None);
    }
}
