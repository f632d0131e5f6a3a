//! Where everything lies in the two memories, computed from a handful of numbers.
//!
//! ```text
//!  metadata:  header │ extents │ endpoints │ doors │ inbox slots │ leaves │ summary │ lengths │ hold words
//!  payload:   extent 0 │ extent 1 │ …            each bound to one size class when first needed
//! ```
//! Every extent has the same number of hold words ([`Geometry::words_per_extent`], at most 8192), whatever class it
//! is bound to. Where the class has few blocks the words are spread 64 bytes apart, so that two processes working on
//! neighbouring blocks do not share a cache line. Where it has more blocks than words, the rest of the extent stays
//! unused: in an extent of 4 MiB that concerns classes below 512 B (64 B blocks use an eighth), in one of 64 MiB
//! classes below 8 KiB. That waste buys a layout that never moves.

use crate::class::Class;
use crate::ids::{BlockId, EndpointId};
use crate::region::DOOR_WORDS;

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Bytes of payload to reserve; rounded down to whole extents.
    pub payload_bytes: u64,
    /// The largest block that can be asked for, at most 256 MiB; lowered to what the pool can hold. 4K frames (NV12:
    /// 12.5 MB) fit the default of 16 MiB.
    pub largest_block: u64,
    /// How many members at once, 1 … 2047.
    pub endpoints: u16,
    /// Messages that fit an inbox, rounded up to a power of two, 2 … 4096.
    pub inbox_slots: u32,
    /// How many blocks there must be numbers for, 0 for the usual: small blocks beyond the numbers of their extent are
    /// never used. Each costs 20 bytes of metadata.
    pub blocks_min: u32,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { payload_bytes: 256 << 20, largest_block: 16 << 20, endpoints: 255, inbox_slots: 64, blocks_min: 0 }
    }
}

/// Numbers that make no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// Less than [`Geometry::MIN_PAYLOAD`].
    #[error("a pool of {bytes} bytes is too small: give it at least {} bytes", Geometry::MIN_PAYLOAD)]
    TooSmall {
        /// Bytes of payload asked for.
        bytes: u64,
    },
    /// More than block numbers and address space can take.
    #[error("a pool of {bytes} bytes is too large: at most {} bytes", Geometry::MAX_PAYLOAD)]
    TooLarge {
        /// Bytes of payload asked for.
        bytes: u64,
    },
    /// Not 64 B … 256 MiB.
    #[error("a largest block of {bytes} bytes is not possible: choose 64 bytes to 256 MiB")]
    LargestBlock {
        /// Bytes asked for.
        bytes: u64,
    },
    /// Not 1 … 2047.
    #[error("{endpoints} endpoints are not possible: choose 1 to 2047")]
    Endpoints {
        /// How many were asked for.
        endpoints: u16,
    },
    /// Not 2 … 4096.
    #[error("an inbox of {slots} messages is not possible: choose 2 to 4096")]
    InboxSlots {
        /// How many were asked for.
        slots: u32,
    },
    /// A header whose numbers contradict each other.
    #[error("the pool's header contradicts itself: the memory is corrupt or from another version")]
    Header,
}

/// 64-bit words per endpoint record: 512 bytes, see `region`.
pub const ENDPOINT_WORDS: usize = 64;

/// What an extent is like when it is bound to one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct InClass {
    blocks: u32,
    spread: u32,
    span: u32,
}

/// The layout of one pool. Everything here is private memory, checked once; nothing is read from the pool again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    extent_bytes: u64,
    extents: u32,
    words_per_extent: u32,
    endpoints: u16,
    inbox_shift: u32,
    largest: Class,
    /// Follows from the numbers above, and is asked at every step.
    by_class: [InClass; Class::COUNT],
}

impl Geometry {
    /// The smallest payload, in bytes.
    pub const MIN_PAYLOAD: u64 = 64 << 10;
    /// The largest payload, in bytes (1 TiB).
    pub const MAX_PAYLOAD: u64 = 1 << 40;
    /// Blocks up to this size never need a run, unless the pool is small.
    const ONE_EXTENT: u64 = 16 << 20;
    const USUAL_WORDS: u32 = 8192;
    const MAX_WORDS: u32 = 1 << 20;

