//! How long to wait before the next child.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubling pauses; a child that served resets them.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A child ended that had been ready: the next one starts at once.
    pub(crate) fn served(&mut self) {
        self.failures = 0;
    }

    /// A child ended. Returns the pause before the next one, `None` when `max` in a row were never ready.
    pub(crate) fn failed(&mut self, was_ready: bool, max: u32) -> Option<Duration> {
        if was_ready {
            self.served();
            return Some(Duration::ZERO);
        }
        self.failures += 1;
        if self.failures >= max {
            return None;
        }
        Some((FIRST * 2u32.saturating_pow(self.failures.min(16) - 1)).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_then_end_and_a_served_child_resets_them() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = std::iter::from_fn(|| backoff.failed(false, 10)).collect();
        assert_eq!(pauses.len(), 9);
        assert!(pauses.is_sorted() && pauses[0] == FIRST && pauses[8] == LONGEST);
        assert_eq!(backoff.failed(true, 10), Some(Duration::ZERO));
        assert_eq!(backoff.failed(false, 10), Some(FIRST));
    }
}
