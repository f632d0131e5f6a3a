//! The integers that cross processes, each with its own type.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of a member within one pool: 1 … 2047 (11 bits of a lane). Reused after its member died; see
/// [`EndpointRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct EndpointId(u16);

impl EndpointId {
    /// The largest number that fits a lane.
    pub const MAX: u16 = 0x7ff;

    /// `None` unless 1 … [`EndpointId::MAX`].
    #[must_use]
    pub const fn new(id: u16) -> Option<Self> {
        if id >= 1 && id <= Self::MAX { Some(Self(id)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<EndpointId> for u16 {
    fn from(id: EndpointId) -> u16 {
        id.0
    }
}

impl TryFrom<u16> for EndpointId {
    type Error = &'static str;
    fn try_from(id: u16) -> Result<Self, Self::Error> {
        Self::new(id).ok_or("an endpoint id is 1 to 2047")
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One life of an endpoint: its number and how often that number was given out. A message addressed to an earlier
/// life is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointRef {
    /// The number.
    pub id: EndpointId,
    /// Raised each time the number's owner is reaped.
    pub incarnation: u32,
}

/// Number of a block within one pool, 24 bits: extent × blocks per extent + index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockId(u32);

impl BlockId {
    /// Says nothing about whether such a block exists.
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self(id & 0xff_ffff)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which pool; random, made at its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolId(pub u128);

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