    /// Plans a pool.
    ///
    /// # Errors
    /// [`GeometryError`] says which number is impossible.
    pub fn plan(config: &PoolConfig) -> Result<Self, GeometryError> {
        let payload = config.payload_bytes;
        if payload < Self::MIN_PAYLOAD {
            return Err(GeometryError::TooSmall { bytes: payload });
        }
        if payload > Self::MAX_PAYLOAD {
            return Err(GeometryError::TooLarge { bytes: payload });
        }
        let wanted = usize::try_from(config.largest_block)
            .ok()
            .filter(|n| *n >= 64)
            .and_then(Class::for_len)
            .ok_or(GeometryError::LargestBlock { bytes: config.largest_block })?;
        if EndpointId::new(config.endpoints).is_none() {
            return Err(GeometryError::Endpoints { endpoints: config.endpoints });
        }
        if !(2..=4096).contains(&config.inbox_slots) {
            return Err(GeometryError::InboxSlots { slots: config.inbox_slots });
        }
        // At least eight extents, however small the pool: different sizes need different extents. Blocks up to 16 MiB
        // fit one, if that is possible; for larger ones the daemon binds runs of them.
        let most = payload / 8 / 4096 * 4096;
        let one = (wanted.size() as u64).min(Self::ONE_EXTENT);
        let extent_bytes = (payload / 64).clamp(2 << 20, 64 << 20).max(one).min(most);
        let extent_bytes = extent_bytes.div_ceil(4096) * 4096;
        let extents = (payload / extent_bytes) as u32;
        let ids = (1u32 << 24) / extents.next_power_of_two();
        let wanted_words = (config.blocks_min / extents).next_power_of_two().clamp(Self::USUAL_WORDS, Self::MAX_WORDS);
        let words_per_extent = wanted_words.min(ids).min(((extent_bytes / 64) as u32).next_power_of_two());
        let largest = largest_within(extent_bytes * u64::from(extents)).min(wanted);
        Ok(Self {
            extent_bytes,
            extents,
            words_per_extent,
            endpoints: config.endpoints,
            inbox_shift: config.inbox_slots.next_power_of_two().trailing_zeros(),
            largest,
            by_class: by_class(extent_bytes, words_per_extent),
        })
    }

    /// The numbers that are written into the header.
    pub(crate) fn to_header(&self) -> [u64; 6] {
        [
            self.extent_bytes,
            self.extents.into(),
            self.words_per_extent.into(),
            self.endpoints.into(),
            self.inbox_shift.into(),
            self.largest.index() as u64,
        ]
    }

    /// Takes a header's numbers for what they are, claims: everything is checked.
    pub(crate) fn from_header(header: [u64; 6]) -> Result<Self, GeometryError> {
        let [extent_bytes, extents, words_per_extent, endpoints, inbox_shift, largest] = header;
        let sane = extent_bytes.is_multiple_of(4096)
            && (4096..=64 << 20).contains(&extent_bytes)
            && (1..=1 << 24).contains(&extents)
            && words_per_extent.is_power_of_two()
            && words_per_extent <= Self::MAX_WORDS.into()
            && extents * words_per_extent <= 1 << 24
            && (1..=u64::from(EndpointId::MAX)).contains(&endpoints)
            && (1..=12).contains(&inbox_shift);
        let largest =
            Class::from_index(largest).filter(|c| c.size() as u64 <= extent_bytes.saturating_mul(extents));
        match largest {
            Some(largest) if sane => Ok(Self {
                extent_bytes,
                extents: extents as u32,
                words_per_extent: words_per_extent as u32,
                endpoints: endpoints as u16,
                inbox_shift: inbox_shift as u32,
                largest,
                by_class: by_class(extent_bytes, words_per_extent as u32),
            }),
            _ => Err(GeometryError::Header),
        }
    }

