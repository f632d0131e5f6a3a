//! The ledger over a real pool, against a reference that only counts.

use std::collections::{BTreeMap, BTreeSet};

use baton_pool::{Admission, EndpointKind, PoolConfig};
use proptest::prelude::*;

use super::*;

const PIDS: i32 = 4;
const HERE: Origin = Origin::Kernel { uid: 0 };

fn pid(n: i32) -> Pid {
    Pid::new(n).unwrap()
}

fn pool() -> Pool {
    let config = PoolConfig {
        payload_bytes: 1 << 20,
        largest_block: 64 << 10,
        endpoints: 15,
        inbox_slots: 4,
        ..PoolConfig::default()
    };
    Pool::create(&config).unwrap().0
}

/// A client comes (again).
fn come(ledger: &mut Ledger, n: i32) {
    come_with(ledger, n, 0);
}

fn come_with(ledger: &mut Ledger, n: i32, quota_bytes: u64) {
    if ledger.join(pid(n)).is_some() {
        return;
    }
    let admission = Admission {
        pid: n.unsigned_abs(),
        start_time: 0,
        name: "classic".into(),
        inbox: None,
        kind: EndpointKind::Classic,
        quota_bytes,
    };
    let endpoint = ledger.pool.admit(&admission).unwrap();
    ledger.enter(pid(n), HERE, endpoint).unwrap();
}

/// A client goes; the blocks that its endpoint had.
fn go(ledger: &mut Ledger, n: i32) -> Vec<BlockId> {
    let Some(endpoint) = ledger.leave(pid(n)) else { return Vec::new() };
    ledger.pool.reap(endpoint).unwrap().blocks
}

fn send(ledger: &mut Ledger, from: i32, nodes: &[i64], to: i32) -> Result<i64, PreSendError> {
    let (sender, blocks) = ledger.held(pid(from), nodes)?;
    ledger.dispatch(pid(from), sender, blocks, pid(to))
}

fn in_use(ledger: &Ledger) -> usize {
    ledger.pool.blocks_in_use().count()
}

/// Who has how many references to what, counted the plain way.
#[derive(Default)]
struct Reference {
    here: BTreeMap<i32, u32>,
    held: BTreeMap<(i32, i64), u64>,
    transfers: BTreeMap<i64, (i32, i32, Vec<i64>)>,
}

impl Reference {
    fn holds(&self, n: i32, node: i64) -> bool {
        self.held.get(&(n, node)).is_some_and(|count| *count > 0)
    }

    fn add(&mut self, n: i32, node: i64, by: i64) {
        let count = self.held.entry((n, node)).or_default();
        *count = count.checked_add_signed(by).unwrap();
    }

    fn leave(&mut self, n: i32) {
        let Some(count) = self.here.get_mut(&n) else { return };
        *count -= 1;
        if *count == 0 {
            self.here.remove(&n);
            self.held.retain(|(who, _), _| *who != n);
            self.transfers.retain(|_, (_, to, _)| *to != n);
        }
    }

