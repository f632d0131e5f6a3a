//! How long it takes to take back what a dead process held, in a pool of a million blocks.
//!
//! `cargo run --release -p baton-pool --example reaping`

use baton_pool::{Admission, EndpointKind, EndpointRef, Pool, PoolConfig};
use std::time::Instant;

const HELD: usize = 100_000;
const ROUNDS: usize = 20;

fn admit(pool: &Pool, name: &str) -> EndpointRef {
    let who = Admission {
        pid: 1,
        start_time: 1,
        name: name.into(),
        inbox: None,
        kind: EndpointKind::Attached,
        quota_bytes: 0,
    };
    pool.admit(&who).expect("a number is free")
}

fn main() {
    let config = PoolConfig { payload_bytes: 128 << 20, blocks_min: 1 << 20, ..PoolConfig::default() };
    let (pool, _fds) =
        Pool::create(&PoolConfig { largest_block: 1 << 20, ..config }).expect("128 MiB of memory");
    let (filler, _receiver) = pool.attach(admit(&pool, "filler")).expect("admitted");
    let everything: Vec<_> = std::iter::from_fn(|| filler.alloc(64).ok()).collect();
    let blocks = everything.len();
    drop(everything);
    drop((filler, _receiver));
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let me = admit(&pool, "the one that dies");
        let (member, receiver) = pool.attach(me).expect("admitted");
        let held: Vec<_> = (0..HELD).map(|_| member.alloc(64).expect("room for it")).collect();
        std::mem::forget((held, member, receiver)); // as if it had been killed
        let start = Instant::now();
        let reaped = pool.reap(me).expect("it was admitted");
        took.push(start.elapsed());
        assert!(reaped.blocks.len() >= HELD && reaped.freed as usize == reaped.blocks.len());
    }
    took.sort();
    println!(
        "{blocks} blocks, {HELD} held: reaped in {:?} (median of {ROUNDS}), {:?} at best",
        took[ROUNDS / 2],
        took[0]
    );
}