    /// Bytes of payload: whole extents.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.extent_bytes * u64::from(self.extents)
    }

    /// Bytes of metadata.
    #[must_use]
    pub fn metadata_bytes(&self) -> u64 {
        self.layout().end as u64
    }

    /// Bytes of each extent.
    #[must_use]
    pub fn extent_bytes(&self) -> u64 {
        self.extent_bytes
    }

    /// Number of extents.
    #[must_use]
    pub fn extents(&self) -> u32 {
        self.extents
    }

    /// Hold words of each extent.
    #[must_use]
    #[inline]
    pub fn words_per_extent(&self) -> u32 {
        self.words_per_extent
    }

    /// The largest endpoint number.
    #[must_use]
    #[inline]
    pub fn endpoints(&self) -> u16 {
        self.endpoints
    }

    /// Messages that fit an inbox.
    #[must_use]
    #[inline]
    pub fn inbox_slots(&self) -> u64 {
        1 << self.inbox_shift
    }

    #[inline]
    pub(crate) fn inbox_shift(&self) -> u32 {
        self.inbox_shift
    }

    /// Bytes of the largest block.
    #[must_use]
    pub fn largest_block(&self) -> usize {
        self.largest.size()
    }

    #[inline]
    pub(crate) fn largest_class(&self) -> Class {
        self.largest
    }

    /// How many neighbouring extents a block of this class takes.
    #[inline]
    pub(crate) fn span(&self, class: Class) -> u32 {
        self.by_class[class.index()].span
    }

    /// Blocks of one extent bound to `class`; one for a run.
    #[inline]
    pub(crate) fn blocks_in_extent(&self, class: Class) -> u32 {
        self.by_class[class.index()].blocks
    }

    /// Classes whose blocks step in before an extent is bound in a pool that has few left: at most twice the size.
    pub(crate) fn a_little_larger(&self, class: Class) -> impl Iterator<Item = Class> + use<> {
        let largest = self.largest;
        class.larger().take(4).take_while(move |c| *c <= largest)
    }

    /// Classes whose blocks step in at last. Not runs: the daemon gives their extents to others, if it is asked.
    pub(crate) fn much_larger(&self, class: Class) -> impl Iterator<Item = Class> + '_ {
        class.larger().skip(4).take_while(|c| *c <= self.largest && self.span(*c) == 1)
    }

    /// Distance between the words of neighbouring blocks: 64 bytes where there is room.
    #[inline]
    pub(crate) fn spread(&self, class: Class) -> u32 {
        self.by_class[class.index()].spread
    }

    /// Block number from extent and index.
    #[inline]
    pub(crate) fn block(&self, extent: u32, index: u32) -> BlockId {
        BlockId::new(extent * self.words_per_extent + index)
    }

    /// Extent and index of a block number; `None` if there is no such extent.
    #[inline]
    pub(crate) fn split(&self, block: BlockId) -> Option<(u32, u32)> {
        let shift = self.words_per_extent.trailing_zeros(); // a power of two
        let (extent, index) = (block.get() >> shift, block.get() & (self.words_per_extent - 1));
        (extent < self.extents).then_some((extent, index))
    }

    #[inline]
    fn exists(&self, extent: u32, index: u32, class: Class) -> bool {
        extent < self.extents && self.span(class) <= self.extents - extent && index < self.blocks_in_extent(class)
    }

    /// Place of a block's hold word; `None` if an extent of that class has no such block.
    #[inline]
    pub(crate) fn word_at(&self, extent: u32, index: u32, class: Class) -> Option<usize> {
        let ok = self.exists(extent, index, class);
        ok.then(|| (extent * self.words_per_extent + index * self.spread(class)) as usize)
    }

    /// The index of the block whose word is the `within`-th of an extent of that class, if there is one.
    pub(crate) fn index_of_word(&self, within: u32, class: Class) -> Option<u32> {
        let (spread, blocks) = (self.spread(class), self.blocks_in_extent(class));
        (within.is_multiple_of(spread) && within / spread < blocks).then(|| within / spread)
    }

    /// Offset of a block's bytes in the payload; `None` as above.
    #[inline]
    pub(crate) fn payload_at(&self, extent: u32, index: u32, class: Class) -> Option<usize> {
        let ok = self.exists(extent, index, class);
        ok.then(|| extent as usize * self.extent_bytes as usize + index as usize * class.size())
    }

    /// 64-bit words of the free index per extent.
    #[inline]
    pub(crate) fn leaves_per_extent(&self) -> u32 {
        self.words_per_extent.div_ceil(64)
    }

    /// 64-bit words of the summary per extent.
    #[inline]
    pub(crate) fn summaries_per_extent(&self) -> u32 {
        self.leaves_per_extent().div_ceil(64)
    }

    pub(crate) fn layout(&self) -> Layout {
        let mut end = 4096; // the header's page
        let mut take = |bytes: usize| {
            let at = end;
            end += bytes.div_ceil(4096) * 4096;
            at
        };
        let endpoints = usize::from(self.endpoints) + 1;
        let (extents, words) = (self.extents as usize, self.extents as usize * self.words_per_extent as usize);
        Layout {
            extents: take(extents * 8),
            endpoints: take(endpoints * ENDPOINT_WORDS * 8),
            doors: take(endpoints * DOOR_WORDS * 4),
            slots: take((endpoints << self.inbox_shift) * 8),
            leaves: take(extents * self.leaves_per_extent() as usize * 8),
            summaries: take(extents * self.summaries_per_extent() as usize * 8),
            lengths: take(words * 4),
            words: take(words * 16),
            end,
        }
    }
}

