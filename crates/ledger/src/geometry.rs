//! Where everything lies. The header is written once by the creator; who opens the memory checks it like any claim.
//!
//! ```text
//!   0        4096           + 128 × connections       + 16 × chunks            + 256 × small          + 4096 × large
//!   ┌────────┬──────────────┬─────────────────────────┬────────────────────────┬──────────────────────┐
//!   │ header │   records    │       chunk table       │  small chunks (256 B)  │ large chunks (4 KiB) │
//!   └────────┴──────────────┴─────────────────────────┴────────────────────────┴──────────────────────┘
//! ```

use crate::word::Slot;

/// 64-bit words of a record: 128 bytes, two cache lines.
pub const RECORD_WORDS: usize = 16;
/// 64-bit words of an entry of the chunk table.
pub const CHUNK_WORDS: usize = 2;
/// Bytes of a small chunk: a partial frame, a short answer. (The model pays for every word.)
pub const SMALL: usize = if cfg!(loom) { 8 } else { 256 };
/// Bytes of a large chunk.
pub const LARGE: usize = if cfg!(loom) { 16 } else { 4096 };
/// Bytes of the header.
const HEADER: u64 = 4096;
/// Words of the header that are used.
pub const HEADER_WORDS: usize = 5;
const MAGIC: u64 = u64::from_le_bytes(*b"batonled");
const VERSION: u64 = 1;
/// Most records: their numbers fit into 24 bits beside a chunk's flag.
const CONNECTIONS_MAX: u32 = 1 << 24;
/// Most chunks of one size.
const CHUNKS_MAX: u32 = 1 << 28;

/// How large a ledger is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Connections at one time: 128 bytes each.
    pub connections: u32,
    /// Slots of owners: workers, master, keeper.
    pub workers: u16,
    /// Bytes for input that is parked and answers that are not sent, all connections together.
    pub arena_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { connections: 16_384, workers: 64, arena_bytes: 16 << 20 }
    }
}

/// Why there is no ledger of that size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// A number is out of range.
    #[error("{what} is {value}, choose one from {least} to {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u64,
        /// The least that works.
        least: u64,
        /// The most that works.
        most: u64,
    },
    /// The memory is something else.
    #[error(
        "this memory is no ledger of version {VERSION} (it begins with {magic:#x}, version {version}): let both programs be of one version"
    )]
    Foreign {
        /// Its first word.
        magic: u64,
        /// Its second.
        version: u64,
    },
}

/// A layout that has been checked; private memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub(crate) connections: u32,
    pub(crate) workers: u16,
    pub(crate) small: u32,
    pub(crate) large: u32,
}

fn within(what: &'static str, value: u64, least: u64, most: u64) -> Result<(), GeometryError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(GeometryError::Range { what, value, least, most })
}

impl Geometry {
    /// Plans a ledger: a quarter of the arena in small chunks, the rest in large ones.
    ///
    /// # Errors
    /// [`GeometryError::Range`] names the number that is out of range.
    pub fn plan(config: &Config) -> Result<Self, GeometryError> {
        let most = u64::from(CHUNKS_MAX) * LARGE as u64;
        within("the arena in bytes", config.arena_bytes, 2 * LARGE as u64, most)?;
        let small = config.arena_bytes / 4 / SMALL as u64;
        let large = (config.arena_bytes - small * SMALL as u64) / LARGE as u64;
        Self::checked(u64::from(config.connections), u64::from(config.workers), small, large)
    }

    fn checked(connections: u64, workers: u64, small: u64, large: u64) -> Result<Self, GeometryError> {
        within("the number of connections", connections, 1, u64::from(CONNECTIONS_MAX) - 1)?;
        within("the number of workers", workers, 1, u64::from(Slot::LIMIT))?;
        within("the number of small chunks", small, 0, 4 * u64::from(CHUNKS_MAX))?;
        within("the number of large chunks", large, 1, u64::from(CHUNKS_MAX))?;
        Ok(Self {
            connections: connections as u32,
            workers: workers as u16,
            small: small as u32,
            large: large as u32,
        })
    }

