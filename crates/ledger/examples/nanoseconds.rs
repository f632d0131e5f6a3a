//! What the ledger costs, in nanoseconds: `cargo run --release -p baton-ledger --example nanoseconds`. Asserts nothing.

use baton_ledger::{About, Config, Kind, Ledger, Slot};
use std::hint::black_box;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (ledger, _fd) = Ledger::create(&Config::default())?;
    let me = Slot::new(1).ok_or("no such slot")?;
    let ticket = ledger.accept(me, me, About { listener: 0, kind: Kind::Unix, acked_base: 0 })?;
    let mut buffer = Vec::new();

    let measure = |what: &str, step: &mut dyn FnMut() -> Result<(), Box<dyn std::error::Error>>| {
        let mut best = f64::INFINITY;
        for _ in 0..20 {
            let begin = Instant::now();
            for _ in 0..10_000 {
                step()?;
            }
            best = best.min(begin.elapsed().as_secs_f64() * 1e9 / 10_000.0);
        }
        println!("{what:55} {best:7.1} ns");
        Ok::<(), Box<dyn std::error::Error>>(())
    };
    measure("claim + release", &mut || Ok(black_box(ledger.claim(me, ticket)?).release()?))?;
    for size in [100, 4000] {
        let bytes = vec![7; size];
        let mut request = || {
            let mut claim = ledger.claim(me, ticket)?;
            claim.park(&bytes)?;
            claim.taken(size as u64)?;
            claim.begin(size as u64, false)?;
            claim.answer(&bytes)?;
            claim.send(&mut buffer, 1 << 16, |bytes| Ok(bytes.len()))?;
            Ok(claim.release()?)
        };
        measure(&format!("a request and its answer of {size} bytes, all steps"), &mut request)?;
    }
    measure("take + give (a move)", &mut || {
        let ticket = ledger.accept(me, me, About { listener: 0, kind: Kind::Unix, acked_base: 0 })?;
        let ticket = ledger.take(me, ticket)?.give(me)?;
        Ok(ledger.claim(me, ticket)?.close()?)
    })?;
    Ok(())
}
