//! A hostile member writes garbage over all metadata, once or all the time. Members and the daemon may then be told
//! nonsense; they must not panic, not leave the pool's memory, and not hang.

use baton_pool::{
    Admission, Channel, EndpointId, EndpointKind, EndpointRef, Lend, Pass, Pool, PoolConfig, PoolFds,
};
use baton_shm::{Access, Mapping, SharedSlice};
use rustix::event::{EventfdFlags, eventfd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

fn metadata(fds: &PoolFds) -> SharedSlice<AtomicU64> {
    let len = rustix::fs::fstat(&fds.metadata).unwrap().st_size as usize;
    Arc::new(Mapping::new(&fds.metadata, len, Access::ReadWrite).unwrap()).slice(0, len / 8).unwrap()
}

/// Garbage of several kinds: anything, mostly zeros (small numbers, plausible fields), mostly ones.
fn garbage(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.next(),
        1 => random.next() & random.next() & random.next(),
        2 => random.next() | random.next() | random.next(),
        _ => random.below(64) << random.below(64),
    }
}

/// Some hundred operations of members and daemon; results may be anything. `scribble` runs once the member is attached.
/// Returns how many blocks were allocated, received and sent all the same.
fn work(pool: &Pool, random: &mut Random, scribble: impl FnOnce(&mut Random)) -> [u32; 3] {
    let endpoint = |random: &mut Random| EndpointRef {
        id: EndpointId::new(1 + random.below(12) as u16).unwrap(),
        incarnation: random.below(3) as u32,
    };
    let who = Admission {
        pid: 1,
        start_time: 1,
        name: "x".into(),
        inbox: Some("x".into()),
        kind: EndpointKind::Attached,
        quota_bytes: 0,
    };
    let admitted = pool.admit(&who).unwrap_or_else(|_| endpoint(random));
    let mut blocks = Vec::new();
    let mut done = [0; 3];
    if let Ok((member, mut receiver)) = pool.attach(admitted) {
        for _ in 0..6 {
            let to = Channel::new(admitted, eventfd(0, EventfdFlags::NONBLOCK).unwrap());
            let _ = member.alloc(3000).map(|block| member.send(&to, block.freeze()));
        }
        scribble(random);
        for _ in 0..60 {
            match random.below(6) {
                0 | 1 => {
                    let block = member.alloc(random.below(5000) as usize).map(|block| block.freeze());
                    done[0] += u32::from(block.is_ok());
                    blocks.extend(block);
                }
                kind @ (2 | 3) => {
                    let got = if kind == 2 { receiver.try_recv() } else { receiver.prepare_sleep() };
                    let got = got.ok().flatten().map(|delivery| delivery.block);
                    done[1] += u32::from(got.is_some());
                    blocks.extend(got);
                }
                _ => {
                    let Some(block) = blocks.pop() else { continue };
                    let to = pool.endpoint(endpoint(random).id).unwrap_or(admitted);
                    let to = Channel::new(to, eventfd(0, EventfdFlags::NONBLOCK).unwrap());
                    // Every byte of a block that somebody claims to have sent must be readable.
                    std::hint::black_box(block.iter().fold(0u8, |sum, byte| sum ^ byte));
                    let sent = if random.below(2) == 0 {
                        member.send(&to, block).is_ok()
                    } else {
                        member.send_newest(&to, block).is_ok()
                    };
                    done[2] += u32::from(sent);
                }
            }
        }
    }
    drop(blocks);
    speak_for_others(pool, random);
    let _ = (pool.endpoints(), pool.usage(), pool.audit_once(), pool.find_inbox("x"), pool.take_sleepers());
    let _ = pool.close_inbox(endpoint(random));
    for _ in 0..3 {
        let _ = pool.reap(endpoint(random));
    }
    let _ = pool.reap(admitted);
    done
}

