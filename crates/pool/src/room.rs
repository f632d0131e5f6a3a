//! The daemon makes room for a size that found none: extents that hold nothing are taken from other sizes.
//!
//! ```text
//!   Exhausted ─▶ make_room(len):  mend what is half done ─▶ rows of extents that are unbound or hold nothing
//!                                 ─▶ the row with the least to retire: retire, bind (one extent, or a run) ─▶ try again
//! ```
//! Members work on meanwhile, so a row may be lost to one of them; then the next row is tried. What a member keeps in
//! its magazine counts as held: it pins the extent. The steps themselves, and what a kill leaves: `retire`.

use crate::class::Class;
use crate::extent::{Extent, Use};
use crate::ids::{EndpointId, EndpointRef};
use crate::pool::Pool;
use crate::region::Region;
use crate::steward::EndpointKind;
use crate::sync::Ordering;
use crate::word::Word;

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
        let region = &self.shared.region;
        let kind =
            region.endpoint(daemon.id).map(|e| EndpointKind::from_number(e.kind().load(Ordering::SeqCst)));
        if self.admitted(daemon).is_err() || kind != Some(EndpointKind::Daemon) {
            return Err(MakeRoomError::NotTheDaemon(daemon));
        }
        if region.has_free(class) {
            return Ok(MadeRoom::default()); // somebody gave one back meanwhile
        }
        region.repair(daemon.id);
        region.make_room(daemon.id, class).map_err(|found| MakeRoomError::NoRoom {
            len,
            needed: geometry.span(class),
            found,
        })
    }

    /// How many extents a daemon left halfway between two sizes when it was killed: [`Pool::repair`] mends them.
    #[must_use]
    pub fn unfinished_extents(&self) -> u32 {
        let region = &self.shared.region;
        (0..region.geometry.extents()).filter(|number| region.is_unfinished(*number)).count() as u32
    }

    /// Finishes what the daemon before began and did not live to end. Once, after its endpoint was reaped. Returns how
    /// many extents were mended.
    pub fn repair(&self, daemon: EndpointRef) -> u32 {
        self.shared.region.repair(daemon.id)
    }
}

/// A row of extents that could be taken.
struct Row {
    first: u32,
    /// How many of them must be retired before.
    bound: u32,
}

impl Region {
    /// A hint says that there is a free block of this class, and its word agrees.
    fn has_free(&self, class: Class) -> bool {
        (0..self.geometry.extents())
            .filter(|number| self.class_of(*number) == Some(class))
            .flat_map(|number| self.blocks_of(number))
            .any(|place| Word::load(self.word(place)).is_free() && self.is_hinted(place.block))
    }

    /// Binds as many extents as a block of the class takes, retiring what is empty; or says how long the longest row
    /// is that holds nothing.
    fn make_room(&self, daemon: EndpointId, class: Class) -> Result<MadeRoom, u32> {
        let span = self.geometry.span(class);
        let mut made = MadeRoom::default();
        let empty: Vec<bool> =
            (0..self.geometry.extents()).map(|number| self.could_be_taken(number)).collect();
        for row in self.rows(&empty, span) {
            let mut all = true;
            for number in row.first..row.first + span {
                match self.extent(number).and_then(Extent::used) {
                    Some(Use::Unbound) => continue,
                    Some(Use::Follows(head)) => all = self.retire(daemon, head),
                    _ => all = self.retire(daemon, number),
                }
                if !all {
                    break; // somebody took a block of it meanwhile
                }
                made.retired += 1;
            }
            if all && if span == 1 { self.bind(row.first, class) } else { self.bind_run(row.first, class) } {
                made.bound = span;
                self.announce_freed();
                return Ok(made);
            }
        }
        Err(longest(&empty))
    }

    /// Unbound, or bound and empty; the same for all extents of a run.
    fn could_be_taken(&self, number: u32) -> bool {
        match self.extent(number).and_then(Extent::used) {
            Some(Use::Unbound) => true,
            Some(Use::Bound(_)) => self.is_empty(number),
            Some(Use::Follows(head)) => self.leads(head, number) && self.is_empty(head),
            _ => false,
        }
    }

    /// All rows of `span` extents that could be taken, those with the least to retire first.
    fn rows(&self, empty: &[bool], span: u32) -> Vec<Row> {
        let windows = empty.windows(span as usize).enumerate().filter(|(_, row)| row.iter().all(|e| *e));
        let mut rows: Vec<Row> = windows
            .map(|(first, _)| {
                let first = first as u32;
                let bound = (first..first + span).filter(|number| !self.is_unbound(*number)).count() as u32;
                Row { first, bound }
            })
            .collect();
        rows.sort_by_key(|row| row.bound);
        rows
    }
}

/// Length of the longest row.
fn longest(empty: &[bool]) -> u32 {
    empty.split(|e| !e).map(<[bool]>::len).max().unwrap_or(0) as u32
}