/// Offsets into the metadata, in bytes, each on a page of its own.
#[derive(Debug)]
pub(crate) struct Layout {
    pub extents: usize,
    pub endpoints: usize,
    pub doors: usize,
    pub slots: usize,
    pub leaves: usize,
    pub summaries: usize,
    pub lengths: usize,
    pub words: usize,
    pub end: usize,
}

fn by_class(extent_bytes: u64, words: u32) -> [InClass; Class::COUNT] {
    let mut table = [InClass::default(); Class::COUNT];
    for (k, entry) in table.iter_mut().enumerate() {
        let size = Class::from_index(k as u64).map_or(u64::MAX, |class| class.size() as u64);
        let blocks = ((extent_bytes / size) as u32).clamp(1, words);
        let spread = if blocks * 4 <= words { 4 } else { 1 };
        *entry = InClass { blocks, spread, span: size.div_ceil(extent_bytes) as u32 };
    }
    table
}

fn largest_within(bytes: u64) -> Class {
    let mut largest = Class::for_len(0).unwrap_or_else(|| unreachable!("the table is not empty"));
    for class in largest.larger() {
        if class.size() as u64 <= bytes {
            largest = class;
        }
    }
    largest
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_pool_takes_4k_frames() {
        let g = Geometry::plan(&PoolConfig::default()).unwrap();
        assert_eq!((g.extents(), g.extent_bytes(), g.largest_block()), (16, 16 << 20, 16 << 20));
        assert_eq!(g.payload_bytes(), 256 << 20);
        assert!(g.metadata_bytes() < 4 << 20, "{}", g.metadata_bytes());
    }

    #[test]
    fn a_small_pool_lowers_its_largest_block() {
        let g = Geometry::plan(&PoolConfig { payload_bytes: 8 << 20, ..PoolConfig::default() }).unwrap();
        assert_eq!((g.extents(), g.extent_bytes(), g.largest_block()), (8, 1 << 20, 8 << 20));
    }

    proptest! {
        #[test]
        fn blocks_lie_within_the_payload_and_words_apart(
            payload in Geometry::MIN_PAYLOAD..(64u64 << 30), largest in 64u64..=(256 << 20),
            endpoints in 1u16..=2047, slots in 2u32..=4096, extent: u32, index: u32, class in 0u64..89,
        ) {
            let config = PoolConfig { payload_bytes: payload, largest_block: largest, endpoints, inbox_slots: slots, blocks_min: 0 };
            let g = Geometry::plan(&config).unwrap();
            prop_assert!(g.payload_bytes() <= payload && g.payload_bytes() * 8 > payload * 7);
            prop_assert!(g.extents() * g.words_per_extent() <= 1 << 24);
            prop_assert_eq!(&Geometry::from_header(g.to_header()).unwrap(), &g);
            let class = Class::from_index(class).unwrap().min(g.largest_class());
            let blocks = g.blocks_in_extent(class);
            prop_assert!(blocks >= 1);
            prop_assert!(blocks == 1 || g.span(class) == 1);
            let (extent, index) = (extent % (g.extents() - g.span(class) + 1), index % blocks);
            let at = g.payload_at(extent, index, class).unwrap();
            prop_assert!(at.is_multiple_of(64) && (class.size() < 4096 || at.is_multiple_of(4096)));
            let end = u64::from(extent + g.span(class)) * g.extent_bytes();
            prop_assert!((at + class.size()) as u64 <= end && end <= g.payload_bytes());
            let word = g.word_at(extent, index, class).unwrap();
            prop_assert!(word < ((extent + 1) * g.words_per_extent()) as usize);
            let within = word % g.words_per_extent() as usize;
            prop_assert_eq!(g.index_of_word(within as u32, class), Some(index));
            prop_assert_eq!(g.split(g.block(extent, index)), Some((extent, index)));
            prop_assert!(g.word_at(extent, blocks, class).is_none() && g.payload_at(g.extents(), 0, class).is_none());
        }

        #[test]
        fn a_scribbled_header_never_panics(header: [u64; 6], small in proptest::array::uniform6(0u64..100_000)) {
            for h in [header, small] {
                if let Ok(g) = Geometry::from_header(h) {
                    prop_assert!(g.metadata_bytes() > 0);
                }
            }
        }
    }
}
