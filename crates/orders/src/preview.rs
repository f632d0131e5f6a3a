//! Orders to preview.

use serde::{Deserialize, Serialize};

use crate::StreamId;

/// Send JPEGs of a stream to an inbox for the next `ttl_ms`; to be renewed.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct WatchPreview {
    /// Which stream.
    pub stream: StreamId,
    /// Name of the inbox.
    pub inbox: String,
    /// With boxes and ids drawn in, or the picture alone.
    pub annotated: bool,
    /// For how long, milliseconds, at most 60,000.
    pub ttl_ms: u32,
}
