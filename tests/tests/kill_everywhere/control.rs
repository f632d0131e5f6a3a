//! What driver and processes share: orders to die, counts, ledgers of messages, beliefs about blocks. A mapped file.
//!
//! ```text
//!   driver ── order (point, k) ──▶ slot     hook at each point: count; k-th time at that point ▶ SIGKILL to itself
//!   driver ── pause n ──▶ all   members: stop sending, answer n;  then drain, write down what they hold, answer n
//! ```
//! A process that is killed leaves everything it wrote: each entry that must not be torn is one 64-bit word.

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use baton_killpoint::Point as Step;
use baton_pool::kill::Point as Atomic;
use baton_shm::{Access, Mapping, SharedSlice};
use rustix::process::{Signal, getpid, kill_process};

/// Who plays: one process each.
pub const ROLES: [&str; 10] = [
    "keeper",
    "daemon",
    "producer",
    "producer 2",
    "forwarder",
    "sharer",
    "consumer",
    "reader",
    "classic un",
    "classic ip",
];
pub const SLOTS: usize = ROLES.len();
pub const KEEPER: usize = 0;
pub const DAEMON: usize = 1;
pub const PRODUCER: usize = 2;
pub const FORWARDER: usize = 4;
pub const SHARER: usize = 5;
pub const CONSUMER: usize = 6;
pub const READER: usize = 7;
/// Slots from here on are members.
pub const FIRST_MEMBER: usize = PRODUCER;
/// Slots from here on are classic clients, one over un:// and one over ip://.
pub const FIRST_CLASSIC: usize = READER + 1;

/// All points: those of the pool first.
pub const POINTS: usize = Atomic::ALL.len() + Step::ALL.len();
/// Blocks that a member may believe to hold.
pub const BELIEFS_MAX: usize = 8192;

/// Words common to all.
pub const PAUSE: usize = 0;
pub const DRAIN: usize = 1;
pub const STOP: usize = 2;
pub const FAULTS: usize = 3;
/// After an audit: the daemon still knows the classic clients, so nothing was taken from them meanwhile.
pub const PULSE: usize = 4;
/// Which sizes are in demand.
pub const PHASE: usize = 5;
/// The daemon is about to be killed: with it go the blocks of the classic clients, so they write no more.
pub const DYING: usize = 6;
const HEAD: usize = 16;

/// Words of a slot.
pub const ORDER: usize = 0;
pub const COUNTDOWN: usize = 1;
pub const LIFE: usize = 2;
pub const ENDPOINT: usize = 3;
pub const PAUSED: usize = 4;
pub const DRAINED: usize = 5;
pub const BELIEFS: usize = 6;
pub const SENT: usize = 7;
pub const RECEIVED: usize = 8;
pub const REPLACED: usize = 9;
pub const LEAVE: usize = 10;
pub const REOPEN: usize = 11;
/// The process that plays this slot now.
pub const PID: usize = 12;
/// Of a classic client: the daemon that greeted it. Of the keeper: the last one that has everything.
pub const SERVED_BY: usize = 13;
pub const KEEPS: usize = 13;
pub const PULSED: usize = 14;
/// A classic client is writing into its blocks.
pub const WRITING: usize = 15;
const FIXED: usize = 16;
/// Words per pair: what was sent to that slot, what was received from it.
pub const TO_LIFE: usize = 0;
pub const DONE: usize = 1;
pub const INTENT: usize = 2;
pub const TAKEN_BACK: usize = 3;
pub const FROM_LIFE: usize = 4;
pub const GOT: usize = 5;
/// The last messages of a pair, by their count: as sent, as received. So a difference can be shown.
pub const TRAIL: usize = 8;
pub const TRAIL_LEN: usize = 256;
const PAIR: usize = TRAIL + 2 * TRAIL_LEN;
/// The way on which a sender tells a classic client of a transfer: how many letters were put and taken, the one that is
/// being written (so that the auditor knows of it if its writer is killed), the letters.
pub const PUT: usize = 0;
pub const TAKEN: usize = 1;
pub const DRAFT: usize = 2;
const FIRST_LETTER: usize = DRAFT + LETTER;
pub const BOX_LEN: u64 = 32;
/// A letter: the receiver's life, how many nodes (0: none), the nodes, the transfer's number, the sender's pid.
pub const LETTER: usize = 6;
const LETTER_BOX: usize = FIRST_LETTER + BOX_LEN as usize * LETTER;
const KILLS: usize = FIXED + SLOTS * PAIR;
const SEEN: usize = KILLS + POINTS;
const LIST: usize = SEEN + POINTS;
const LETTERS: usize = LIST + BELIEFS_MAX;
const SLOT_WORDS: usize = LETTERS + (SLOTS - FIRST_CLASSIC) * LETTER_BOX;
const WORDS: usize = HEAD + SLOTS * SLOT_WORDS;

