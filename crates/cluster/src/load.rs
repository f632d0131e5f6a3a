//! What each worker has to do, published in a page of shared memory: one cache line per worker.
//!
//! ```text
//!   word   0 taken   1 closed   2 requests begun   3 requests ended   4 busy ‰   5 heartbeat   6 wanted   7 (free)
//!          └──────────── written by the worker, read by the master ────────────┘    └ set by the master, cleared
//!                                                                                      by the worker that tells
//! ```
//! A worker counts by adding to its own line: no message, no system call, nothing to wait for. All counters only grow, so
//! the master can combine them with what it knows itself: `given − closed` is exact at any moment, whatever the worker
//! has or has not said yet.
//!
//! The master reads the line as a claim: absurd numbers make a worker look busy or idle and nothing else. A worker could
//! write to the line of another, as it could kill it: both run the same program as the same user. When a worker has died,
//! its line is cleared before its successor starts.
//!
//! `wanted` is how the master sleeps while every worker is at its limit: it sets the word and looks once more; the worker
//! that closes a connection afterwards finds it set and says so. Both sides use sequentially consistent accesses, so one of
//! the two sees the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use baton_shm::{Access, Mapping, SharedSlice};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// How often a worker publishes its heartbeat and the share of processor time it had.
pub(crate) const BEAT: Duration = Duration::from_millis(50);
/// A heartbeat older than this: the worker is stopped, or its runtime is stuck in something.
const STALE_NS: u64 = 150_000_000;

const WORDS: usize = 8;
const LINE: usize = WORDS * size_of::<u64>();
const PAGE: usize = 4096;

const TAKEN: usize = 0;
const CLOSED: usize = 1;
const BEGUN: usize = 2;
const ENDED: usize = 3;
const BUSY: usize = 4;
const HEARTBEAT: usize = 5;
const WANTED: usize = 6;

