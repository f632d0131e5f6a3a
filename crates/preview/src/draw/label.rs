//! Text: the 8×8 bitmap font of the IBM PC (public domain, crate `font8x8`), whole multiples of its size.

use aits_media::pixels::Canvas;
use font8x8::legacy::BASIC_LEGACY;

use super::{Color, Rect, fill, set_luma};

/// Pixels of a glyph at scale 1.
const CELL: i32 = 8;
/// Longest label that is drawn; the rest is left out.
const MAX_CHARS: usize = 48;

/// Width and height in pixels of the label that [`draw_label`] paints: the text and a margin of `scale` × 2 pixels.
pub fn label_size(text: &str, scale: i32) -> (i32, i32) {
    let chars = text.chars().take(MAX_CHARS).count() as i32;
    ((chars * CELL + 4) * scale, (CELL + 4) * scale)
}

/// Paints `text` on a filled background whose top left corner is (`x`, `y`). Text is black or white, whichever differs
/// more from the background. What is not ASCII becomes `?`; what lies outside the picture is cut off.
pub fn draw_label(canvas: &mut Canvas, x: i32, y: i32, text: &str, scale: i32, background: Color) {
    let (width, height) = label_size(text, scale);
    let area = Rect { x0: x, y0: y, x1: x.saturating_add(width), y1: y.saturating_add(height) };
    fill(canvas, area, background);
    let ink = if background.yuv[0] > 100 { 0 } else { 255 };
    let margin = 2 * scale;
    for (i, c) in text.chars().take(MAX_CHARS).enumerate() {
        let left = x.saturating_add(margin + i as i32 * CELL * scale);
        draw_glyph(canvas, left, y.saturating_add(margin), c, scale, ink);
    }
}

fn draw_glyph(canvas: &mut Canvas, left: i32, top: i32, c: char, scale: i32, ink: u8) {
    let rows = BASIC_LEGACY.get(c as usize).unwrap_or(&BASIC_LEGACY['?' as usize]);
    for (row, bits) in (0_i32..).zip(rows) {
        // Bit 0 is the leftmost pixel.
        for column in (0..CELL).filter(|column| bits >> column & 1 == 1) {
            for dy in 0..scale {
                for dx in 0..scale {
                    set_luma(
                        canvas,
                        left.saturating_add(column * scale + dx),
                        top.saturating_add(row * scale + dy),
                        ink,
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::paint::tests::{canvas, luma, painted};
    use super::*;

    const GREEN: Color = Color { yuv: [145, 54, 34] };

    #[test]
    fn a_label_fills_its_size_and_has_ink_in_it() {
        let mut canvas = canvas(100, 40);
        draw_label(&mut canvas, 10, 10, "car 12", 1, GREEN);
        let (w, h) = label_size("car 12", 1);
        assert_eq!(painted(&mut canvas, 0), (w * h) as usize);
        let pixels = (0..40).flat_map(|y| (0..100).map(move |x| (x, y)));
        let ink = pixels.filter(|&(x, y)| luma(&mut canvas, x, y) == 0).count();
        // Six glyphs, one of them blank, of at most 64 pixels.
        assert!((40..5 * 64).contains(&ink), "{ink} pixels of ink");
    }

    #[test]
    fn labels_over_every_edge_are_cut_off() {
        for (x, y) in [(-20, 5), (95, 5), (5, -6), (5, 38), (i32::MAX, i32::MIN), (i32::MIN, i32::MAX)] {
            let mut canvas = canvas(100, 40);
            draw_label(&mut canvas, x, y, "truck 1 ü", 2, GREEN);
            assert!(painted(&mut canvas, 0) < 100 * 40);
        }
    }
}
