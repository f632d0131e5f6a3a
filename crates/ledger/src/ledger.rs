//! The ledger: create and open, open connections, claim them, move them, take them over from the dead.

use crate::arena::{Field, Memory};
use crate::claim::Claim;
use crate::geometry::Geometry;
#[cfg(not(loom))]
use crate::geometry::{CHUNK_WORDS, Config, GeometryError, HEADER_WORDS, RECORD_WORDS};
use crate::hold::{Hold, NotYours};
use crate::kill::{kill_point, mutant};
use crate::moved::Moved;
use crate::sync::Ordering;
use crate::word::{Epoch, Slot, State, Word};
#[cfg(not(loom))]
use baton_shm::{Access, Mapping};
#[cfg(not(loom))]
use std::os::fd::{AsFd, OwnedFd};
#[cfg(not(loom))]
use std::sync::Arc;

/// Which connection, in which epoch: what its owner has to know to claim it. A ticket is a claim in the other sense, too:
/// it may come from anywhere, since only the record decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The record's number.
    pub record: u32,
    /// The epoch in which it was given.
    pub epoch: Epoch,
}

/// What kind of socket it is, which decides what can be known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The kernel says how many bytes it took and gave up.
    Tcp = 1,
    /// A Unix stream socket.
    Unix = 2,
    /// The position in the socket is not that of the records inside.
    Tls = 3,
}

/// What a record says about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Number of the listener that accepted it.
    pub listener: u16,
    /// What kind of socket it is.
    pub kind: Kind,
    /// What the kernel counted as acknowledged when it was accepted: answers are counted from there.
    pub acked_base: u64,
}

