//! Somebody writes anything anywhere into the memory: nobody panics, nobody loops for ever, nobody reads outside.
#![cfg(not(loom))]

use baton_ledger::{About, Config, Kind, Ledger, Slot, Ticket};
use baton_shm::{Access, Mapping};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

fn slot(n: u16) -> Slot {
    Slot::new(n).unwrap()
}

fn use_it(ledger: &Ledger, tickets: &[Ticket]) {
    let mut buffer = Vec::new();
    for ticket in tickets.iter().copied().chain(ledger.idle_of(slot(1)).collect::<Vec<_>>()) {
        let Ok(mut claim) = ledger.claim(slot(1), ticket) else { continue };
        let _ = claim.duty();
        let _ = claim.input(&mut buffer);
        let _ = claim.park(&[1; 600]);
        let _ = claim.taken(300);
        let _ = claim.begin(10, true);
        let _ = claim.answer(&[2; 600]);
        let _ = claim.push(&[3; 5000]);
        let _ = claim.send(&mut buffer, 1 << 16, |bytes| Ok(bytes.len() / 2));
        let _ = claim.resolve_taken(3);
        let _ = claim.resolve_sent(3);
        match ticket.record % 3 {
            0 => drop(claim),
            1 => std::mem::forget(claim),
            _ => drop(claim.close()),
        }
    }
    for moved in ledger.recover(slot(2), slot(1)).moved {
        let _ = moved.duty();
        let _ = if moved.record() % 2 == 0 { moved.close() } else { moved.give(slot(1)).map(drop) };
    }
    for dead in 3..8 {
        drop(ledger.recover(slot(2), slot(dead)));
    }
    let _ = ledger.chunks_taken();
    let _ = ledger.accept(slot(0), slot(1), About { listener: 0, kind: Kind::Tcp, acked_base: 0 });
    for record in 0..10 {
        let _ = (ledger.word(record), ledger.about(record));
    }
}

/// The seeds of failures go nowhere: the failing history is printed, and belongs into a test of its own.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(if std::env::var_os("BATON_FULL").is_some() { 20_000 } else { 300 }))]
    #[test]
    fn any_words_anywhere(
        rounds in proptest::collection::vec(proptest::collection::vec(
            (prop_oneof![4 => 512usize..640, 3 => 640usize..820, 1 => 0usize..2000],
             prop_oneof![any::<u64>(), 0u64..40, (0u64..40).prop_map(|n| n << 32 | 1), (0u64..70_000).prop_map(|n| n << 12 | 1)]),
            1..30), 1..6),
    ) {
        let (ledger, fd) = Ledger::create(&Config { connections: 8, workers: 8, arena_bytes: 32 << 10 }).unwrap();
        let bytes = baton_shm::size(&fd).unwrap() as usize;
        let words = Arc::new(Mapping::new(&fd, bytes, Access::ReadWrite).unwrap()).slice::<AtomicU64>(0, bytes / 8).unwrap();
        let about = About { listener: 0, kind: Kind::Tcp, acked_base: 0 };
        let tickets: Vec<Ticket> = (0..6).map(|_| ledger.accept(slot(0), slot(1), about).unwrap()).collect();
        use_it(&ledger, &tickets);
        for scribbles in rounds {
            for (at, value) in scribbles {
                words[at % words.len()].store(value, SeqCst);
            }
            use_it(&ledger, &tickets);
            if let Ok(opened) = Ledger::open(&fd) {
                use_it(&opened, &tickets);
            }
        }
    }
}

/// While others work: what one reads twice may differ.
#[test]
fn words_that_change_in_between() {
    let (ledger, fd) = Ledger::create(&Config { connections: 8, workers: 8, arena_bytes: 32 << 10 }).unwrap();
    let bytes = baton_shm::size(&fd).unwrap() as usize;
    let words = Arc::new(Mapping::new(&fd, bytes, Access::ReadWrite).unwrap())
        .slice::<AtomicU64>(0, bytes / 8)
        .unwrap();
    let about = About { listener: 0, kind: Kind::Tcp, acked_base: 0 };
    let tickets: Vec<Ticket> = (0..6).map(|_| ledger.accept(slot(0), slot(1), about).unwrap()).collect();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 88_172_645_463_325_252u64;
            while !over.load(SeqCst) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let value = [random, random % 40, (random % 40) << 32 | 1, (random % 9000) << 12 | 1]
                    [(random >> 60) as usize % 4];
                words[512 + (random >> 20) as usize % 300].store(value, SeqCst);
            }
        });
        for _ in 0..300 {
            use_it(&ledger, &tickets);
        }
        over.store(true, SeqCst);
    });
}
