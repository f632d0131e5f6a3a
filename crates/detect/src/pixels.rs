//! From the planes of a picture to the numbers that a model takes, touching each pixel as seldom as possible.
//!
//! The planes are scaled first (three small planes of equal size, the chroma ones too), then one pass over the small
//! picture converts colours and normalises. Scaling is area averaging when it shrinks and linear when it enlarges: rows
//! are summed with 8-bit weights into one row of 16-bit sums, which the compiler turns into vector code, then that row is
//! shrunk.

use aits_frame::{ColorRange, Picture, Plane};

use crate::Rect;

/// What a model wants its pixels to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Normal {
    /// Blue first instead of red.
    pub bgr: bool,
    /// Subtracted from the channels, in the order in which they are stored.
    pub mean: [f32; 3],
    /// What the channels are divided by afterwards.
    pub deviation: [f32; 3],
    /// Grey value (0…255) of what the picture does not cover.
    pub fill: f32,
    /// The picture is in the middle of the input instead of its upper left corner.
    pub centred: bool,
    /// The picture covers the whole input, whatever becomes of its proportions.
    pub stretch: bool,
}

/// Where a part of a picture lies in the input of a model.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Placement {
    /// The part, in pixels of the picture.
    pub source: Rect,
    /// The covered part of the input.
    pub target: Rect,
}

impl Placement {
    /// As large as fits into an input of this width and height.
    pub fn new(source: Rect, input: [u32; 2], normal: &Normal) -> Self {
        let [width, height] = input;
        if normal.stretch {
            return Self { source, target: Rect { x: 0, y: 0, width, height } };
        }
        let ratio =
            (f64::from(width) / f64::from(source.width)).min(f64::from(height) / f64::from(source.height));
        let side = |n: u32, max: u32| ((f64::from(n) * ratio).round() as u32).clamp(1, max);
        let (w, h) = (side(source.width, width), side(source.height, height));
        let (x, y) = if normal.centred { ((width - w) / 2, (height - h) / 2) } else { (0, 0) };
        Self { source, target: Rect { x, y, width: w, height: h } }
    }

    /// A point of the input as a point of the picture, inside the source.
    pub fn back(&self, x: f32, y: f32) -> (f32, f32) {
        let map = |v: f32, target: u32, target_len: u32, source: u32, source_len: u32| {
            let inside = (v - target as f32) * source_len as f32 / target_len as f32;
            source as f32 + inside.clamp(0.0, source_len as f32)
        };
        let (s, t) = (&self.source, &self.target);
        (map(x, t.x, t.width, s.x, s.width), map(y, t.y, t.height, s.y, s.height))
    }
}

/// The weights (sum 256) by which a run of source pixels make one target pixel.
struct Taps {
    first: usize,
    weights: Vec<u16>,
}

/// For each of `target` pixels, what it takes of the `source_len` pixels from `source_start` on (fractions of pixels
/// allowed; nothing outside `0..limit` is touched).
fn taps(source_start: f64, source_len: f64, limit: usize, target: usize) -> Vec<Taps> {
    let step = source_len / target as f64;
    let tap = |i: usize| {
        let mut shares = Vec::new();
        let first;
        if step > 1.0 {
            // Area: each source pixel by how much of it the target pixel covers.
            let (from, to) = (source_start + i as f64 * step, source_start + (i + 1) as f64 * step);
            first = (from.floor() as usize).min(limit - 1);
            let last = (to.ceil() as usize).clamp(first + 1, limit);
            shares.extend((first..last).map(|p| (to.min(p as f64 + 1.0) - from.max(p as f64)).max(0.0)));
        } else {
            // Linear between the centres of two source pixels.
            let centre = source_start + (i as f64 + 0.5) * step - 0.5;
            let low = centre.floor().clamp(0.0, limit as f64 - 1.0);
            first = low as usize;
            let share = (centre - low).clamp(0.0, 1.0);
            shares.extend([1.0 - share, share]);
            shares.truncate(limit - first);
        }
        // Rounded so that the sum is exact: a picture gets neither darker nor brighter, and 16 bits are enough.
        let total: f64 = shares.iter().sum();
        let (mut sum, mut given) = (0.0, 0);
        let weight = |share: &f64| {
            sum += share;
            let upto = if total > 0.0 { (sum / total * 256.0).round() as u16 } else { 256 };
            upto - std::mem::replace(&mut given, upto)
        };
        Taps { first, weights: shares.iter().map(weight).collect() }
    };
    (0..target).map(tap).collect()
}

/// Scales parts of planes to a fixed size. The tables are kept while the sizes stay the same.
#[derive(Default)]
struct Scaler {
    key: Option<[u64; 8]>,
    columns: Vec<Taps>,
    rows: Vec<Taps>,
    sums: Vec<u16>,
    out: Vec<u8>,
}