/// Every record is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {connections} records of the ledger are in use: close connections, or raise `connections`")]
pub struct NoRecord {
    /// How many there are.
    pub connections: u32,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection {record} is not idle in that epoch (it is {state:?}, of {owner}): leave it where it is")]
pub struct NotIdle {
    /// Which.
    pub record: u32,
    /// What it was seen as.
    pub state: Option<State>,
    /// Whose.
    pub owner: Slot,
}

/// Why a ledger cannot be created or opened.
#[cfg(not(loom))]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A size that cannot be.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The host has no such memory.
    #[error("no memory for the ledger: {0}")]
    Create(#[from] baton_shm::CreateError),
    /// The memory handed over is not sealed, or not as large as it says.
    #[error("the descriptor is no ledger: {0}")]
    Validate(#[from] baton_shm::ValidateError),
    /// It cannot be looked at.
    #[error("cannot look at the ledger's descriptor: {0}")]
    Size(#[source] std::io::Error),
    /// It cannot be mapped.
    #[error(transparent)]
    Map(#[from] baton_shm::MapError),
    /// It is too short for what its header says.
    #[error("the ledger's memory is shorter than its header says: {0}")]
    Short(#[from] baton_shm::OutOfRange),
}

/// The records and the arena, mapped.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) memory: Memory,
}

#[cfg(not(loom))]
impl Ledger {
    /// Creates the memory, all pages reserved, all records free. The descriptor goes to whoever is to open it.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn create(config: &Config) -> Result<(Self, OwnedFd), LedgerError> {
        let geometry = Geometry::plan(config)?;
        let fd = baton_shm::create_sealed("baton-ledger", geometry.bytes())?;
        let mapping = Arc::new(Mapping::new(&fd, geometry.bytes() as usize, Access::ReadWrite)?);
        let header = mapping.slice::<core::sync::atomic::AtomicU64>(0, HEADER_WORDS)?;
        for (cell, word) in header.iter().zip(geometry.to_header()) {
            cell.store(word, Ordering::Release);
        }
        Ok((Self { memory: Self::map(&mapping, geometry)? }, fd))
    }

    /// Opens a ledger that another process created.
    ///
    /// # Errors
    /// [`LedgerError`] says what is wrong with the descriptor or the memory.
    pub fn open(fd: impl AsFd) -> Result<Self, LedgerError> {
        let bytes = baton_shm::size(&fd).map_err(LedgerError::Size)?;
        baton_shm::validate(&fd, bytes)?;
        let mapping = Arc::new(Mapping::new(&fd, bytes as usize, Access::ReadWrite)?);
        let cells = mapping.slice::<core::sync::atomic::AtomicU64>(0, HEADER_WORDS)?;
        let mut header = [0; HEADER_WORDS];
        for (word, cell) in header.iter_mut().zip(cells.iter()) {
            *word = cell.load(Ordering::Acquire);
        }
        Ok(Self { memory: Self::map(&mapping, Geometry::from_header(header)?)? })
    }

    fn map(mapping: &Arc<Mapping>, geometry: Geometry) -> Result<Memory, baton_shm::OutOfRange> {
        let records = geometry.connections as usize * RECORD_WORDS;
        let table = geometry.chunks() as usize * CHUNK_WORDS;
        Ok(Memory {
            geometry,
            records: mapping.slice(geometry.records_at() as usize, records)?,
            table: mapping.slice(geometry.table_at() as usize, table)?,
            payload: mapping.slice(geometry.payload_at() as usize, geometry.payload_words())?,
            hints: Default::default(),
        })
    }
}

impl Ledger {
    /// The layout.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.memory.geometry
    }

    /// A record's state word as it is at this moment, if there is such a record.
    #[must_use]
    pub fn word(&self, record: u32) -> Option<Word> {
        (record < self.memory.geometry.connections)
            .then(|| Word::from_bits(self.memory.get(record, Field::State)))
    }

    fn hold(&self, record: u32, from: Word, to: Word) -> Option<Hold<'_>> {
        let cell = self.memory.cell(record, Field::State);
        if mutant!(ClaimByStore) && to.state() == Some(State::Busy) {
            cell.store(to.bits(), Ordering::Release);
            return Some(Hold { ledger: self, record, word: to });
        }
        cell.compare_exchange(from.bits(), to.bits(), Ordering::AcqRel, Ordering::Acquire).ok()?;
        Some(Hold { ledger: self, record, word: to })
    }

    /// Takes a free record for a connection that `me` accepted and gives it to `to`.
    ///
    /// # Errors
    /// [`NoRecord`] if all are in use (or `to` is no slot of this ledger).
    pub fn accept(&self, me: Slot, to: Slot, about: About) -> Result<Ticket, NoRecord> {
        let connections = self.memory.geometry.connections;
        let hint = &self.memory.hints[2];
        let start = hint.load(core::sync::atomic::Ordering::Relaxed);
        for step in 0..connections {
            let record = ((u64::from(start) + u64::from(step)) % u64::from(connections)) as u32;
            let free = Word::from_bits(self.memory.get(record, Field::State));
            if free.state() != Some(State::Free) {
                continue;
            }
            let opening = free.handed_to(State::Moving, me).with_opening(true);
            let Some(mut hold) = self.hold(record, free, opening) else { continue };
            hint.store(record.wrapping_add(1), core::sync::atomic::Ordering::Relaxed);
            kill_point!(OpenTaken);
            for field in Field::DATA {
                self.memory.set(record, field, 0);
            }
            self.memory.set(record, Field::AckedBase, about.acked_base);
            self.memory.set(record, Field::About, u64::from(about.listener) | (about.kind as u64) << 16);
            kill_point!(OpenWritten);
            let open = hold.word.with_opening(false);
            let given = hold.turn(open).and_then(|()| Moved { hold }.give(to));
            kill_point!(OpenGiven);
            return given.map_err(|_| NoRecord { connections });
        }
        Err(NoRecord { connections })
    }

    /// Claims a connection, before every read: from here on it is this worker's alone.
    ///
    /// # Errors
    /// [`NotYours`]: it was moved, or is already claimed. Touch neither record nor socket.
    pub fn claim(&self, me: Slot, ticket: Ticket) -> Result<Claim<'_>, NotYours> {
        let not_yours = NotYours { record: ticket.record };
        let word = self.word(ticket.record).ok_or(not_yours)?;
        let same_epoch = word.epoch() == ticket.epoch || mutant!(EpochIgnored);
        if word.state() != Some(State::Idle) || word.owner() != me || !same_epoch {
            return Err(not_yours);
        }
        let hold = self.hold(ticket.record, word, word.with_state(State::Busy)).ok_or(not_yours)?;
        kill_point!(Claimed);
        Ok(Claim { hold: Some(hold) })
    }

