//! What the tests of this crate share: the clips, and what their pixels must be (see `data/README.md`).
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ops::Deref;
use std::path::{Path, PathBuf};

use aits_frame::{ColorRange, Header, Picture, StreamId};
use aits_media::memory::{HeapMemory, Memory};
use aits_media::{Next, OpenError, Source, SourceOptions};

/// Path of a clip.
pub fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub fn options() -> SourceOptions {
    SourceOptions::new(StreamId(3))
}

pub fn open(name: &str, memory: &HeapMemory) -> Source<HeapMemory> {
    open_path(&clip(name), memory).unwrap_or_else(|error| panic!("{error}"))
}

pub fn open_path(path: &Path, memory: &HeapMemory) -> Result<Source<HeapMemory>, OpenError> {
    Source::open(path.to_str().unwrap(), memory.clone(), options())
}

/// The next frame; anything else is a failure.
pub fn frame<M: Memory>(source: &mut Source<M>) -> Option<(Header, M::Block)> {
    match source.next().unwrap_or_else(|error| panic!("{error}")) {
        Next::Frame(header, block) => Some((header, block)),
        Next::End => None,
        Next::NoBlock(why) => panic!("{why}"),
        Next::Damaged => panic!("a whole clip is not damaged"),
    }
}

pub fn frames<M: Memory>(source: &mut Source<M>) -> Vec<(Header, M::Block)> {
    std::iter::from_fn(|| frame(source)).collect()
}

/// Compares every pixel with the pattern of frame `number`; lossy coding may be off by `tolerance`.
pub fn assert_pattern(block: &impl Deref<Target = [u8]>, number: usize, tolerance: u8) {
    let picture = Picture::parse(block).unwrap();
    let (luma, height) = (picture.plane(0), picture.plane(0).height);
    for y in 0..height {
        let row = luma.row(y);
        let (left, right) = row.split_at(luma.width / 2);
        let expected = [(left, 20 + 4 * number), (right, 40 + 150 * y / height)];
        for (pixels, value) in expected {
            // The edge between the halves rings a little.
            let inside = &pixels[8..pixels.len() - 8];
            let worst = inside.iter().map(|p| p.abs_diff(value as u8)).max().unwrap();
            assert!(worst <= tolerance, "frame {number}, row {y}: {worst} away from {value}");
        }
    }
    for (plane, value) in [(1, 110), (2, 140_u8)] {
        let plane = picture.plane(plane);
        for y in 0..plane.height {
            let worst = plane.row(y).iter().map(|p| p.abs_diff(value)).max().unwrap();
            assert!(worst <= tolerance, "frame {number}, chroma row {y}: {worst} away from {value}");
        }
    }
}

pub fn range(block: &[u8]) -> ColorRange {
    Picture::parse(block).unwrap().layout().range
}
