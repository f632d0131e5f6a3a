//! JPEG: I420 planes in, a file in the caller's memory out (libjpeg-turbo).
//!
//! ```text
//!  block (even size, full range) ──────────────────────────▶ encode ──▶ the caller's bytes, e.g. a block past its header
//!  block (limited range or odd size) ──▶ canvas inside ────▶ encode
//!  canvas (boxes drawn) ───────────────────────────────────▶ encode_canvas
//! ```
//!
//! The encoder takes YUV as it is, so nothing is converted to RGB and back; it writes where the file is to lie, so
//! nothing is copied afterwards. Pictures of limited range, nearly all video, take one cheap pass to the full range
//! that JPEG means (see [`pixels`](crate::pixels)).
//!
//! Failure paths: too little room is [`JpegError::NoRoom`] with the number of bytes that suffice for any picture of the
//! size; everything else that libjpeg-turbo says is [`JpegError::Encoder`].

use std::fmt;

use aits_frame::ColorRange;
use turbojpeg::{Compressor, Subsamp, YuvPlanesImage};

use crate::pixels::{Canvas, I420};

/// Why there is no JPEG.
#[derive(Debug, thiserror::Error)]
pub enum JpegError {
    /// The output was too short.
    #[error("{have} bytes do not hold this JPEG; {need} bytes hold any picture of this size")]
    NoRoom {
        /// Bytes offered.
        have: usize,
        /// Bytes that always suffice, see [`encode_bound`].
        need: usize,
    },
    /// libjpeg-turbo refused.
    #[error("libjpeg-turbo could not do it: {0}")]
    Encoder(#[from] turbojpeg::Error),
}

/// Bytes that the JPEG of any picture of this size fits into.
pub fn encode_bound(width: usize, height: usize) -> usize {
    // The library fails only above sides of 65,500 pixels, which no picture of ours has: the formula of its own for
    // 4:2:0 then, which saturates.
    turbojpeg::compressed_buf_len(width, height, Subsamp::Sub2x2).unwrap_or_else(|_| {
        width.saturating_add(32).saturating_mul(height.saturating_add(32)).saturating_mul(3)
    })
}

/// Turns pictures into JPEG files. Keep one per thread that encodes: it reuses its memory.
pub struct Encoder {
    compressor: Compressor,
    canvas: Canvas,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder of this quality, 1 (smallest) … 100 (best); numbers outside are clamped. 80 is good for people.
    ///
    /// # Errors
    /// [`JpegError::Encoder`] if there is no memory.
    pub fn new(quality: u8) -> Result<Self, JpegError> {
        let mut compressor = Compressor::new()?;
        compressor.set_quality(i32::from(quality.clamp(1, 100)))?;
        Ok(Self { compressor, canvas: Canvas::new() })
    }

    /// Encodes `picture` into `out` and returns the length of the file.
    ///
    /// # Errors
    /// See [`JpegError`].
    pub fn encode(&mut self, picture: &I420<'_>, out: &mut [u8]) -> Result<usize, JpegError> {
        let (width, height) = (picture.width(), picture.height());
        // 4:2:0 in libjpeg-turbo reads whole pairs of columns and rows, which an odd picture does not have.
        let direct = picture.range() == ColorRange::Full && width % 2 == 0 && height % 2 == 0;
        if !direct {
            self.canvas.load(picture, 1);
            return compress_canvas(&mut self.compressor, &self.canvas, out);
        }
        let [y, u, v] = [0, 1, 2].map(|index| picture.plane(index));
        let image = YuvPlanesImage {
            y_plane: y.data,
            u_plane: u.data,
            v_plane: v.data,
            width,
            height,
            y_stride: y.stride,
            u_stride: u.stride,
            v_stride: v.stride,
            subsamp: Subsamp::Sub2x2,
        };
        compress(&mut self.compressor, &image, out)
    }

    /// Encodes a canvas into `out` and returns the length of the file.
    ///
    /// # Errors
    /// See [`JpegError`]; an empty canvas is [`JpegError::Encoder`].
    pub fn encode_canvas(&mut self, canvas: &Canvas, out: &mut [u8]) -> Result<usize, JpegError> {
        compress_canvas(&mut self.compressor, canvas, out)
    }

