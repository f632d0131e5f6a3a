//! The run: one thread, one `epoll`.
//!
//! ```text
//!   connect all ──▶ ┌─ issue what is due ◀──────────────────────────┐ ──time, count, stop──▶ await what is under way
//!                   └─▶ sleep until an answer, an instant, a tick ──┘                              │ (at most the time-out)
//!                            answer: judge, count, fill up again                                 Outcome
//!                            end of a connection: count, connect again (wheel.rs)
//! ```
//! A server that neither answers nor takes connections for as long as the time-out ends a run that counts requests; one
//! that runs for a time ends by the clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::link::Target;
use crate::outcome::{Client, Latency, Outcome, Spread};
use crate::plan::{Extent, Pace, Plan};
use crate::wheel::Wheel;
use crate::{Fates, LoadError};

/// Descriptors that are not connections.
const OWN_DESCRIPTORS: u64 = 64;

/// How a run is getting on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Since the first connection was asked for.
    pub elapsed: Duration,
    /// So far.
    pub requests: Fates,
    /// Connections that are there.
    pub connections: usize,
}

/// Runs a plan to its end, or until `stop` is set. `tell` is called about once a second.
///
/// # Errors
/// [`LoadError`] if there is nothing to report: no connection came about. Whatever goes wrong later is in the outcome.
pub fn run(plan: &Plan, stop: &AtomicBool, tell: &mut dyn FnMut(&Progress)) -> Result<Outcome, LoadError> {
    plan.check()?;
    raise_descriptors(plan.connections)?;
    let target = Target::of(&plan.address)
        .map_err(|source| LoadError::Resolve { address: plan.address.clone(), source })?;
    let mut wheel = Wheel::new(plan, target)?;
    wheel.connect_all(stop, tell)?;
    let cpu_before = cpu();
    let begun = wheel.begin();
    let interrupted = drive(plan, &mut wheel, begun, stop, tell)?;
    wheel.tally.quiet(wheel.now());
    let seconds = Duration::from_nanos(wheel.now() - begun).as_secs_f64();
    let cpu_seconds = cpu().saturating_sub(cpu_before).as_secs_f64();
    let spread = plan
        .count_results
        .then(|| Spread::of(std::mem::take(&mut wheel.tally.results), wheel.connections_by_result()));
    let tally = wheel.tally;
    Ok(Outcome {
        address: plan.address.to_string(),
        seconds,
        rate: tally.fates.right as f64 / seconds.max(1e-9),
        requests: tally.fates,
        refusals: tally.refusals,
        links: tally.links,
        latency: Latency::of(&tally.latency),
        worst_gap_us: tally.gap_max as f64 / 1e3,
        worst_outage_us: tally.outage_max as f64 / 1e3,
        spread,
        client: Client { cpu_seconds, core_share: cpu_seconds / seconds.max(1e-9) },
        interrupted,
        histogram: tally.latency,
    })
}

/// From the first request to the last answer. True if it was stopped.
fn drive(
    plan: &Plan,
    wheel: &mut Wheel<'_>,
    begun: u64,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&Progress),
) -> Result<bool, LoadError> {
    let end = match plan.extent {
        Extent::Time(time) => Some(begun.saturating_add(nanos(time))),
        Extent::Count(_) => None,
    };
    let step = match plan.pace {
        Pace::Rate(rate) => Some(1e9 / rate),
        Pace::Closed => None,
    };
    let mut interrupted = false;
    let mut issued_by_rate = 0_u64;
    wheel.fill_all();
    loop {
        let now = wheel.now();
        if wheel.is_issuing() {
            let stopped = stop.load(Ordering::Relaxed);
            // In an open loop everything that was due before the end counts, even if this thread comes late.
            let mut next_due = None;
            if let Some(step) = step {
                let horizon = end.map_or(now, |end| now.min(end.saturating_sub(1)));
                loop {
                    let due = begun + (issued_by_rate as f64 * step) as u64;
                    if due > horizon || !wheel.may_issue() {
                        next_due = Some(due);
                        break;
                    }
                    wheel.issue(due);
                    issued_by_rate += 1;
                }
            }
            if stopped || end.is_some_and(|end| now >= end) || wheel.is_forsaken() {
                interrupted = stopped;
                wheel.end_issuing(!stopped);
            } else if !wheel.may_issue() && wheel.is_nothing_due() {
                wheel.end_issuing(true);
            } else {
                let wake = next_due.filter(|_| wheel.may_issue()).into_iter().chain(end).min();
                wheel.turn(wake, tell)?;
            }
        } else if wheel.tally.under_way() == 0 {
            return Ok(interrupted);
        } else {
            wheel.turn(None, tell)?;
        }
    }
}

/// Raises the soft limit as far as it is needed; the hard one must allow it.
fn raise_descriptors(connections: usize) -> Result<(), LoadError> {
    let mut limit = getrlimit(Resource::Nofile);
    let needed = connections as u64 + OWN_DESCRIPTORS;
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|hard| *hard < needed) {
        return Err(LoadError::Descriptors { wanted: connections, limit: hard });
    }
    limit.current = Some(needed);
    setrlimit(Resource::Nofile, limit).map_err(LoadError::system("raise the limit of descriptors"))
}

/// What this thread has spent.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Half a millennium fits.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
