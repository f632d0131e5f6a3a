//! Shared memory between the processes of one measurement: cells for flags and times, and a stretch of bytes for the
//! floors. A memfd of the parent; children open it through /proc, so nothing is left behind.
//!
//! ```text
//!   │ CELLS cells, 128 bytes apart │ STAMPS arrival times │ frame buffer │
//! ```

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use baton_shm::{Access, Mapping, SharedSlice};

use crate::error::{Error, step};
use crate::link::PATIENCE;
use crate::machine::now;

/// Tells a child where the board is.
const ENV: &str = "BATON_BENCH_BOARD";

/// Between two messages to sleepers: long enough for a receiver to spin in vain and sleep.
pub const REST: Duration = Duration::from_micros(250);

const CELLS: usize = 32;
const CELL_BYTES: usize = 128;
const STAMPS: usize = 1 << 14;
const FRAME_AT: usize = CELLS * CELL_BYTES + STAMPS * 8;

/// Bytes of one 1080p NV12 frame.
pub const FRAME: usize = 1920 * 1080 * 3 / 2;

/// A cache line (two, for the prefetcher) of its own.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub enum Cell {
    /// Ball of the ping-pong floor, from A to B.
    Ping,
    /// And back.
    Pong,
    /// Futex of the wake-up floor, A to B.
    FutexPing,
    /// And back.
    FutexPong,
    /// Frames that a reader has finished with.
    Done,
    /// Frames that the raw copy floor has announced.
    Announced,
    /// Check sums of what was read, so that no reading is optimised away.
    Sum,
}

/// The mapped board.
#[derive(Debug, Clone)]
pub struct Board {
    words: Arc<SharedSlice<AtomicU64>>,
    halves: Arc<SharedSlice<AtomicU32>>,
    mapping: Arc<Mapping>,
    path: Arc<str>,
    _fd: Arc<OwnedFd>,
}

impl Board {
    /// A new one, all zero.
    pub fn create() -> Result<Self, Error> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let fd = step("create shared memory", rustix::fs::memfd_create("baton-bench", flags))?;
        let len = (FRAME_AT + FRAME).next_multiple_of(4096) as u64;
        step("size shared memory", rustix::fs::ftruncate(&fd, len))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        Self::map(fd, path)
    }

    /// The parent's.
    pub fn of_parent() -> Result<Self, Error> {
        let path = step("find the board", std::env::var(ENV))?;
        let file = step("open the board", OpenOptions::new().read(true).write(true).open(&path))?;
        Self::map(file.into(), path)
    }

    fn map(fd: OwnedFd, path: String) -> Result<Self, Error> {
        let len = (FRAME_AT + FRAME).next_multiple_of(4096);
        let mapping = Arc::new(step("map the board", Mapping::new(&fd, len, Access::ReadWrite))?);
        step("populate the board", mapping.populate(0..len))?;
        Ok(Self {
            words: Arc::new(step("map the board", mapping.slice(0, FRAME_AT / 8))?),
            halves: Arc::new(step("map the board", mapping.slice(0, CELLS * CELL_BYTES / 4))?),
            mapping,
            path: path.into(),
            _fd: Arc::new(fd),
        })
    }

    /// What children need in their environment.
    pub fn env(&self) -> (&'static str, &str) {
        (ENV, &self.path)
    }

    /// One cell.
    pub fn cell(&self, cell: Cell) -> &AtomicU64 {
        &self.words[cell as usize * CELL_BYTES / 8]
    }

    /// One cell as a futex.
    pub fn futex(&self, cell: Cell) -> &AtomicU32 {
        &self.halves[cell as usize * CELL_BYTES / 4]
    }

    /// Notes when message `number` arrived.
    pub fn stamp(&self, number: usize, nanos: u64) {
        self.words[CELLS * CELL_BYTES / 8 + number % STAMPS].store(nanos, Ordering::Release);
    }

    /// When it arrived; 0: not yet.
    pub fn stamped(&self, number: usize) -> u64 {
        self.words[CELLS * CELL_BYTES / 8 + number % STAMPS].load(Ordering::Acquire)
    }

    /// Rests, at least once, until message `number` has arrived: so that everybody sleeps when the next one is sent, and
    /// nothing is ever under way twice.
    pub fn rest_until_stamped(&self, number: usize) -> Result<(), Error> {
        let deadline = now() + PATIENCE.as_nanos() as u64;
        loop {
            std::thread::sleep(REST);
            if self.stamped(number) != 0 {
                return Ok(());
            }
            if now() > deadline {
                return Err(Error::new("see the message arrive", "it has not within 20 s"));
            }
        }
    }

    /// Lets others work until message `number` has arrived: the next one is sent at once, while all is still in the caches.
    pub fn yield_until_stamped(&self, number: usize) -> Result<(), Error> {
        let deadline = now() + PATIENCE.as_nanos() as u64;
        while self.stamped(number) == 0 {
            std::thread::yield_now();
            if now() > deadline {
                return Err(Error::new("see the message arrive", "it has not within 20 s"));
            }
        }
        Ok(())
    }

    /// The frame buffer of the raw copy floor: mapping and offset.
    pub fn frame(&self) -> (&Mapping, usize) {
        (&self.mapping, FRAME_AT.next_multiple_of(64))
    }
}
