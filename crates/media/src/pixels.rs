//! I420 pixels outside FFmpeg: a borrowed picture, and a canvas to draw on before it becomes a JPEG.
//!
//! ```text
//!  block (read-only, limited range, any stride) ── Canvas::load(shrink) ──▶ canvas (writable, full range, even size)
//!                                                                             │ draw boxes
//!                                                                             ▼
//!                                                                     jpeg::Encoder::encode_canvas
//! ```
//!
//! One pass does everything that a preview needs: it copies the pixels out of the block (which nobody may write),
//! makes the picture smaller by a whole factor, and stretches luma and chroma from the limited range of video (16–235,
//! 16–240) to the full range that a JPEG means (ITU-T T.871). Without that last step a picture looks washed out.
//!
//! Failure paths: none; sizes were checked when the picture was parsed ([`Picture`]).

use aits_frame::{ColorRange, Picture, Plane};

/// Largest factor of [`Canvas::load`]: a sum of 16 × 16 bytes still fits into 16 bits.
pub const MAX_SHRINK: usize = 16;

/// A borrowed I420 picture: Y at full size, U and V at half width and height (rounded up).
#[derive(Clone, Copy, Debug)]
pub struct I420<'a> {
    planes: [Plane<'a>; 3],
    range: ColorRange,
}

impl<'a> From<&Picture<'a>> for I420<'a> {
    fn from(picture: &Picture<'a>) -> Self {
        Self { planes: [0, 1, 2].map(|index| picture.plane(index)), range: picture.layout().range }
    }
}

impl<'a> I420<'a> {
    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.planes[0].width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.planes[0].height
    }

    /// What 0 and 255 mean.
    pub fn range(&self) -> ColorRange {
        self.range
    }

    /// Plane 0 (Y), 1 (U) or 2 (V).
    ///
    /// # Panics
    /// If `index > 2`.
    pub fn plane(&self, index: usize) -> Plane<'a> {
        self.planes[index]
    }
}

/// The smallest whole factor that makes `width` pixels at most `max_width`, at most [`MAX_SHRINK`].
pub fn shrink_for(width: usize, max_width: usize) -> usize {
    width.div_ceil(max_width.max(1)).clamp(1, MAX_SHRINK)
}

/// A writable plane of a [`Canvas`].
#[derive(Debug)]
pub struct PlaneMut<'a> {
    /// The bytes of the plane, `stride × height` of them at least.
    pub data: &'a mut [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Visible pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl PlaneMut<'_> {
    /// Row `y`, `width` bytes long.
    ///
    /// # Panics
    /// If `y >= height`.
    pub fn row_mut(&mut self, y: usize) -> &mut [u8] {
        assert!(y < self.height, "row {y} of a plane of {} rows", self.height);
        &mut self.data[y * self.stride..][..self.width]
    }
}

/// A picture of our own to draw on: I420, full range. Its memory is kept from one [`load`](Canvas::load) to the next.
#[derive(Default, Debug)]
pub struct Canvas {
    width: usize,
    height: usize,
    data: Vec<u8>,
    sums: Vec<u16>,
}

impl Canvas {
    /// An empty canvas; nothing is allocated before the first [`load`](Canvas::load).
    pub fn new() -> Self {
        Self::default()
    }

    /// Width in pixels; 0 before the first [`load`](Canvas::load).
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels; 0 before the first [`load`](Canvas::load).
    pub fn height(&self) -> usize {
        self.height
    }

    /// Copies `from` into the canvas, `shrink` times smaller in both directions (each pixel the mean of a box), in full
    /// range. `shrink` is taken as 1 … [`MAX_SHRINK`]; the new size is rounded down, but never to 0.
    pub fn load(&mut self, from: &I420<'_>, shrink: usize) {
        let shrink = shrink.clamp(1, MAX_SHRINK);
        self.width = (from.width() / shrink).max(1);
        self.height = (from.height() / shrink).max(1);
        let (_, end) = self.place(2);
        self.data.resize(end, 0);
        let limited = from.range() == ColorRange::Limited;
        for index in 0..3 {
            let (start, end) = self.place(index);
            let (stride, rows) = self.padded(index);
            let (width, height) = self.visible(index);
            let target = &mut self.data[start..end];
            for y in 0..height {
                let row = &mut target[y * stride..][..stride];
                shrink_row(&from.plane(index), y, shrink, &mut row[..width], &mut self.sums);
                match (limited, index) {
                    (false, _) => {}
                    (true, 0) => row[..width].iter_mut().for_each(|p| *p = full_luma(*p)),
                    (true, _) => row[..width].iter_mut().for_each(|p| *p = full_chroma(*p)),
                }
                let edge = row[width - 1];
                row[width..].fill(edge);
            }
            for y in height..rows {
                target.copy_within((height - 1) * stride..height * stride, y * stride);
            }
        }
    }

