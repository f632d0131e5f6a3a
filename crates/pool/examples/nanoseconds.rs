//! What the operations of the pool cost, in one thread: `cargo run --release -p baton-pool --example nanoseconds`.
//!
//! A word after that picks lines. Each line is the best of several rounds. The first lines are the processor's own floors: what cannot be undercut.

use baton_pool::{Admission, Channel, EndpointKind, Member, Pool, PoolConfig, Receiver};
use rustix::event::{EventfdFlags, eventfd};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const ROUNDS: usize = 9;
const TURNS: u32 = 400_000;

fn time(what: &str, mut turn: impl FnMut()) {
    if std::env::args().nth(1).is_some_and(|word| !what.contains(&word)) {
        return;
    }
    let best = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..TURNS).for_each(|_| turn());
            started.elapsed().as_nanos() as f64 / f64::from(TURNS)
        })
        .fold(f64::MAX, f64::min);
    println!("{what:<52} {best:>8.2} ns");
}

fn join(pool: &Pool, name: &str) -> (Member, Receiver, Channel) {
    let who = Admission {
        pid: std::process::id(),
        start_time: 1,
        name: name.into(),
        inbox: None,
        kind: EndpointKind::Attached,
        quota_bytes: 0,
    };
    let endpoint = pool.admit(&who).expect("room for another endpoint");
    let (member, receiver) = pool.attach(endpoint).expect("just admitted");
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("a descriptor");
    (member, receiver, Channel::new(endpoint, wake))
}

fn cycle(from: &Member, receiver: &mut Receiver, to: &Channel, len: usize) {
    let block = from.alloc(len).expect("a free block").freeze();
    from.send(to, block).expect("room in the inbox");
    drop(black_box(receiver.try_recv().expect("an open inbox").expect("just sent")));
}

fn main() {
    let config = PoolConfig { payload_bytes: 256 << 20, ..PoolConfig::default() };
    let (pool, _fds) = Pool::create(&config).expect("256 MiB of shared memory");
    let (a, mut at_a, to_a) = join(&pool, "a");
    let (b, mut at_b, to_b) = join(&pool, "b");

    let word = AtomicU64::new(1);
    time("floor: one compare-and-swap, 64 bits", || {
        let _ = black_box(&word).compare_exchange(1, 1, Ordering::SeqCst, Ordering::SeqCst);
    });
    time("floor: malloc + free of 64 bytes", || drop(black_box(Box::new(black_box([0u8; 64])))));
    for len in [64, 4096, 3 << 20] {
        time(&format!("alloc + drop, {len} B"), || drop(black_box(a.alloc(len).expect("a free block"))));
        time(&format!("alloc + freeze + drop, {len} B"), || {
            drop(black_box(a.alloc(len).expect("a free block").freeze()));
        });
    }
    let kept = a.alloc(64).expect("a free block").freeze();
    time("clone + drop of a handle", || drop(black_box(kept.clone())));
    drop(kept);
    let mut there = Some(a.alloc(64).expect("a free block").freeze());
    time("send + receive to oneself, 64 B", || {
        a.send(&to_a, there.take().expect("kept")).expect("room in the inbox");
        there = at_a.try_recv().expect("an open inbox").map(|delivery| delivery.block);
    });
    drop(there);
    for len in [64, 4096, 3 << 20] {
        time(&format!("cycle to oneself, {len} B"), || cycle(&a, &mut at_a, &to_a, len));
        time(&format!("cycle from a to b, {len} B"), || cycle(&a, &mut at_b, &to_b, len));
    }
    let (kept, mut held) = (a.alloc(64).expect("a free block").freeze(), 0u32);
    time("share + receive + drop, 64 B", || {
        a.send(&to_b, kept.clone()).expect("room in the inbox");
        held += u32::from(at_b.try_recv().expect("an open inbox").is_some());
    });
    time("try_recv, nothing there", || assert!(black_box(at_b.try_recv()).expect("an open inbox").is_none()));
    println!("{held} messages shared, refused {} {}", a.refused(), b.refused());
}
