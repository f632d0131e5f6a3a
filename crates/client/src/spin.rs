//! Whether to spin before sleeping, learnt from what became of it.
//!
//! ```text
//!   spinning ── two waits in vain ──▶ not spinning, for the next 16 quick messages ── then ──▶ spinning (one try)
//!      ▲                                   ▲                                                     │
//!      └── a message found while spinning ─┼─────────────────────────────────────────────────────┤
//!                                          └────────── in vain: twice as many, at most 4096 ◀────┘
//! ```
//! A *quick* message is one that came after a sleep of no more than five budgets: two who answer each other both asleep
//! take two wake-ups (some 25 µs each) for what takes less than a budget once both spin. That alone is no evidence that
//! spinning pays: a sender on the same processor can work only while the receiver sleeps, and then every message is quick.

use std::time::Duration;

/// Waits in vain in a row before it stops.
const VAIN_MOST: u32 = 2;

/// Quick messages before the next try, at first and at most.
const PAUSE_FIRST: u32 = 16;
const PAUSE_MOST: u32 = 4096;

/// Up to that many budgets a sleep was short.
const QUICK: u32 = 5;

/// What was learnt.
#[derive(Debug)]
pub(crate) struct Spin {
    budget: Duration,
    /// Waits in vain since spinning paid off last.
    vain: u32,
    /// Quick messages that must come before the next try.
    pause: u32,
}

impl Spin {
    /// Begins hopefully. A budget of zero never spins.
    pub(crate) fn new(budget: Duration) -> Self {
        Self { budget, vain: 0, pause: 0 }
    }

    /// How long to spin now.
    #[inline]
    pub(crate) fn now(&self) -> Duration {
        if self.pause == 0 { self.budget } else { Duration::ZERO }
    }

    /// A message came while spinning.
    #[inline]
    pub(crate) fn paid(&mut self) {
        self.vain = 0;
    }

    /// None came.
    pub(crate) fn was_vain(&mut self) {
        self.vain = self.vain.saturating_add(1);
        if self.vain >= VAIN_MOST {
            let doublings = (self.vain - VAIN_MOST).min(PAUSE_MOST.ilog2());
            self.pause = (PAUSE_FIRST << doublings).min(PAUSE_MOST);
        }
    }

    /// A message came that long after the wait for it began, while the receiver slept.
    pub(crate) fn slept(&mut self, waited: Duration) {
        if waited <= self.budget.saturating_mul(QUICK) {
            self.pause = self.pause.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_micros(20);
    const SOON: Duration = Duration::from_micros(9);
    const SLOW: Duration = Duration::from_millis(40);

    /// One wait: whether it spun.
    fn wait(spin: &mut Spin, is_found_spinning: bool, slept: Duration) -> bool {
        let spins = !spin.now().is_zero();
        match (spins, is_found_spinning) {
            (true, true) => spin.paid(),
            (true, false) => {
                spin.was_vain();
                spin.slept(slept);
            }
            (false, _) => spin.slept(slept),
        }
        spins
    }

    #[test]
    fn a_camera_costs_two_spins() {
        let mut spin = Spin::new(BUDGET);
        assert_eq!((0..10_000).filter(|_| wait(&mut spin, false, SLOW)).count(), 2);
    }

    #[test]
    fn a_burst_is_received_spinning_however_long_the_gap_before_it() {
        let mut spin = Spin::new(BUDGET);
        for message in 0..10_000 {
            assert!(wait(&mut spin, message % 10 != 0, SLOW), "message {message}");
        }
    }

    #[test]
    fn a_sender_on_the_same_processor_is_held_up_ever_less() {
        let mut spin = Spin::new(BUDGET);
        let spins = (0..100_000).filter(|_| wait(&mut spin, false, SOON)).count();
        assert!((3..40).contains(&spins), "{spins} of 100,000");
    }

    #[test]
    fn when_messages_come_fast_it_begins_again() {
        let mut spin = Spin::new(BUDGET);
        for _ in 0..10 {
            wait(&mut spin, false, SLOW);
        }
        assert!((0..100).any(|_| wait(&mut spin, true, SOON)));
        assert!(wait(&mut spin, true, SOON), "and stays");
    }

    #[test]
    fn two_who_answer_each_other_asleep_come_to_spin() {
        let mut spin = Spin::new(BUDGET);
        (0..3).for_each(|_| {
            wait(&mut spin, false, SLOW);
        });
        let both_woken = Duration::from_micros(70);
        assert!((0..100).any(|_| wait(&mut spin, true, both_woken)));
    }

    #[test]
    fn a_budget_of_zero_never_spins() {
        assert!(!wait(&mut Spin::new(Duration::ZERO), true, SOON));
    }
}
