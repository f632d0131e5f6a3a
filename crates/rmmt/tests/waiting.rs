//! Waiting: for room, for memory, for messages; what ends it, and that nothing else is needed.

mod stage;

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use baton_client::{
    AllocError, Block, Client, ConnectOptions, Inbox, OpenError, RecvError, SendFailure, WhenFull, select,
    select_async,
};
use rustix::process::Signal;
use stage::{Daemon, WATCHDOG, kill, stray_writer, until};

const MIB: usize = 1 << 20;

fn numbered(client: &Client, n: u8) -> Block {
    let mut block = client.alloc(1).unwrap();
    block[0] = n;
    block.freeze()
}

fn numbers(inbox: &mut Inbox) -> Vec<u8> {
    std::iter::from_fn(|| inbox.try_recv().unwrap()).map(|delivery| delivery.block[0]).collect()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn many_waiting_senders_all_get_through() {
    let daemon = Daemon::start();
    let (client, mut inbox) = daemon.member(ConnectOptions::new("slow").inbox("slow.in"));
    let (threads, each) = (4u8, 200u8);
    let mut got = HashSet::new();
    std::thread::scope(|scope| {
        for t in 0..threads {
            let sender = client.sender("slow.in").unwrap();
            let client = &client;
            scope.spawn(move || {
                for n in 0..each {
                    let mut block = client.alloc_wait(2, WATCHDOG).unwrap();
                    block.copy_from_slice(&[t, n]);
                    sender.send_with(block.freeze(), WhenFull::Wait(WATCHDOG)).unwrap();
                }
            });
        }
        for _ in 0..u32::from(threads) * u32::from(each) {
            let delivery = inbox.recv(Some(WATCHDOG)).unwrap().expect("a sender sleeps for ever");
            assert!(got.insert(delivery.block.to_vec()), "twice");
        }
    });
    assert_eq!(got.len(), 800);
    assert!(inbox.try_recv().unwrap().is_none());
}

#[test]
fn a_sender_that_waits_learns_that_its_receiver_died() {
    let daemon = Daemon::start();
    let deaf = daemon.puppet("deaf", "deaf.in");
    let pid: u32 = deaf.pid();
    let (client, _inbox) = daemon.member(ConnectOptions::new("patient"));
    let sender = client.sender("deaf.in").unwrap();
    (0..4).for_each(|n| sender.send(numbered(&client, n)).unwrap());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sender.send_with(numbered(&client, 4), WhenFull::Wait(WATCHDOG)));
        kill(pid, Signal::KILL);
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.reason, SendFailure::Gone);
        assert_eq!(error.block[0], 4, "the block is back");
    });
    daemon.assert_balanced();
}

#[test]
fn memory_of_the_dead_ends_a_wait_for_memory() {
    let daemon = Daemon::start(); // 16 MiB
    let mut hoarder = daemon.puppet("hoarder", "");
    hoarder.ask(&format!("hold 16 {MIB}"));
    let (client, _inbox) = daemon.member(ConnectOptions::new("patient"));
    let error = client.alloc_wait(MIB, Duration::from_millis(20)).unwrap_err();
    let AllocError::Exhausted { holders, .. } = &error else { panic!("{error}") };
    assert_eq!((holders[0].name.as_str(), holders[0].pid), ("hoarder", hoarder.pid()), "{error}");
    assert!(error.to_string().contains("--size"), "{error}");
    for way in ["async", "sync"] {
        if way == "sync" {
            hoarder.ask(&format!("hold 16 {MIB}"));
        }
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| match way {
                "sync" => client.alloc_wait(MIB, WATCHDOG),
                _ => run(client.alloc_async(MIB, WATCHDOG)),
            });
            match way {
                "async" => drop(hoarder.ask("drop")),
                _ => kill(hoarder.pid(), Signal::KILL),
            }
            assert_eq!(waiting.join().unwrap().unwrap().len(), MIB, "{way}");
        });
    }
    daemon.assert_balanced();
}

#[test]
fn a_size_that_found_none_gets_the_empty_extents_of_others() {
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("many.sizes"));
    let small: Vec<_> = (0..16).map_while(|_| client.alloc(600_000).ok()).collect();
    drop(small);
    // All extents may be bound to that size now; the daemon takes back those that hold nothing.
    let large: Vec<_> = (0..8).map(|_| client.alloc_wait(MIB, WATCHDOG).unwrap()).collect();
    assert!(large.iter().all(|block| block.len() == MIB));
}

