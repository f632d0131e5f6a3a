//! What a run found.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Fates;

/// Everything that a run found.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The server.
    pub address: String,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// What became of the requests.
    pub requests: Fates,
    /// Right answers a second.
    pub rate: f64,
    /// Error frames by their code.
    pub refusals: BTreeMap<String, u64>,
    /// What became of the connections.
    pub links: Links,
    /// Times of the answers.
    pub latency: Latency,
    /// The longest time in which no answer came although some were awaited, in microseconds.
    pub worst_gap_us: f64,
    /// The longest time from the end of a connection until it was made anew, in microseconds.
    pub worst_outage_us: f64,
    /// How the answers spread, with [`crate::Plan::count_results`].
    pub spread: Option<Spread>,
    /// What the client itself needed.
    pub client: Client,
    /// Whether it was told to stop before its end.
    pub interrupted: bool,
    /// Every latency, in nanoseconds.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// What became of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Links {
    /// Connections that came about.
    pub made: u64,
    /// Of these, made anew after one had ended.
    pub remade: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Connections that the other side, or the network, broke off.
    pub resets: u64,
    /// Connections that the other side ended, unasked.
    pub early_ends: u64,
    /// Connections that were given up because of a time-out or of bytes that are no frames.
    pub given_up: u64,
}

/// Percentiles in microseconds. An open loop counts from when a request should have left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Average.
    pub mean_us: f64,
    /// Half are faster.
    pub p50_us: f64,
    /// 90 % are faster.
    pub p90_us: f64,
    /// 99 % are faster.
    pub p99_us: f64,
    /// 99.9 % are faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// Which result came how often; for `whoami`, which worker answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Answers by result.
    pub answers: BTreeMap<String, u64>,
    /// Connections by the last result that came on them.
    pub connections: BTreeMap<String, u64>,
    /// Standard deviation of `answers` ÷ their mean.
    pub answers_variation: f64,
    /// Standard deviation of `connections` ÷ their mean.
    pub connections_variation: f64,
}

/// What the client itself needed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Client {
    /// CPU time.
    pub cpu_seconds: f64,
    /// Of one core; near 1 the client is the limit.
    pub core_share: f64,
}

/// The outcome in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every request got its right answer, and no connection was cut.
    AllRight,
    /// Some request did not get its right answer.
    AnswersMissing,
    /// Every request that was sent got its right answer, but connections failed or were cut.
    ConnectionsCut,
}

impl Outcome {
    /// In a word.
    pub fn verdict(&self) -> Verdict {
        let Links { failed, resets, early_ends, given_up, .. } = self.links;
        if !self.requests.are_all_right() {
            Verdict::AnswersMissing
        } else if failed + resets + early_ends + given_up > 0 {
            Verdict::ConnectionsCut
        } else {
            Verdict::AllRight
        }
    }

    /// Whether the client was so busy that the server may be able to do more.
    pub fn is_client_the_limit(&self) -> bool {
        self.client.core_share > 0.9
    }
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let us = |share: f64| histogram.value_at_quantile(share) as f64 / 1e3;
        Latency {
            mean_us: histogram.mean() / 1e3,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

impl Spread {
    pub(crate) fn of(answers: BTreeMap<String, u64>, connections: BTreeMap<String, u64>) -> Self {
        Spread {
            answers_variation: variation(answers.values()),
            connections_variation: variation(connections.values()),
            answers,
            connections,
        }
    }
}

/// Coefficient of variation; 0 of nothing.
fn variation<'a>(counts: impl ExactSizeIterator<Item = &'a u64> + Clone) -> f64 {
    let n = counts.len().max(1) as f64;
    let mean = counts.clone().sum::<u64>() as f64 / n;
    let square = counts.map(|count| (*count as f64 - mean).powi(2)).sum::<f64>() / n;
    if mean > 0.0 { square.sqrt() / mean } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variation_of_even_and_uneven_shares() {
        assert_eq!(variation([5, 5, 5].iter()), 0.0);
        assert_eq!(variation([].iter()), 0.0);
        // All of it at one of four: the square root of three.
        assert!((variation([8, 0, 0, 0].iter()) - 3_f64.sqrt()).abs() < 1e-12);
    }
}
