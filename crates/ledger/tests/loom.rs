//! Model check of the record's protocol: every interleaving within a bound of preemptions, and every point of death.
//!
//! `RUSTFLAGS="--cfg loom -C target-feature=+cmpxchg16b" LOOM_MAX_PREEMPTIONS=3 cargo test -p baton-ledger --test loom`
//! (in a target folder of its own, or everything is built again).
//!
//! A process is a thread of the model; "killed at point k" unwinds it at its k-th point between two steps. A *stopped*
//! process needs nothing of its own: it is a thread that the schedule leaves standing. The socket is a pair of counters
//! behind one check: whoever reads or writes must be alone.
#![cfg(loom)]

use baton_ledger::kill::{Killed, Mutant, dying_at, set_mutant};
use baton_ledger::{About, Kind, Ledger, Slot, State, Ticket};
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

fn slot(n: u16) -> Slot {
    Slot::new(n).unwrap()
}

/// The connection's socket. Only its users are an atomic of the model: in between, others are scheduled.
struct Socket {
    users: loom::sync::atomic::AtomicUsize,
    taken: AtomicU64,
    written: AtomicU64,
}

impl Socket {
    /// Two at once in here is what the ledger is there to prevent.
    fn alone<T>(&self, f: impl FnOnce() -> T) -> T {
        assert_eq!(self.users.fetch_add(1, SeqCst), 0, "two processes use the socket at once");
        let result = f();
        self.users.fetch_sub(1, SeqCst);
        result
    }
}

struct Scene {
    ledger: Ledger,
    socket: Socket,
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mutant = std::env::var("MUTANT").ok().and_then(|m| m.parse::<usize>().ok()).unwrap_or(0);
    set_mutant(Mutant::ALL[mutant]);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(3));
    builder.max_branches = 20_000;
    let executions = std::sync::Arc::new(AtomicU64::new(0));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        f();
    });
    println!("{} executions", executions.load(SeqCst));
}

fn scene() -> (Arc<Scene>, Ticket) {
    let users = loom::sync::atomic::AtomicUsize::new(0);
    let socket = Socket { users, taken: AtomicU64::new(0), written: AtomicU64::new(0) };
    let scene = Arc::new(Scene { ledger: Ledger::for_model(2), socket });
    let about = About { listener: 0, kind: Kind::Tcp, acked_base: 0 };
    let ticket = scene.ledger.accept(slot(0), slot(1), about).unwrap();
    (scene, ticket)
}

/// One read of three bytes, which are a request; its answer of three, sent. `None`: not ours.
fn serve(scene: &Scene, me: Slot, ticket: Ticket) -> Option<()> {
    let mut claim = scene.ledger.claim(me, ticket).ok()?;
    if claim.duty().unwrap().request.is_some() {
        claim.answer(b"err").unwrap();
    }
    // A connection of three bytes: who claims second finds nothing to read.
    let left = 3 - scene.socket.alone(|| scene.socket.taken.load(SeqCst));
    if left > 0 {
        claim.park(&b"abc"[..left as usize]).unwrap();
        scene.socket.alone(|| scene.socket.taken.fetch_add(left, SeqCst));
        claim.taken(left).unwrap();
    }
    if claim.duty().unwrap().parked >= 3 {
        claim.begin(3, false).unwrap();
        claim.answer(b"ABC").unwrap();
    }
    claim
        .send(&mut Vec::new(), 8, |bytes| {
            scene.socket.alone(|| scene.socket.written.fetch_add(bytes.len() as u64, SeqCst));
            Ok(bytes.len())
        })
        .unwrap();
    claim.release().unwrap();
    Some(())
}

fn check_end(scene: &Scene) {
    assert_eq!(scene.socket.taken.load(SeqCst), 3);
    assert_eq!(scene.socket.written.load(SeqCst), 3, "an answer is lost or was given twice");
    assert_eq!(scene.ledger.chunks_taken(), 0);
}

/// A worker serves while a mover moves the connection to another, which serves, too; the first tries again.
#[test]
fn a_move_against_its_owner() {
    model(|| {
        let (scene, ticket) = scene();
        let old = scene.clone();
        let first = thread::spawn(move || {
            serve(&old, slot(1), ticket);
            serve(&old, slot(1), ticket).is_some()
        });
        let mover = scene.clone();
        let second = thread::spawn(move || {
            let moved = mover.ledger.take(slot(3), ticket).ok()?.give(slot(2)).unwrap();
            serve(&mover, slot(2), moved).unwrap();
            Some(moved)
        });
        let moved = second.join().unwrap();
        let last = first.join().unwrap();
        assert!(!last || moved.is_none() || scene.ledger.word(0).unwrap().owner() == slot(2));
        if let Some(new) = moved {
            assert!(serve(&scene, slot(1), ticket).is_none(), "the old owner claims");
            serve(&scene, slot(2), new).unwrap();
        }
        check_end(&scene);
    });
}

