//! Whether a receiver should look for a message a little longer before it sleeps.
//!
//! ```text
//!            a message would have come within the budget, as often as is wanted
//!    sleeps ───────────────────────────────────────────────────────────────────▶ spins
//!       ▲                                                                          │
//!       └───── spun in vain, and looking longer would not have helped ◀────────────┘
//!                          (and it is wanted twice as often the next time)
//! ```
//! What would have been is known after each sleep: who wakes the sleeper tells when and where it sent
//! ([`Receiver::would_have_come`](baton_pool::Receiver::would_have_come)). So it costs nothing to find out that spinning
//! has begun to pay, and it is not tried on a suspicion: a camera with its 40 ms between frames, or a sender on the same
//! processor, never makes the receiver spin; two processes that answer each other within the budget do so from their second
//! exchange on.

use std::time::Duration;

/// Never wanted more often.
const MOST_WANTED: u32 = 64;
/// So many messages found while spinning make up for one time in vain.
const FORGIVEN_BY: u32 = 16;

#[derive(Debug)]
pub(crate) struct Spin {
    /// As long as it may take. Zero: never.
    budget: Duration,
    spins: bool,
    /// How often in a row a message would have come in time, and how often it is wanted.
    good: u32,
    wanted: u32,
    /// Messages found while spinning, since the last reckoning.
    found: u32,
}

impl Spin {
    /// Sleeps at first.
    pub fn within(budget: Duration) -> Self {
        Self { budget, spins: false, good: 0, wanted: 1, found: 0 }
    }

    /// For how long to spin, if at all.
    #[inline]
    pub fn now(&self) -> Option<Duration> {
        self.spins.then_some(self.budget)
    }

    /// A message came while spinning.
    #[inline]
    pub fn found(&mut self) {
        self.found += 1;
        if self.found >= FORGIVEN_BY {
            self.found = 0;
            self.wanted = (self.wanted / 2).max(1);
        }
    }

    /// It slept; after that time the message would have come to one who did not.
    pub fn slept(&mut self, would_have_come: Option<Duration>) {
        if would_have_come.is_some_and(|time| time <= self.budget) {
            self.good = self.good.saturating_add(1);
            self.spins = self.good >= self.wanted && !self.budget.is_zero();
        } else {
            if self.spins {
                self.wanted = (self.wanted * 2).min(MOST_WANTED);
                self.found = 0;
            }
            self.good = 0;
            self.spins = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_micros(3));
    const LATE: Option<Duration> = Some(Duration::from_millis(40));

    fn spin() -> Spin {
        Spin::within(Duration::from_micros(20))
    }

    #[test]
    fn who_waits_for_a_camera_never_spins() {
        let mut spin = spin();
        for would_have_come in [LATE, None, LATE] {
            assert_eq!(spin.now(), None);
            spin.slept(would_have_come);
        }
        assert_eq!(spin.now(), None);
    }

    #[test]
    fn spins_after_one_message_that_would_have_come_in_time_and_until_it_is_in_vain() {
        let mut spin = spin();
        spin.slept(SOON);
        assert_eq!(spin.now(), Some(spin.budget));
        spin.slept(LATE);
        assert_eq!(spin.now(), None);
        spin.slept(SOON);
        assert_eq!(spin.now(), None, "once is no longer enough");
        spin.slept(SOON);
        assert_eq!(spin.now(), Some(spin.budget));
    }

    #[test]
    fn what_was_in_vain_is_forgiven() {
        let mut spin = spin();
        for _ in 0..100 {
            (0..MOST_WANTED).for_each(|_| spin.slept(SOON));
            spin.slept(LATE);
        }
        assert_eq!(spin.wanted, MOST_WANTED);
        (0..MOST_WANTED).for_each(|_| spin.slept(SOON));
        (0..FORGIVEN_BY * 6).for_each(|_| spin.found());
        spin.slept(LATE);
        assert_eq!(spin.wanted, 2);
    }

    #[test]
    fn a_budget_of_nothing_is_kept() {
        let mut spin = Spin::within(Duration::ZERO);
        spin.slept(Some(Duration::ZERO));
        assert_eq!(spin.now(), None);
    }
}
