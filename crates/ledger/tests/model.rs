//! Random histories of a connection's owners, with deaths at any step boundary, against a small reference.
#![cfg(not(loom))]

use baton_ledger::{About, Config, Kind, Ledger, PutError, Slot, State, Ticket};
use proptest::prelude::*;

const CONNECTIONS: usize = 3;

fn slot(n: u16) -> Slot {
    Slot::new(n).unwrap()
}

/// What a connection is, said with vectors: every byte that ever came in or went out, and how far it counts.
#[derive(Default, Clone)]
struct Reference {
    input: Vec<u8>,
    done: usize,
    output: Vec<u8>,
    sent: usize,
    handling: Option<(usize, bool, usize)>,
}

#[derive(Debug, Clone)]
enum Step {
    Park(usize, usize),
    Begin(usize, bool),
    Answer(usize),
    Push(usize),
    Send(usize),
    Pass(u16),
    Drop,
    Die(Death),
    Close,
}

#[derive(Debug, Clone)]
enum Death {
    Idle,
    Busy,
    Taking(usize, usize),
    Sending(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![0usize..20, 0usize..700, 0usize..9000];
    prop_oneof![
        5 => (len(), len()).prop_map(|(n, less)| Step::Park(n, less)),
        4 => (len(), any::<bool>()).prop_map(|(n, idempotent)| Step::Begin(n, idempotent)),
        5 => len().prop_map(Step::Answer),
        2 => len().prop_map(Step::Push),
        5 => len().prop_map(Step::Send),
        2 => (1u16..4).prop_map(Step::Pass),
        1 => Just(Step::Drop),
        1 => Just(Step::Die(Death::Idle)),
        1 => Just(Step::Die(Death::Busy)),
        1 => (len(), len()).prop_map(|(n, took)| Step::Die(Death::Taking(n, took))),
        1 => len().prop_map(|n| Step::Die(Death::Sending(n))),
        1 => Just(Step::Close),
    ]
}

fn accept(ledger: &Ledger) -> Ticket {
    ledger.accept(slot(0), slot(1), About { listener: 7, kind: Kind::Tcp, acked_base: 9 }).unwrap()
}

/// The seeds of failures go nowhere: the failing history is printed, and belongs into a test of its own.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(if std::env::var_os("BATON_FULL").is_some() { 4000 } else { 200 }))]
    #[test]
    fn histories_agree_with_the_reference(steps in proptest::collection::vec((0..CONNECTIONS, step()), 1..120)) {
        // Small: the arena is full now and then, and then nothing may have changed.
        let (ledger, fd) = Ledger::create(&Config { connections: 4, workers: 8, arena_bytes: 64 << 10 }).unwrap();
        let other = Ledger::open(&fd).unwrap();
        let mut owners = [slot(1); CONNECTIONS];
        let mut tickets: Vec<Ticket> = (0..CONNECTIONS).map(|_| accept(&ledger)).collect();
        let mut all = vec![Reference::default(); CONNECTIONS];
        let (mut counter, mut buffer) = (0u8, Vec::new());
        let mut fresh = |n: usize| (0..n).map(|_| { counter = counter.wrapping_add(1); counter }).collect::<Vec<u8>>();

        for (which, step) in steps {
            let (owner, ticket, r) = (owners[which], tickets[which], &mut all[which]);
            prop_assert!(other.claim(slot(5), ticket).is_err(), "another's claim");
            let mut held = Some(if which % 2 == 0 { &ledger } else { &other }.claim(owner, ticket).unwrap());
            prop_assert!(ledger.claim(owner, ticket).is_err(), "claimed twice");
            prop_assert!(other.take(slot(6), ticket).is_err(), "a busy one was taken");
            match step {
                Step::Park(n, less) => {
                    let bytes = fresh(n);
                    match held.as_mut().unwrap().park(&bytes) {
                        Ok(()) => {
                            let took = n - less.min(n);
                            held.as_mut().unwrap().taken(took as u64).unwrap();
                            r.input.extend(&bytes[..took]);
                        }
                        Err(error) => prop_assert_eq!(error, PutError::Full { bytes: n }),
                    }
                }
                Step::Begin(n, idempotent) => {
                    let there = r.input.len() - r.done;
                    let begun = held.as_mut().unwrap().begin(n as u64, idempotent);
                    prop_assert_eq!(begun.is_ok(), r.handling.is_none() && n <= there);
                    if begun.is_ok() {
                        r.handling = Some((n, idempotent, r.output.len()));
                    }
                }
                Step::Answer(n) => {
                    let bytes = fresh(n);
                    match (held.as_mut().unwrap().answer(&bytes), r.handling) {
                        (Ok(()), Some((len, _, _))) => {
                            r.output.extend(&bytes);
                            r.done += len;
                            r.handling = None;
                        }
                        (Err(PutError::Full { .. }), Some(_)) => {}
                        (other, handling) => {
                            prop_assert!(handling.is_none(), "{:?}", other);
                            prop_assert_eq!(other, Err(PutError::Handling { handling: false }));
                        }
                    }
                }
                Step::Push(n) => {
                    let bytes = fresh(n);
                    if held.as_mut().unwrap().push(&bytes).is_ok() {
                        r.output.extend(&bytes);
                    }
                }
                Step::Send(n) => {
                    let (from, unsent) = (r.sent, r.output[r.sent..].to_vec());
                    let mut seen = None;
                    let sent = held.as_mut().unwrap().send(&mut buffer, 4000, |bytes| { seen = Some(bytes.to_vec()); Ok(n.min(bytes.len())) }).unwrap();
                    prop_assert_eq!(seen.unwrap_or_default(), &unsent[..unsent.len().min(4000)]);
                    r.sent = from + sent;
                }
                Step::Drop => {}
                Step::Pass(to) => {
                    held.take().unwrap().release().unwrap();
                    tickets[which] = ledger.take(slot(6), ticket).unwrap().give(slot(to)).unwrap();
                    owners[which] = slot(to);
                    prop_assert!(other.claim(owner, ticket).is_err(), "the old owner claims");
                    continue;
                }
                Step::Close => {
                    held.take().unwrap().close().unwrap();
                    tickets[which] = accept(&ledger);
                    owners[which] = slot(1);
                    all[which] = Reference::default();
                    continue;
                }
                Step::Die(death) => {
                    let mut expect = None;
                    match death {
                        Death::Idle => drop(held.take()),
                        Death::Busy => std::mem::forget(held.take()),
                        Death::Taking(n, took) => {
                            let bytes = fresh(n);
                            if held.as_mut().unwrap().park(&bytes).is_ok() && n > 0 {
                                let took = took.min(n);
                                expect = Some((r.input.len(), r.input.len() + n, r.input.len() + took));
                                r.input.extend(&bytes[..took]);
                            }
                            std::mem::forget(held.take());
                        }
                        Death::Sending(n) => {
                            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                                held.as_mut().unwrap().send(&mut buffer, 4000, |_| std::panic::resume_unwind(Box::new("killed")))
                            }));
                            if result.is_err() {
                                prop_assert!(matches!(ledger.word(ticket.record).unwrap().state(), Some(State::Sending)));
                                r.sent += n.min(r.output.len() - r.sent).min(4000);
                            }
                            std::mem::forget(held.take());
                        }
                    }
                    let recovery = other.recover(slot(4), owner);
                    prop_assert!(recovery.corrupt.is_empty());
                    let theirs = owners.iter().filter(|o| **o == owner).count();
                    prop_assert_eq!(recovery.moved.len(), theirs);
                    for mut moved in recovery.moved {
                        let place = tickets.iter().position(|t| t.record == moved.record()).unwrap();
                        let duty = moved.duty().unwrap();
                        prop_assert!(!duty.close);
                        if place == which {
                            prop_assert_eq!(duty.taking.clone(), expect.map(|(from, to, _)| from as u64..to as u64));
                            if let Some((from, to, took)) = expect {
                                prop_assert!(moved.resolve_taken(to as u64 + 1).is_err());
                                prop_assert!(from == 0 || moved.resolve_taken(from as u64 - 1).is_err());
                                moved.resolve_taken(took as u64).unwrap();
                            }
                            if duty.sending.is_some() {
                                moved.resolve_sent(all[which].sent as u64).unwrap();
                            }
                        }
                        owners[place] = slot(1 + (owner.get() % 3));
                        tickets[place] = moved.give(owners[place]).unwrap();
                    }
                }
            }
            drop(held);
            let r = &all[which];
            let claim = other.claim(owners[which], tickets[which]);
            let claim = match claim { Ok(claim) => claim, Err(error) => panic!("{error}") };
            let duty = claim.duty().unwrap();
            prop_assert_eq!(duty.unsent as usize, r.output.len() - r.sent);
            prop_assert_eq!(duty.request.as_ref().map(|q| (q.len as usize, q.rerun)),
                r.handling.map(|(len, idempotent, at)| (len, idempotent && at == r.output.len())));
            prop_assert_eq!(duty.parked as usize, r.input.len() - r.done - r.handling.map_or(0, |h| h.0));
            claim.input(&mut buffer).unwrap();
            prop_assert_eq!(&buffer, &r.input[r.done..]);
            drop(claim);
        }
        for (ticket, owner) in tickets.iter().zip(owners) {
            prop_assert_eq!(ledger.about(ticket.record).unwrap().listener, 7);
            ledger.claim(owner, *ticket).unwrap().close().unwrap();
        }
        prop_assert_eq!(ledger.chunks_taken(), 0, "chunks without bytes");
    }
}