/// What only the daemon does.
fn speak_for_others(pool: &Pool, random: &mut Random) {
    let mut any = || EndpointRef {
        id: EndpointId::new(1 + random.below(12) as u16).unwrap(),
        incarnation: random.below(3) as u32,
    };
    let (from, to) = (any(), any());
    let who = Admission {
        pid: 1,
        start_time: 1,
        name: "d".into(),
        inbox: None,
        kind: EndpointKind::Daemon,
        quota_bytes: 0,
    };
    let daemon = pool.admit(&who).unwrap_or(from);
    let _ = pool.repair(daemon);
    for len in [64, 3000, 16 << 10, 40 << 10] {
        let _ = pool.make_room(daemon, len);
    }
    if let Ok(mut proxy) = pool.proxy(from) {
        let _ = proxy.receive();
        if let Ok(block) = proxy.alloc(random.below(5000) as usize) {
            let _ = (pool.look(block), proxy.offset(block).map(|offset| proxy.block_at(offset)));
            let _ = pool.lend(from, block, to, Lend::InFlight);
            let _ = (pool.accept_in_flight(to, block), pool.drop_in_flight(to, block));
            let _ = (proxy.send(block, to, Pass::Share), proxy.release(block));
        }
    }
    let _ = (pool.blocks_in_use().count(), pool.held_by(to.id).count());
    let _ = pool.reap(daemon);
}

/// Runs `f` and fails if it does not come back: a hang is a failure, however slow the machine.
fn watched(f: impl FnOnce() + Send + 'static) {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || {
        f();
        let _ = done.send(());
    });
    match wait.recv_timeout(Duration::from_secs(120)) {
        Err(RecvTimeoutError::Timeout) => panic!("an operation on scribbled metadata does not come back"),
        _ => thread.join().unwrap(),
    }
}

fn pool() -> (Pool, PoolFds) {
    let config = PoolConfig {
        payload_bytes: 128 << 10,
        largest_block: 40 << 10,
        endpoints: 8,
        inbox_slots: 4,
        ..PoolConfig::default()
    };
    Pool::create(&config).unwrap()
}

#[test]
fn garbage_everywhere() {
    watched(|| {
        let (pool, fds) = pool();
        let words = metadata(&fds);
        let fresh: Vec<u64> = words.iter().map(|word| word.load(SeqCst)).collect();
        let mut random = Random(0xFEED_BEEF);
        let mut sum = [0; 3];
        for round in 0..2000 {
            let done = work(&pool, &mut random, |random| {
                // Some pages stay as they are, so that what builds on them goes on.
                for page in words.chunks(512) {
                    if random.below(3) == 0 {
                        let density = 1 + random.below(16);
                        for word in page.iter() {
                            if random.below(density) == 0 {
                                word.store(garbage(random), SeqCst);
                            }
                        }
                    }
                }
            });
            (0..3).for_each(|i| sum[i] += done[i]);
            // What is left of the header must be refused or accepted, not believed.
            let _ = Pool::open(&fds.metadata, &fds.payload);
            if round % 4 == 3 {
                words.iter().zip(&fresh).for_each(|(word, value)| word.store(*value, SeqCst));
            }
        }
        println!("allocated, received, sent in spite of it: {sum:?}");
        assert!(
            sum.iter().all(|count| *count > 1000),
            "the operations got beyond their first checks: {sum:?}"
        );
    });
}

#[test]
fn a_member_that_keeps_scribbling() {
    watched(|| {
        let (pool, fds) = pool();
        let words = metadata(&fds);
        let fresh: Vec<u64> = words.iter().map(|word| word.load(SeqCst)).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(7);
                while !stop.load(SeqCst) {
                    // Half of what it writes repairs, so that the others get on, to the next trap.
                    let at = random.below(words.len() as u64) as usize;
                    let value = if random.below(2) == 0 { fresh[at] } else { garbage(&mut random) };
                    words[at].store(value, SeqCst);
                }
            });
            let mut random = Random(11);
            for _ in 0..2000 {
                words.iter().zip(&fresh).for_each(|(word, value)| word.store(*value, SeqCst));
                work(&pool, &mut random, |_| {});
            }
            stop.store(true, SeqCst);
        });
    });
}