/// There and back: the old ticket names the same owner in another epoch.
#[test]
fn a_move_there_and_back() {
    model(|| {
        let (scene, ticket) = scene();
        let old = scene.clone();
        let first = thread::spawn(move || serve(&old, slot(1), ticket).is_some());
        let there = scene.ledger.take(slot(3), ticket).ok().map(|moved| moved.give(slot(2)).unwrap());
        let back = there
            .and_then(|ticket| scene.ledger.take(slot(3), ticket).ok())
            .map(|moved| moved.give(slot(1)).unwrap());
        first.join().unwrap();
        if let Some(back) = back {
            assert!(scene.ledger.claim(slot(1), ticket).is_err(), "a ticket of an earlier epoch");
            serve(&scene, slot(1), back).unwrap();
            check_end(&scene);
        }
    });
}

/// Two movers and the owner: one at a time, and somebody answers for it in the end.
#[test]
fn two_movers() {
    model(|| {
        let (scene, ticket) = scene();
        let (owner, mover) = (scene.clone(), scene.clone());
        let owner = thread::spawn(move || owner.ledger.claim(slot(1), ticket).map(|claim| claim.release()));
        let mover =
            thread::spawn(move || mover.ledger.take(slot(2), ticket).ok().map(|m| m.give(slot(2)).unwrap()));
        let mine = scene.ledger.take(slot(3), ticket).ok().map(|moved| moved.give(slot(3)).unwrap());
        let _ = owner.join().unwrap();
        let theirs = mover.join().unwrap();
        assert!(mine.is_none() || theirs.is_none(), "taken twice in one epoch");
        let word = scene.ledger.word(0).unwrap();
        assert_eq!(word.state(), Some(State::Idle));
        let owner = if mine.is_some() {
            3
        } else if theirs.is_some() {
            2
        } else {
            1
        };
        assert_eq!(word.owner(), slot(owner));
    });
}

/// The owner dies at its k-th point (0: never) while a mover tries to take the connection; whoever has it then brings it to its end.
fn owner_dies(k: u32) {
    model(move || {
        let (scene, ticket) = scene();
        let mover = scene.clone();
        let mover =
            thread::spawn(move || mover.ledger.take(slot(3), ticket).ok().map(|m| m.give(slot(2)).unwrap()));
        let result = dying_at(k, || serve(&scene, slot(1), ticket));
        let moved = mover.join().unwrap();
        let mut next = moved;
        if result == Err(Killed) {
            let recovery = scene.ledger.recover(slot(3), slot(1));
            assert!(recovery.corrupt.is_empty());
            assert!(recovery.moved.is_empty() || moved.is_none(), "moved and recovered");
            for mut one in recovery.moved {
                let duty = one.duty().unwrap();
                if duty.taking.is_some() {
                    one.resolve_taken(scene.socket.taken.load(SeqCst)).unwrap();
                }
                if duty.sending.is_some() {
                    one.resolve_sent(scene.socket.written.load(SeqCst)).unwrap();
                }
                next = Some(one.give(slot(2)).unwrap());
            }
        }
        match next {
            Some(ticket) => serve(&scene, slot(2), ticket).unwrap(),
            None => serve(&scene, slot(1), ticket).unwrap(),
        }
        check_end(&scene);
    });
}

#[test]
fn the_owner_dies_at_every_point() {
    (0..=22).for_each(owner_dies);
}

/// Who recovers dies, too, at its k-th point, and is recovered by the next.
#[test]
fn the_recovery_dies_at_every_point() {
    for (first, second) in (1..=20).step_by(3).flat_map(|first| (1..=5).map(move |second| (first, second))) {
        model(move || {
            let (scene, ticket) = scene();
            if dying_at(first, || serve(&scene, slot(1), ticket)) == Ok(Some(())) {
                return;
            }
            let died = dying_at(second, || scene.ledger.recover(slot(2), slot(1)).moved.len());
            let mut moved = scene.ledger.recover(slot(3), slot(2)).moved;
            if died == Ok(0) || moved.is_empty() {
                moved = scene.ledger.recover(slot(3), slot(1)).moved;
            }
            let Some(mut one) = moved.pop() else { panic!("nobody answers for the connection") };
            let duty = one.duty().unwrap();
            if duty.taking.is_some() {
                one.resolve_taken(scene.socket.taken.load(SeqCst)).unwrap();
            }
            if duty.sending.is_some() {
                one.resolve_sent(scene.socket.written.load(SeqCst)).unwrap();
            }
            let ticket = one.give(slot(1)).unwrap();
            serve(&scene, slot(1), ticket).unwrap();
            check_end(&scene);
        });
    }
}

/// The models above fail for each broken variant, so they would notice.
#[test]
fn mutants_are_caught() {
    for (mutant, test) in [
        (Mutant::ClaimByStore, "a_move_against_its_owner"),
        (Mutant::EpochIgnored, "a_move_there_and_back"),
        (Mutant::MovesBusy, "the_owner_dies_at_every_point"),
        (Mutant::DoneBeforeAnswer, "the_owner_dies_at_every_point"),
        (Mutant::SendForgotten, "the_owner_dies_at_every_point"),
    ] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test]).env("MUTANT", (mutant as u32).to_string());
        let output = child.output().unwrap();
        assert!(!output.status.success(), "{mutant:?} was not noticed by {test}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 failed"), "{mutant:?}: it did not run");
    }
}
