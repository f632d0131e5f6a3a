//! Model check of the protocol: every interleaving within a bound of preemptions, and every point of death.
//!
//! `RUSTFLAGS="--cfg loom -C target-feature=+cmpxchg16b" LOOM_MAX_PREEMPTIONS=3 cargo test -p baton-pool --test loom`
//! (in a target folder of its own, or everything is built again).
//!
//! A process is a thread of the model; "killed at point k" unwinds that thread at its k-th point between two atomic
//! steps, for every k that there is. The hold word has four lanes here, inboxes two slots.
#![cfg(loom)]

use baton_pool::blocks::Cursor;
use baton_pool::class::Class;
use baton_pool::kill::{Killed, Mutant, dying_at, set_mutant};
use baton_pool::receive::Head;
use baton_pool::region::Region;
use baton_pool::send::Pass;
use baton_pool::slot::Slot;
use baton_pool::word::{LANES, Lane, Word};
use baton_pool::{BlockId, EndpointId, EndpointRef, RecvError, SendFailure};
use loom::sync::Arc;
use loom::sync::atomic::Ordering::SeqCst;
use loom::thread;
use std::sync::atomic::{AtomicU32, Ordering};

#[path = "loom/local.rs"]
mod local;
#[path = "loom/order.rs"]
mod order;
#[path = "loom/retire.rs"]
mod retire;

const X: BlockId = BlockId::new(0);
const Y: BlockId = BlockId::new(1);

fn id(n: u16) -> EndpointId {
    EndpointId::new(n).unwrap()
}
fn a() -> EndpointId {
    id(1)
}
fn b() -> EndpointId {
    id(2)
}
fn c() -> EndpointId {
    id(3)
}
fn to_b() -> EndpointRef {
    EndpointRef { id: b(), incarnation: 0 }
}
/// A receiver without patience: the skipping runs in every schedule that allows it.
fn head(region: &Region, id: EndpointId) -> Head {
    Head::new(id, region.endpoint(id).unwrap().head0().load(SeqCst), 0)
}
fn word(region: &Region, block: BlockId) -> Word {
    Word::load(region.word(region.place(block).unwrap()))
}
fn lanes(region: &Region, block: BlockId, lane: Lane) -> usize {
    let word = word(region, block);
    (0..LANES).filter(|i| word.lane(*i) == lane).count()
}
fn held_by(ids: &[EndpointId]) -> Word {
    let word = Word::ZERO.next_life(ids[0]);
    ids[1..].iter().enumerate().fold(word, |word, (i, id)| word.with(i as u32 + 1, Lane::holder(*id)))
}
fn pool(blocks: u32, word: Word) -> Arc<Region> {
    Arc::new(Region::for_model(blocks, word))
}
fn take(region: &Region, me: EndpointId) -> bool {
    let mut out = Vec::new();
    region.take(me, Class::for_len(64).unwrap(), 1, &mut Cursor::default(), &mut out)
}
fn drain(region: &Region, head: &mut Head) -> Vec<BlockId> {
    std::iter::from_fn(|| region.receive(head).unwrap()).map(|(block, _)| block).collect()
}

/// Checks one model within three preemptions (or what the environment says); with the environment's mutant, which the test `mutants_are_caught` sets in a child process.
fn model(f: impl Fn() + Sync + Send + 'static) {
    model_within(3, f);
}

/// As `model`, for one with many steps: fewer preemptions, and as many more as the environment has more than three.
fn model_within(bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mutant = std::env::var("MUTANT").ok().and_then(|m| m.parse::<usize>().ok()).unwrap_or(0);
    set_mutant(Mutant::ALL[mutant]);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(3).saturating_sub(3) + bound);
    builder.max_branches = 20_000;
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        f();
    });
    println!("{} executions", executions.load(Ordering::Relaxed));
}

/// A moves X to B while B receives twice; A dies at point k (0: never) and is reaped while B goes on.
fn moving(k: u32) {
    model(move || {
        let region = pool(1, held_by(&[a()]));
        let (ra, rb) = (region.clone(), region.clone());
        let receiver = thread::spawn(move || {
            let mut head = head(&rb, b());
            let got = (0..2).filter(|_| rb.receive(&mut head).unwrap().is_some()).count();
            (head, got)
        });
        let result = dying_at(k, || ra.send(a(), X, to_b(), Pass::Move));
        if result == Err(Killed) {
            ra.reap(a());
        }
        let (mut head, mut got) = receiver.join().unwrap();
        got += drain(&region, &mut head).len();
        assert_eq!(lanes(&region, X, Lane::inbox(b())), 0, "message lost");
        assert_eq!(lanes(&region, X, Lane::holder(b())), got, "delivered {got} times");
        assert_eq!(lanes(&region, X, Lane::holder(a())), 0);
        match result {
            Ok(sent) => assert!(sent.is_ok() && got == 1),
            Err(Killed) => {
                assert!(got == 1 || word(&region, X).is_free() && region.is_hinted(X), "leaked");
            }
        }
    });
}

