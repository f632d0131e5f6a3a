//! Cutting a stream of bytes into messages, wherever it was split on the way.

use super::LEN_MIN;

/// Why a stream cannot be followed any further. The only answer is to close it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A length that no message has.
    #[error("a message of {len} bytes is announced; {LEN_MIN} to {max} are possible")]
    Length {
        /// What was announced.
        len: i32,
        /// The limit.
        max: usize,
    },
    /// A string that is longer than its kind ever is, or has a negative length.
    #[error("a string of {len} bytes is announced where at most {max} are possible")]
    Text {
        /// What was announced.
        len: i32,
        /// The limit.
        max: usize,
    },
}

/// What has arrived and was not taken yet.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    taken: usize,
}

impl Buffer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // What was taken is forgotten here, once per read and not once per message.
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// `count` must not be more than there is.
    pub(super) fn take(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.bytes.len());
    }

    /// The next message without its length, once it is complete. The length is judged as soon as it is there. Take
    /// `4 + len` afterwards.
    pub(super) fn message(&self, max: usize) -> Result<Option<&[u8]>, DecodeError> {
        let Some((len, rest)) = self.rest().split_first_chunk() else { return Ok(None) };
        let len = i32::from_le_bytes(*len);
        match usize::try_from(len) {
            Ok(count) if (LEN_MIN..=max).contains(&count) => Ok(rest.get(..count)),
            _ => Err(DecodeError::Length { len, max }),
        }
    }
}

/// Reads integers off the front of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'b>(pub(super) &'b [u8]);

impl<'b> Cursor<'b> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.chunk().map(i32::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.chunk().map(i64::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}
