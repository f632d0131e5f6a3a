//! A picture of a block as a PNG file.

use std::io::Write;

use aits_frame::{ColorRange, Picture};
use png::{BitDepth, ColorType, Encoder, EncodingError};

/// Row by row, so that a picture of any size takes little memory. Colours by BT.601, as in the JPEGs of `preview`.
pub(super) fn write_png(picture: &Picture<'_>, out: &mut dyn Write) -> Result<(), EncodingError> {
    let layout = picture.layout();
    let mut encoder = Encoder::new(out, layout.width, layout.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    let [luma, blue, red] = [0, 1, 2].map(|index| picture.plane(index));
    let mut row = Vec::with_capacity(luma.width * 3);
    for y in 0..luma.height {
        row.clear();
        let (luma, blue, red) = (luma.row(y), blue.row(y / 2), red.row(y / 2));
        for (x, luma) in luma.iter().enumerate() {
            row.extend(rgb(*luma, blue[x / 2], red[x / 2], layout.range));
        }
        stream.write_all(&row)?;
    }
    stream.finish()?;
    writer.finish()
}

fn rgb(luma: u8, blue: u8, red: u8, range: ColorRange) -> [u8; 3] {
    let (black, luma_span, chroma_span) = match range {
        ColorRange::Limited => (16.0, 219.0, 224.0),
        ColorRange::Full => (0.0, 255.0, 255.0),
    };
    let y = (f32::from(luma) - black) * 255.0 / luma_span;
    let cb = (f32::from(blue) - 128.0) * 255.0 / chroma_span;
    let cr = (f32::from(red) - 128.0) * 255.0 / chroma_span;
    // A cast of a float to u8 keeps to 0..=255.
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|value| value.round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colours_that_everybody_knows() {
        let limited = |y, u, v| rgb(y, u, v, ColorRange::Limited);
        assert_eq!(limited(16, 128, 128), [0, 0, 0]);
        assert_eq!(limited(235, 128, 128), [255, 255, 255]);
        assert_eq!(limited(0, 128, 128), [0, 0, 0], "below black is black");
        let [red, green, blue] = limited(81, 90, 240);
        assert!(red >= 253 && green <= 2 && blue <= 2, "{red} {green} {blue}");
        assert_eq!(rgb(77, 128, 128, ColorRange::Full), [77, 77, 77]);
    }
}
