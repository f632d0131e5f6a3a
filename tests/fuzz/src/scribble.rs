//! "Metadata scribbled at random": the input says what is written where, and which operations of members and daemon run
//! in between. Whatever they find, they come back.
//!
//! ```text
//!   op 0..=5  write: kind, place, value     op 6.. : alloc, send, newest, receive, drop, reap, audit, admit, retire …
//!      │
//!      └─ an input whose first byte is odd: the same writes, over and over, by a thread beside the operations
//! ```
//! Every operation of the pool must end by itself within [`PATIENCE`], however busy the machine: an endless loop is said
//! to be one. (Memory is bounded by the fuzzer, steps by the script.)

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use baton_pool::{Admission, Channel, EndpointId, EndpointKind, EndpointRef, Pool, PoolConfig};
use baton_shm::{Access, Mapping, SharedSlice};
use rustix::event::{EventfdFlags, eventfd};

/// For one input of at most 96 operations, each of them microseconds long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    pool: Pool,
    words: SharedSlice<AtomicU64>,
    fresh: Vec<u64>,
}

thread_local! {
    static STAGE: RefCell<Stage> = RefCell::new(Stage::new());
}

impl Stage {
    fn new() -> Self {
        let config = PoolConfig {
            payload_bytes: 128 << 10,
            largest_block: 8 << 10,
            endpoints: 8,
            inbox_slots: 4,
            ..PoolConfig::default()
        };
        let (pool, fds) = Pool::create(&config).expect("a small pool");
        let len =
            usize::try_from(rustix::fs::fstat(&fds.metadata).expect("its size").st_size).expect("small");
        let mapping = Mapping::new(&fds.metadata, len, Access::ReadWrite).expect("mapped");
        let words: SharedSlice<AtomicU64> = Arc::new(mapping).slice(0, len / 8).expect("within");
        let fresh = words.iter().map(|word| word.load(SeqCst)).collect();
        Self { pool, words, fresh }
    }

    fn restore(&self) {
        for (word, value) in self.words.iter().zip(&self.fresh) {
            if word.load(SeqCst) != *value {
                word.store(*value, SeqCst);
            }
        }
    }
}

/// Takes the input apart.
struct Script<'a>(&'a [u8]);
impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
    fn number(&mut self, bytes: usize) -> Option<u64> {
        (0..bytes).try_fold(0, |sum, _| Some(sum << 8 | u64::from(self.byte()?)))
    }
}

pub fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    STAGE.with_borrow(|stage| {
        stage.restore();
        let begin = Instant::now();
        if mode % 2 == 0 {
            let _ = play(stage, &mut Script(data));
        } else {
            play_under_fire(stage, data);
        }
        assert!(begin.elapsed() < PATIENCE, "it came back, but after {:?}", begin.elapsed());
    });
}

/// Who is there beside the operations: writes what the input says, and takes it back, until they are done. Daemon and
/// members run into half of a change, at another place each time.
fn play_under_fire(stage: &Stage, data: &[u8]) {
    let writes: Vec<(usize, u64)> = data
        .windows(5)
        .map(|w| {
            let at = usize::from(u16::from_be_bytes([w[0], w[1]])) % stage.words.len();
            (at, value(stage, w[2] % 6, at, u64::from(w[3]) << (w[4] % 64)))
        })
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) && !writes.is_empty() {
                for (at, value) in &writes {
                    stage.words[*at].store(*value, SeqCst);
                }
                for (at, _) in &writes {
                    stage.words[*at].store(stage.fresh[*at], SeqCst);
                }
            }
        });
        let played =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(stage, &mut Script(data))));
        done.store(true, SeqCst);
        if let Err(panic) = played {
            std::panic::resume_unwind(panic);
        }
    });
}

