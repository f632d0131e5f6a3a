//! Framed JSON requests and answers over any stream.
