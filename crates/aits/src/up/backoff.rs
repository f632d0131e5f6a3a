//! How soon a process that ended is started again.

use std::time::Duration;

/// A process that lived so long was no crash at start: the next pause is the first one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(2);
/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// Exponential back-off over the lives of one process.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    short_lives: u32,
}

impl Backoff {
    /// The pause after a life of this length.
    pub(super) fn after(&mut self, life: Duration) -> Duration {
        self.short_lives = if life >= HEALTHY_AFTER { 0 } else { self.short_lives + 1 };
        let doublings = self.short_lives.saturating_sub(1).min(16);
        (FIRST * 2_u32.pow(doublings)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_in_a_crash_loop_and_start_over_after_a_healthy_life() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(backoff.after(HEALTHY_AFTER), FIRST);
        assert_eq!(backoff.after(Duration::ZERO), FIRST, "one crash after a healthy life is no loop yet");
        assert_eq!(backoff.after(Duration::ZERO), FIRST * 2);
    }
}
