//! A member's transfer to a classic client between the daemon's answer and the member's word that it has it.
//!
//! ```text
//!   send_to_pid ─▶ recorded, answered ── confirm {bid} ──▶ the ledger's, like any transfer
//!                         │
//!                         └── any other request, end of the connection, no answer possible ──▶ withdrawn
//! ```
//!
//! The member tells the classic client of the transfer once it has confirmed. So what was not confirmed nobody will ever
//! receive, and it would be the client's, in vain, until that ends. A member confirms nothing if it was killed or stopped,
//! or gave up waiting for a daemon that was stopped: its question lies in the socket still, and is answered later.
//!
//! # What goes wrong
//! * **The daemon is killed**: the classic clients' connections end with it, and whatever was on its way to them.
//! * **The receiver ends**: the ledger forgets the transfer; there is nothing to withdraw.
//! * **The receiver was told without a confirmation**, by a member that does not keep to this: if it has received, it has.
//! * **The member confirms something else**: that is no confirmation.

use std::rc::Rc;

use crate::daemon::House;

/// Withdraws the transfer when dropped.
pub(crate) struct Unconfirmed {
    house: Rc<House>,
    bid: i64,
    is_confirmed: bool,
}

impl Unconfirmed {
    pub(crate) fn new(house: &Rc<House>, bid: i64) -> Self {
        Self { house: Rc::clone(house), bid, is_confirmed: false }
    }

    /// The member says that it has this number.
    pub(crate) fn confirm(mut self, bid: i64) {
        self.is_confirmed = bid == self.bid;
    }
}

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        if !self.is_confirmed {
            tracing::debug!("rmmt: transfer {} is taken back: its sender has not confirmed it", self.bid);
            self.house.classic.ledger.borrow_mut().withdraw(self.bid);
        }
    }
}
