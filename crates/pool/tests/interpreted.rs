//! Handles and words in a pool that is small enough for Miri: `./x miri` runs this file under the interpreter, which sees
//! undefined behaviour, data races and references that alias. Without it, it is a test like any other.

use baton_pool::{Admission, Block, Channel, EndpointKind, EndpointRef, Member, Pool, PoolConfig, Receiver};
use rustix::event::{EventfdFlags, eventfd};

const ROUNDS: u8 = if cfg!(miri) { 3 } else { 200 };

fn pool() -> Pool {
    let config = PoolConfig {
        payload_bytes: 128 << 10,
        largest_block: 8 << 10,
        endpoints: 4,
        inbox_slots: 4,
        ..PoolConfig::default()
    };
    Pool::create(&config).unwrap().0
}

fn join(pool: &Pool, name: &str) -> (EndpointRef, Member, Receiver, Channel) {
    let who = Admission {
        pid: 1,
        start_time: 1,
        name: name.into(),
        inbox: None,
        kind: EndpointKind::Attached,
        quota_bytes: 0,
    };
    let endpoint = pool.admit(&who).unwrap();
    let (member, receiver) = pool.attach(endpoint).unwrap();
    (endpoint, member, receiver, Channel::new(endpoint, eventfd(0, EventfdFlags::NONBLOCK).unwrap()))
}

fn filled(member: &Member, byte: u8) -> Block {
    let mut block = member.alloc(100).unwrap();
    block.fill(byte);
    block.freeze()
}

/// Written, frozen, cloned, read by two threads at once, used again.
#[test]
fn handles() {
    let pool = pool();
    let (endpoint, member, _receiver, _) = join(&pool, "one");
    for round in 0..ROUNDS {
        let block = filled(&member, round);
        let other = block.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(block.iter().all(|byte| *byte == round)));
            assert!(other.iter().all(|byte| *byte == round));
        });
    }
    drop(member);
    pool.reap(endpoint).unwrap();
}

/// Moved and shared to another thread's member, which reads what the first wrote: a race unless the word orders it.
#[test]
fn hand_overs() {
    let pool = pool();
    let (_, sender, _own, _) = join(&pool, "sender");
    let (_, _member, mut receiver, channel) = join(&pool, "receiver");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..ROUNDS {
                let mut block = filled(&sender, round);
                while let Err(error) = sender.send(&channel, block) {
                    block = error.block;
                    std::thread::yield_now();
                }
            }
        });
        for round in 0..ROUNDS {
            let delivery = loop {
                match receiver.try_recv().unwrap() {
                    Some(delivery) => break delivery,
                    None => std::thread::yield_now(),
                }
            };
            assert!(delivery.block.iter().all(|byte| *byte == round));
        }
    });
}
