//! Says in the log who holds more than its quota.
//!
//! The SDK keeps to quotas when it allocates, but receiving is not allocating, and what a process says about itself is a
//! claim. Here the hold words are counted: one line when a process is first seen above its quota, one when it is back.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::daemon::House;
use crate::metrics::{Excess, excesses};

/// How often it is counted. A pass over the hold words, on a thread of its own.
const EVERY: Duration = Duration::from_secs(2);

/// Looks for ever, if anybody has a quota.
pub(crate) async fn watch(house: &House) {
    if !house.policy.has_quotas() {
        return std::future::pending().await;
    }
    let mut known = BTreeSet::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let pool = house.registry.borrow().pool().clone();
        let counted = tokio::task::spawn_blocking(move || excesses(&pool.endpoints()));
        match counted.await {
            Ok(over) => tell(&mut known, &over),
            Err(error) => tracing::error!("rmmt: quotas cannot be counted: {error}"),
        }
    }
}

fn tell(known: &mut BTreeSet<u32>, over: &[Excess]) {
    for Excess { pid, name, bytes, quota } in over {
        if known.insert(*pid) {
            tracing::warn!("rmmt: pid={pid} name={name} holds {bytes} bytes, more than its quota of {quota}");
        }
    }
    known.retain(|pid| {
        let is_over = over.iter().any(|excess| excess.pid == *pid);
        if !is_over {
            tracing::info!("rmmt: pid={pid} is within its quota again, or has ended");
        }
        is_over
    });
}
