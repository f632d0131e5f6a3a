//! Within one process, on one core: what the operations cost without any waiting.

use std::hint::black_box;

use crate::baton::{BatonLink, Daemon};
use crate::cases::{Bench, Found, SIZES};
use crate::error::{Error, step};
use crate::link;
use crate::machine::{Core, now};
use crate::report::{Row, Target};
use crate::rival::iox::IoxLink;
use crate::stats::median;

const CHUNKS: usize = 40;
const EACH: usize = 250;

/// Allocate, hand over to oneself, receive, release.
pub fn cycle(bench: &Bench) -> Result<Found, Error> {
    both(bench, ("cycle", "whole cycle in one process", 0.33), |ours, theirs| {
        let mut ours = link::cycle(ours, CHUNKS, EACH)?;
        let mut theirs = link::cycle(theirs, CHUNKS, EACH)?;
        Ok((median(&mut ours), median(&mut theirs)))
    })
}

/// Allocate and free against loan and drop.
pub fn alloc(bench: &Bench) -> Result<Found, Error> {
    both(bench, ("alloc", "alloc + free", 0.1), |ours, theirs| {
        let len = ours.len();
        let ours =
            stretches(|| step("allocate", ours.client().alloc(len)).map(|block| drop(black_box(block))))?;
        let theirs = stretches(|| theirs.loan_and_drop())?;
        Ok((ours, theirs))
    })
}

fn both(
    bench: &Bench,
    (case, what, target): (&'static str, &str, f64),
    mut round: impl FnMut(&mut BatonLink, &mut IoxLink) -> Result<(f64, f64), Error>,
) -> Result<Found, Error> {
    bench.cores.pin(Core::First);
    let daemon = Daemon::start(&bench.cores, "256MiB", &[])?;
    let mut found = Found::default();
    for (len, name) in SIZES {
        let mut ours = BatonLink::to_itself(daemon.uri(), len)?;
        let mut theirs = IoxLink::to_itself(&bench.place, len)?;
        round(&mut ours, &mut theirs)?; // warm
        let mut figures = (Vec::new(), Vec::new());
        for _ in 0..bench.rounds() {
            let (a, b) = round(&mut ours, &mut theirs)?;
            figures.0.push(a);
            figures.1.push(b);
        }
        let head = (case, format!("{what}, {name}"), "ns");
        found.rows.extend(Row::versus(head, &figures.0, ("iceoryx2", &figures.1), Target::Ratio(target)));
    }
    Ok(found)
}

/// Nanoseconds of one call: the median of [`CHUNKS`] stretches.
fn stretches(mut call: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let mut found = Vec::with_capacity(CHUNKS);
    for _ in 0..CHUNKS {
        let start = now();
        for _ in 0..EACH {
            call()?;
        }
        found.push((now() - start) as f64 / EACH as f64);
    }
    Ok(median(&mut found))
}
