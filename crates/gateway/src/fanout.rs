//! One source, many readers: a subscription that is shared by all who want the same thing.
//!
//! ```text
//!  (not there) ── first reader ──▶ kept by one task ── publish ──▶ newest value ──▶ every reader, at its own pace
//!       ▲                              │
//!       └── no reader for LINGER ──────┘
//! ```
//!
//! A reader that is slow sees the newest value when it comes back and has missed the others; nothing queues up.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Newest values by key.
pub struct Fanout<K, V> {
    topics: Mutex<HashMap<K, watch::Sender<Option<V>>>>,
    limit: usize,
}

/// What [`Fanout::join`] found.
pub struct Joined<V> {
    /// Tells of each new value; the current one is there at once.
    pub values: watch::Receiver<Option<V>>,
    /// Nobody had the topic: the caller has to start the task that keeps it.
    pub first: bool,
}

impl<K: Eq + Hash + Clone, V> Fanout<K, V> {
    /// At most `limit` topics at a time.
    pub fn new(limit: usize) -> Self {
        Self { topics: Mutex::new(HashMap::new()), limit }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, watch::Sender<Option<V>>>> {
        // Each change is one insertion or removal: nothing can be half done.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a topic that is kept already.
    pub fn existing(&self, key: &K) -> Option<watch::Receiver<Option<V>>> {
        self.lock().get(key).map(watch::Sender::subscribe)
    }

    /// Joins a topic, new or not; `None` if the limit is reached.
    pub fn join(&self, key: &K) -> Option<Joined<V>> {
        let mut topics = self.lock();
        if let Some(topic) = topics.get(key) {
            return Some(Joined { values: topic.subscribe(), first: false });
        }
        if topics.len() >= self.limit {
            return None;
        }
        let (topic, values) = watch::channel(None);
        topics.insert(key.clone(), topic);
        Some(Joined { values, first: true })
    }

    /// Gives all readers of a topic a new value; nothing happens if nobody keeps it.
    pub fn publish(&self, key: &K, value: V) {
        if let Some(topic) = self.lock().get(key) {
            topic.send_replace(Some(value));
        }
    }

    /// Whether anybody reads the topic now.
    pub fn is_read(&self, key: &K) -> bool {
        self.lock().get(key).is_some_and(|topic| topic.receiver_count() > 0)
    }

    /// Ends a topic that nobody reads. `false` if somebody does: its keeper has to go on.
    pub fn leave(&self, key: &K) -> bool {
        let mut topics = self.lock();
        if topics.get(key).is_some_and(|topic| topic.receiver_count() > 0) {
            return false;
        }
        topics.remove(key);
        true
    }

    /// Ends a topic whatever happens; its readers see that no more will come.
    pub fn end(&self, key: &K) {
        self.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_a_topic_and_the_last_one_ends_it() {
        let fanout = Fanout::<u32, &str>::new(1);
        let mut a = fanout.join(&1).unwrap();
        let b = fanout.join(&1).unwrap();
        assert!(a.first && !b.first);
        assert!(fanout.join(&2).is_none(), "the limit is one topic");
        fanout.publish(&1, "old");
        fanout.publish(&1, "new");
        fanout.publish(&2, "nobody");
        assert_eq!(*a.values.borrow_and_update(), Some("new"));
        assert_eq!(*b.values.borrow(), Some("new"));
        drop(a);
        assert!(!fanout.leave(&1));
        drop(b);
        assert!(fanout.leave(&1));
        assert!(fanout.existing(&1).is_none());
        assert!(fanout.join(&2).is_some());
    }

    #[test]
    fn readers_of_an_ended_topic_notice() {
        let fanout = Fanout::<u32, &str>::new(1);
        let a = fanout.join(&1).unwrap();
        fanout.end(&1);
        assert!(a.values.has_changed().is_err());
    }
}