/// What is written: `kind` of nonsense at a place.
fn value(stage: &Stage, kind: u8, at: usize, number: u64) -> u64 {
    match kind {
        0 => 0,
        1 => u64::MAX,
        2 | 3 => number,
        4 => stage.fresh[at],
        _ => stage.words[at].load(SeqCst) ^ 1 << (number % 64),
    }
}

fn endpoint(script: &mut Script<'_>) -> Option<EndpointRef> {
    let number = script.byte()?;
    let id = EndpointId::new(u16::from(number % 12) + 1)?;
    Some(EndpointRef { id, incarnation: u32::from(number / 12) % 3 })
}

fn play(stage: &Stage, script: &mut Script<'_>) -> Option<()> {
    let Stage { pool, words, .. } = stage;
    let who = Admission {
        pid: 1,
        start_time: 1,
        name: "x".into(),
        inbox: Some("x".into()),
        kind: EndpointKind::Attached,
        quota_bytes: 0,
    };
    let me = pool.admit(&who).ok()?;
    let (member, mut receiver) = pool.attach(me).ok()?;
    let channel = |to: EndpointRef| Some(Channel::new(to, eventfd(0, EventfdFlags::NONBLOCK).ok()?));
    let own = channel(me)?;
    for len in [64, 3000, 8192] {
        let _ = member.alloc(len).map(|block| member.send(&own, block.freeze()));
    }
    let mut blocks = Vec::new();
    for _ in 0..96 {
        match script.byte()? % 16 {
            kind @ 0..=5 => {
                let at = script.number(2)? as usize % words.len();
                let number = match kind {
                    2 => script.number(8)?,
                    3 | 5 => script.number(1)?,
                    _ => 0,
                };
                words[at].store(value(stage, kind, at, number), SeqCst);
            }
            6 | 7 => {
                blocks.extend(member.alloc(script.number(2)? as usize % 9000).map(|block| block.freeze()))
            }
            8 => {
                let block = blocks.pop()?;
                // Every byte of a block that somebody claims to have sent must be readable.
                std::hint::black_box(block.iter().fold(0u8, |sum, byte| sum ^ byte));
                let _ = member.send(&own, block);
            }
            9 => {
                let to = channel(endpoint(script)?)?;
                let _ = member.send_newest(&to, blocks.pop()?);
            }
            10 => blocks.extend(receiver.try_recv().ok().flatten().map(|delivery| delivery.block)),
            11 => blocks.extend(receiver.prepare_sleep().ok().flatten().map(|delivery| delivery.block)),
            12 => drop(blocks.pop()),
            13 => {
                let _ = pool.reap(endpoint(script)?);
                let _ = pool.close_inbox(endpoint(script)?);
            }
            14 => {
                let _ = (pool.endpoints(), pool.usage(), pool.audit_once(), pool.find_inbox("x"));
                let _ = (pool.take_sleepers(), pool.blocks_in_use().count(), pool.held_by(me.id).count());
            }
            _ => {
                let _ = pool.admit(&who);
                let _ = pool.make_room(me, script.number(2)? as usize);
            }
        }
    }
    Some(())
}

pub fn seeds() -> Vec<Vec<u8>> {
    let calm: Vec<u8> = [6, 16, 0, 8, 10, 12, 14, 6, 0, 64, 8, 11, 9, 0, 13, 0, 0, 15, 0, 200].to_vec();
    let writes = |kind: u8, step: u16| -> Vec<u8> {
        let write = |i: u16| {
            let at = (i * step).to_be_bytes();
            [kind, at[0], at[1], 3, 7, 0, 0, 0, 1, 2, 3]
        };
        (0..8).flat_map(|i| [&write(i)[..if kind == 2 { 11 } else { 4 }], &calm[..6]].concat()).collect()
    };
    let scripts = [calm.clone(), writes(0, 64), writes(1, 100), writes(2, 333), writes(5, 17), writes(3, 8)];
    [0, 1].iter().flat_map(|mode| scripts.iter().map(|script| [&[*mode], &script[..]].concat())).collect()
}
