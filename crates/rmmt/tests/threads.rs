//! Many threads of one process allocate, share, move, receive and drop at the same time, as two endpoints, with a third
//! process that takes part; afterwards nothing is lost and nothing is left.

mod stage;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use baton_client::{AllocError, Block, Client, ConnectOptions, Inbox, SendFailure, Sender};
use stage::Daemon;

const THREADS: u64 = 6;
const ROUNDS: u64 = 3000;

/// Counts down when dropped.
struct Done<'a>(&'a AtomicU64);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Length of the blocks of the third process, whose contents have another pattern.
const FOREIGN: usize = 30_000;

/// All bytes are the same, and another value the next time.
fn frame(client: &Client, len: usize, mark: u8) -> Result<Block, AllocError> {
    let mut block = client.alloc(len)?;
    block.fill(mark);
    Ok(block.freeze())
}

fn check(block: &Block) {
    let whole = block.len() == FOREIGN || block.iter().all(|byte| *byte == block[0]);
    assert!(whole, "a block was written while somebody held it");
}

/// Sends in every way, and drops the clones on another thread.
fn work(client: &Client, ways: &[Sender], seed: u64, drops: &mpsc::Sender<Block>) -> u64 {
    let (mut sent, mut random) = (0, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
    for round in 0..ROUNDS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let len = [64, 900, 5000, 40_000, 100_000][(random % 5) as usize];
        let block = match frame(client, len, round as u8) {
            Ok(block) => block,
            Err(AllocError::Exhausted { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        let way = &ways[(random >> 8) as usize % ways.len()];
        if random & 1 << 20 != 0 {
            drops.send(block.clone()).unwrap();
        }
        let result = match random >> 24 & 1 {
            0 => way.send(block).map(|()| 0),
            _ => way.send_newest(block).map(|done| u64::from(done.replaced)),
        };
        match result {
            Ok(replaced) => sent += 1 - replaced.min(1),
            Err(refused) => {
                assert_eq!(refused.reason, SendFailure::Full, "{refused}");
                check(&refused.block);
            }
        }
    }
    sent
}

fn receive(mut inbox: Inbox, end: &AtomicU64, forward: &Sender) {
    loop {
        let over = end.load(Ordering::SeqCst) == 0;
        match inbox.recv(Some(std::time::Duration::from_millis(1))).unwrap() {
            Some(delivery) => {
                check(&delivery.block);
                // Some go on to the other endpoint of this process, moved or refused and dropped.
                if delivery.block.len() == 900 && !over {
                    let _ = forward.send(delivery.block);
                }
            }
            None if over => return,
            None => {}
        }
    }
}

#[test]
fn threads_of_two_endpoints_do_everything_at_once() {
    let daemon = Daemon::start();
    let mut third = daemon.puppet("third", "third.in");
    let (a, a_inbox) = daemon.member(ConnectOptions::new("a").inbox("a.in"));
    let (b, b_inbox) = daemon.member(ConnectOptions::new("b").inbox("b.in"));
    third.order("work a.in 500");
    let ways = |client: &Client| ["a.in", "b.in"].map(|name| client.sender(name).unwrap());
    let (from_a, from_b) = (ways(&a), ways(&b));
    let (drops, dropped) = mpsc::channel();
    let working = AtomicU64::new(THREADS);
    let sent: u64 = std::thread::scope(|scope| {
        scope.spawn(|| receive(a_inbox, &working, &from_a[1]));
        scope.spawn(|| receive(b_inbox, &working, &from_b[0]));
        scope.spawn(move || dropped.iter().for_each(|block| check(&block)));
        let workers: Vec<_> = (0..THREADS)
            .map(|seed| {
                let (client, ways) = if seed % 2 == 0 { (&a, &from_a) } else { (&b, &from_b) };
                let (drops, working) = (drops.clone(), &working);
                scope.spawn(move || {
                    let _done = Done(working); // also if it panics: the others wait for it
                    work(client, ways, seed, &drops)
                })
            })
            .collect();
        // Questions from yet another thread meanwhile.
        while working.load(Ordering::SeqCst) > 0 {
            a.sender("b.in").unwrap();
            assert!(a.pool().unwrap().bytes_in_use <= 16 << 20);
        }
        drop(drops);
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert!(sent > 0);
    let answer = third.answer();
    assert!(!answer.contains("BAD"), "{answer}");
    third.kill();
    daemon.logged(&["rmmt: reaped", "name=third"]);
    daemon.assert_balanced();
    drop((a, b, from_a, from_b));
    let mut observer = daemon.observer();
    stage::until("all to have left", || daemon.guests().is_empty().then_some(()));
    assert_eq!(observer.pool().unwrap().blocks_in_use, 0, "spare blocks go with their endpoint");
    daemon.assert_balanced();
}