#[test]
fn a_dropped_claim_in_the_middle_of_a_send_is_unsure_until_resolved() {
    let (ledger, _fd) = Ledger::create(&Config { connections: 1, workers: 2, arena_bytes: 8192 }).unwrap();
    let ticket = accept(&ledger);
    let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut claim = ledger.claim(slot(1), ticket).unwrap();
        claim.push(b"half sent").unwrap();
        let _ = claim.send(&mut Vec::new(), 9, |_| std::panic::resume_unwind(Box::new("a bug in a handler")));
    }));
    assert!(sent.is_err());
    let mut claim = ledger.claim(slot(1), ticket).unwrap();
    assert_eq!(claim.duty().unwrap().sending, Some(0..9));
    assert!(claim.send(&mut Vec::new(), 9, |_| panic!("sent without knowing")).is_err());
    assert!(claim.resolve_sent(10).is_err());
    claim.resolve_sent(4).unwrap();
    let mut seen = Vec::new();
    claim.send(&mut seen, 99, |bytes| Ok(bytes.len())).unwrap();
    assert_eq!(seen, b" sent");
}

#[test]
fn no_more_connections_than_records() {
    let (ledger, _fd) = Ledger::create(&Config { connections: 2, workers: 2, arena_bytes: 8192 }).unwrap();
    let first = accept(&ledger);
    accept(&ledger);
    let about = About { listener: 0, kind: Kind::Unix, acked_base: 0 };
    let error = ledger.accept(slot(0), slot(1), about).unwrap_err();
    assert!(error.to_string().contains("all 2 records"), "{error}");
    ledger.claim(slot(1), first).unwrap().close().unwrap();
    let again = accept(&ledger);
    assert_eq!(again.record, first.record);
    assert!(ledger.claim(slot(1), first).is_err(), "a ticket outlived its connection");
}
