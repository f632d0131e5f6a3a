//! Why there is no block, and who has them all.

use crate::ids::EndpointId;
use crate::pool::Shared;
use crate::steward::read_name;
use crate::sync::Ordering;
use crate::word::Word;
use std::fmt;

/// How many of the largest holders are named.
const NAMED: usize = 3;

/// Why there is no block.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllocError {
    /// Larger than this pool's largest block.
    #[error(
        "{len} bytes asked, the largest block of this pool has {largest}: raise the pool's size or largest block"
    )]
    TooLarge {
        /// Bytes asked for.
        len: usize,
        /// Bytes of the largest class.
        largest: usize,
    },
    /// Nothing free of that size or larger.
    #[error(
        "no free block of {len} bytes: {in_use} of {total} bytes are in use, most by {}; receive and drop blocks \
         faster, or raise the pool's size",
        LargestHolders(holders)
    )]
    Exhausted {
        /// Bytes asked for.
        len: usize,
        /// Bytes in blocks that somebody holds.
        in_use: u64,
        /// Bytes of the pool.
        total: u64,
        /// Who holds most, the largest first, at most three.
        holders: Vec<LargestHolder>,
    },
    /// This process would hold more than it may.
    #[error(
        "{len} bytes asked, this process holds {held} of the {quota} bytes that it may: drop blocks sooner, or raise its \
         quota in the daemon's configuration"
    )]
    Quota {
        /// Bytes asked for.
        len: usize,
        /// Bytes in this process' hands, all its endpoints in this pool together.
        held: u64,
        /// Its limit.
        quota: u64,
    },
    /// This process was admitted as a reader.
    #[error("this process may only read the pool: connect for reading and writing to allocate")]
    ReadOnly,
    /// The daemon has reaped this endpoint.
    #[error("this process is no member of the pool any more: connect to the daemon again")]
    NotAdmitted,
}

/// Who holds how much of an exhausted pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargestHolder {
    /// Its number.
    pub endpoint: EndpointId,
    /// Its process.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Bytes of the blocks that it holds, unread messages to it included.
    pub bytes: u64,
}

impl fmt::Display for LargestHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, pid, name, bytes } = self;
        write!(f, "{name} (pid {pid}, endpoint {endpoint}: {bytes} bytes)")
    }
}

/// As words of a sentence.
#[derive(Debug)]
pub struct LargestHolders<'h>(pub &'h [LargestHolder]);

impl fmt::Display for LargestHolders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nobody");
        }
        for (i, holder) in self.0.iter().enumerate() {
            write!(f, "{}{holder}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Shared {
    /// Says who holds what of a pool that has nothing left. Looks at every block.
    #[cold]
    pub fn exhausted(&self, len: usize) -> AllocError {
        let region = &self.region;
        let mut held = vec![0u64; usize::from(EndpointId::MAX) + 1];
        let mut in_use = 0;
        for place in region.blocks() {
            let word = Word::load(region.word(place));
            if !word.is_free() {
                in_use += place.class.size() as u64;
                for id in word.lanes().filter_map(|lane| lane.endpoint()) {
                    held[usize::from(id.get())] += place.class.size() as u64;
                }
            }
        }
        let mut most: Vec<(u64, EndpointId)> = region
            .ids()
            .map(|id| (held[usize::from(id.get())], id))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        most.sort_unstable_by_key(|(bytes, id)| (std::cmp::Reverse(*bytes), *id));
        most.truncate(NAMED);
        let holder = |(bytes, endpoint): (u64, EndpointId)| {
            let record = region.endpoint(endpoint);
            LargestHolder {
                endpoint,
                pid: record.map_or(0, |r| r.pid().load(Ordering::Relaxed) as u32),
                name: record.map_or_else(String::new, |r| read_name(r.name())),
                bytes,
            }
        };
        let holders = most.into_iter().map(holder).collect();
        AllocError::Exhausted { len, in_use, total: region.geometry.payload_bytes(), holders }
    }
}
