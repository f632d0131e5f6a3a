//! Encodes a watched stream once per frame, into pool blocks.
