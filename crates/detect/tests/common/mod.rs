//! What the tests share: where the engine and the default model are, and pictures.

#![allow(dead_code)] // not every test file uses everything

use std::{env, path::PathBuf};

use aits_frame::{HEADER_LEN, Header, Micros, PictureLayout, Sequence, StreamId};

/// A file of the cache that `cargo xtask test` fills.
pub fn cached(name: &str) -> PathBuf {
    let base = env::var_os("AITS_CACHE").map(PathBuf::from).or_else(|| {
        let home = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache")));
        home.map(|h| h.join("aits"))
    });
    let path = base.expect("HOME is set").join(name);
    assert!(path.is_file(), "{} is missing: run `cargo xtask test`, which installs it", path.display());
    path
}

/// The ONNX Runtime library.
pub fn runtime() -> PathBuf {
    env::var_os("ORT_DYLIB_PATH").map_or_else(|| cached("runtime/libonnxruntime.so"), PathBuf::from)
}

/// A block with a picture whose luma a function of x and y gives; no colour.
pub fn grey(width: u32, height: u32, luma: impl Fn(usize, usize) -> u8) -> Vec<u8> {
    let layout = PictureLayout::tight(width, height);
    let len = layout.payload_len();
    let mut block = vec![128; HEADER_LEN + len as usize];
    for y in 0..height as usize {
        for x in 0..width as usize {
            block[HEADER_LEN + y * layout.strides[0] as usize + x] = luma(x, y);
        }
    }
    let header = Header {
        stream: StreamId(1),
        sequence: Sequence(0),
        pts: Micros(0),
        decoded_at: Micros(0),
        payload_len: len,
        annotated: false,
        layout: Some(layout),
    };
    header.write_to(&mut block).unwrap();
    block
}