    /// The header's words.
    #[must_use]
    pub fn to_header(self) -> [u64; HEADER_WORDS] {
        let sizes = u64::from(self.small) << 32 | u64::from(self.large);
        [MAGIC, VERSION, u64::from(self.connections), u64::from(self.workers), sizes]
    }

    /// What a header says, if it can be true.
    ///
    /// # Errors
    /// [`GeometryError`] says what cannot.
    pub fn from_header(header: [u64; HEADER_WORDS]) -> Result<Self, GeometryError> {
        let [magic, version, connections, workers, sizes] = header;
        if (magic, version) != (MAGIC, VERSION) {
            return Err(GeometryError::Foreign { magic, version });
        }
        Self::checked(connections, workers, sizes >> 32, sizes & u64::from(u32::MAX))
    }

    /// Chunks of both sizes together.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.small + self.large
    }

    /// Bytes of that chunk.
    #[must_use]
    pub fn capacity(&self, chunk: u32) -> usize {
        if chunk < self.small { SMALL } else { LARGE }
    }

    pub(crate) fn records_at(&self) -> u64 {
        HEADER
    }

    pub(crate) fn table_at(&self) -> u64 {
        HEADER + u64::from(self.connections) * (RECORD_WORDS * 8) as u64
    }

    pub(crate) fn payload_at(&self) -> u64 {
        // On a line of its own, so that every small chunk begins on one.
        (self.table_at() + u64::from(self.chunks()) * (CHUNK_WORDS * 8) as u64).next_multiple_of(64)
    }

    /// First word of a chunk's payload.
    pub(crate) fn payload_word(&self, chunk: u32) -> usize {
        let (small, large) = (chunk.min(self.small) as usize, chunk.saturating_sub(self.small) as usize);
        (small * SMALL + large * LARGE) / 8
    }

    /// Words of all payloads.
    pub(crate) fn payload_words(&self) -> usize {
        self.payload_word(self.chunks())
    }

    /// Bytes of the whole memory, in whole pages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.payload_at() + self.payload_words() as u64 * 8).next_multiple_of(4096)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_costs_two_mebibytes_beside_its_arena() {
        let geometry = Geometry::plan(&Config::default()).unwrap();
        assert!(geometry.bytes() < 19 << 20, "{}", geometry.bytes());
        assert_eq!((geometry.small, geometry.large), (16_384, 3072));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let error = Geometry::plan(&Config { workers: 0, ..Config::default() }).unwrap_err();
        assert_eq!(error.to_string(), "the number of workers is 0, choose one from 1 to 4096");
    }

    proptest! {
        #[test]
        fn parts_do_not_meet(connections in 1u32..1 << 24, workers in 1u16..=4096, arena in 8192u64..1 << 38) {
            let config = Config { connections, workers, arena_bytes: arena };
            let g = Geometry::plan(&config)?;
            prop_assert_eq!(Geometry::from_header(g.to_header())?, g);
            prop_assert!(g.payload_words() as u64 * 8 <= arena);
            let last = g.chunks() - 1;
            prop_assert_eq!(g.payload_word(last) + g.capacity(last) / 8, g.payload_words());
            prop_assert!(g.small == 0 || g.payload_word(g.small) - g.payload_word(g.small - 1) == SMALL / 8);
            prop_assert!(g.bytes() >= g.payload_at() + g.payload_words() as u64 * 8);
        }

        #[test]
        fn a_scribbled_header_never_panics(header: [u64; 5], a: u64, b in 0u64..5000, c: u64) {
            for header in [header, [MAGIC, VERSION, a, b, c], [MAGIC, VERSION, b, b, c]] {
                if let Ok(g) = Geometry::from_header(header) {
                    prop_assert!(g.bytes() > 0);
                }
            }
        }
    }
}
