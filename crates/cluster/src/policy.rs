//! Who gets the next connection.
//!
//! | policy | who accepts | who gets it |
//! |---|---|---|
//! | round robin | the master | the next in turn |
//! | least connections | the master | who has the fewest open |
//! | least load | the master | who has least to do, by the workers' own word ([`Load`](crate::Load)) |
//! | reuseport | the workers, each from a queue of its own | the kernel decides, by a hash of the addresses |
//! | shared | the workers, all from one queue | whoever comes first |
//!
//! In the last two the kernel decides, not this crate; they exist to be compared with, and for services whose
//! connections are so short that passing one on would cost more than an uneven spread. A Unix socket has no group of
//! listeners: under `reuseport` the workers share its one queue.

use std::fmt;
use std::str::FromStr;

use crate::load::Sample;

/// How connections are spread over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Each worker in turn: the numbers of connections *given* differ by at most one.
    #[default]
    RoundRobin,
    /// The worker with the fewest *open* connections: right where some stay much longer than others.
    LeastConnections,
    /// The worker that has least to do: requests under way and processor time, as the workers publish them. A
    /// connection is expected to bring what the average one brings, so that a burst is spread too.
    LeastLoad,
    /// Each worker accepts from its own listening socket (`SO_REUSEPORT`). The master keeps all of them, so what waits
    /// in the queue of a dead worker is accepted by its replacement.
    ReusePort,
    /// All workers accept from one listening socket. Each waits for it through its runtime, which knows no
    /// `EPOLLEXCLUSIVE`: one connection may wake several, and all but one find nothing.
    Shared,
}

impl Policy {
    /// All of them, in the order of the documentation.
    pub const ALL: [Policy; 5] =
        [Policy::RoundRobin, Policy::LeastConnections, Policy::LeastLoad, Policy::ReusePort, Policy::Shared];

    /// True if the master accepts and passes on; false if the workers accept by themselves.
    pub fn is_passing(self) -> bool {
        !matches!(self, Policy::ReusePort | Policy::Shared)
    }

    /// The name used on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Policy::RoundRobin => "rr",
            Policy::LeastConnections => "least-conn",
            Policy::LeastLoad => "least-load",
            Policy::ReusePort => "reuseport",
            Policy::Shared => "shared",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no policy; there are rr, least-conn, least-load, reuseport and shared")]
pub struct UnknownPolicy(String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Policy, UnknownPolicy> {
        Policy::ALL
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

/// What a worker is known to have while connections are handed out: connections open or given, and its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Burden {
    pub open: u64,
    /// Thousandths of "one request under way, or one processor busy".
    pub load: u64,
}

impl Burden {
    pub fn new(open: u64, sample: &Sample) -> Burden {
        let load = sample.in_flight.saturating_mul(1000).saturating_add(sample.busy_permille);
        Burden { open, load }
    }
}

/// The load that one more connection is expected to bring: that of the average one, and never nothing (so that of idle
/// workers the one with the fewest connections is chosen).
pub(crate) fn expected(burdens: &[Option<Burden>]) -> u64 {
    let (mut load, mut open) = (0_u64, 0_u64);
    for burden in burdens.iter().flatten() {
        load = load.saturating_add(burden.load);
        open = open.saturating_add(burden.open);
    }
    (load / open.max(1)).max(1)
}

/// The place with the least burden, beginning the search at `from` (which decides among equals). `None` entries are
/// workers that take nothing now.
pub(crate) fn least(burdens: &[Option<Burden>], by_load: Option<u64>, from: usize) -> Option<usize> {
    let count = burdens.len();
    (0..count)
        .map(|step| (from + step) % count)
        .filter_map(|index| {
            let burden = burdens[index]?;
            let cost = match by_load {
                Some(expected) => burden.load.saturating_add(burden.open.saturating_mul(expected)),
                None => burden.open,
            };
            Some((cost, index))
        })
        .min_by_key(|(cost, _)| *cost)
        .map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let error = "fair".parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains("`fair`") && error.contains("least-conn"), "{error}");
    }

    /// Gives `count` connections, each adding nothing but itself.
    fn give(burdens: &mut [Option<Burden>], by_load: bool, count: usize) -> Vec<u64> {
        let mut got = vec![0; burdens.len()];
        let mut from = 0;
        for _ in 0..count {
            let expected = by_load.then(|| expected(burdens));
            let index = least(burdens, expected, from).unwrap();
            got[index] += 1;
            burdens[index].as_mut().unwrap().open += 1;
            from = index + 1;
        }
        got
    }

    #[test]
    fn the_fewest_connections_are_filled_up_first() {
        let open = |open| Some(Burden { open, load: 0 });
        let mut burdens = [open(5), open(0), None, open(3)];
        assert_eq!(give(&mut burdens, false, 7), [0, 5, 0, 2]);
        assert_eq!(give(&mut burdens, false, 3), [1, 1, 0, 1]);
        assert_eq!(least(&[None, None], None, 1), None);
        assert_eq!(least(&[], None, 0), None);
    }

    #[test]
    fn a_busy_worker_gets_less_and_idle_ones_the_same() {
        let mut idle = [Some(Burden::default()); 4];
        assert_eq!(give(&mut idle, true, 40), [10; 4]);
        let mut one_busy =
            [Some(Burden { open: 1, load: 2000 }), Some(Burden::default()), Some(Burden::default())];
        let got = give(&mut one_busy, true, 30);
        assert!(got[0] <= 1 && got[1].abs_diff(got[2]) <= 1, "{got:?}");
        // All as busy, but one with half as many connections: the busy ones are equal, so connections decide.
        let busy = |open| Some(Burden { open, load: 1000 });
        assert_eq!(give(&mut [busy(10), busy(5)], true, 5), [0, 5]);
    }

    #[test]
    fn absurd_claims_of_workers_do_no_harm() {
        let absurd = Sample { in_flight: u64::MAX, busy_permille: u64::MAX, ..Sample::default() };
        let burdens = [
            Some(Burden::new(u64::MAX, &absurd)),
            Some(Burden::new(u64::MAX, &absurd)),
            Some(Burden::default()),
        ];
        assert_eq!(least(&burdens, Some(expected(&burdens)), 0), Some(2));
    }
}