#[test]
fn spare_blocks_of_the_asker_pin_nothing() {
    let fresh = {
        let daemon = Daemon::start();
        let (client, _inbox) = daemon.member(ConnectOptions::new("one.size"));
        let all: Vec<_> = std::iter::from_fn(|| client.alloc(MIB).ok()).take(100).collect();
        all.len()
    };
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("many.sizes"));
    // A few small ones of every size, so that many extents have something in them.
    for shift in 6..16 {
        for size in [4, 5, 6, 7] {
            let small: Vec<_> = (0..3).filter_map(|_| client.alloc((size << shift) / 4).ok()).collect();
            drop(small);
        }
    }
    drop(client.alloc(64).unwrap()); // who found nothing has given its spare blocks back
    assert!(!client.spare_blocks().is_empty());
    let room = |_| client.alloc_wait(MIB, WATCHDOG).expect("the asker's own spare blocks are in the way");
    let large: Vec<_> = (0..fresh).map(room).collect();
    assert_eq!(large.len(), fresh);
    drop(large);
    daemon.assert_balanced();
}

#[test]
fn a_sleeper_wakes_when_its_inbox_is_closed() {
    let mut daemon = Daemon::start();
    let (_a, mut one) = daemon.member(ConnectOptions::new("thread").inbox("thread.in"));
    let (_b, mut two) = daemon.member(ConnectOptions::new("selects"));
    let (_c, mut three) = daemon.member(ConnectOptions::new("task"));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| one.recv(None));
        let selects = scope.spawn(|| select(&mut [&mut two], None));
        let task = scope.spawn(|| run(three.recv_async()));
        daemon.stop();
        assert!(matches!(thread.join().unwrap(), Err(RecvError::Closed)));
        assert!(matches!(selects.join().unwrap(), Err(RecvError::Closed)));
        assert!(matches!(task.join().unwrap(), Err(RecvError::Closed)));
    });
}

#[test]
fn select_is_fair_and_finds_whatever_comes() {
    let daemon = Daemon::start();
    let (client, mut a) = daemon.member(ConnectOptions::new("a").inbox("a"));
    let (_b, mut b) = daemon.member(ConnectOptions::new("b").inbox("b"));
    let (to_a, to_b) = (client.sender("a").unwrap(), client.sender("b").unwrap());
    for way in ["sync", "async"] {
        let next = |a: &mut Inbox, b: &mut Inbox| match way {
            "sync" => select(&mut [a, b], Some(WATCHDOG)).unwrap().unwrap(),
            _ => run(select_async(&mut [a, b])).unwrap(),
        };
        let mut turns = Vec::new();
        to_b.send(numbered(&client, 0)).unwrap();
        for n in 0..6 {
            while to_a.send_with(numbered(&client, n), WhenFull::Refuse).is_ok() {}
            turns.push(next(&mut a, &mut b).0);
            if turns.last() == Some(&1) {
                to_b.send(numbered(&client, n)).unwrap();
            }
        }
        assert_eq!(
            turns.iter().filter(|i| **i == 1).count(),
            3,
            "{way}: one that is always full does not starve: {turns:?}"
        );
        numbers(&mut a);
        numbers(&mut b);
        assert!(select(&mut [&mut a, &mut b], Some(Duration::from_millis(5))).unwrap().is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::yield_now();
                to_b.send(numbered(&client, 9)).unwrap();
            });
            let (i, delivery) = next(&mut a, &mut b);
            assert_eq!((i, delivery.block[0]), (1, 9), "{way}");
        });
    }
    assert!(select(&mut [], None).is_err());
}

/// Asks until it sleeps, then has something sent to it.
async fn woken<T>(waits: impl Future<Output = T>, send: impl FnOnce()) -> T {
    let mut waits = pin!(waits);
    assert!(poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending())).await);
    send();
    tokio::time::timeout(WATCHDOG, waits).await.expect("it sleeps for ever")
}

