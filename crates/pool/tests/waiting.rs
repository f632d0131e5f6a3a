//! Waiting within one pool: nobody sleeps through what he waits for, whoever provides it and however it ends.

use baton_pool::{
    Admission, AllocError, Channel, EndpointKind, EndpointRef, Member, Pool, PoolConfig, PoolFds, Receiver,
    SendFailure,
};
use rustix::event::{EventfdFlags, eventfd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A watchdog, not a measure.
const WATCHDOG: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

fn pool() -> (Pool, PoolFds) {
    let config = PoolConfig {
        payload_bytes: 8 << 20,
        largest_block: 1 << 20,
        endpoints: 8,
        inbox_slots: 2,
        ..PoolConfig::default()
    };
    Pool::create(&config).unwrap()
}

fn join(pool: &Pool, name: &str, quota_bytes: u64) -> (Member, Receiver, Channel, EndpointRef) {
    let who = Admission {
        pid: std::process::id(),
        start_time: 1,
        name: name.into(),
        inbox: None,
        kind: EndpointKind::Attached,
        quota_bytes,
    };
    let endpoint = pool.admit(&who).unwrap();
    let (member, receiver) = pool.attach(endpoint).unwrap();
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    (member, receiver, Channel::new(endpoint, wake), endpoint)
}

fn soon() -> Option<Instant> {
    Instant::now().checked_add(WATCHDOG)
}

#[test]
fn senders_and_a_sleeping_receiver_wake_each_other() {
    let (pool, _fds) = pool();
    let (a, ..) = join(&pool, "a", 0);
    let (_b, mut receiver, to_b, _) = join(&pool, "b", 0);
    let (threads, each) = (3u64, 3000u64);
    let sum = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (a, to_b) = (a.clone(), to_b.clone());
            scope.spawn(move || {
                for n in 0..each {
                    let mut block = a.alloc_until(8, soon()).unwrap();
                    block.copy_from_slice(&n.to_le_bytes());
                    a.send_until(&to_b, block.freeze(), soon()).unwrap();
                }
            });
        }
        let (mut sum, mut left, end) = (0, threads * each, Instant::now() + WATCHDOG);
        while left > 0 {
            assert!(Instant::now() < end, "{left} messages did not come");
            if let Some(delivery) = receiver.sleep(Some(WATCHDOG)).unwrap() {
                sum += u64::from_le_bytes((*delivery.block).try_into().unwrap());
                left -= 1;
            }
        }
        sum
    });
    assert_eq!(sum, threads * each * (each - 1) / 2);
}

#[test]
fn three_members_share_too_few_blocks_by_waiting() {
    let (pool, _fds) = pool();
    // Each wants three of eight at once: somebody always waits, and somebody can always go on.
    let members = ["a", "b", "c"].map(|name| join(&pool, name, 0).0);
    std::thread::scope(|scope| {
        for member in &members {
            scope.spawn(move || {
                for _ in 0..500 {
                    let held: Vec<_> = (0..3).map(|_| member.alloc_until(MIB, soon()).unwrap()).collect();
                    std::thread::yield_now();
                    drop(held);
                }
            });
        }
    });
    assert_eq!(pool.usage().in_use_bytes, 0);
}

#[test]
fn a_waiter_for_memory_gets_what_would_have_become_spare() {
    let (pool, _fds) = pool();
    let (a, ..) = join(&pool, "a", 0);
    let (b, ..) = join(&pool, "b", 0);
    let mut held = Vec::new();
    while let Ok(block) = a.alloc(4096) {
        held.push(block);
    }
    let (done, waits) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || done.send(b.alloc_until(4096, soon()).is_ok()).unwrap());
        let got = loop {
            // A block that is dropped before the other one waits may stay here as a spare one; the next one will not.
            drop(held.pop().expect("none of the freed blocks reached the waiter"));
            if let Ok(got) = waits.recv_timeout(Duration::from_millis(1)) {
                break got;
            }
        };
        assert!(got);
    });
}

