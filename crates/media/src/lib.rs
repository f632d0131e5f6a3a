//! Decoding straight into pool blocks (FFmpeg) and JPEG encoding (libjpeg-turbo).

#![deny(unsafe_code)]

pub mod jpeg;
pub mod pixels;