/// Name of a point by its number here.
pub fn point_name(point: usize) -> String {
    match Atomic::ALL.get(point) {
        Some(atomic) => format!("pool.{atomic:?}"),
        None => format!("{:?}", Step::ALL[point - Atomic::ALL.len()]),
    }
}

pub fn step_number(step: Step) -> usize {
    Atomic::ALL.len() + step as usize
}

/// The state of a stream of messages in one word: how many (24 bits) and a hash of all of them, in order (40 bits).
pub fn advance(state: u64, message: u64) -> u64 {
    let mask = (1 << 40) - 1;
    let hash = (state & mask).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(message);
    let hash = (hash ^ (hash >> 29)) & mask;
    ((state >> 40) + 1) << 40 | hash
}

pub fn count(state: u64) -> u64 {
    state >> 40
}

#[derive(Clone)]
pub struct Control(Arc<SharedSlice<AtomicU64>>);

impl Control {
    pub fn create(path: &Path) -> Self {
        let file = std::fs::File::create_new(path).unwrap();
        file.set_len((WORDS * 8).div_ceil(4096) as u64 * 4096).unwrap();
        Self::open(path)
    }

    pub fn open(path: &Path) -> Self {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mapping = Mapping::new(&file, (WORDS * 8).div_ceil(4096) * 4096, Access::ReadWrite).unwrap();
        Self(Arc::new(Arc::new(mapping).slice(0, WORDS).unwrap()))
    }

    pub fn head(&self, word: usize) -> &AtomicU64 {
        &self.0[word]
    }

    pub fn slot(&self, slot: usize, word: usize) -> &AtomicU64 {
        &self.0[HEAD + slot * SLOT_WORDS + word]
    }

    pub fn pair(&self, slot: usize, other: usize, word: usize) -> &AtomicU64 {
        self.slot(slot, FIXED + other * PAIR + word)
    }

    /// Notes the `count`-th message to (`0`) or from (`1`) another slot.
    pub fn note(&self, slot: usize, other: usize, way: usize, count: u64, message: u64) {
        let at = TRAIL + way * TRAIL_LEN + count as usize % TRAIL_LEN;
        self.pair(slot, other, at).store(message, SeqCst);
    }

    /// What was noted last as the `count`-th message.
    pub fn noted(&self, slot: usize, other: usize, way: usize, count: u64) -> u64 {
        self.pair(slot, other, TRAIL + way * TRAIL_LEN + count as usize % TRAIL_LEN).load(SeqCst)
    }

    /// Word of the way from any slot to a classic client.
    pub fn letters(&self, from: usize, to: usize, word: usize) -> &AtomicU64 {
        self.slot(from, LETTERS + (to - FIRST_CLASSIC) * LETTER_BOX + word)
    }

    /// Where the `n`-th letter of such a way begins.
    pub fn letter(n: u64) -> usize {
        FIRST_LETTER + (n % BOX_LEN) as usize * LETTER
    }

    /// Life and pid of who plays a slot now, if it has told.
    pub fn who(&self, slot: usize) -> Option<(u64, u32)> {
        let life = self.slot(slot, LIFE).load(SeqCst);
        let pid = self.slot(slot, PID).load(SeqCst) as u32;
        (pid != 0 && self.slot(slot, LIFE).load(SeqCst) == life).then_some((life, pid))
    }

    /// Whether a classic client may write into blocks that it got from the daemon that serves it. Until it says that it
    /// has, that daemon is not killed.
    pub fn begin_writing(&self, slot: usize) -> bool {
        self.slot(slot, WRITING).store(1, SeqCst);
        let served_by = self.slot(slot, SERVED_BY).load(SeqCst);
        self.head(DYING).load(SeqCst) == 0 && self.slot(DAEMON, PID).load(SeqCst) == served_by
    }