#[test]
fn move_to_a_receiver_that_skips() {
    moving(0);
}

#[test]
fn sender_dies_while_moving() {
    (1..=8).for_each(moving);
}

/// B dies at point k of receiving (0: before), its reaper dies at point rk (0: never) and is run again, while A sends.
fn receiver_dies(k: u32, rk: u32, pass: Pass) {
    model(move || {
        let region = pool(1, held_by(&[a()]));
        let (ra, rb) = (region.clone(), region.clone());
        let sender = thread::spawn(move || ra.send(a(), X, to_b(), pass));
        if k > 0 {
            let mut head = head(&rb, b());
            for _ in 0..2 {
                thread::yield_now();
                if dying_at(k, || rb.receive(&mut head)).is_err() {
                    break;
                }
            }
        }
        if rk > 0 {
            let _ = dying_at(rk, || rb.reap(b()));
        }
        rb.reap(b());
        let sent = sender.join().unwrap();
        let left = lanes(&region, X, Lane::holder(b())) + lanes(&region, X, Lane::inbox(b()));
        assert_eq!(left, 0, "a lane of the dead remains");
        match sent {
            Ok(_) if pass == Pass::Move => {
                assert!(word(&region, X).is_free() && region.is_hinted(X), "leaked")
            }
            Ok(_) | Err(SendFailure::Gone) => assert_eq!(lanes(&region, X, Lane::holder(a())), 1),
            Err(other) => panic!("{other}"),
        }
    });
}

#[test]
fn receiver_dies_idle() {
    receiver_dies(0, 0, Pass::Move);
    receiver_dies(0, 0, Pass::Share);
}

#[test]
fn receiver_dies_receiving() {
    (1..=8).for_each(|k| receiver_dies(k, 0, Pass::Move));
}

#[test]
fn reaper_dies_and_is_run_again() {
    (1..=14).for_each(|rk| receiver_dies(0, rk, Pass::Move));
}

/// B leaves (it lives) while A moves a block to it: the block is either A's still, or free, never a message to nobody.
#[test]
fn receiver_leaves() {
    model(|| {
        let region = pool(1, held_by(&[a()]));
        let (ra, rb) = (region.clone(), region.clone());
        let sender = thread::spawn(move || ra.send(a(), X, to_b(), Pass::Move));
        let mut head = head(&rb, b());
        let received = rb.receive(&mut head).unwrap().is_some();
        rb.close_inbox(b());
        assert_eq!(rb.receive(&mut head), Err(RecvError::Closed));
        let sent = sender.join().unwrap();
        assert_eq!(lanes(&region, X, Lane::inbox(b())), 0, "a message that nobody can receive");
        assert_eq!(lanes(&region, X, Lane::holder(b())), usize::from(received));
        match sent {
            Ok(_) => assert!(received || word(&region, X).is_free() && region.is_hinted(X), "leaked"),
            Err(failure) => {
                assert_eq!(failure, SendFailure::Gone);
                assert_eq!(lanes(&region, X, Lane::holder(a())), 1);
            }
        }
    });
}

#[test]
fn two_release_the_same_block() {
    model(|| {
        let region = pool(1, held_by(&[a(), c()]));
        let other = region.clone();
        let thread = thread::spawn(move || other.release(c(), X).unwrap());
        region.release(a(), X).unwrap();
        thread.join().unwrap();
        assert!(word(&region, X).is_free() && region.is_hinted(X));
    });
}

#[test]
fn one_dies_releasing() {
    for k in 1..=3 {
        model(move || {
            let region = pool(1, held_by(&[a(), c()]));
            let other = region.clone();
            let thread = thread::spawn(move || other.release(a(), X).unwrap());
            if dying_at(k, || region.release(c(), X)).is_err() {
                region.reap(c());
            }
            thread.join().unwrap();
            assert!(word(&region, X).is_free() && region.is_hinted(X), "leaked");
        });
    }
}

