//! Boxes as the tracker thinks of them, and how alike two of them are.

use aits_orders::BBox;

/// Largest coordinate that is believed, in pixels: video is at most 16,384 wide.
const FARTHEST: f32 = 1e5;

/// A box by its centre and size.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Shape {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

impl Shape {
    /// The box, if it is one: finite, in reach, with an area.
    pub fn new(b: &BBox) -> Option<Self> {
        let sides = [b.x1, b.y1, b.x2, b.y2];
        let sound = sides.iter().all(|v| v.is_finite() && v.abs() <= FARTHEST);
        let (width, height) = (b.x2 - b.x1, b.y2 - b.y1);
        (sound && width > 0.0 && height > 0.0).then_some(Self {
            x: b.x1 + width / 2.0,
            y: b.y1 + height / 2.0,
            width,
            height,
        })
    }

    /// The box, larger by `share` of its size on each side.
    fn grown(&self, share: f32) -> [f32; 4] {
        let (w, h) = (self.width * (0.5 + share), self.height * (0.5 + share));
        [self.x - w, self.y - h, self.x + w, self.y + h]
    }

    /// Intersection over union of both boxes, each larger by `share` of its size on each side. Growing lets boxes meet
    /// that have moved apart by less than their size (the buffered IoU of Yang et al. 2023, arXiv:2211.14317).
    pub fn likeness(&self, other: &Self, share: f32) -> f32 {
        let (a, b) = (self.grown(share), other.grown(share));
        let width = a[2].min(b[2]) - a[0].max(b[0]);
        let height = a[3].min(b[3]) - a[1].max(b[1]);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let area = |r: [f32; 4]| (r[2] - r[0]) * (r[3] - r[1]);
        let shared = width * height;
        shared / (area(a) + area(b) - shared)
    }
}
