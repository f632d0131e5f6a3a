//! Views of a block whose header has been checked.

use crate::{HEADER_LEN, Header, HeaderError, PictureLayout};

/// A decoded picture in a block. Holding one proves that every plane lies inside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    header: Header,
    layout: PictureLayout,
    payload: &'a [u8],
}

/// One plane of a picture: rows of bytes, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// Bytes from the first pixel of the plane up to the last.
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Visible pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl<'a> Plane<'a> {
    /// Row `y`, `width` bytes long.
    ///
    /// # Panics
    /// If `y >= height`.
    pub fn row(&self, y: usize) -> &'a [u8] {
        assert!(y < self.height, "row {y} of a plane of {} rows", self.height);
        &self.data[y * self.stride..][..self.width]
    }
}

impl<'a> Picture<'a> {
    /// Checks the header at the start of `block` and returns the picture behind it.
    ///
    /// # Errors
    /// See [`HeaderError`]; [`HeaderError::Kind`] if the block carries a JPEG.
    pub fn parse(block: &'a [u8]) -> Result<Self, HeaderError> {
        let header = Header::parse(block)?;
        let layout = header.layout.ok_or(HeaderError::Kind(2))?;
        Ok(Self { header, layout, payload: payload(block, &header) })
    }

    /// The checked header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the planes lie.
    pub fn layout(&self) -> &PictureLayout {
        &self.layout
    }

    /// Plane 0 (Y), 1 (U) or 2 (V).
    ///
    /// # Panics
    /// If `index > 2`.
    pub fn plane(&self, index: usize) -> Plane<'a> {
        let (width, height) = self.layout.plane_size(index);
        let (width, height) = (width as usize, height as usize);
        let stride = self.layout.strides[index] as usize;
        let data = &self.payload[self.layout.offsets[index] as usize..][..(height - 1) * stride + width];
        Plane { data, stride, width, height }
    }
}

/// A JPEG file in a block.
#[derive(Clone, Copy, Debug)]
pub struct Jpeg<'a> {
    /// The checked header.
    pub header: Header,
    /// The bytes of the file.
    pub file: &'a [u8],
}

impl<'a> Jpeg<'a> {
    /// Checks the header at the start of `block` and returns the file behind it.
    ///
    /// # Errors
    /// See [`HeaderError`]; [`HeaderError::Kind`] if the block carries a picture.
    pub fn parse(block: &'a [u8]) -> Result<Self, HeaderError> {
        let header = Header::parse(block)?;
        match header.layout {
            None => Ok(Self { header, file: payload(block, &header) }),
            Some(_) => Err(HeaderError::Kind(1)),
        }
    }
}

fn payload<'a>(block: &'a [u8], header: &Header) -> &'a [u8] {
    // `Header::parse` compared payload_len with the length of this very slice.
    &block[HEADER_LEN..][..header.payload_len as usize]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Micros, Sequence, StreamId};

    fn header(layout: Option<PictureLayout>, payload_len: u64) -> Header {
        Header {
            stream: StreamId(7),
            sequence: Sequence(42),
            pts: Micros(1_680_000),
            decoded_at: Micros(99),
            payload_len,
            annotated: true,
            layout,
        }
    }

    #[test]
    fn a_picture_comes_back_as_it_was_written() {
        let layout = PictureLayout::tight(801, 599);
        let mut block = vec![0_u8; HEADER_LEN + layout.payload_len() as usize];
        let written = header(Some(layout), layout.payload_len());
        written.write_to(&mut block).unwrap();
        let last = block.len() - 1;
        block[last] = 77;
        let picture = Picture::parse(&block).unwrap();
        assert_eq!(*picture.header(), written);
        assert_eq!((picture.plane(0).width, picture.plane(0).height), (801, 599));
        assert_eq!((picture.plane(2).width, picture.plane(2).height), (401, 300));
        assert_eq!(picture.plane(2).row(299)[400], 77);
        assert_eq!(Jpeg::parse(&block).unwrap_err(), HeaderError::Kind(1));
    }

    #[test]
    fn a_payload_longer_than_the_block_is_refused() {
        let layout = PictureLayout::tight(64, 64);
        let mut block = vec![0_u8; HEADER_LEN + layout.payload_len() as usize];
        header(Some(layout), layout.payload_len()).write_to(&mut block).unwrap();
        assert!(matches!(Picture::parse(&block[..block.len() - 1]), Err(HeaderError::TooShort { .. })));
        assert!(header(Some(layout), u64::MAX).write_to(&mut block).is_err());
    }

    proptest! {
        /// Whatever stands in the header, parsing returns and the planes of an accepted picture can be read in full.
        #[test]
        fn any_header_bytes_are_refused_or_safe(
            noise in proptest::collection::vec(any::<u8>(), HEADER_LEN),
            keep in 0_usize..HEADER_LEN,
            len in 0_usize..9000,
        ) {
            let layout = PictureLayout::tight(70, 50);
            let mut block = vec![1_u8; HEADER_LEN + layout.payload_len() as usize];
            header(Some(layout), layout.payload_len()).write_to(&mut block).unwrap();
            block[keep..HEADER_LEN].copy_from_slice(&noise[keep..]);
            block.truncate(len);
            if let Ok(picture) = Picture::parse(&block) {
                for index in 0..3 {
                    let plane = picture.plane(index);
                    for y in 0..plane.height { prop_assert_eq!(plane.row(y).len(), plane.width); }
                }
            }
        }
    }
}
