//! What a server has done: counted as it happens, told by `rpc.stats`.
//!
//! ```text
//!   Meter::start ── in flight + 1 ──┬─▶ finish(outcome): requests, errors by code, latency
//!                                   └─▶ dropped without: the caller went away (or cancelled), counted as such
//! ```
//! Counters are relaxed atomics: each is right, two read together may be a request apart. The counts are those of one
//! process; a cluster has as many as it has workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Buckets of a latency histogram: below 1 µs, 2 µs, 4 µs … 2^30 µs (18 min), and longer.
const BUCKETS: usize = 32;
/// Codes that are counted by name; a method that invents codes cannot fill the memory.
const MAX_CODES: usize = 64;

/// Counters of one server in one process.
#[derive(Debug)]
pub(crate) struct Stats {
    since: Instant,
    connections_open: AtomicUsize,
    connections_total: AtomicU64,
    in_flight: AtomicUsize,
    errors: Mutex<BTreeMap<String, u64>>,
}

/// Counters of one method.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    errors: AtomicU64,
    cancelled: AtomicU64,
    max_us: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            since: Instant::now(),
            connections_open: AtomicUsize::new(0),
            connections_total: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            errors: Mutex::new(BTreeMap::new()),
        }
    }
}

/// A connection, as long as it is open.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<Stats>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Relaxed);
    }
}

impl Stats {
    pub fn connection(self: &Arc<Self>) -> OpenConnection {
        self.connections_open.fetch_add(1, Relaxed);
        self.connections_total.fetch_add(1, Relaxed);
        OpenConnection(Arc::clone(self))
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// An error answer with this code, of a method or of the protocol.
    pub fn error(&self, code: &str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        match errors.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                let name = if errors.len() < MAX_CODES { code } else { "(others)" };
                *errors.entry(name.to_owned()).or_default() += 1;
            }
        }
    }

    pub fn uptime(&self) -> Duration {
        self.since.elapsed()
    }

    /// The result of `rpc.stats`.
    pub fn report<'a>(&self, methods: impl Iterator<Item = (&'a str, &'a Counters)>) -> Value {
        let methods: serde_json::Map<_, _> =
            methods.map(|(name, counters)| (name.to_owned(), counters.report())).collect();
        json!({
            "pid": std::process::id(),
            "uptime_s": self.uptime().as_secs_f64(),
            "connections": {
                "open": self.connections_open.load(Relaxed),
                "total": self.connections_total.load(Relaxed),
            },
            "in_flight": self.in_flight(),
            "errors": &*self.errors.lock().unwrap_or_else(PoisonError::into_inner),
            "methods": methods,
        })
    }
}

impl Counters {
    fn report(&self) -> Value {
        let counts: Vec<u64> = self.latency.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let buckets = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let buckets: Vec<_> = buckets.map(|(n, count)| json!([1_u64 << n, count])).collect();
        json!({
            "requests": self.requests.load(Relaxed),
            "errors": self.errors.load(Relaxed),
            "cancelled": self.cancelled.load(Relaxed),
            "latency_us": {
                "p50": quantile(&counts, 0.5),
                "p90": quantile(&counts, 0.9),
                "p99": quantile(&counts, 0.99),
                "max": self.max_us.load(Relaxed),
                "below": buckets,
            },
        })
    }
}

/// The bound below which this share of the counted values lies: a power of two, so at most twice the value.
fn quantile(counts: &[u64], share: f64) -> u64 {
    let total: u64 = counts.iter().sum();
    let wanted = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (n, count) in counts.iter().enumerate() {
        seen += count;
        if seen >= wanted && seen > 0 {
            return 1 << n;
        }
    }
    0
}

/// One request from its start to its end.
#[derive(Debug)]
pub(crate) struct Meter {
    stats: Arc<Stats>,
    method: Arc<Counters>,
    pub begun: Instant,
    finished: bool,
}

impl Meter {
    pub fn start(stats: &Arc<Stats>, method: &Arc<Counters>) -> Meter {
        stats.in_flight.fetch_add(1, Relaxed);
        method.requests.fetch_add(1, Relaxed);
        Meter { stats: Arc::clone(stats), method: Arc::clone(method), begun: Instant::now(), finished: false }
    }

    /// It has an outcome; the code if that is an error.
    pub fn finish(&mut self, error: Option<&str>) {
        self.finished = true;
        let us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.method.latency[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.method.max_us.fetch_max(us, Relaxed);
        if let Some(code) = error {
            self.method.errors.fetch_add(1, Relaxed);
            self.stats.error(code);
        }
    }

    /// It was refused before it began; whoever answers counts the code.
    pub fn refused(&mut self) {
        self.finished = true;
        self.method.errors.fetch_add(1, Relaxed);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stats.in_flight.fetch_sub(1, Relaxed);
        if !self.finished {
            self.method.cancelled.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_request_is_counted_as_what_it_is() {
        let (stats, method) = (Arc::new(Stats::default()), Arc::new(Counters::default()));
        for error in [None, Some("failed"), Some("failed"), Some("mine")] {
            let mut meter = Meter::start(&stats, &method);
            assert_eq!(stats.in_flight(), 1);
            meter.finish(error);
        }
        drop(Meter::start(&stats, &method));
        let open = stats.connection();
        let report = stats.report([("m", &*method)].into_iter());
        assert_eq!(report["in_flight"], 0);
        assert_eq!(report["connections"], json!({"open": 1, "total": 1}));
        assert_eq!(report["errors"], json!({"failed": 2, "mine": 1}));
        let of = &report["methods"]["m"];
        assert_eq!((&of["requests"], &of["errors"], &of["cancelled"]), (&json!(5), &json!(3), &json!(1)));
        let counted: u64 = of["latency_us"]["below"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bucket| bucket[1].as_u64().unwrap())
            .sum();
        assert_eq!(counted, 4);
        drop(open);
        assert_eq!(stats.report(std::iter::empty())["connections"]["open"], 0);
    }

    #[test]
    fn codes_without_end_take_no_memory_without_end() {
        let stats = Stats::default();
        (0..1000).for_each(|n| stats.error(&format!("code{n}")));
        let report = stats.report(std::iter::empty());
        assert_eq!(report["errors"].as_object().unwrap().len(), MAX_CODES + 1);
        assert_eq!(report["errors"]["(others)"], 1000 - MAX_CODES);
    }

    #[test]
    fn a_quantile_is_the_bound_above_the_value() {
        let mut counts = [0; BUCKETS];
        assert_eq!(quantile(&counts, 0.5), 0);
        (counts[0], counts[3], counts[9]) = (50, 40, 10);
        assert_eq!([0.5, 0.51, 0.9, 0.91].map(|share| quantile(&counts, share)), [1, 8, 8, 512]);
    }
}
