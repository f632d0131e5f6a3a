//! A ledger of loom's words: one record, a few tiny chunks.

use crate::arena::Memory;
use crate::geometry::{CHUNK_WORDS, Geometry, RECORD_WORDS};
use crate::ledger::Ledger;
use crate::sync::{AtomicU64, Slice};

impl Ledger {
    /// A ledger with one record, four slots, and `small` small chunks and a large one.
    #[must_use]
    pub fn for_model(small: u32) -> Self {
        let geometry = Geometry { connections: 1, workers: 4, small, large: 1 };
        let words = |count| Slice((0..count).map(|_| AtomicU64::new(0)).collect());
        let memory = Memory {
            geometry,
            records: words(RECORD_WORDS),
            table: words(geometry.chunks() as usize * CHUNK_WORDS),
            payload: words(geometry.payload_words()),
            hints: Default::default(),
        };
        Self { memory }
    }
}
