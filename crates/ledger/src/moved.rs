//! A connection between two owners: taken while idle, or taken over from the dead.

use crate::hold::{Hold, NotYours};
use crate::kill::kill_point;
use crate::ledger::Ticket;
use crate::word::{Slot, State};

/// A connection that nobody serves until it is given on. Forgotten, it stays the mover's and waits for the mover's death.
#[derive(Debug)]
#[must_use = "give it to a worker, or close it"]
pub struct Moved<'l> {
    pub(crate) hold: Hold<'l>,
}

impl<'l> core::ops::Deref for Moved<'l> {
    type Target = Hold<'l>;
    fn deref(&self) -> &Hold<'l> {
        &self.hold
    }
}

impl core::ops::DerefMut for Moved<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.hold
    }
}

impl Moved<'_> {
    /// Gives it to its next owner, who needs the ticket (and the socket). What is to be done for it goes along: the
    /// next claim's [`Hold::duty`] says the same.
    ///
    /// # Errors
    /// [`NotYours`] if it was not held any more.
    pub fn give(mut self, to: Slot) -> Result<Ticket, NotYours> {
        if to.get() >= self.hold.ledger.geometry().workers {
            return Err(NotYours { record: self.hold.record });
        }
        let next = self.hold.word.handed_to(State::Idle, to);
        self.hold.turn(next)?;
        kill_point!(MoveGiven);
        Ok(Ticket { record: self.hold.record, epoch: next.epoch() })
    }

    /// Frees the record; `shutdown` the socket first.
    ///
    /// # Errors
    /// [`NotYours`] if it was not held any more.
    pub fn close(self) -> Result<(), NotYours> {
        self.hold.finish()
    }
}
