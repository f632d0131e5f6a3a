//! The fixed header: its bytes, its typed form, and the checks between the two.

use std::fmt;

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes reserved for the header at the start of a block; the payload begins right after it. A multiple of the widest
/// vector register (64 bytes), so that plane 0 is as well aligned as the block itself.
pub const HEADER_LEN: usize = 256;

/// Widest and highest picture that is accepted, in pixels (16K video).
pub const MAX_SIDE: u32 = 16_384;

/// "AITF" in little-endian order.
const MAGIC: u32 = u32::from_le_bytes(*b"AITF");
const VERSION: u16 = 1;

/// Number of a video stream inside one system, given by wmits. Shown to people as a plain number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Position of a frame in its stream since vas opened it, counted from 0, without gaps at the source: a gap at a reader
/// is a dropped frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// Microseconds. Which zero they count from is said where they are used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// Now, on the clock that all processes of a host share and nobody can set (`CLOCK_MONOTONIC`).
    pub fn monotonic_now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Self(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000)
    }

    /// Seconds as a floating-point number, for arithmetic on intervals.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// What the payload of a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A decoded picture: planes of pixels.
    Picture,
    /// A complete JPEG file.
    Jpeg,
}

/// How the pixels of a [`Kind::Picture`] are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PixelFormat {
    /// Planar YUV 4:2:0, 8 bits: Y at full size, U and V at half width and height (rounded up).
    I420,
}

/// What 0 and 255 mean in the luma plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColorRange {
    /// 16 is black, 235 is white (broadcast, nearly all video).
    Limited,
    /// 0 is black, 255 is white (JPEG, some cameras).
    Full,
}

/// Where the planes of a picture lie, in bytes from the start of the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PictureLayout {
    /// Pixel format.
    pub format: PixelFormat,
    /// Colour range.
    pub range: ColorRange,
    /// Visible width in pixels.
    pub width: u32,
    /// Visible height in pixels.
    pub height: u32,
    /// Bytes from one row of a plane to the next.
    pub strides: [u32; 3],
    /// Byte offset of each plane from the start of the payload.
    pub offsets: [u32; 3],
}

impl PictureLayout {
    /// A tight layout for a picture of this size: strides rounded up to 64 bytes, planes one after the other.
    pub fn tight(width: u32, height: u32) -> Self {
        let up = |n: u32| n.div_ceil(64) * 64;
        let strides = [up(width), up(width.div_ceil(2)), up(width.div_ceil(2))];
        let chroma_rows = height.div_ceil(2);
        let first = strides[0] * height;
        let second = first + strides[1] * chroma_rows;
        Self {
            format: PixelFormat::I420,
            range: ColorRange::Limited,
            width,
            height,
            strides,
            offsets: [0, first, second],
        }
    }

    /// Width and height in pixels of plane `index` (0 = Y, 1 = U, 2 = V).
    pub fn plane_size(&self, index: usize) -> (u32, u32) {
        match index {
            0 => (self.width, self.height),
            _ => (self.width.div_ceil(2), self.height.div_ceil(2)),
        }
    }

    /// A block with a picture of this layout, the first of stream 1, as a function of plane, x and y has it: for tests,
    /// examples and measurements.
    ///
    /// # Panics
    /// If the layout is not one that [`Header::write_to`] takes.
    #[must_use]
    pub fn draw(self, pixel: impl Fn(usize, usize, usize) -> u8) -> Vec<u8> {
        let payload_len = self.payload_len();
        let mut block = vec![0; HEADER_LEN + payload_len as usize];
        for plane in 0..3 {
            let (width, height) = self.plane_size(plane);
            let first = HEADER_LEN + self.offsets[plane] as usize;
            for y in 0..height as usize {
                let row = &mut block[first + y * self.strides[plane] as usize..][..width as usize];
                row.iter_mut().enumerate().for_each(|(x, byte)| *byte = pixel(plane, x, y));
            }
        }
        let header = Header {
            stream: StreamId(1),
            sequence: Sequence(0),
            pts: Micros(0),
            decoded_at: Micros(0),
            payload_len,
            annotated: false,
            layout: Some(self),
        };
        header.write_to(&mut block).expect("a layout for a header");
        block
    }

    /// Bytes of payload that the planes reach up to (the last row counts by its visible width only).
    pub fn payload_len(&self) -> u64 {
        (0..3).map(|i| self.plane_end(i)).max().unwrap_or(0)
    }

    fn plane_end(&self, index: usize) -> u64 {
        let (width, height) = self.plane_size(index);
        let rows_before_last = u64::from(height.saturating_sub(1));
        u64::from(self.offsets[index]) + rows_before_last * u64::from(self.strides[index]) + u64::from(width)
    }

    fn check(&self, payload_len: u64) -> Result<(), HeaderError> {
        let (width, height) = (self.width, self.height);
        if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
            return Err(HeaderError::Size { width, height });
        }
        for index in 0..3 {
            let stride = self.strides[index];
            if stride < self.plane_size(index).0 || self.plane_end(index) > payload_len {
                return Err(HeaderError::Plane { index, stride, offset: self.offsets[index], payload_len });
            }
        }
        Ok(())
    }
}

/// The header in typed form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The stream that the frame belongs to.
    pub stream: StreamId,
    /// Its position in the stream.
    pub sequence: Sequence,
    /// Presentation time, counted from the first frame of the stream. It never goes backwards in a stream: a looped
    /// file goes on counting.
    pub pts: Micros,
    /// When vas got the frame from the decoder, on the machine's monotonic clock (`CLOCK_MONOTONIC`, the same for all
    /// processes of a host): latency is measured from here.
    pub decoded_at: Micros,
    /// Bytes of payload.
    pub payload_len: u64,
    /// Whether boxes and ids are drawn into the picture.
    pub annotated: bool,
    /// For pictures, where the planes lie. `None` for a JPEG.
    pub layout: Option<PictureLayout>,
}