    /// Encodes `picture` into a vector of its own.
    ///
    /// # Errors
    /// See [`JpegError`]; never [`JpegError::NoRoom`].
    pub fn encode_to_vec(&mut self, picture: &I420<'_>) -> Result<Vec<u8>, JpegError> {
        let mut file = vec![0; encode_bound(picture.width(), picture.height())];
        let len = self.encode(picture, &mut file)?;
        file.truncate(len);
        file.shrink_to_fit();
        Ok(file)
    }
}

fn compress_canvas(compressor: &mut Compressor, canvas: &Canvas, out: &mut [u8]) -> Result<usize, JpegError> {
    if canvas.width() == 0 {
        return Err(turbojpeg::Error::OutOfBounds.into());
    }
    let [(y_plane, y_stride), (u_plane, u_stride), (v_plane, v_stride)] =
        [0, 1, 2].map(|index| canvas.padded_plane(index));
    let image = YuvPlanesImage {
        y_plane,
        u_plane,
        v_plane,
        width: canvas.width(),
        height: canvas.height(),
        y_stride,
        u_stride,
        v_stride,
        subsamp: Subsamp::Sub2x2,
    };
    compress(compressor, &image, out)
}

fn compress(
    compressor: &mut Compressor,
    image: &YuvPlanesImage<&[u8]>,
    out: &mut [u8],
) -> Result<usize, JpegError> {
    let (have, need) = (out.len(), encode_bound(image.width, image.height));
    match compressor.compress_yuv_planes_to_slice(image, out) {
        Ok(len) => Ok(len),
        // The only error that more room cures has no code of its own; with room for any picture it cannot be that one.
        Err(_) if have < need => Err(JpegError::NoRoom { have, need }),
        Err(error) => Err(error.into()),
    }
}

/// A decoded JPEG: rows of red, green, blue bytes, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `width × height × 3` bytes.
    pub data: Vec<u8>,
}

impl Rgb {
    /// Red, green and blue of a pixel.
    ///
    /// # Panics
    /// If the pixel is outside the picture.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(x < self.width && y < self.height, "pixel {x},{y} of {}x{}", self.width, self.height);
        let at = (y * self.width + x) * 3;
        [self.data[at], self.data[at + 1], self.data[at + 2]]
    }
}

/// Decodes a JPEG file; meant for tests and tools.
///
/// # Errors
/// [`JpegError::Encoder`] with what libjpeg-turbo found wrong with the file.
pub fn decode(file: &[u8]) -> Result<Rgb, JpegError> {
    let image = turbojpeg::decompress(file, turbojpeg::PixelFormat::RGB)?;
    let (width, height, row) = (image.width, image.height, image.width * 3);
    let data = image.pixels.chunks(image.pitch).take(height).flat_map(|line| &line[..row]).copied().collect();
    Ok(Rgb { width, height, data })
}

#[cfg(test)]
mod tests {
    use aits_frame::{Picture, PictureLayout};

    use super::*;

    /// A picture whose left half is dark and whose right half is bright, grey.
    fn block(width: u32, height: u32, range: ColorRange, dark: u8, bright: u8) -> Vec<u8> {
        let layout = PictureLayout { range, ..PictureLayout::tight(width, height) };
        layout.draw(|plane, x, _| match plane {
            0 if x < width as usize / 2 => dark,
            0 => bright,
            _ => 128,
        })
    }

    fn close(pixel: [u8; 3], grey: u8) -> bool {
        pixel.iter().all(|p| p.abs_diff(grey) <= 4)
    }

    #[test]
    fn both_ranges_and_odd_sizes_come_back_with_the_right_grey() {
        for (width, height) in [(64, 48), (65, 48), (64, 49), (67, 51), (1, 1)] {
            for (range, dark, bright) in [(ColorRange::Limited, 16, 235), (ColorRange::Full, 0, 255)] {
                let block = block(width, height, range, dark, bright);
                let picture = Picture::parse(&block).unwrap();
                let file = Encoder::new(90).unwrap().encode_to_vec(&I420::from(&picture)).unwrap();
                let rgb = decode(&file).unwrap();
                assert_eq!((rgb.width, rgb.height), (width as usize, height as usize));
                if width > 16 {
                    assert!(close(rgb.pixel(2, 2), 0), "{width}x{height} {range:?}: {:?}", rgb.pixel(2, 2));
                }
                let last = rgb.pixel(rgb.width - 1, rgb.height - 1);
                assert!(close(last, 255), "{width}x{height} {range:?}: {last:?}");
            }
        }
    }

    #[test]
    fn the_file_lies_in_the_callers_bytes_and_nothing_behind_it_is_touched() {
        let block = block(320, 240, ColorRange::Limited, 40, 200);
        let picture = Picture::parse(&block).unwrap();
        let mut encoder = Encoder::new(80).unwrap();
        let vec = encoder.encode_to_vec(&I420::from(&picture)).unwrap();
        let mut out = vec![0xA5; encode_bound(320, 240)];
        let len = encoder.encode(&I420::from(&picture), &mut out).unwrap();
        assert_eq!(out[..len], vec[..]);
        assert!(out[len..].iter().all(|b| *b == 0xA5));
    }

    #[test]
    fn too_little_room_is_an_error_that_says_how_much_is_needed_and_the_encoder_goes_on() {
        let block = block(320, 240, ColorRange::Limited, 40, 200);
        let picture = Picture::parse(&block).unwrap();
        let mut encoder = Encoder::new(80).unwrap();
        let error = encoder.encode(&I420::from(&picture), &mut [0; 100]).unwrap_err();
        let JpegError::NoRoom { have: 100, need } = error else { panic!("{error}") };
        assert_eq!(need, encode_bound(320, 240));
        assert!(encoder.encode(&I420::from(&picture), &mut vec![0; need]).is_ok());
        assert!(encoder.encode_canvas(&Canvas::new(), &mut vec![0; need]).is_err());
    }
}
