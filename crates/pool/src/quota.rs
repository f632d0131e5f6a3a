//! How much of a pool a process may hold: one counter per process and pool, whatever endpoints it has there.
//!
//! Counted is what is in the process' hands: allocated or received, until it is given back or moved on. Spare blocks in a
//! magazine are not (they are few). A message that was sent to a process is taken even above its limit; what it then
//! cannot do is allocate. The limit comes from the daemon, with the admission; the process keeps it by itself, as it keeps
//! everything else that it does in the pool.

use crate::ids::PoolId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

static HELD: Mutex<Option<HashMap<PoolId, Weak<AtomicU64>>>> = Mutex::new(None);

/// The limit of one endpoint.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    held: Arc<AtomicU64>,
}

impl Quota {
    /// `None` if there is no limit.
    pub fn new(pool: PoolId, limit: u64) -> Option<Self> {
        if limit == 0 {
            return None;
        }
        let mut all = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_default();
        all.retain(|_, held| held.strong_count() > 0);
        let held = all.get(&pool).and_then(Weak::upgrade).unwrap_or_default();
        all.insert(pool, Arc::downgrade(&held));
        Some(Self { limit, held })
    }

    /// Counts a block that is to be allocated.
    ///
    /// # Errors
    /// Bytes held and limit, if it would be too much; nothing is counted then.
    pub fn take(&self, bytes: u64) -> Result<(), (u64, u64)> {
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|held| (held, self.limit))
    }

    /// Counts a block that has arrived.
    pub fn add(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A block is out of our hands.
    pub fn sub(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_endpoints_of_a_process_share_one_count_per_pool() {
        let (pool, other) = (PoolId(0x5eed), PoolId(0x5eee));
        let (a, b, c) =
            (Quota::new(pool, 100).unwrap(), Quota::new(pool, 100).unwrap(), Quota::new(other, 100).unwrap());
        a.take(60).unwrap();
        assert_eq!(b.take(41), Err((60, 100)));
        c.take(100).unwrap();
        b.take(40).unwrap();
        b.add(30);
        assert_eq!(a.take(1), Err((130, 100)), "what arrives counts, but is not refused");
        a.sub(30);
        b.sub(60);
        a.take(60).unwrap();
        drop((a, b));
        assert!(Quota::new(pool, 100).unwrap().take(100).is_ok(), "the count goes with the last endpoint");
        assert!(Quota::new(pool, 0).is_none());
    }
}
