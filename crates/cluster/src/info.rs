//! What a cluster tells about itself. Nothing is computed before somebody asks.

use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::Policy;
use crate::builder::Shared;

/// A worker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its place, from 0.
    pub slot: usize,
    /// Its process.
    pub pid: u32,
    /// Whether it takes connections.
    pub ready: bool,
    /// Connections it has taken so far.
    pub taken: u64,
    /// Connections it has open, or was sent and has not taken.
    pub open: u64,
    /// Connections it could not receive, for lack of descriptors; others were given them.
    pub refused: u64,
    /// Requests it has answered, if its service [counts](crate::Load) them.
    pub requests: u64,
    /// Requests it is handling.
    pub in_flight: u64,
    /// Processor time of its last interval, in thousandths of one processor; at least 1000 if it gives no sign of life.
    pub busy_permille: u64,
    /// Workers that this place had before.
    pub restarts: u32,
    /// Since its process was started.
    pub uptime: Duration,
}

/// A cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterInfo {
    /// How connections are spread.
    pub policy: Policy,
    /// Since it was started.
    pub uptime: Duration,
    /// Connections that the master has accepted (0 where the workers accept).
    pub accepted: u64,
    /// Connections closed because their address had too many.
    pub address_refused: u64,
    /// Times that accepting rested for lack of descriptors or memory.
    pub accept_pauses: u64,
    /// Connections that wait for a worker in the master.
    pub pending: u64,
    /// The workers that run.
    pub workers: Vec<WorkerInfo>,
}

/// What the master counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub accepted: AtomicU64,
    pub address_refused: AtomicU64,
    pub accept_pauses: AtomicU64,
    pub pending: AtomicU64,
}

/// What the master knows of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotInfo {
    pub pid: u32,
    pub ready: bool,
    pub taken: u64,
    pub unread: u64,
    pub refused: u64,
    pub restarts: u32,
    pub started: Instant,
}

impl Shared {
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let known = slots.iter().enumerate().filter_map(|(slot, info)| Some((slot, (*info)?)));
        let tell = |(slot, info): (usize, SlotInfo)| {
            let sample = self.page.read(slot);
            let taken = if self.policy.is_passing() { info.taken } else { sample.taken };
            WorkerInfo {
                slot,
                pid: info.pid,
                ready: info.ready,
                taken,
                open: taken.saturating_add(info.unread).saturating_sub(sample.closed),
                refused: info.refused,
                requests: sample.requests,
                in_flight: sample.in_flight,
                busy_permille: sample.busy_permille,
                restarts: info.restarts,
                uptime: info.started.elapsed(),
            }
        };
        known.map(tell).collect()
    }

    pub fn info(&self) -> ClusterInfo {
        ClusterInfo {
            policy: self.policy,
            uptime: self.since.elapsed(),
            accepted: self.counts.accepted.load(Relaxed),
            address_refused: self.counts.address_refused.load(Relaxed),
            accept_pauses: self.counts.accept_pauses.load(Relaxed),
            pending: self.counts.pending.load(Relaxed),
            workers: self.workers(),
        }
    }
}
