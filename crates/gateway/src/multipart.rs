//! Live pictures as `multipart/x-mixed-replace`, which every browser shows in an `<img>`.
//!
//! ```text
//!  --frame␍␊  head₁ JPEG₁ ␍␊--frame␍␊  head₂ JPEG₂ ␍␊--frame␍␊ …
//!             └────── one Part ──────┘
//! ```
//! The boundary comes with the picture that it ends, not with the next one: a browser shows a picture when it sees the
//! end of it, and the next one may be a while.

use bytes::Bytes;

use crate::feeds::Picture;

/// The content type of the answer.
pub const CONTENT_TYPE: &str = "multipart/x-mixed-replace; boundary=frame";

/// Goes in front of the first part.
pub const OPENING: Bytes = Bytes::from_static(b"--frame\r\n");

const CLOSING: Bytes = Bytes::from_static(b"\r\n--frame\r\n");

/// One picture on its way to one viewer: the unit of a live stream, and exactly one block of the pool.
pub struct Part {
    head: Bytes,
    file: Bytes,
}

impl Part {
    pub fn new(picture: &Picture) -> Self {
        let head = format!(
            "Content-Type: image/jpeg\r\nContent-Length: {}\r\nX-Sequence: {}\r\n\r\n",
            picture.file.len(),
            picture.header.sequence.0,
        );
        Self { head: head.into(), file: picture.file.clone() }
    }

    /// What is to be written, in order. The picture itself is not copied.
    pub fn into_chunks(self) -> [Bytes; 3] {
        [self.head, self.file, CLOSING]
    }
}