#[test]
fn two_allocate_the_only_block_and_one_dies() {
    for k in 0..=3 {
        model(move || {
            let region = pool(1, Word::ZERO);
            region.set_hint(X);
            let other = region.clone();
            let thread = thread::spawn(move || take(&other, a()));
            let by_c = dying_at(k, || take(&region, c()));
            if by_c == Err(Killed) {
                region.reap(c());
            }
            let by_a = thread.join().unwrap();
            assert_eq!(lanes(&region, X, Lane::holder(a())), usize::from(by_a));
            match by_c {
                Ok(by_c) => {
                    assert!(by_a != by_c, "allocated {} times", u32::from(by_a) + u32::from(by_c));
                    assert_eq!(lanes(&region, X, Lane::holder(c())), usize::from(by_c));
                }
                Err(Killed) => {
                    assert_eq!(lanes(&region, X, Lane::holder(c())), 0);
                    assert!(by_a || word(&region, X).is_free() && region.is_hinted(X), "leaked");
                }
            }
        });
    }
}

/// B skips the hint of a dead sender for a block that A is just allocating: the bump must not cost A the block.
#[test]
fn allocation_against_a_bump() {
    model(|| {
        let region = pool(1, Word::ZERO);
        region.set_hint(X);
        region.slot(b(), 0).store(Slot::full(0, 0, c(), 0, X).bits(), SeqCst);
        region.endpoint(b()).unwrap().tail().store(1, SeqCst);
        let other = region.clone();
        let thread = thread::spawn(move || {
            let mut head = head(&other, b());
            other.receive(&mut head).unwrap()
        });
        let got = take(&region, a());
        assert_eq!(thread.join().unwrap(), None);
        assert!(got || word(&region, X).is_free() && region.is_hinted(X), "free but not in the index");
    });
}

/// Two senders, one dies at k: the other's message always arrives.
#[test]
fn two_senders_one_dies() {
    for k in 0..=8 {
        model(move || {
            let region = pool(2, held_by(&[a(), c()]));
            let other = region.clone();
            let thread = thread::spawn(move || other.send(c(), Y, to_b(), Pass::Share));
            let by_a = dying_at(k, || region.send(a(), X, to_b(), Pass::Share));
            thread.join().unwrap().unwrap();
            let mut head = head(&region, b());
            let got = drain(&region, &mut head);
            assert_eq!(got.iter().filter(|block| **block == Y).count(), 1, "the living sender's message");
            let of_x = got.iter().filter(|block| **block == X).count();
            assert_eq!(of_x, lanes(&region, X, Lane::holder(b())));
            assert_eq!(lanes(&region, X, Lane::inbox(b())), 0);
            assert!(by_a == Err(Killed) || of_x == 1);
        });
    }
}

/// B was reaped and its number given out again: a sender that still means the first B never reaches the second.
#[test]
fn an_earlier_life_is_not_reached() {
    model(|| {
        let region = pool(1, held_by(&[a()]));
        let other = region.clone();
        let thread = thread::spawn(move || other.send(a(), X, to_b(), Pass::Move));
        region.reap(b());
        let mut second = head(&region, b());
        assert_eq!(region.receive(&mut second).unwrap(), None);
        let sent = thread.join().unwrap();
        assert_eq!(region.receive(&mut second).unwrap(), None, "a message to the first B");
        assert_eq!(lanes(&region, X, Lane::inbox(b())), 0);
        assert!(sent.is_ok() || lanes(&region, X, Lane::holder(a())) == 1);
    });
}

/// Newest wins: B's inbox is full with X and Y of A; A sends Z while B receives, A dies at k.
fn newest(k: u32) {
    model(move || {
        let z = BlockId::new(2);
        let region = pool(4, held_by(&[a()]));
        for block in [X, Y] {
            region.send(a(), block, to_b(), Pass::Move).unwrap();
        }
        let other = region.clone();
        let thread = thread::spawn(move || {
            let mut head = head(&other, b());
            let got: Vec<_> = other.receive(&mut head).unwrap().into_iter().map(|(block, _)| block).collect();
            (head, got)
        });
        let sent = dying_at(k, || region.send_newest(a(), z, to_b(), Pass::Move));
        if sent == Err(Killed) {
            region.reap(a());
        }
        let (mut head, mut got) = thread.join().unwrap();
        got.extend(drain(&region, &mut head));
        for block in [X, Y, z] {
            let times = got.iter().filter(|one| **one == block).count();
            assert_eq!(lanes(&region, block, Lane::holder(b())), times, "delivered {times} times");
            assert_eq!(lanes(&region, block, Lane::inbox(b())), 0, "message lost");
            assert_eq!(lanes(&region, block, Lane::holder(a())), 0, "a lane of the sender remains");
            assert!(times == 1 || word(&region, block).is_free() && region.is_hinted(block), "leaked");
        }
        if let Ok(sent) = sent {
            let (_, dropped) = sent.unwrap();
            assert!(got.contains(&z), "the newest arrives");
            assert_eq!(got.len() as u32, 3 - dropped, "only what was counted is dropped");
        }
    });
}

