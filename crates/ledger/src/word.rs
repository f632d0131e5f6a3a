//! The state word of a record: what may be done with the connection, and by whom. It changes by compare-and-swap only.
//!
//! ```text
//!   63            32 31     24 23        12 11      4 3     0
//!  ┌────────────────┬─────────┬────────────┬─────────┬───────┐
//!  │     epoch      │    0    │   owner    │  flags  │ state │
//!  └────────────────┴─────────┴────────────┴─────────┴───────┘
//!   counts the changes         worker slot  unsure
//!   of the owner               (12 bits)    opening
//!                                           ending
//! ```
//! *Unsure*: a send was under way when its owner died (or gave up in the middle); how many bytes the kernel took is not
//! known to the record. *Opening*: the record's fields are not yet written. *Ending*: its owner had begun to close the
//! connection.
//!
//! The epoch has 32 bits. A stopped process that wakes up after exactly 2³² changes of one record's owner would be
//! believed; at a thousand moves a second of one connection that is seven weeks of sleep, to the move.

use std::fmt;

/// The number of a worker (or of the master, or the keeper: of everybody who can own a connection).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Slots are below this number.
    pub const LIMIT: u16 = 1 << 12;

    /// The slot of that number, if there can be one.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::LIMIT { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// Counts the changes of a record's owner, so that an old owner is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub(crate) u32);

impl Epoch {
    /// The epoch that a message between processes names; believed only if the record says the same.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What may be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No connection.
    Free = 0,
    /// Nobody touches it; its owner may claim it, a mover may take it.
    Idle = 1,
    /// Its owner reads from it or handles a request.
    Busy = 2,
    /// Its owner hands bytes of an answer to the kernel.
    Sending = 3,
    /// Between two owners; the slot named is the mover's.
    Moving = 4,
    /// Its owner is taking the record apart.
    Closing = 5,
}

/// A state word, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(u64);

const UNSURE: u64 = 1 << 4;
const OPENING: u64 = 1 << 5;
const ENDING: u64 = 1 << 6;
const FLAGS: u64 = UNSURE | OPENING | ENDING;

impl Word {
    /// As it lies in memory.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As it lies in memory.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A word without flags.
    #[must_use]
    pub const fn new(state: State, owner: Slot, epoch: Epoch) -> Self {
        Self((epoch.0 as u64) << 32 | (owner.0 as u64) << 12 | state as u64)
    }

    /// Its state, unless somebody scribbled.
    #[must_use]
    pub const fn state(self) -> Option<State> {
        Some(match self.0 & 0xf {
            0 => State::Free,
            1 => State::Idle,
            2 => State::Busy,
            3 => State::Sending,
            4 => State::Moving,
            5 => State::Closing,
            _ => return None,
        })
    }

    /// Who answers for the connection; of a free record: who had it last.
    #[must_use]
    pub const fn owner(self) -> Slot {
        Slot((self.0 >> 12 & 0xfff) as u16)
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    /// Whether it is unknown how many bytes the kernel took.
    #[must_use]
    pub const fn is_unsure(self) -> bool {
        self.0 & UNSURE != 0
    }

    /// Whether the fields are not yet written.
    #[must_use]
    pub const fn is_opening(self) -> bool {
        self.0 & OPENING != 0
    }

    /// Whether its owner had begun to close the connection.
    #[must_use]
    pub const fn is_ending(self) -> bool {
        self.0 & ENDING != 0
    }

    pub(crate) const fn ending(self) -> Self {
        Self(self.0 | ENDING)
    }

    pub(crate) const fn with_state(self, state: State) -> Self {
        Self(self.0 & !0xf | state as u64)
    }

    pub(crate) const fn with_unsure(self, unsure: bool) -> Self {
        Self(if unsure { self.0 | UNSURE } else { self.0 & !UNSURE })
    }

    pub(crate) const fn with_opening(self, opening: bool) -> Self {
        Self(if opening { self.0 | OPENING } else { self.0 & !OPENING })
    }

    /// The same in another's hands: the next epoch.
    pub(crate) const fn handed_to(self, state: State, owner: Slot) -> Self {
        let epoch = Epoch(self.epoch().0.wrapping_add(1));
        Self(Self::new(state, owner, epoch).0 | self.0 & FLAGS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_meet() {
        let owner = Slot::new(Slot::LIMIT - 1).unwrap();
        let word = Word::new(State::Closing, owner, Epoch(u32::MAX)).with_unsure(true).with_opening(true);
        assert_eq!(
            (word.state(), word.owner(), word.epoch()),
            (Some(State::Closing), owner, Epoch(u32::MAX))
        );
        let plain = word.with_unsure(false).with_opening(false).with_state(State::Free);
        assert_eq!(plain.bits(), 0xffff_ffff_00ff_f000);
        let next = word.handed_to(State::Idle, Slot(0));
        assert!(next.is_unsure() && next.is_opening() && next.epoch() == Epoch(0) && next.owner() == Slot(0));
        assert_eq!(Word::from_bits(0xf).state(), None);
        assert_eq!(Slot::new(Slot::LIMIT), None);
    }
}
