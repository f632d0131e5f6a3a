//! The daemon makes room for a size that found none: extents that hold nothing are taken from other sizes.

use crate::class::Class;
use crate::ids::EndpointRef;
use crate::pool::Pool;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MadeRoom {
    /// Extents that were empty and taken from other sizes.
    pub retired: u32,
    /// Extents bound to the size asked for.
    pub bound: u32,
}

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MakeRoomError {
    /// No block of this pool is that large.
    #[error(
        "{len} bytes asked, the largest block of this pool has {largest}: raise the pool's size or largest block"
    )]
    TooLarge {
        /// Bytes asked for.
        len: usize,
        /// Bytes of the largest class.
        largest: usize,
    },
    /// Somebody holds a block in every extent that could be taken.
    #[error(
        "no room for a block of {len} bytes: it takes {needed} neighbouring extents that hold nothing, the most found are \
         {found}; receive and drop blocks faster, or raise the pool's size"
    )]
    NoRoom {
        /// Bytes asked for.
        len: usize,
        /// Extents needed, neighbours.
        needed: u32,
        /// The longest row of extents that hold nothing.
        found: u32,
    },
    /// The endpoint given is not the daemon's.
    #[error("endpoint {} (incarnation {}) is not admitted as the daemon's own: admit it first", .0.id, .0.incarnation)]
    NotTheDaemon(EndpointRef),
}

impl Pool {
    /// Sees to it that a block of `len` bytes can be had, by binding what is unbound and by taking extents that hold
    /// nothing from other sizes. `daemon` is the daemon's own endpoint ([`EndpointKind::Daemon`](crate::EndpointKind)).
    /// The block is not allocated: somebody else may be faster.
    ///
    /// # Errors
    /// [`MakeRoomError`].
    pub fn make_room(&self, daemon: EndpointRef, len: usize) -> Result<MadeRoom, MakeRoomError> {
        let geometry = self.geometry();
        let class = Class::for_len(len)
            .filter(|class| *class <= geometry.largest_class())
            .ok_or(MakeRoomError::TooLarge { len, largest: geometry.largest_block() })?;
        if self.admitted(daemon).is_err() {
            return Err(MakeRoomError::NotTheDaemon(daemon));
        }
        if self.shared.region.bind_one(class, 0) {
            return Ok(MadeRoom { retired: 0, bound: 1 });
        }
        Err(MakeRoomError::NoRoom { len, needed: 1, found: 0 })
    }
}