#[test]
fn newest_wins() {
    newest(0);
}

#[test]
fn newest_wins_sender_dies() {
    (1..=12).for_each(newest);
}

/// A message that is committed while the receiver falls asleep wakes it.
#[test]
fn no_wake_up_is_lost() {
    model(|| {
        let region = pool(1, held_by(&[a()]));
        let other = region.clone();
        let thread = thread::spawn(move || other.send(a(), X, to_b(), Pass::Move).unwrap());
        let mut head = head(&region, b());
        let sleeping = region.endpoint(b()).unwrap().sleeping();
        sleeping.store(2, SeqCst);
        loom::sync::atomic::fence(SeqCst);
        let found = region.receive(&mut head).unwrap().is_some();
        let woken = thread.join().unwrap();
        assert!(found || woken, "asleep for ever");
    });
}

/// A sender that dies before it has woken the receiver leaves that to its reaper.
#[test]
fn a_wake_up_owed_by_the_dead_comes() {
    for k in 1..=9 {
        model(move || {
            let region = pool(1, held_by(&[a()]));
            let other = region.clone();
            let thread = thread::spawn(move || {
                match dying_at(k, || other.send(a(), X, to_b(), Pass::Move).unwrap()) {
                    Ok(woken) => woken,
                    Err(Killed) => other.reap(a()).wake.contains(&b()),
                }
            });
            let mut head = head(&region, b());
            region.endpoint(b()).unwrap().sleeping().store(2, SeqCst);
            loom::sync::atomic::fence(SeqCst);
            let found = region.receive(&mut head).unwrap().is_some();
            let woken = thread.join().unwrap();
            let unread = lanes(&region, X, Lane::inbox(b())) > 0;
            assert!(found || woken || !unread, "asleep for ever over a message");
        });
    }
}

/// The models bite: each broken variant of the protocol fails at least one of them, in a process of its own.
#[test]
fn mutants_are_caught() {
    if std::env::var_os("MUTANT").is_some() {
        return;
    }
    let by = [
        (Mutant::NoBumpAtClose, "receiver_dies_idle"),
        (Mutant::NoHintCheck, "move_to_a_receiver_that_skips"),
        (Mutant::NoBumpAtSkip, "move_to_a_receiver_that_skips"),
        (Mutant::NoIndexRebuild, "two_allocate_the_only_block_and_one_dies"),
        (Mutant::WithdrawnForgets, "receiver_dies_receiving"),
        (Mutant::NoIncarnationCheck, "an_earlier_life_is_not_reached"),
        (Mutant::NoSlotCheck, "order::what_was_refused_does_not_arrive_early"),
        (Mutant::NotGivenUp, "order::what_was_refused_does_not_arrive_early"),
        (Mutant::NoSecondLook, "allocation_against_a_bump"),
        (Mutant::NoCellCheck, "retire::an_extent_is_not_taken_from_under_an_allocation"),
        (Mutant::NoCellCheck, "retire::an_acceptance_sleeps_through_a_retirement"),
        (Mutant::RetiredSkipped, "retire::an_extent_is_not_taken_from_under_an_allocation"),
        (Mutant::RawNotSwept, "retire::an_allocation_dies_while_its_extent_changes_hands"),
        (Mutant::WakeForgotten, "a_wake_up_owed_by_the_dead_comes"),
    ];
    static CAUGHT: AtomicU32 = AtomicU32::new(0);
    for (mutant, model) in by.iter().copied() {
        let run = |mutant: u32| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", model, "--test-threads=1", "--nocapture"])
                .env("MUTANT", mutant.to_string())
                .env("RUST_BACKTRACE", "0")
                .output()
                .unwrap()
        };
        let output = run(mutant as u32);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains("running 1 test"), "{model} exists");
        assert!(!output.status.success(), "{mutant:?} was not noticed by {model}");
        // An assertion of the model, nothing else (the process may abort afterwards: loom's clean-up panics).
        assert!(text.contains("panicked at crates/pool/tests/loom"), "{mutant:?}, {model}: {text}");
        println!("{mutant:?} is caught by {model}");
        CAUGHT.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(CAUGHT.load(Ordering::Relaxed) as usize, by.len());
}