/// Why bytes from a block are not a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum HeaderError {
    /// The block is shorter than the header says it must be.
    #[error("the block has {have} bytes, the header and payload need {need}")]
    TooShort {
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// Not a frame, or one of another version of this software.
    #[error("the block does not begin with a frame header of version {VERSION}")]
    NotAFrame,
    /// The payload is of another kind than the reader wanted, or of an unknown one.
    #[error("the block carries something of kind {0}, which was not expected here")]
    Kind(u16),
    /// A picture without pixels, or one larger than [`MAX_SIDE`].
    #[error("a picture of {width}x{height} pixels is outside 1..={MAX_SIDE}")]
    Size {
        /// Width claimed.
        width: u32,
        /// Height claimed.
        height: u32,
    },
    /// A plane that leaves the payload or whose rows overlap.
    #[error(
        "plane {index} (offset {offset}, stride {stride}) does not fit into {payload_len} bytes of payload"
    )]
    Plane {
        /// Which plane.
        index: usize,
        /// Its stride.
        stride: u32,
        /// Its offset.
        offset: u32,
        /// Bytes of payload.
        payload_len: u64,
    },
}

/// The bytes in the block. Little-endian, as every machine that this runs on.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: u32,
    version: u16,
    kind: u16,
    stream: u32,
    format: u16,
    range: u16,
    sequence: u64,
    pts_us: i64,
    decoded_at_us: i64,
    payload_len: u64,
    width: u32,
    height: u32,
    strides: [u32; 3],
    offsets: [u32; 3],
    flags: u64,
}

const _: () = assert!(size_of::<RawHeader>() <= HEADER_LEN);

const KIND_PICTURE: u16 = 1;
const KIND_JPEG: u16 = 2;
const FORMAT_I420: u16 = 1;
const FLAG_ANNOTATED: u64 = 1;

impl Header {
    /// What the payload is.
    pub fn kind(&self) -> Kind {
        if self.layout.is_some() { Kind::Picture } else { Kind::Jpeg }
    }

    /// Writes the header into the first [`HEADER_LEN`] bytes of `block`.
    ///
    /// # Errors
    /// The same checks as at the reader: what this accepts, a reader accepts.
    pub fn write_to(&self, block: &mut [u8]) -> Result<(), HeaderError> {
        self.check(block.len())?;
        let layout = self.layout.unwrap_or(PictureLayout {
            format: PixelFormat::I420,
            range: ColorRange::Full,
            width: 0,
            height: 0,
            strides: [0; 3],
            offsets: [0; 3],
        });
        let raw = RawHeader {
            magic: MAGIC,
            version: VERSION,
            kind: if self.layout.is_some() { KIND_PICTURE } else { KIND_JPEG },
            stream: self.stream.0,
            format: if self.layout.is_some() { FORMAT_I420 } else { 0 },
            range: u16::from(layout.range == ColorRange::Full),
            sequence: self.sequence.0,
            pts_us: self.pts.0,
            decoded_at_us: self.decoded_at.0,
            payload_len: self.payload_len,
            width: layout.width,
            height: layout.height,
            strides: layout.strides,
            offsets: layout.offsets,
            flags: u64::from(self.annotated) * FLAG_ANNOTATED,
        };
        let bytes = raw.as_bytes();
        block[..bytes.len()].copy_from_slice(bytes);
        block[bytes.len()..HEADER_LEN].fill(0);
        Ok(())
    }

    /// Reads and checks the header at the start of a block.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes; see [`HeaderError`].
    pub fn parse(block: &[u8]) -> Result<Self, HeaderError> {
        let have = block.len() as u64;
        if block.len() < HEADER_LEN {
            return Err(HeaderError::TooShort { need: HEADER_LEN as u64, have });
        }
        let (raw, _) = RawHeader::read_from_prefix(block).map_err(|_| HeaderError::NotAFrame)?;
        if raw.magic != MAGIC || raw.version != VERSION {
            return Err(HeaderError::NotAFrame);
        }
        let layout = match (raw.kind, raw.format) {
            (KIND_PICTURE, FORMAT_I420) => Some(PictureLayout {
                format: PixelFormat::I420,
                range: if raw.range == 0 { ColorRange::Limited } else { ColorRange::Full },
                width: raw.width,
                height: raw.height,
                strides: raw.strides,
                offsets: raw.offsets,
            }),
            (KIND_JPEG, _) => None,
            (kind, _) => return Err(HeaderError::Kind(kind)),
        };
        let header = Self {
            stream: StreamId(raw.stream),
            sequence: Sequence(raw.sequence),
            pts: Micros(raw.pts_us),
            decoded_at: Micros(raw.decoded_at_us),
            payload_len: raw.payload_len,
            annotated: raw.flags & FLAG_ANNOTATED != 0,
            layout,
        };
        header.check(block.len())?;
        Ok(header)
    }

    fn check(&self, block_len: usize) -> Result<(), HeaderError> {
        let need = self.payload_len.saturating_add(HEADER_LEN as u64);
        let have = block_len as u64;
        if need > have {
            return Err(HeaderError::TooShort { need, have });
        }
        self.layout.map_or(Ok(()), |layout| layout.check(self.payload_len))
    }
}
