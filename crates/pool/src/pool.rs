//! A pool as one process sees it: both memories mapped, the layout checked.

use crate::geometry::{Geometry, GeometryError, PoolConfig};
use crate::ids::{BlockId, EndpointRef, PoolId};
use crate::member::Member;
use crate::receive::Head;
use crate::receiver::Receiver;
use crate::region::{DOOR_WORDS, POOL_DOOR_WORDS, Place, Region, STATE_LIVE};
use crate::slot::Slot;
use crate::sync::{AtomicU64, Ordering};
use baton_shm::{Access, Mapping, OutOfRange};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The first word of every pool's metadata: "BATONPL" and a digit.
const MAGIC: u64 = u64::from_le_bytes(*b"BATONPL2");
/// Raised whenever the layout or the protocol changes.
const VERSION: u64 = 2;
/// Header: magic, version, pool id (2), geometry (6), flags.
const HEADER_WORDS: usize = 11;
/// Where the doors of the whole pool are, in the header's page.
const POOL_DOORS_AT: usize = 1024;
/// Flag: the payload has a name (`shm_open`), so its size is not sealed.
const NAMED: u64 = 1;

/// Looks at an uncommitted message before it is skipped; some 50 microseconds.
const PATIENCE: u32 = 2000;

/// Why there is no new pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The numbers make no pool.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The host cannot give the memory.
    #[error("no memory for the pool's {what}: {source}")]
    Memory {
        /// "payload" or "metadata".
        what: &'static str,
        /// The reason.
        source: baton_shm::CreateError,
    },
    /// The given payload is smaller than the pool.
    #[error("the payload has {found} bytes reserved, the pool needs {needed}: size and reserve it before")]
    Payload {
        /// Bytes that exist.
        found: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// Just created, and cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a pair of descriptors is no pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// This processor has no 128-bit compare-and-swap.
    #[error("this processor has no 128-bit compare-and-swap (cmpxchg16b): the pool cannot work here")]
    NoWideCompareAndSwap,
    /// The memory is not what a pool lives in.
    #[error("the pool's {what} is not acceptable: {source}")]
    Memory {
        /// "payload" or "metadata".
        what: &'static str,
        /// What is wrong.
        source: baton_shm::ValidateError,
    },
    /// No pool, or one of another version.
    #[error(
        "the metadata is no pool of this version (found {found:#x}): start all programs from the same build"
    )]
    NotAPool {
        /// What was found instead of magic and version.
        found: u64,
    },
    /// The header's numbers contradict each other or the memory's size.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A system call failed.
    #[error("cannot open the pool: {0}")]
    Kernel(#[from] std::io::Error),
    /// Not mapped.
    #[error("cannot open the pool: {0}")]
    Map(#[from] baton_shm::MapError),
    /// The metadata is smaller than its own layout.
    #[error("the pool's metadata is corrupt: {0}")]
    Layout(#[from] OutOfRange),
}

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The daemon has not admitted this life of this number (any more).
    #[error("endpoint {} (incarnation {}) is not admitted to this pool: connect to the daemon again", .0.id, .0.incarnation)]
    NotAdmitted(EndpointRef),
}

/// The two memories of a pool.
#[derive(Debug)]
pub struct PoolFds {
    /// Always mapped writable, by every member.
    pub metadata: OwnedFd,
    /// The blocks' bytes; readers may be given a read-only reopening instead.
    pub payload: OwnedFd,
}

/// A pool, mapped into this process. Clones share the mapping.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles of a process keep alive.
#[derive(Debug)]
pub(crate) struct Shared {
    pub region: Region,
    pub payload: Mapping,
    pub id: PoolId,
    pub named: bool,
}

impl Shared {
    /// Writes down how many bytes of the block are used. Called by its allocator only, before anybody else gets it.
    #[inline]
    pub fn set_len(&self, block: BlockId, len: usize) {
        if let Some(cell) = self.region.lengths.get(block.get() as usize) {
            cell.store(u32::try_from(len).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// Offset and length of a block's bytes. The length in memory is a claim and never reaches beyond the block.
    #[inline]
    pub fn bytes_of(&self, block: BlockId) -> Option<(usize, usize)> {
        self.bytes_at(self.region.place(block)?)
    }

    /// [`Shared::bytes_of`] the block that lies there.
    #[inline]
    pub fn bytes_at(&self, place: Place) -> Option<(usize, usize)> {
        let (extent, index) = self.region.geometry.split(place.block)?;
        let offset = self.region.geometry.payload_at(extent, index, place.class)?;
        let len = self.region.lengths.get(place.block.get() as usize)?.load(Ordering::Relaxed) as usize;
        Some((offset, len.min(place.class.size())))
    }
}

impl Pool {
    /// Creates a pool: checks the host, reserves every page, seals both memories. For the daemon; members
    /// [`Pool::open`].
    ///
    /// # Errors
    /// [`CreateError`], with needed and available bytes if the host is too small.
    pub fn create(config: &PoolConfig) -> Result<(Pool, PoolFds), CreateError> {
        let geometry = Geometry::plan(config)?;
        let memory = |what, bytes| {
            baton_shm::create_sealed(&format!("baton-{what}"), bytes)
                .map_err(|source| CreateError::Memory { what, source })
        };
        let payload = memory("payload", geometry.payload_bytes())?;
        let metadata = memory("metadata", geometry.metadata_bytes())?;
        Self::found(&geometry, metadata, payload, 0)
    }

    /// Creates a pool over a payload that has a name: already sized and every page reserved, not sealed. The metadata
    /// is anonymous and sealed as always. Whoever may write to the payload's file can truncate it, and then every
    /// member that touches a block gets a SIGBUS: the price of the name.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create_over(config: &PoolConfig, payload: OwnedFd) -> Result<(Pool, PoolFds), CreateError> {
        let geometry = Geometry::plan(config)?;
        let needed = geometry.payload_bytes();
        let found = reserved(&payload).map_err(OpenError::Kernel)?;
        if found < needed {
            return Err(CreateError::Payload { found, needed });
        }
        let metadata = baton_shm::create_sealed("baton-metadata", geometry.metadata_bytes())
            .map_err(|source| CreateError::Memory { what: "metadata", source })?;
        Self::found(&geometry, metadata, payload, NAMED)
    }

    /// A pool of which only those pages exist that are touched ([`baton_shm::create_sparse`]): for tests of sizes that no
    /// test machine has. Not to be handed to anybody: [`Pool::open`] refuses it.
    ///
    /// # Errors
    /// [`CreateError`].
    #[doc(hidden)]
    pub fn create_sparse(config: &PoolConfig) -> Result<(Pool, PoolFds), CreateError> {
        let geometry = Geometry::plan(config)?;
        let memory = |what, bytes| {
            baton_shm::create_sparse(&format!("baton-{what}"), bytes)
                .map_err(|source| CreateError::Memory { what, source })
        };
        let payload = memory("payload", geometry.payload_bytes())?;
        let metadata = memory("metadata", geometry.metadata_bytes())?;
        write_new(&metadata, &geometry, 0, 0)?;
        let fds = PoolFds { metadata, payload };
        let pool = Self::map(&fds.metadata, &fds.payload, |_, _| Ok(()))?;
        Ok((pool, fds))
    }

    fn found(
        geometry: &Geometry,
        metadata: OwnedFd,
        payload: OwnedFd,
        flags: u64,
    ) -> Result<(Pool, PoolFds), CreateError> {
        let mut id = [0u8; 16];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| OpenError::Kernel(errno.into()))?;
        write_new(&metadata, geometry, u128::from_le_bytes(id), flags)?;
        let fds = PoolFds { metadata, payload };
        let pool = Self::open(&fds.metadata, &fds.payload)?;
        Ok((pool, fds))
    }

    /// Opens a pool from descriptors that a peer handed over (or that survived a restart). `payload` may be read-only;
    /// then this process can receive and send, but not allocate.
    ///
    /// # Errors
    /// [`OpenError`]: the descriptors are claims, everything is checked.
    pub fn open(metadata: impl AsFd, payload: impl AsFd) -> Result<Pool, OpenError> {
        Self::map(metadata, payload, |fd, expected| baton_shm::validate(fd, expected))
    }

    /// `validate` says whether anonymous memory is good, and as long as it should be.
    fn map(
        metadata: impl AsFd,
        payload: impl AsFd,
        validate: impl Fn(BorrowedFd<'_>, u64) -> Result<(), baton_shm::ValidateError>,
    ) -> Result<Pool, OpenError> {
        if !portable_atomic::AtomicU128::is_lock_free() {
            return Err(OpenError::NoWideCompareAndSwap);
        }
        let found = baton_shm::size(&metadata)?;
        validate(metadata.as_fd(), found).map_err(|source| OpenError::Memory { what: "metadata", source })?;
        let len = usize::try_from(found).map_err(|_| GeometryError::Header)?;
        let mapping = Arc::new(Mapping::new(&metadata, len, Access::ReadWrite)?);
        let header = mapping.slice::<AtomicU64>(0, HEADER_WORDS)?;
        let mut header: [u64; HEADER_WORDS] = std::array::from_fn(|i| header[i].load(Ordering::Acquire));
        for (i, expected) in [MAGIC, VERSION].into_iter().enumerate() {
            if header[i] != expected {
                return Err(OpenError::NotAPool { found: header[i] });
            }
        }
        let id = PoolId(u128::from(header[3]) << 64 | u128::from(header[2]));
        let geometry = Geometry::from_header(std::array::from_fn(|i| std::mem::take(&mut header[4 + i])))?;
        if geometry.metadata_bytes() != found {
            return Err(GeometryError::Header.into());
        }
        let named = header[10] & NAMED != 0;
        if named {
            let (found, expected) = (reserved(&payload)?, geometry.payload_bytes());
            if found < expected {
                let source = baton_shm::ValidateError::NotReserved { reserved: found, size: expected };
                return Err(OpenError::Memory { what: "payload", source });
            }
        } else {
            validate(payload.as_fd(), geometry.payload_bytes())
                .map_err(|source| OpenError::Memory { what: "payload", source })?;
        }
        let access = if baton_shm::is_writable(&payload)? { Access::ReadWrite } else { Access::ReadOnly };
        let payload_len = usize::try_from(geometry.payload_bytes()).map_err(|_| GeometryError::Header)?;
        let payload = Mapping::new(&payload, payload_len, access)?;
        let region = Region::map(&mapping, geometry)?;
        Ok(Pool { shared: Arc::new(Shared { region, payload, id, named }) })
    }

    /// Which pool this is.
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.shared.id
    }

    /// Whether the payload has a name, and so a size that its owner can change.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.shared.named
    }

    /// Its layout.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.shared.region.geometry
    }

    /// Whether this process can write to blocks (and so allocate).
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.payload.access() == Access::ReadWrite
    }

    /// Faults in all pages of the payload, so that later accesses do not. Takes a while (about a microsecond per 4 KiB):
    /// call it from a background thread.
    ///
    /// # Errors
    /// The kernel's; harmless.
    pub fn populate(&self) -> std::io::Result<()> {
        self.shared.payload.populate(0..usize::MAX)
    }

    /// Starts to work as an endpoint that the daemon has admitted for this process. Once per admission: two receivers
    /// of one inbox would steal each other's messages.
    ///
    /// # Errors
    /// [`AttachError`] if this life of the endpoint is over or never began.
    pub fn attach(&self, endpoint: EndpointRef) -> Result<(Member, Receiver), AttachError> {
        let head = self.admitted(endpoint)?;
        let member = Member::new(Arc::clone(&self.shared), endpoint);
        let receiver = Receiver::new(member.clone(), head);
        Ok((member, receiver))
    }

    /// Where the inbox of this life of an endpoint begins.
    pub(crate) fn admitted(&self, endpoint: EndpointRef) -> Result<Head, AttachError> {
        let record = self.shared.region.endpoint(endpoint.id).ok_or(AttachError::NotAdmitted(endpoint))?;
        let admitted = record.state().load(Ordering::SeqCst) == STATE_LIVE
            && record.incarnation().load(Ordering::SeqCst) == u64::from(endpoint.incarnation);
        if !admitted {
            return Err(AttachError::NotAdmitted(endpoint));
        }
        Ok(Head::new(endpoint.id, record.head0().load(Ordering::SeqCst), PATIENCE))
    }
}

