//! Counts while a run goes on.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::Fates;
use crate::outcome::Links;

/// Different results that are counted; a server that makes up more of them is not what this is for.
const RESULTS_MAX: usize = 4096;

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) fates: Fates,
    pub(crate) links: Links,
    /// Error frames by code.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Answers by result.
    pub(crate) results: BTreeMap<String, u64>,
    /// Nanoseconds from when a request was due until its answer, whatever that was.
    pub(crate) latency: Histogram<u64>,
    /// Longest time without any answer while some were awaited.
    pub(crate) gap_max: u64,
    /// Since when answers are awaited, or the last one came.
    quiet_since: Option<u64>,
    /// Longest time that a connection was missing.
    pub(crate) outage_max: u64,
    under_way: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        // Three digits of precision are always possible; the range grows by itself.
        let mut latency = Histogram::new(3).expect("3 is a valid precision");
        latency.auto(true);
        Tally {
            fates: Fates::default(),
            links: Links::default(),
            refusals: BTreeMap::new(),
            results: BTreeMap::new(),
            latency,
            gap_max: 0,
            quiet_since: None,
            outage_max: 0,
            under_way: 0,
        }
    }

    /// Requests that were sent and have not ended.
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way
    }

    pub(crate) fn sent(&mut self, now: u64) {
        self.fates.sent += 1;
        if self.under_way == 0 {
            self.quiet_since = Some(now);
        }
        self.under_way += 1;
    }

    /// An answer ended a request that was due then.
    pub(crate) fn answered(&mut self, due: u64, now: u64) {
        let _always_in_range = self.latency.record(now.saturating_sub(due).max(1));
        self.quiet(now);
        self.ended(1);
    }

    /// So many requests ended without an answer.
    pub(crate) fn ended(&mut self, requests: u64) {
        self.under_way -= requests;
        if self.under_way == 0 {
            self.quiet_since = None;
        }
    }

    /// An answer came, or the run ends.
    pub(crate) fn quiet(&mut self, now: u64) {
        if let Some(since) = self.quiet_since.replace(now) {
            self.gap_max = self.gap_max.max(now.saturating_sub(since));
        }
    }

    pub(crate) fn refused(&mut self, code: String) {
        if self.refusals.len() < RESULTS_MAX || self.refusals.contains_key(&code) {
            *self.refusals.entry(code).or_default() += 1;
        }
    }

    pub(crate) fn result(&mut self, result: &str) {
        if let Some(count) = self.results.get_mut(result) {
            *count += 1;
        } else if self.results.len() < RESULTS_MAX {
            self.results.insert(result.to_owned(), 1);
        }
    }
}