    /// Before the daemon is killed: nobody writes into what others will have next.
    pub fn end_all_writing(&self) {
        self.head(DYING).store(1, SeqCst);
        for slot in FIRST_CLASSIC..SLOTS {
            while self.slot(slot, WRITING).load(SeqCst) != 0
                && baton_tests::is_alive(self.slot(slot, PID).load(SeqCst) as u32)
            {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    }

    pub fn kills(&self, slot: usize, point: usize) -> &AtomicU64 {
        self.slot(slot, KILLS + point)
    }

    pub fn seen(&self, slot: usize, point: usize) -> &AtomicU64 {
        self.slot(slot, SEEN + point)
    }

    pub fn kills_of(&self, slot: usize) -> u64 {
        (0..POINTS).map(|point| self.kills(slot, point).load(SeqCst)).sum()
    }

    /// Empties the ledgers of a slot, for its next life.
    pub fn forget(&self, slot: usize) {
        for word in FIXED..KILLS {
            self.slot(slot, word).store(0, SeqCst);
        }
    }

    pub fn order(&self, slot: usize, point: usize, k: u64) {
        self.slot(slot, COUNTDOWN).store(k, SeqCst);
        self.slot(slot, ORDER).store(point as u64 + 1, SeqCst);
    }

    /// Takes an order back; false if there was none, or if it is being carried out.
    pub fn withdraw(&self, slot: usize) -> bool {
        self.slot(slot, ORDER).swap(0, SeqCst) != 0
    }

    pub fn is_ordered(&self, slot: usize) -> bool {
        self.slot(slot, ORDER).load(SeqCst) != 0
    }

    /// Writes down which blocks this member believes to hold, one entry per lane.
    pub fn believe(&self, slot: usize, blocks: &[u32]) {
        assert!(blocks.len() <= BELIEFS_MAX, "{} blocks held", blocks.len());
        for (i, block) in blocks.iter().enumerate() {
            self.slot(slot, LIST + i).store(u64::from(*block), SeqCst);
        }
        self.slot(slot, BELIEFS).store(blocks.len() as u64, SeqCst);
    }

    pub fn beliefs(&self, slot: usize) -> Vec<u32> {
        let count = self.slot(slot, BELIEFS).load(SeqCst) as usize;
        (0..count).map(|i| self.slot(slot, LIST + i).load(SeqCst) as u32).collect()
    }
}

// ---- at every point of this process -------------------------------------------------------------------------------

static CONTROL: OnceLock<Control> = OnceLock::new();
static SLOT: AtomicUsize = AtomicUsize::new(0);
static NOISE: AtomicU64 = AtomicU64::new(1);
/// While a process is examined it does not die by order.
pub static EXAMINED: AtomicBool = AtomicBool::new(false);

/// Makes every point of this process obey the orders to `slot`.
pub fn arm(control: Control, slot: usize) {
    SLOT.store(slot, SeqCst);
    NOISE.store(u64::from(std::process::id()) << 1 | 1, SeqCst);
    if CONTROL.set(control).is_ok() {
        baton_pool::kill::set_hook(|point| reached(point as usize));
        baton_killpoint::set_hook(|step| reached(step_number(step)));
    }
}

fn reached(point: usize) {
    let Some(control) = CONTROL.get() else { return };
    let slot = SLOT.load(SeqCst);
    control.seen(slot, point).fetch_add(1, SeqCst);
    let order = point as u64 + 1;
    if control.slot(slot, ORDER).load(SeqCst) == order
        && !EXAMINED.load(SeqCst)
        && control.slot(slot, COUNTDOWN).fetch_sub(1, SeqCst) == 1
        && control.slot(slot, ORDER).compare_exchange(order, 0, SeqCst, SeqCst).is_ok()
    {
        control.kills(slot, point).fetch_add(1, SeqCst);
        if slot == DAEMON {
            control.end_all_writing();
        }
        kill_process(getpid(), Signal::KILL).unwrap();
    }
    if point == step_number(Step::KeepFollowed) {
        control.slot(KEEPER, KEEPS).store(u64::from(std::process::id()), SeqCst);
    }
    // Sometimes lose the processor, so that few cores see the interleavings of many.
    let noise =
        NOISE.load(SeqCst).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    NOISE.store(noise, SeqCst);
    if (noise >> 33).is_multiple_of(32) {
        std::thread::yield_now();
    }
}