impl Scaler {
    fn scale(&mut self, plane: &Plane<'_>, part: [f64; 4], width: usize, height: usize) {
        let [x, y, w, h] = part;
        let (pw, ph) = (plane.width, plane.height);
        let bits = [x, y, w, h].map(f64::to_bits);
        let key = [bits[0], bits[1], bits[2], bits[3], pw as u64, ph as u64, width as u64, height as u64];
        if self.key != Some(key) {
            self.columns = taps(x, w, pw, width);
            self.rows = taps(y, h, ph, height);
            self.sums = vec![0; pw];
            self.out = vec![0; width * height];
            self.key = Some(key);
        }
        let reach = self.columns.iter().map(|c| c.first + c.weights.len()).max().unwrap_or(0);
        let start = self.columns.first().map_or(0, |c| c.first);
        for (row, out) in self.rows.iter().zip(self.out.chunks_exact_mut(width)) {
            let sums = &mut self.sums[start..reach];
            sums.fill(0);
            for (k, &weight) in row.weights.iter().enumerate() {
                // At most 256 · 255 in sum, which fits.
                let line = &plane.row(row.first + k)[start..reach];
                for (sum, &pixel) in sums.iter_mut().zip(line) {
                    *sum = sum.wrapping_add(weight.wrapping_mul(u16::from(pixel)));
                }
            }
            for (pixel, column) in out.iter_mut().zip(&self.columns) {
                let from = &self.sums[column.first..][..column.weights.len()];
                let products =
                    from.iter().zip(&column.weights).map(|(&s, &w)| u32::from(s).wrapping_mul(u32::from(w)));
                let sum = products.fold(1 << 15, u32::wrapping_add);
                *pixel = (sum >> 16) as u8;
            }
        }
    }
}

/// Makes a model's input out of pictures; keeps its buffers.
pub(crate) struct Preparer {
    input: [u32; 2],
    normal: Normal,
    scalers: [Scaler; 3],
    tensor: Vec<f32>,
    placed: Option<Rect>,
}

impl Preparer {
    /// For an input of this width and height.
    pub fn new(input: [u32; 2], normal: Normal) -> Self {
        let pixels = input[0] as usize * input[1] as usize;
        Self { input, normal, scalers: Default::default(), tensor: vec![0.0; 3 * pixels], placed: None }
    }

    /// The input tensor, channel by channel, and where in it the picture is.
    pub fn prepare(&mut self, picture: &Picture<'_>, source: Rect) -> (&[f32], Placement) {
        let placement = Placement::new(source, self.input, &self.normal);
        let target = placement.target;
        let (width, height) = (target.width as usize, target.height as usize);
        let full = [source.x, source.y, source.width, source.height].map(f64::from);
        let half = full.map(|v| v / 2.0);
        for (index, scaler) in self.scalers.iter_mut().enumerate() {
            let part = if index == 0 { full } else { half };
            scaler.scale(&picture.plane(index), part, width, height);
        }
        let pixels = self.input[0] as usize * self.input[1] as usize;
        let scale = self.normal.deviation.map(|d| 1.0 / d);
        if self.placed != Some(target) {
            // The border is written when it moves, and stays.
            for (channel, values) in self.tensor.chunks_exact_mut(pixels).enumerate() {
                values.fill((self.normal.fill - self.normal.mean[channel]) * scale[channel]);
            }
            self.placed = Some(target);
        }
        let matrix = Matrix::new(picture);
        let planes = [&self.scalers[0].out, &self.scalers[1].out, &self.scalers[2].out];
        let (first, rest) = self.tensor.split_at_mut(pixels);
        let (second, third) = rest.split_at_mut(pixels);
        let order = if self.normal.bgr { [third, second, first] } else { [first, second, third] };
        // Mean and deviation are in the order of storage, the matrix is in the order red, green, blue.
        let of = |list: [f32; 3]| if self.normal.bgr { [list[2], list[1], list[0]] } else { list };
        let (mean, scale) = (of(self.normal.mean), of(scale));
        for (channel, out) in order.into_iter().enumerate() {
            let [luma, blue, red, offset] = matrix.rows[channel];
            let (mean, scale) = (mean[channel], scale[channel]);
            for y in 0..height {
                let at = (y + target.y as usize) * self.input[0] as usize + target.x as usize;
                let [l, u, v] = planes.map(|plane| &plane[y * width..][..width]);
                for (((out, &l), &u), &v) in out[at..][..width].iter_mut().zip(l).zip(u).zip(v) {
                    let value = luma * f32::from(l) + blue * f32::from(u) + red * f32::from(v) + offset;
                    *out = (value.clamp(0.0, 255.0) - mean) * scale;
                }
            }
        }
        (&self.tensor, placement)
    }
}

