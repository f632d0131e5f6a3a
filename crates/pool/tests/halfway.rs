//! Daemons that die one after the other while extents change hands: the first at any of its steps, the next one at any
//! step of mending what the first one left, the third one mends it all.
//!
//! `cargo test -p baton-pool --features kill-points --test halfway`
//!
//! ```text
//!   daemon 1: make_room ─ dies at step k ─▶ reaped ─▶ daemon 2: repair ─ dies at step j ─▶ reaped ─▶ daemon 3: repair
//!                                                                               nothing is halfway, all is of use ◀┘
//! ```
//! "Dies" is an unwinding here, because the steps between two points have no other effect than what they write to the
//! pool; that they are really that small is what `kill.rs` shows with SIGKILL. Steps that repeat for every word of an
//! extent are tried at the first two and the last of a row.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use baton_pool::kill::{Point, set_hook};
use baton_pool::{Admission, Block, EndpointKind, EndpointRef, Member, Pool, PoolConfig, PoolFds, Receiver};

/// One extent, and the largest block, which takes two.
const EXTENT: usize = 16 << 10;
const LARGEST: usize = 2 * EXTENT;
const EXTENTS: usize = 8;

/// What this thread passes, and how many steps it has left to live.
#[derive(Default)]
struct Life {
    passed: Vec<Point>,
    left: Option<usize>,
}

thread_local!(static LIFE: RefCell<Life> = RefCell::default());

struct Died;

fn passing(point: Point) {
    let dies = LIFE.with_borrow_mut(|life| {
        life.passed.push(point);
        life.left.as_mut().is_some_and(|left| {
            *left -= 1;
            *left == 0
        })
    });
    if dies {
        resume_unwind(Box::new(Died)); // without the noise of a panic
    }
}

/// Does it and dies at its `k`-th step (0: lives), and what it passed.
fn dying_at<T>(k: usize, what: impl FnOnce() -> T) -> (Option<T>, Vec<Point>) {
    LIFE.set(Life { passed: Vec::new(), left: (k > 0).then_some(k) });
    let done = catch_unwind(AssertUnwindSafe(what));
    let passed = LIFE.take().passed;
    match done {
        Ok(value) => (Some(value), passed),
        Err(cause) if cause.is::<Died>() => (None, passed),
        Err(cause) => resume_unwind(cause),
    }
}

/// Numbers of the steps to try: of a row of equal ones the first two and the last.
fn worth_trying(passed: &[Point]) -> Vec<usize> {
    let equal = |i: usize, j: Option<usize>| j.and_then(|j| passed.get(j)) == passed.get(i);
    let first_two = |i: usize| !equal(i, i.checked_sub(1)) || !equal(i, i.checked_sub(2));
    (0..passed.len()).filter(|i| first_two(*i) || !equal(*i, Some(i + 1))).map(|i| i + 1).collect()
}

struct House {
    pool: Pool,
    daemon: EndpointRef,
    member: Member,
    _receiver: Receiver,
    _fds: PoolFds,
}

impl House {
    /// All extents bound to blocks of `len` bytes, and empty.
    fn bound_to(len: usize) -> Self {
        let config = PoolConfig {
            payload_bytes: (EXTENTS * EXTENT) as u64,
            largest_block: LARGEST as u64,
            endpoints: 3,
            inbox_slots: 4,
            ..PoolConfig::default()
        };
        let (pool, fds) = Pool::create(&config).unwrap();
        assert_eq!(
            (pool.geometry().extents() as usize, pool.geometry().extent_bytes()),
            (EXTENTS, EXTENT as u64)
        );
        let (member, receiver) = pool.attach(admit(&pool, EndpointKind::Attached)).unwrap();
        let daemon = admit(&pool, EndpointKind::Daemon);
        let house = Self { pool, daemon, member, _receiver: receiver, _fds: fds };
        drop(house.fill(len));
        house.member.give_spares_back();
        assert_eq!(house.pool.usage().extents_unbound, 0);
        house
    }

    fn fill(&self, len: usize) -> Vec<Block> {
        let block = || {
            self.member.alloc(len).ok().or_else(|| {
                self.pool.make_room(self.daemon, len).ok()?;
                self.member.alloc(len).ok()
            })
        };
        std::iter::from_fn(block).map(|block| block.freeze()).collect()
    }

    fn next_daemon(&mut self) {
        self.pool.reap(self.daemon).unwrap();
        self.daemon = admit(&self.pool, EndpointKind::Daemon);
    }

    /// Nothing is halfway, nothing is held, and every byte can be had.
    fn assert_whole(&self, case: &str) {
        assert_eq!(self.pool.unfinished_extents(), 0, "{case}");
        let report = self.pool.audit_once();
        assert!(report.ok && report.in_use == 0, "{case}: {report:?}");
        assert_eq!(self.fill(LARGEST).len(), EXTENTS / 2, "{case}");
    }
}

fn admit(pool: &Pool, kind: EndpointKind) -> EndpointRef {
    let name = format!("{kind:?}");
    pool.admit(&Admission { pid: 1, start_time: 1, name, inbox: None, kind, quota_bytes: 0 }).unwrap()
}

/// From blocks of one size to another, with deaths at all pairs of steps. How often something was halfway, and how often
/// the second one died.
fn change(from: usize, to: usize) -> (usize, usize) {
    let (mut halfway, mut second) = (0, 0);
    let makes_room = |house: &House| house.pool.make_room(house.daemon, to);
    let house = House::bound_to(from);
    let (made, passed) = dying_at(0, || makes_room(&house));
    made.unwrap().unwrap();
    for k in worth_trying(&passed) {
        let left_by_first = || {
            let mut house = House::bound_to(from);
            assert!(dying_at(k, || makes_room(&house)).0.is_none());
            house.next_daemon();
            house
        };
        let house = left_by_first();
        halfway += usize::from(house.pool.unfinished_extents() > 0);
        let (_, mending) = dying_at(0, || house.pool.repair(house.daemon));
        house.assert_whole(&format!("{from} to {to}: dead at step {k}, {:?}", passed[k - 1]));
        for j in worth_trying(&mending) {
            let mut house = left_by_first();
            assert!(dying_at(j, || house.pool.repair(house.daemon)).0.is_none());
            house.next_daemon();
            house.pool.repair(house.daemon);
            second += 1;
            let (first, then) = (passed[k - 1], mending[j - 1]);
            house.assert_whole(&format!(
                "{from} to {to}: dead at {k}, {first:?}, and mending at {j}, {then:?}"
            ));
        }
    }
    (halfway, second)
}

#[test]
fn the_third_daemon_mends_what_two_left() {
    set_hook(passing);
    for (from, to) in [(64, LARGEST), (EXTENT, LARGEST), (LARGEST, 64), (LARGEST, EXTENT), (64, EXTENT)] {
        let (halfway, second) = change(from, to);
        println!("{from} to {to}: {halfway} deaths left something halfway, {second} more at mending it");
        assert!(halfway > 3 && second > 10, "{from} to {to}: no death left anything to mend");
    }
}
