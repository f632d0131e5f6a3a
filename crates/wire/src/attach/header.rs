//! The fixed part of every message.

use super::{ANSWER_BODY_MAX, DecodeError, REQUEST_BODY_MAX};

/// First bytes of every message; see the table in [`crate::attach`].
pub const MAGIC: [u8; 4] = [b'B', b'A', b'T', 0xA1];

/// Length of a [`Header`] on the wire, in bytes.
pub const HEADER_LEN: usize = 16;

/// Direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// From a member to the daemon.
    Request = 1,
    /// From the daemon to a member.
    Answer = 2,
}

impl Kind {
    /// Longest body of this kind in bytes.
    pub fn body_max(self) -> usize {
        match self {
            Self::Request => REQUEST_BODY_MAX,
            Self::Answer => ANSWER_BODY_MAX,
        }
    }
}

/// A header that was checked: right magic, right kind, length within the limit. The version may be another one: check
/// it with [`Header::check_version`] before the body is read, so that a refusal can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sender's version.
    pub version: u16,
    /// Direction.
    pub kind: Kind,
    /// Number of the request.
    pub serial: u32,
    /// Length of the body that follows, in bytes.
    pub body_len: usize,
}

impl Header {
    /// The bytes of this header. A body longer than `u32::MAX` cannot occur: encoders check the limit first.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        bytes[6..8].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.serial.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::try_from(self.body_len).unwrap_or(u32::MAX).to_le_bytes());
        bytes
    }

    /// Checks magic, kind and length.
    ///
    /// # Errors
    /// [`DecodeError::Magic`], [`DecodeError::Kind`], [`DecodeError::TooLong`].
    pub fn decode(bytes: &[u8; HEADER_LEN], expected: Kind) -> Result<Self, DecodeError> {
        let [m0, m1, m2, m3, v0, v1, k0, k1, s0, s1, s2, s3, l0, l1, l2, l3] = *bytes;
        let magic = [m0, m1, m2, m3];
        if magic != MAGIC {
            return Err(DecodeError::Magic { found: magic });
        }
        let kind = u16::from_le_bytes([k0, k1]);
        if kind != expected as u16 {
            return Err(DecodeError::Kind { found: kind, expected: expected as u16 });
        }
        let body_len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if body_len > expected.body_max() {
            return Err(DecodeError::TooLong { len: body_len, max: expected.body_max() });
        }
        Ok(Self {
            version: u16::from_le_bytes([v0, v1]),
            kind: expected,
            serial: u32::from_le_bytes([s0, s1, s2, s3]),
            body_len,
        })
    }

    /// Whether the sender speaks our version.
    ///
    /// # Errors
    /// [`DecodeError::Version`].
    pub fn check_version(&self) -> Result<(), DecodeError> {
        if self.version == super::VERSION {
            Ok(())
        } else {
            Err(DecodeError::Version { found: self.version })
        }
    }
}