fn nanoseconds(clock: ClockId) -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    let (seconds, rest) = (u64::try_from(tv_sec).unwrap_or(0), u64::try_from(tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// Size of the page for so many workers, whole pages of memory.
pub(crate) fn page_len(workers: usize) -> usize {
    workers.max(1).saturating_mul(LINE).next_multiple_of(PAGE)
}

/// The master's view of all workers.
#[derive(Debug)]
pub(crate) struct LoadPage {
    fd: OwnedFd,
    words: SharedSlice<AtomicU64>,
}

/// What a worker's line says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub taken: u64,
    pub closed: u64,
    pub requests: u64,
    pub in_flight: u64,
    pub busy_permille: u64,
}

impl LoadPage {
    pub fn new(workers: usize) -> io::Result<LoadPage> {
        let len = page_len(workers);
        let fd = baton_shm::create_sealed("baton-cluster-load", len as u64).map_err(io::Error::other)?;
        let mapping = Mapping::new(&fd, len, Access::ReadWrite).map_err(io::Error::other)?;
        let words = Arc::new(mapping).slice(0, workers * WORDS).map_err(io::Error::other)?;
        Ok(LoadPage { fd, words })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn line(&self, slot: usize) -> &[AtomicU64] {
        &self.words[slot * WORDS..(slot + 1) * WORDS]
    }

    /// Clears a line whose worker is dead or not there yet.
    pub fn clear(&self, slot: usize) {
        for word in self.line(slot) {
            word.store(0, Relaxed);
        }
    }

    pub fn read(&self, slot: usize) -> Sample {
        let line = self.line(slot);
        // What grows later is read first: never more ended than begun, nor more closed than taken.
        let (ended, closed) = (line[ENDED].load(SeqCst), line[CLOSED].load(SeqCst));
        let (begun, taken) = (line[BEGUN].load(Relaxed), line[TAKEN].load(Relaxed));
        let heartbeat = line[HEARTBEAT].load(Relaxed);
        let stale = heartbeat != 0 && nanoseconds(ClockId::Monotonic).saturating_sub(heartbeat) > STALE_NS;
        let busy = line[BUSY].load(Relaxed);
        Sample {
            taken,
            closed,
            requests: ended,
            in_flight: begun.saturating_sub(ended),
            busy_permille: if stale { busy.max(1000) } else { busy },
        }
    }

    /// How many connections the worker has closed.
    pub fn closed(&self, slot: usize) -> u64 {
        self.line(slot)[CLOSED].load(SeqCst)
    }

    /// Asks the worker to say when it closes a connection.
    pub fn want(&self, slot: usize) {
        self.line(slot)[WANTED].store(1, SeqCst);
    }
}

/// Where a worker publishes what it has to do; cheap to clone. A service that handles requests tells of each one, which
/// costs two additions to memory:
///
/// ```no_run
/// # async fn serve(connection: baton_cluster::Connection) {
/// let load = connection.load.clone();
/// // … a request was read …
/// load.request_begun();
/// // … handled, and the answer written …
/// load.request_ended();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Load(Arc<SharedSlice<AtomicU64>>);

impl Load {
    /// Maps the page that the master passed; it is checked, as any descriptor of another process.
    pub(crate) fn attach(page: OwnedFd, slot: usize, workers: usize) -> io::Result<Load> {
        let len = page_len(workers);
        baton_shm::validate(&page, len as u64).map_err(io::Error::other)?;
        let mapping = Mapping::new(&page, len, Access::ReadWrite).map_err(io::Error::other)?;
        let line = Arc::new(mapping).slice(slot.saturating_mul(LINE), WORDS).map_err(io::Error::other)?;
        Ok(Load(Arc::new(line)))
    }

    /// A request was read and is being handled.
    pub fn request_begun(&self) {
        self.0[BEGUN].fetch_add(1, Relaxed);
    }

    /// A request that had [begun](Load::request_begun) was answered or given up.
    pub fn request_ended(&self) {
        self.0[ENDED].fetch_add(1, SeqCst);
    }

    pub(crate) fn connection_taken(&self) {
        self.0[TAKEN].fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.0[CLOSED].fetch_add(1, SeqCst);
    }

    /// True, once, if the master waits for a connection to be closed.
    pub(crate) fn take_wanted(&self) -> bool {
        self.0[WANTED].load(SeqCst) != 0 && self.0[WANTED].swap(0, SeqCst) != 0
    }
}

/// Measures how busy this process is, and publishes it with the heartbeat.
#[derive(Debug)]
pub(crate) struct Pulse {
    load: Load,
    cpu: u64,
    at: u64,
}

impl Pulse {
    pub fn new(load: Load) -> Pulse {
        let (cpu, at) = (nanoseconds(ClockId::ProcessCPUTime), nanoseconds(ClockId::Monotonic));
        load.0[HEARTBEAT].store(at, Relaxed);
        Pulse { load, cpu, at }
    }

    pub fn beat(&mut self) {
        let (cpu, at) = (nanoseconds(ClockId::ProcessCPUTime), nanoseconds(ClockId::Monotonic));
        let (used, passed) = (cpu.saturating_sub(self.cpu), at.saturating_sub(self.at));
        // Two beats in quick succession, after one came late, say little.
        if passed >= 1_000_000 {
            self.load.0[BUSY].store(used.saturating_mul(1000) / passed, Relaxed);
            (self.cpu, self.at) = (cpu, at);
        }
        self.load.0[HEARTBEAT].store(at, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_counts_the_master_reads() {
        let page = LoadPage::new(70).unwrap();
        let load = |slot| Load::attach(page.fd().try_clone_to_owned().unwrap(), slot, 70).unwrap();
        let (first, last) = (load(0), load(69));
        for _ in 0..3 {
            last.connection_taken();
            last.request_begun();
        }
        last.connection_closed();
        last.request_ended();
        let expected = Sample { taken: 3, closed: 1, requests: 1, in_flight: 2, busy_permille: 0 };
        assert_eq!(page.read(69), expected);
        assert_eq!(page.read(0), Sample::default());
        page.want(69);
        assert!(!first.take_wanted());
        assert!(last.take_wanted() && !last.take_wanted());
        page.clear(69);
        assert_eq!(page.read(69), Sample::default());
        // More ended than begun is a worker's mistake, not the master's.
        first.request_ended();
        assert_eq!(page.read(0).in_flight, 0);
    }

    #[test]
    fn a_worker_beyond_the_page_is_refused() {
        let page = LoadPage::new(2).unwrap();
        Load::attach(page.fd().try_clone_to_owned().unwrap(), 64, 2).unwrap_err();
        Load::attach(page.fd().try_clone_to_owned().unwrap(), 0, 100).unwrap_err();
        Load::attach(std::fs::File::open("/dev/null").unwrap().into(), 0, 2).unwrap_err();
    }

    #[test]
    fn a_late_heartbeat_counts_as_busy() {
        let page = LoadPage::new(1).unwrap();
        let load = Load::attach(page.fd().try_clone_to_owned().unwrap(), 0, 1).unwrap();
        assert_eq!(page.read(0).busy_permille, 0, "it has not begun");
        load.0[HEARTBEAT].store(1, Relaxed);
        assert_eq!(page.read(0).busy_permille, 1000);
        let mut pulse = Pulse::new(load.clone());
        pulse.at -= 50_000_000;
        pulse.beat();
        assert!(load.0[HEARTBEAT].load(Relaxed) > 1);
    }
}
