//! Decoding straight into pool blocks (FFmpeg) and JPEG encoding (libjpeg-turbo).
