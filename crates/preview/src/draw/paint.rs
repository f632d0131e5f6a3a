//! Rectangles on a canvas.

use std::ops::Range;

use aits_media::pixels::Canvas;

use super::Color;

/// A rectangle of whole pixels: `x0..x1`, `y0..y1`. Empty when an end is not beyond its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rect {
    /// Left edge, inside.
    pub x0: i32,
    /// Top edge, inside.
    pub y0: i32,
    /// Right edge, outside.
    pub x1: i32,
    /// Bottom edge, outside.
    pub y1: i32,
}

/// Width and height of a canvas as numbers that coordinates are compared with.
pub(super) fn size(canvas: &Canvas) -> (i32, i32) {
    // Sides of pictures are limited to aits_frame::MAX_SIDE.
    (canvas.width() as i32, canvas.height() as i32)
}

/// Paints the part of `rect` that lies on the picture. Chroma samples are painted wherever the rectangle touches one of
/// their four pixels, so that thin lines keep their colour.
pub fn fill(canvas: &mut Canvas, rect: Rect, color: Color) {
    let (width, height) = size(canvas);
    let (x0, x1) = (rect.x0.clamp(0, width), rect.x1.clamp(0, width));
    let (y0, y1) = (rect.y0.clamp(0, height), rect.y1.clamp(0, height));
    if x0 >= x1 || y0 >= y1 {
        return;
    }
    for (index, &value) in color.yuv.iter().enumerate() {
        let per_sample = if index == 0 { 1 } else { 2 };
        let mut plane = canvas.plane_mut(index);
        for y in samples(y0, y1, per_sample) {
            plane.row_mut(y)[samples(x0, x1, per_sample)].fill(value);
        }
    }
}

/// Paints the outline of `rect`, `thickness` pixels wide, inwards from its edges.
pub fn outline(canvas: &mut Canvas, rect: Rect, thickness: i32, color: Color) {
    let Rect { x0, y0, x1, y1 } = rect;
    if x0 >= x1 || y0 >= y1 {
        return;
    }
    let across = thickness.min(x1.saturating_sub(x0));
    let down = thickness.min(y1.saturating_sub(y0));
    fill(canvas, Rect { y1: y0.saturating_add(down), ..rect }, color);
    fill(canvas, Rect { y0: y1.saturating_sub(down), ..rect }, color);
    fill(canvas, Rect { x1: x0.saturating_add(across), ..rect }, color);
    fill(canvas, Rect { x0: x1.saturating_sub(across), ..rect }, color);
}

/// Paints the luma of one pixel, if it lies on the picture: for text on a filled background.
pub fn set_luma(canvas: &mut Canvas, x: i32, y: i32, value: u8) {
    let (width, height) = size(canvas);
    if (0..width).contains(&x) && (0..height).contains(&y) {
        canvas.plane_mut(0).row_mut(y as usize)[x as usize] = value;
    }
}

/// The samples that pixels `from..to` touch; `0 <= from < to`.
fn samples(from: i32, to: i32, per_sample: usize) -> Range<usize> {
    from as usize / per_sample..(to as usize).div_ceil(per_sample)
}

#[cfg(test)]
pub(crate) mod tests {
    use aits_frame::{Picture, PictureLayout};
    use aits_media::pixels::I420;
    use proptest::prelude::*;

    use super::*;

    /// A canvas of this size, grey all over.
    pub(crate) fn canvas(width: u32, height: u32) -> Canvas {
        let layout =
            PictureLayout { range: aits_frame::ColorRange::Full, ..PictureLayout::tight(width, height) };
        let block = layout.draw(|_, _, _| GREY);
        let mut canvas = Canvas::new();
        canvas.load(&I420::from(&Picture::parse(&block).unwrap()), 1);
        canvas
    }

    const GREY: u8 = 99;

    /// How many samples of plane `index` are no longer grey.
    pub(crate) fn painted(canvas: &mut Canvas, index: usize) -> usize {
        let mut plane = canvas.plane_mut(index);
        (0..plane.height).map(|y| plane.row_mut(y).iter().filter(|&&v| v != GREY).count()).sum()
    }

    /// One luma sample.
    pub(crate) fn luma(canvas: &mut Canvas, x: usize, y: usize) -> u8 {
        canvas.plane_mut(0).row_mut(y)[x]
    }

    const RED: Color = Color { yuv: [200, 201, 202] };

    #[test]
    fn an_odd_picture_is_filled_to_its_last_sample() {
        let mut canvas = canvas(33, 17);
        fill(&mut canvas, Rect { x0: -5, y0: -5, x1: 100, y1: 100 }, RED);
        assert_eq!([0, 1, 2].map(|i| painted(&mut canvas, i)), [33 * 17, 17 * 9, 17 * 9]);
    }

    #[test]
    fn an_outline_is_a_ring_of_its_thickness() {
        let mut canvas = canvas(40, 40);
        outline(&mut canvas, Rect { x0: 10, y0: 10, x1: 30, y1: 20 }, 2, RED);
        assert_eq!(painted(&mut canvas, 0), 20 * 10 - 16 * 6);
        assert_eq!((luma(&mut canvas, 10, 10), luma(&mut canvas, 12, 12)), (200, GREY));
        assert_eq!(canvas.plane_mut(1).row_mut(5)[5], 201);
    }

    #[test]
    fn outside_every_edge_nothing_is_painted() {
        for rect in [
            Rect { x0: -20, y0: 5, x1: -1, y1: 9 },
            Rect { x0: 40, y0: 5, x1: 60, y1: 9 },
            Rect { x0: 5, y0: -9, x1: 9, y1: 0 },
            Rect { x0: 5, y0: 40, x1: 9, y1: i32::MAX },
            Rect { x0: 9, y0: 9, x1: 5, y1: 5 },
        ] {
            let mut canvas = canvas(40, 40);
            outline(&mut canvas, rect, 2, RED);
            fill(&mut canvas, rect, RED);
            assert_eq!(painted(&mut canvas, 0), 0, "{rect:?}");
        }
    }

    proptest! {
        /// Any rectangle on any picture: exactly the pixels in the intersection change.
        #[test]
        fn fill_paints_the_intersection(
            width in 1_u32..70, height in 1_u32..70,
            x0 in any::<i32>(), y0 in -80_i32..80, x1 in -80_i32..160, y1 in any::<i32>(), thickness in 0_i32..9,
        ) {
            let mut canvas = canvas(width, height);
            fill(&mut canvas, Rect { x0, y0, x1, y1 }, RED);
            let across = i64::from(x1.clamp(0, width as i32)) - i64::from(x0.clamp(0, width as i32));
            let down = i64::from(y1.clamp(0, height as i32)) - i64::from(y0.clamp(0, height as i32));
            prop_assert_eq!(painted(&mut canvas, 0) as i64, across.max(0) * down.max(0));
            outline(&mut canvas, Rect { x0, y0, x1, y1 }, thickness, RED);
            set_luma(&mut canvas, x0, y1, 1);
        }
    }
}
