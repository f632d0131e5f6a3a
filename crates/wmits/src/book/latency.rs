//! Distribution of the last latencies of a stream.

use std::collections::VecDeque;

use aits_orders::Latency;

/// Results that the distribution is made of: 100 s at 5 Hz.
const SAMPLES: usize = 500;
/// Anything outside 0…60 s comes from a wrong clock or a wrong peer.
const PLAUSIBLE_US: std::ops::RangeInclusive<i64> = 0..=60_000_000;

/// The last [`SAMPLES`] latencies, microseconds.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<u32>);

impl Window {
    pub(super) fn push(&mut self, us: i64) {
        if !PLAUSIBLE_US.contains(&us) {
            return;
        }
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(u32::try_from(us).unwrap_or(u32::MAX));
    }

    /// Nearest-rank percentiles: the smallest sample that at least so many percent do not exceed.
    pub(super) fn distribution(&self) -> Option<Latency> {
        let mut sorted: Vec<u32> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(index).map(|us| f64::from(*us) / 1e3)
        };
        Some(Latency { p50_ms: rank(50)?, p95_ms: rank(95)?, samples: u32::try_from(sorted.len()).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_the_last_samples() {
        let mut window = Window::default();
        assert_eq!(window.distribution(), None);
        (0..7).for_each(|_| window.push(50_000_000));
        (1..=500).rev().for_each(|ms| window.push(ms * 1000));
        window.push(-1);
        assert_eq!(window.distribution(), Some(Latency { p50_ms: 250.0, p95_ms: 475.0, samples: 500 }));
    }
}