    /// Takes a connection from its owner, if it is idle and in that epoch.
    ///
    /// # Errors
    /// [`NotIdle`]: leave it where it is.
    pub fn take(&self, me: Slot, ticket: Ticket) -> Result<Moved<'_>, NotIdle> {
        let record = ticket.record;
        let nothing = NotIdle { record, state: None, owner: me };
        let word = self.word(record).ok_or(nothing)?;
        let not_idle = NotIdle { record, state: word.state(), owner: word.owner() };
        let idle =
            word.state() == Some(State::Idle) || (mutant!(MovesBusy) && word.state() == Some(State::Busy));
        if !idle || word.epoch() != ticket.epoch {
            return Err(not_idle);
        }
        let hold = self.hold(record, word, word.handed_to(State::Moving, me)).ok_or(not_idle)?;
        kill_point!(MoveTaken);
        Ok(Moved { hold })
    }

    /// Takes over everything that `dead` answered for. Only when the kernel says that it is dead (its pidfd is readable):
    /// a process that merely stands still may go on in the middle of a read. Its slot may be used again when this has
    /// returned; until then it must not.
    ///
    /// What is to be done for each is in its [`Hold::duty`]. Records whose fields cannot be are closed here, and counted.
    pub fn recover(&self, me: Slot, dead: Slot) -> Recovery<'_> {
        let mut recovery = Recovery { moved: Vec::new(), corrupt: Vec::new(), chunks: 0 };
        for record in 0..self.memory.geometry.connections {
            let Some(moved) = self.take_over(me, dead, record) else { continue };
            recovery.moved.push(moved);
        }
        let mine = |record: u32| {
            recovery.moved.binary_search_by_key(&record, |moved: &Moved<'_>| moved.hold.record).is_ok()
        };
        recovery.chunks = if recovery.moved.is_empty() { 0 } else { self.memory.sweep(mine) };
        let (mut moved, mut corrupt) = (Vec::new(), Vec::new());
        for mut one in recovery.moved {
            let closing = one.hold.word.is_opening() || one.hold.word.is_ending();
            match if closing { Ok(()) } else { one.hold.settle() } {
                Ok(()) => moved.push(one),
                Err(_) => {
                    corrupt.push(one.hold.record);
                    let _ = one.close();
                }
            }
        }
        Recovery { moved, corrupt, chunks: recovery.chunks }
    }

    fn take_over(&self, me: Slot, dead: Slot, record: u32) -> Option<Moved<'_>> {
        let word = self.word(record)?;
        if word.owner() != dead || me == dead {
            return None;
        }
        let mut next = word.handed_to(State::Moving, me);
        match word.state() {
            Some(State::Free) => return None,
            Some(State::Sending) => next = next.with_unsure(!mutant!(SendForgotten)),
            Some(State::Closing) => next = next.ending(),
            // No state at all: scribbled, so that nothing it says can be believed.
            None => next = next.ending(),
            Some(State::Idle | State::Busy | State::Moving) => {}
        }
        let hold = self.hold(record, word, next)?;
        kill_point!(RecoverTaken);
        Some(Moved { hold })
    }

    /// The connections of one owner that are idle at this moment: what a mover may try to take.
    pub fn idle_of(&self, owner: Slot) -> impl Iterator<Item = Ticket> {
        (0..self.memory.geometry.connections).filter_map(move |record| {
            let word = self.word(record)?;
            let idle = word.state() == Some(State::Idle) && word.owner() == owner;
            idle.then_some(Ticket { record, epoch: word.epoch() })
        })
    }

    /// What the record says about its connection; of interest to whoever holds it.
    #[must_use]
    pub fn about(&self, record: u32) -> Option<About> {
        self.word(record)?;
        let about = self.memory.get(record, Field::About);
        let kind = match about >> 16 {
            1 => Kind::Tcp,
            2 => Kind::Unix,
            3 => Kind::Tls,
            _ => return None,
        };
        Some(About { listener: about as u16, kind, acked_base: self.memory.get(record, Field::AckedBase) })
    }

    /// Chunks of the arena that are taken, all connections together. Looks at the whole table.
    #[must_use]
    pub fn chunks_taken(&self) -> u32 {
        self.memory.chunks_taken()
    }
}

/// What [`Ledger::recover`] found.
#[derive(Debug)]
#[must_use = "connections in here are nobody's until they are given on"]
pub struct Recovery<'l> {
    /// What the dead answered for.
    pub moved: Vec<Moved<'l>>,
    /// Records that made no sense, closed: `shutdown` their sockets.
    pub corrupt: Vec<u32>,
    /// Chunks that the dead had taken and not linked, or unlinked and not given back.
    pub chunks: u32,
}
