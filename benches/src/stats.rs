//! Medians, with the interval that the rounds allow.

use serde::Serialize;

/// One figure: the median over the rounds, and an interval that covers the true median with at least 95 %
/// (order statistics: no assumption about the distribution).
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Median over the rounds.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Each round's figure, in the order of measuring.
    pub rounds: Vec<f64>,
}

impl Summary {
    /// Summarises; `None` if there is nothing.
    pub fn of(rounds: &[f64]) -> Option<Self> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let rank = interval_rank(sorted.len());
        Some(Self {
            median: middle(&sorted),
            low: sorted[rank],
            high: sorted[last - rank],
            rounds: rounds.to_vec(),
        })
    }

    /// The ratio of two variants, paired by round: what disturbs the machine disturbs both.
    pub fn ratio(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Self::of(&ratios)
    }
}

/// Median of a list.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    middle(values)
}

/// The value below which `share` of a list lies.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn middle(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The largest r such that the r-th smallest and r-th largest of n values enclose the median with 95 %: twice the
/// probability of fewer than r heads in n throws of a coin is at most 5 %.
fn interval_rank(n: usize) -> usize {
    let mut term = 0.5f64.powi(n as i32); // the probability of k heads
    let (mut below, mut rank) = (0.0, 0);
    for k in 0..n / 2 {
        below += term;
        if 2.0 * below > 0.05 {
            break;
        }
        rank = k;
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_twenty_rounds_leaves_five_out_at_each_end() {
        // Known from tables: for n = 20 the 6th and the 15th value enclose the median with 95.9 %.
        assert_eq!(interval_rank(20), 5);
        let summary = Summary::of(&(1..=20).map(f64::from).collect::<Vec<_>>()).unwrap();
        assert_eq!((summary.low, summary.median, summary.high), (6.0, 10.5, 15.0));
    }

    #[test]
    fn few_rounds_give_their_extremes() {
        let summary = Summary::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((summary.low, summary.median, summary.high), (1.0, 2.0, 3.0));
        assert!(Summary::of(&[]).is_none());
    }

    #[test]
    fn ratios_are_paired_by_round() {
        let ratio = Summary::ratio(&[1.0, 10.0, 100.0], &[2.0, 20.0, 200.0]).unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (0.5, 0.5, 0.5));
    }
}
