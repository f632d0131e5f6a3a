//! Drawing on I420 planes: outlines, labels, colours. Pure functions of pixels; no clock, no I/O, no pool.
//!
//! ```text
//!  FrameResult ── velocity × (frame's pts − result's pts) ──▶ rectangles ──▶ Canvas (our own copy of the planes)
//! ```
//!
//! Coordinates come from another process, so every number may be anything: rectangles are clipped to the picture before
//! they become indices, and what is NaN, infinite or inside out draws nothing.

mod boxes;
mod color;
mod label;
mod paint;

pub use boxes::{MAX_LEAD_S, STALE_AFTER_S, annotate};
pub use color::{Color, class_color};
pub use label::{draw_label, label_size};
pub use paint::{Rect, fill, outline, set_luma};