    /// Who has a lane in which block.
    fn lanes(&self) -> BTreeSet<(i64, i32)> {
        let held = self.held.iter().filter(|(_, count)| **count > 0).map(|((n, node), _)| (*node, *n));
        let coming = self.transfers.values().flat_map(|(_, to, nodes)| nodes.iter().map(|node| (*node, *to)));
        held.chain(coming).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Come(i32),
    Go(i32),
    Alloc(i32, u32),
    Free(i32, prop::sample::Index),
    Send(i32, Vec<prop::sample::Index>, i32),
    /// Transfer, and what is said wrongly about it.
    Recv(i32, prop::sample::Index, u32, i32),
    Withdraw(prop::sample::Index),
    Wild(i32, i64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 1..=PIDS;
    let pick = any::<prop::sample::Index>;
    let seldom = || prop_oneof![6 => Just(0u32), 1 => 1..3u32];
    prop_oneof![
        3 => who().prop_map(Step::Come),
        1 => who().prop_map(Step::Go),
        4 => (who(), 1..9000u32).prop_map(|(n, size)| Step::Alloc(n, size)),
        4 => (who(), pick()).prop_map(|(n, at)| Step::Free(n, at)),
        4 => (who(), prop::collection::vec(pick(), 0..4), who()).prop_map(|(n, at, to)| Step::Send(n, at, to)),
        4 => (who(), pick(), seldom(), seldom()).prop_map(|(n, at, more, other)| Step::Recv(n, at, more, other.cast_signed())),
        1 => pick().prop_map(Step::Withdraw),
        1 => (who(), prop_oneof![any::<i64>(), -70..70i64, (0..20i64).prop_map(|n| n * 32)]).prop_map(|(n, node)| Step::Wild(n, node)),
    ]
}

/// Does the step on both sides; whether the ledger says what the reference says.
fn run(step: Step, ledger: &mut Ledger, reference: &mut Reference, nodes: &mut Vec<i64>) {
    match step {
        Step::Come(n) => {
            come(ledger, n);
            *reference.here.entry(n).or_default() += 1;
        }
        Step::Go(n) => {
            go(ledger, n);
            reference.leave(n);
        }
        Step::Alloc(n, size) => {
            let got = ledger.alloc(pid(n), size, 0);
            match got {
                Ok(node) => {
                    assert!(reference.lanes().iter().all(|(other, _)| *other != node), "{node} twice");
                    reference.add(n, node, 1);
                    nodes.push(node);
                }
                Err(error) => {
                    let here = reference.here.contains_key(&n);
                    assert_eq!(error == AllocError::NotAdmitted, !here, "{error}");
                }
            }
        }
        Step::Free(n, at) => {
            let Some(node) = nodes.get(at.index(nodes.len().max(1))).copied() else { return };
            let may = reference.holds(n, node);
            assert_eq!(ledger.free(pid(n), node).is_ok(), may, "free {node} by {n}");
            if may {
                reference.add(n, node, -1);
            }
        }
        Step::Send(n, picks, to) => {
            let sent: Vec<_> =
                picks.iter().filter_map(|at| nodes.get(at.index(nodes.len().max(1))).copied()).collect();
            let all = sent.iter().all(|node| reference.holds(n, *node));
            let may = all && !sent.is_empty() && reference.here.contains_key(&to);
            let bid = send(ledger, n, &sent, to);
            assert_eq!(bid.is_ok(), may, "{n} sends {sent:?} to {to}: {bid:?}");
            if let Ok(bid) = bid {
                assert!(reference.transfers.insert(bid, (n, to, sent)).is_none());
            }
        }
        Step::Recv(n, at, more, other) => {
            let bids: Vec<_> = reference.transfers.keys().copied().collect();
            let Some(bid) = bids.get(at.index(bids.len().max(1))).copied() else { return };
            let (from, to, sent) = reference.transfers[&bid].clone();
            let may = n == to && more == 0 && other == 0;
            let count = sent.len() as u32 + more;
            let received = ledger.recv(pid(n), bid, count, from + other);
            assert_eq!(received.is_ok(), may, "{n} receives {bid}: {received:?}");
            if may {
                reference.transfers.remove(&bid);
                sent.into_iter().for_each(|node| reference.add(n, node, 1));
            }
        }
        Step::Withdraw(at) => {
            let bids: Vec<_> = reference.transfers.keys().copied().collect();
            let Some(bid) = bids.get(at.index(bids.len().max(1))).copied() else { return };
            reference.transfers.remove(&bid);
            (0..2).for_each(|_| ledger.withdraw(bid)); // the second finds nothing
        }
        Step::Wild(n, node) => {
            let may = reference.holds(n, node);
            assert_eq!(ledger.held(pid(n), &[node]).is_ok(), may, "{n} holds {node}");
            assert!(ledger.recv(pid(n), node, 1, n).is_err() || reference.transfers.contains_key(&node));
        }
    }
}

/// The words name exactly those whom the reference names.
fn compare(ledger: &Ledger, reference: &Reference) {
    let who: BTreeMap<_, _> = ledger.peers().map(|(pid, endpoint, _)| (endpoint.id, pid)).collect();
    let any = ledger.peers.values().next();
    let words: BTreeSet<(i64, i32)> = ledger
        .pool
        .blocks_in_use()
        .flat_map(|view| {
            let node = any.and_then(|peer| peer.node_of(view.id)).unwrap_or(-1);
            let lane = |(id, inbox): &(_, bool)| {
                assert!(!*inbox);
                (node, who[id].get().cast_signed())
            };
            view.holders.iter().map(lane).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(words, reference.lanes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_counts_as_the_reference_does(steps in prop::collection::vec(step(), 1..120)) {
        let pool = pool();
        let (mut ledger, mut reference, mut nodes) = (Ledger::new(pool.clone(), 0), Reference::default(), Vec::new());
        for step in steps {
            if let Step::Wild(_, node) = step && reference.transfers.contains_key(&node) {
                continue; // by chance a real one
            } else {
                run(step, &mut ledger, &mut reference, &mut nodes);
            }
            compare(&ledger, &reference);
        }
        for n in 1..=PIDS {
            while reference.here.contains_key(&n) {
                go(&mut ledger, n);
                reference.leave(n);
            }
        }
        prop_assert_eq!(in_use(&ledger), 0);
        prop_assert!(ledger.transfers.is_empty() && ledger.in_flight.is_empty() && ledger.in_flight_all == 0);
        prop_assert!(pool.audit().ok);
    }
}

#[test]
fn what_is_on_its_way_is_bounded_and_refused_whole() {
    let mut ledger = Ledger::new(pool(), 0);
    come(&mut ledger, 1);
    come(&mut ledger, 2);
    let node = ledger.alloc(pid(1), 64, 0).unwrap();
    for _ in 0..IN_FLIGHT_MAX / 1024 {
        send(&mut ledger, 1, &[node; 1024], 2).unwrap();
    }
    assert_eq!(send(&mut ledger, 1, &[node], 2), Err(PreSendError::InFlight { max: IN_FLIGHT_MAX }));
    // The receiver's own share is its own.
    let other = ledger.alloc(pid(2), 64, 0).unwrap();
    send(&mut ledger, 2, &[other], 1).unwrap();
    assert_eq!(go(&mut ledger, 2).len(), 2);
    assert_eq!(in_use(&ledger), 2, "the sender's, and what is on its way to it from one who has gone");
    assert!(ledger.in_flight.len() == 1);
    assert_eq!(go(&mut ledger, 1).len(), 2);
    assert_eq!((in_use(&ledger), ledger.in_flight.len()), (0, 0));
}

#[test]
fn a_block_that_all_lanes_hold_is_refused_and_the_others_of_that_transfer_are_not_lent() {
    let mut ledger = Ledger::new(pool(), 0);
    (1..=9).for_each(|n| come(&mut ledger, n));
    let (full, other) = (ledger.alloc(pid(1), 64, 0).unwrap(), ledger.alloc(pid(1), 64, 0).unwrap());
    for to in 2..=8 {
        send(&mut ledger, 1, &[full], to).unwrap();
    }
    assert_eq!(send(&mut ledger, 1, &[other, full], 9), Err(PreSendError::FanOut { node: full }));
    assert_eq!(ledger.peers[&pid(9)].references, HashMap::new());
    assert!(go(&mut ledger, 9).is_empty());
    // To somebody who has a lane already it goes.
    send(&mut ledger, 1, &[other, full], 8).unwrap();
}

#[test]
fn numbers_of_an_earlier_daemon_mean_nothing() {
    let (mut first, mut second) = (Ledger::new(pool(), 0), Ledger::new(pool(), 1));
    assert_ne!(first.next_number(), second.next_number());
    assert!(Ledger::new(pool(), u32::MAX).next_number() > 0);
}

#[test]
fn a_quota_bounds_what_a_client_allocates_on_top_of_what_it_holds() {
    let mut ledger = Ledger::new(pool(), 0);
    come_with(&mut ledger, 1, 4 * 1024);
    come(&mut ledger, 2);
    let nodes: Vec<i64> = (0..4).map(|_| ledger.alloc(pid(1), 1024, 0).unwrap()).collect();
    let refused = AllocError::Quota { size: 1, held: 4096, quota: 4096 };
    assert_eq!(ledger.alloc(pid(1), 1, 0), Err(refused));
    for _ in 0..8 {
        ledger.alloc(pid(2), 1024, 0).unwrap();
    }
    ledger.free(pid(1), nodes[0]).unwrap();
    // Also what a sender gives it counts, and is not refused.
    let gift = ledger.alloc(pid(2), 2048, 0).unwrap();
    send(&mut ledger, 2, &[gift], 1).unwrap();
    assert_eq!(ledger.alloc(pid(1), 64, 0), Err(AllocError::Quota { size: 64, held: 5120, quota: 4096 }));
    nodes[1..].iter().for_each(|node| ledger.free(pid(1), *node).unwrap());
    ledger.alloc(pid(1), 2048, 0).unwrap();
    assert!(matches!(ledger.alloc(pid(1), 64, 0), Err(AllocError::Quota { held: 4096, .. })));
}
