//! The fuzz targets as plain functions: any bytes in, no panic, no access out of range, no endless loop.
//!
//! ```text
//!   fuzz/fuzz_targets/NAME.rs ── cargo fuzz (nightly, libFuzzer, AddressSanitizer) ──┐
//!                                                                                     ├──▶ TARGETS[NAME](bytes)
//!   tests/corpus.rs ── cargo test (stable): the corpus and a bounded, seeded run ─────┘
//! ```
//! The corpus lies in `fuzz/corpus/NAME`; `cargo run -p baton-fuzz-targets --example corpus` writes its seeds, which come
//! from the real encoders.
#![forbid(unsafe_code)]

mod attach;
mod classic;
mod frames;
mod keeper;
mod ledger;
mod mutate;
mod scribble;

pub use mutate::{Random, mutate};

/// One target.
pub struct Target {
    /// Name of its file and of its corpus.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// What to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "classic_protocol", run: classic::run, seeds: classic::seeds },
    Target { name: "attach_handshake", run: attach::run, seeds: attach::seeds },
    Target { name: "metadata_scribbled", run: scribble::run, seeds: scribble::seeds },
    Target { name: "keeper_messages", run: keeper::run, seeds: keeper::seeds },
    Target { name: "classic_ledger", run: ledger::run, seeds: ledger::seeds },
    Target { name: "json_frames", run: frames::run, seeds: frames::seeds },
];

/// Runs one input of the target called `name`.
///
/// # Panics
/// If there is no such target, or if the input is a finding.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").run)(data);
}