    /// Plane 0 (Y), 1 (U) or 2 (V), to draw on.
    ///
    /// # Panics
    /// If `index > 2`.
    pub fn plane_mut(&mut self, index: usize) -> PlaneMut<'_> {
        let (start, end) = self.place(index);
        let (stride, _) = self.padded(index);
        let (width, height) = self.visible(index);
        PlaneMut { data: &mut self.data[start..end], stride, width, height }
    }

    /// All bytes of a plane with its stride. Luma has an even number of columns and rows; the added ones repeat the edge.
    pub(crate) fn padded_plane(&self, index: usize) -> (&[u8], usize) {
        let (start, end) = self.place(index);
        (&self.data[start..end], self.padded(index).0)
    }

    fn visible(&self, index: usize) -> (usize, usize) {
        assert!(index < 3, "an I420 picture has planes 0, 1, 2");
        match index {
            0 => (self.width, self.height),
            _ => (self.width.div_ceil(2), self.height.div_ceil(2)),
        }
    }

    fn padded(&self, index: usize) -> (usize, usize) {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        if index == 0 { (width * 2, height * 2) } else { (width, height) }
    }

    /// First byte and end of a plane in `data`.
    fn place(&self, index: usize) -> (usize, usize) {
        let (width, height) = self.padded(1);
        let plane = width * height;
        match index {
            0 => (0, 4 * plane),
            1 => (4 * plane, 5 * plane),
            _ => (5 * plane, 6 * plane),
        }
    }
}

/// Row `y` of the smaller picture: the mean over boxes of `shrink × shrink` pixels, cut at the edges of the plane.
fn shrink_row(from: &Plane<'_>, y: usize, shrink: usize, to: &mut [u8], sums: &mut Vec<u16>) {
    if shrink == 1 {
        to.copy_from_slice(&from.row(y)[..to.len()]);
        return;
    }
    let rows = (y * shrink)..((y + 1) * shrink).min(from.height);
    sums.clear();
    sums.resize(from.width, 0);
    let count = rows.len();
    for source in rows {
        for (sum, pixel) in sums.iter_mut().zip(from.row(source)) {
            *sum += u16::from(*pixel);
        }
    }
    for (pixel, column) in to.iter_mut().zip(sums.chunks(shrink)) {
        let area = (count * column.len()) as u32;
        let sum: u32 = column.iter().map(|s| u32::from(*s)).sum();
        *pixel = ((sum + area / 2) / area) as u8;
    }
}

/// 16 … 235 → 0 … 255; 298/256 is 255/219 rounded. Clamped first, so that it fits into 16 bits (219 · 298 + 128 =
/// 65,390) and the loop becomes vector code.
fn full_luma(y: u8) -> u8 {
    ((u16::from(y.clamp(16, 235) - 16) * 298 + 128) >> 8) as u8
}

/// 16 … 240 around 128 → 0 … 255; 291/256 is 255/224 rounded (112 · 291 + 128 = 32,720 fits into an `i16`).
fn full_chroma(c: u8) -> u8 {
    let centred = i16::from(c.clamp(16, 240)) - 128;
    (((centred * 291 + 128) >> 8) + 128).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use aits_frame::PictureLayout;
    use proptest::prelude::*;

    use super::*;

    fn block(
        width: u32,
        height: u32,
        range: ColorRange,
        pixel: impl Fn(usize, usize, usize) -> u8,
    ) -> Vec<u8> {
        PictureLayout { range, ..PictureLayout::tight(width, height) }.draw(pixel)
    }

    #[test]
    fn limited_range_is_stretched_to_full_range() {
        assert_eq!((full_luma(0), full_luma(16), full_luma(235), full_luma(255)), (0, 0, 255, 255));
        assert_eq!((full_chroma(16), full_chroma(128), full_chroma(240)), (1, 128, 255));
        for y in 16..=235_u8 {
            let exact = f64::from(y - 16) * 255.0 / 219.0;
            assert!((f64::from(full_luma(y)) - exact).abs() <= 1.0, "luma {y}");
        }
    }

    #[test]
    fn a_factor_is_found_for_every_width() {
        assert_eq!(shrink_for(640, 1280), 1);
        assert_eq!(shrink_for(1920, 1280), 2);
        assert_eq!(shrink_for(3840, 1280), 3);
        assert_eq!(shrink_for(16_384, 0), MAX_SHRINK);
    }

    proptest! {
        /// A plane of one value keeps it at every size and factor, in the visible part and in the padding.
        #[test]
        fn a_flat_picture_stays_flat(
            width in 1_u32..70, height in 1_u32..70, shrink in 1_usize..20, value in any::<u8>(),
        ) {
            let block = block(width, height, ColorRange::Full, |plane, _, _| value.wrapping_add(plane as u8));
            let picture = Picture::parse(&block).unwrap();
            let mut canvas = Canvas::new();
            canvas.load(&I420::from(&picture), shrink);
            for plane in 0..3 {
                let (data, _) = canvas.padded_plane(plane);
                prop_assert!(!data.is_empty());
                prop_assert!(data.iter().all(|p| *p == value.wrapping_add(plane as u8)));
            }
        }

        /// Without shrinking, a full-range picture is copied pixel by pixel.
        #[test]
        fn factor_one_copies(width in 1_u32..40, height in 1_u32..40) {
            let block = block(width, height, ColorRange::Full, |p, x, y| (p * 91 + x * 7 + y * 13) as u8);
            let picture = Picture::parse(&block).unwrap();
            let mut canvas = Canvas::new();
            canvas.load(&I420::from(&picture), 1);
            for index in 0..3 {
                let mut plane = canvas.plane_mut(index);
                for y in 0..plane.height {
                    prop_assert_eq!(&*plane.row_mut(y), picture.plane(index).row(y));
                }
            }
        }
    }
}
