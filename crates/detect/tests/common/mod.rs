//! What the tests share: where the engine and the default model are, and pictures.

#![allow(dead_code)] // not every test file uses everything

use std::{env, path::PathBuf};

use aits_frame::PictureLayout;

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
    PictureLayout::tight(width, height).draw(|plane, x, y| if plane == 0 { luma(x, y) } else { 128 })
}