/// Y'CbCr to R'G'B' 0…255: for red, green and blue the factors of Y, Cb, Cr and what is added.
struct Matrix {
    rows: [[f32; 4]; 3],
}

impl Matrix {
    /// ITU-R BT.601 for pictures of less than 720 lines and BT.709 from there on, as players assume when a stream does
    /// not say.
    fn new(picture: &Picture<'_>) -> Self {
        let layout = picture.layout();
        let (kr, kb) = if layout.height < 720 { (0.299_f32, 0.114_f32) } else { (0.2126, 0.0722) };
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) = match layout.range {
            ColorRange::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
            ColorRange::Full => (0.0, 1.0, 1.0),
        };
        let cr = 2.0 * (1.0 - kr) * chroma;
        let cb = 2.0 * (1.0 - kb) * chroma;
        let row = |u: f32, v: f32| [luma, u, v, -luma * black - 128.0 * (u + v)];
        Self { rows: [row(0.0, cr), row(-cb * kb / kg, -cr * kr / kg), row(cb, 0.0)] }
    }
}

#[cfg(test)]
mod tests {
    use aits_frame::PictureLayout;

    use super::*;

    const PLAIN: Normal = Normal {
        bgr: false,
        mean: [0.0; 3],
        deviation: [1.0; 3],
        fill: 114.0,
        centred: false,
        stretch: false,
    };

    /// A picture whose planes a function of plane, x and y fills.
    fn block(width: u32, height: u32, pixel: impl Fn(usize, usize, usize) -> u8) -> Vec<u8> {
        PictureLayout { range: ColorRange::Full, ..PictureLayout::tight(width, height) }.draw(pixel)
    }

    fn whole(width: u32, height: u32) -> Rect {
        Rect { x: 0, y: 0, width, height }
    }

    #[test]
    fn one_colour_stays_that_colour_at_every_size() {
        // Pure red in full-range BT.601.
        for (width, height) in [(801, 599), (64, 48), (33, 417), (1600, 16), (1, 1)] {
            let block = block(width, height, |plane, _, _| [76, 85, 255][plane]);
            let picture = Picture::parse(&block).unwrap();
            let mut preparer = Preparer::new([64, 64], PLAIN);
            let (tensor, placement) = preparer.prepare(&picture, whole(width, height));
            let target = placement.target;
            for y in 0..64 {
                for x in 0..64 {
                    let inside = x < target.width as usize && y < target.height as usize;
                    let wanted = if inside { [254.0, 0.5, 0.0] } else { [114.0; 3] };
                    for channel in 0..3 {
                        let value = tensor[channel * 4096 + y * 64 + x];
                        assert!((value - wanted[channel]).abs() < 1.6, "{value} at {channel} {x} {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_region_is_cut_out_and_mapped_back() {
        // The right half is white.
        let block = block(128, 64, |plane, x, _| if plane > 0 { 128 } else { 255 * u8::from(x >= 64) });
        let picture = Picture::parse(&block).unwrap();
        let mut preparer = Preparer::new([32, 32], PLAIN);
        let region = Rect { x: 48, y: 16, width: 32, height: 32 };
        let (tensor, placement) = preparer.prepare(&picture, region);
        for (x, &value) in tensor[..32].iter().enumerate() {
            assert_eq!(value > 128.0, x >= 16, "{value} at {x}");
        }
        assert_eq!(placement.back(16.0, 0.0), (64.0, 16.0));
        assert_eq!(placement.back(99.0, -5.0), (80.0, 16.0));
    }

    #[test]
    fn channels_are_ordered_and_normalised_as_the_model_wants() {
        let block = block(32, 32, |plane, _, _| [29, 255, 107][plane]); // blue
        let picture = Picture::parse(&block).unwrap();
        let normal = Normal { bgr: true, mean: [155.0, 10.0, 20.0], deviation: [50.0, 2.0, 4.0], ..PLAIN };
        let mut preparer = Preparer::new([32, 32], normal);
        let (tensor, _) = preparer.prepare(&picture, whole(32, 32));
        let means = [0, 1, 2].map(|c| tensor[c * 1024..][..1024].iter().sum::<f32>() / 1024.0);
        for (mean, wanted) in means.iter().zip([2.0, -5.0, -5.0]) {
            assert!((mean - wanted).abs() < 0.5, "{means:?}");
        }
    }

    #[test]
    fn weights_always_sum_to_one() {
        for (start, len, limit, target) in
            [(0.0, 16384.0, 16384, 7), (0.0, 1920.0, 1920, 416), (3.5, 10.5, 14, 99), (0.0, 1.0, 1, 416)]
        {
            for tap in taps(start, len, limit, target) {
                assert_eq!(tap.weights.iter().map(|&w| u32::from(w)).sum::<u32>(), 256);
                assert!(tap.first + tap.weights.len() <= limit);
            }
        }
    }
}
