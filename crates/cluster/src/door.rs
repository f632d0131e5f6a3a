//! A listening address, and what accepting at it may say.

use std::time::{Duration, Instant};

use baton_address::Listener;
use rustix::io::Errno;

/// Rest after an accept that failed for lack of descriptors or memory.
pub(crate) const ACCEPT_REST: Duration = Duration::from_millis(100);
/// The same trouble is reported at most once in this time.
pub(crate) const SAY_AGAIN: Duration = Duration::from_secs(1);

/// One address, with one listening socket, or with one for each worker.
#[derive(Debug)]
pub(crate) struct Door {
    pub listeners: Vec<Listener>,
    pub paused_until: Option<Instant>,
    /// Whether the master waits for its connections at present.
    pub watched: bool,
    pub paused_said: Sparingly,
}

impl Door {
    pub fn new(listeners: Vec<Listener>) -> Door {
        Door { listeners, paused_until: None, watched: false, paused_said: Sparingly::default() }
    }
}

/// True for what concerns the one connection only: the client has gone again, the next one is not affected.
pub(crate) fn concerns_one_connection(error: Errno) -> bool {
    matches!(error, Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM)
}

/// Says the same thing at most once in [`SAY_AGAIN`], and counts what was left unsaid.
#[derive(Debug, Default)]
pub(crate) struct Sparingly {
    last: Option<Instant>,
    unsaid: u64,
}

impl Sparingly {
    /// How many there were since the last time, if it is time to say so.
    pub fn count(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < SAY_AGAIN) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_second_with_its_count() {
        let (mut said, now) = (Sparingly::default(), Instant::now());
        assert_eq!(said.count(now), Some(1));
        assert_eq!(said.count(now + SAY_AGAIN / 2), None);
        assert_eq!(said.count(now + SAY_AGAIN), Some(2));
    }
}