#[test]
fn an_inbox_goes_from_runtime_to_runtime_and_to_threads_and_back() {
    let daemon = Daemon::start();
    let (client, mut a) = daemon.member(ConnectOptions::new("a").inbox("a"));
    let (_b, mut b) = daemon.member(ConnectOptions::new("b").inbox("b"));
    let (to_a, to_b) = (client.sender("a").unwrap(), client.sender("b").unwrap());
    let single = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let several = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    // All of them live, and only the one that is asked runs.
    let mut runtimes = vec![single(), single(), several().unwrap()];
    for round in 0..4u8 {
        for (i, runtime) in runtimes.iter().enumerate() {
            let n = round * 8 + i as u8;
            let send = || to_a.send(numbered(&client, n)).unwrap();
            assert_eq!(runtime.block_on(woken(a.recv_async(), send)).unwrap().block[0], n);
            let send = || to_b.send(numbered(&client, n)).unwrap();
            let (from, delivery) =
                runtime.block_on(woken(select_async(&mut [&mut a, &mut b]), send)).unwrap();
            assert_eq!((from, delivery.block[0]), (1, n));
            // Begun here, ended in the next one.
            let next = &runtimes[(i + 1) % runtimes.len()];
            let mut waits = pin!(a.recv_async());
            assert!(runtime.block_on(poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending()))));
            let send = || to_a.send(numbered(&client, n)).unwrap();
            assert_eq!(next.block_on(woken(waits, send)).unwrap().block[0], n);
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| a.recv(Some(WATCHDOG)).unwrap().expect("it sleeps for ever"));
            to_a.send(numbered(&client, 100)).unwrap();
            assert_eq!(thread.join().unwrap().block[0], 100);
        });
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| select(&mut [&mut a, &mut b], Some(WATCHDOG)).unwrap());
            to_b.send(numbered(&client, 101)).unwrap();
            assert_eq!(thread.join().unwrap().map(|(from, _)| from), Some(1));
        });
        // The one that both are registered with ends; the next may get its id.
        drop(runtimes.remove(0));
        runtimes.push(single());
    }
}

#[test]
fn a_name_is_waited_for_and_says_who_receives_there() {
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("early"));
    let none = client.sender_wait("late.in", Duration::from_millis(1));
    assert!(matches!(none, Err(OpenError::NotFound { .. })));
    assert_eq!(client.receiver_of("late.in").unwrap(), None);
    let sender = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.sender_wait("late.in", WATCHDOG).unwrap());
        let late = daemon.puppet("late", "late.in");
        let sender = waiting.join().unwrap();
        let found = client.receiver_of("late.in").unwrap().unwrap();
        assert_eq!((found.pid, found.name.as_str(), found.endpoint), (late.pid(), "late", sender.to().get()));
        sender
    });
    until("the reader's end", || sender.send(numbered(&client, 1)).is_err().then_some(()));
}

#[test]
fn a_farewell_is_answered_when_nobody_can_send_there_any_more() {
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("stays"));
    for _ in 0..50 {
        let (leaves, inbox) = daemon.member(ConnectOptions::new("leaves").inbox("brief.in"));
        let sender = client.sender("brief.in").unwrap();
        drop((leaves, inbox));
        let error = sender.send(numbered(&client, 1)).unwrap_err();
        assert_eq!(error.reason, SendFailure::Gone);
        assert!(matches!(client.sender("brief.in"), Err(OpenError::NotFound { .. })));
    }
}

#[test]
fn a_reader_has_no_writable_mapping_and_a_stray_write_is_a_fault() {
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("writer"));
    let mut kept = client.alloc(4096).unwrap();
    kept[0] = 77;
    let kept = kept.freeze();
    let output = std::thread::scope(|scope| {
        let output = scope.spawn(|| stray_writer(&daemon));
        client.sender_wait("stray.in", WATCHDOG).unwrap().send(kept.clone()).unwrap();
        output.join().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stdout);
    let mappings: Vec<&str> = said.lines().filter(|line| line.contains("baton-payload")).collect();
    assert!(!mappings.is_empty() && mappings.iter().all(|line| line.contains(" r--s ")), "{said}");
    assert!(said.contains("about to write over 77") && !said.contains("\nwritten"), "{said}");
    assert_eq!(output.status.signal(), Some(Signal::SEGV.as_raw()), "{said}");
    assert_eq!(kept[0], 77);
}