/// Bytes of a file that exist: its size, or less if it has holes.
fn reserved(file: impl AsFd) -> std::io::Result<u64> {
    let stat = rustix::fs::fstat(file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(size.min(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)))
}

/// Fills fresh, zeroed metadata. Zero is right for hold words (free, generation 0), extents (unbound) and endpoints.
fn write_new(metadata: &OwnedFd, geometry: &Geometry, id: u128, flags: u64) -> Result<(), OpenError> {
    let len = usize::try_from(geometry.metadata_bytes()).map_err(|_| GeometryError::Header)?;
    let mapping = Arc::new(Mapping::new(metadata, len, Access::ReadWrite)?);
    let region = Region::map(&mapping, geometry.clone())?;
    for cell in region.slots.iter() {
        cell.store(Slot::empty(0).bits(), Ordering::Relaxed);
    }
    for cell in region.leaves.iter().chain(region.summaries.iter()) {
        cell.store(!0, Ordering::Relaxed);
    }
    let header = mapping.slice::<AtomicU64>(0, HEADER_WORDS)?;
    let numbers =
        [VERSION, id as u64, (id >> 64) as u64].into_iter().chain(geometry.to_header()).chain([flags]);
    for (cell, number) in header[1..].iter().zip(numbers) {
        cell.store(number, Ordering::Relaxed);
    }
    header[0].store(MAGIC, Ordering::Release);
    Ok(())
}

impl Region {
    fn map(metadata: &Arc<Mapping>, geometry: Geometry) -> Result<Region, OutOfRange> {
        let layout = geometry.layout();
        let endpoints = usize::from(geometry.endpoints()) + 1;
        let extents = geometry.extents() as usize;
        let words = extents * geometry.words_per_extent() as usize;
        Ok(Region {
            extents: metadata.slice(layout.extents, extents)?,
            endpoints: metadata.slice(layout.endpoints, endpoints * crate::geometry::ENDPOINT_WORDS)?,
            doors: metadata.slice(layout.doors, endpoints * DOOR_WORDS)?,
            pool_doors: metadata.slice(POOL_DOORS_AT, POOL_DOOR_WORDS)?,
            slots: metadata.slice(layout.slots, endpoints << geometry.inbox_shift())?,
            leaves: metadata.slice(layout.leaves, extents * geometry.leaves_per_extent() as usize)?,
            summaries: metadata
                .slice(layout.summaries, extents * geometry.summaries_per_extent() as usize)?,
            lengths: metadata.slice(layout.lengths, words)?,
            words: metadata.slice(layout.words, words)?,
            geometry,
        })
    }
}