#[test]
fn the_end_of_an_inbox_ends_the_wait_for_room() {
    let (pool, _fds) = pool();
    let (a, ..) = join(&pool, "a", 0);
    let (_b, receiver, to_b, b) = join(&pool, "b", 0);
    let text = |member: &Member| member.alloc(4).unwrap().freeze();
    (0..2).for_each(|_| a.send(&to_b, text(&a)).unwrap());
    let late = a.send_until(&to_b, text(&a), Some(Instant::now())).unwrap_err();
    assert_eq!(late.reason, SendFailure::Full);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| a.send_until(&to_b, text(&a), soon()).map_err(|error| error.reason));
        drop(receiver);
        pool.close_inbox(b).unwrap();
        assert_eq!(waiting.join().unwrap(), Err(SendFailure::Gone));
    });
}

#[test]
fn a_closed_inbox_wakes_its_sleeping_receiver() {
    let (pool, _fds) = pool();
    let (_b, mut receiver, _to_b, b) = join(&pool, "b", 0);
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(move || {
            loop {
                match receiver.sleep(None) {
                    Ok(found) => assert!(found.is_none()),
                    Err(error) => return error,
                }
            }
        });
        pool.close_inbox(b).unwrap();
        assert_eq!(sleeper.join().unwrap(), baton_pool::RecvError::Closed);
    });
}

#[test]
fn a_quota_is_kept_whatever_way_blocks_come_and_go() {
    let (pool, _fds) = pool();
    let (a, mut at_a, to_a, _) = join(&pool, "a", 3 << 20);
    let (same_process, ..) = join(&pool, "b", 3 << 20);
    let (free, _, _, _) = join(&pool, "c", 0);
    let mut held: Vec<_> = (0..2).map(|_| a.alloc(MIB).unwrap().freeze()).collect();
    held.push(held[0].clone()); // a handle, not a block
    let third = same_process.alloc(MIB).unwrap();
    let error = a.alloc(1).unwrap_err();
    assert!(matches!(error, AllocError::Quota { held: 0x30_0000, quota: 0x30_0000, .. }), "{error}");
    assert!(error.to_string().contains("quota"), "{error}");
    assert!(free.alloc(MIB).is_ok(), "this one has none");
    drop(third);
    drop(same_process.alloc(MIB).unwrap());
    held.truncate(2);
    a.send(&to_a, held.pop().unwrap()).unwrap();
    a.send(&to_a, held.pop().unwrap()).unwrap();
    let mine: Vec<_> = (0..3).map(|_| a.alloc(MIB).unwrap()).collect();
    let arrived = at_a.try_recv().unwrap().unwrap();
    assert!(matches!(a.alloc(1), Err(AllocError::Quota { held: 0x40_0000, .. })), "what arrives counts");
    drop((mine, arrived, at_a.try_recv().unwrap()));
    assert_eq!((0..3).filter(|_| a.alloc(MIB).is_ok()).count(), 3, "all is counted back");
}

/// What a sender owes that was killed after it had found the receiver asleep: a channel whose descriptor nobody polls
/// is as good as one that was never written to.
#[test]
fn a_wake_up_that_never_came_is_owed_until_the_receiver_is_up() {
    let (pool, _fds) = pool();
    let (a, ..) = join(&pool, "a", 0);
    let (_b, mut receiver, to_b, b) = join(&pool, "b", 0);
    let (_c, mut other, ..) = join(&pool, "c", 0);
    assert!(receiver.prepare_sleep().unwrap().is_none() && other.prepare_sleep().unwrap().is_none());
    other.woken();
    a.send(&to_b, a.alloc(4).unwrap().freeze()).unwrap();
    for _ in 0..3 {
        // Also if a daemon asks, and is killed before it has written.
        assert_eq!(pool.take_sleepers(), [b.id]);
    }
    receiver.woken();
    assert_eq!(pool.take_sleepers(), []);
    assert!(receiver.try_recv().unwrap().is_some());
}
