//! `cargo xtask test`: every test, stage after stage, and a table of what passed and how long it took.
//!
//! The stages go from cheap to dear, so that a slip is found early. With `--full` the random ones run for longer.

use std::time::{Duration, Instant};

use clap::Args;

use crate::cache::Cache;
use crate::error::Error;
use crate::run::{cargo, root, show};
use crate::setup;

/// Arguments of the tests.
#[derive(Args)]
pub struct Test {
    /// The long forms: more kills, deeper interleavings.
    #[arg(long)]
    full: bool,
    /// Only the stages whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

struct Stage {
    name: &'static str,
    run: fn(&Context) -> Result<(), Error>,
}

struct Context {
    cache: Cache,
    full: bool,
}

const STAGES: &[Stage] = &[
    Stage { name: "format", run: |_| show(cargo().args(["fmt", "--all", "--check"])) },
    Stage {
        name: "lints",
        run: |_| {
            show(cargo().args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]))?;
            // What only the kill tests compile.
            let armed = [
                "clippy",
                "--package",
                "baton-pool",
                "--package",
                "baton-ledger",
                "--package",
                "baton-tests",
                "--all-targets",
                "--quiet",
            ];
            let features = [
                "--features",
                "baton-pool/kill-points,baton-ledger/kill-points,baton-tests/kill-points",
                "--",
                "-D",
                "warnings",
            ];
            show(cargo().args(armed).args(features))
        },
    },
    Stage { name: "build", run: |_| show(cargo().args(["build", "--workspace", "--bins", "--examples"])) },
    Stage {
        name: "unit and integration",
        run: |context| {
            show(context.test().args(["--workspace", "--exclude", "baton-tests", "--no-fail-fast"]))
        },
    },
    Stage { name: "interleavings (loom)", run: loom },
    Stage { name: "kills in the pool", run: kills },
    Stage { name: "kills and stops at connections", run: kills_at_connections },
    Stage { name: "kills everywhere", run: kills_everywhere },
    Stage {
        name: "whole system",
        run: |context| {
            show(context.test().args(["--package", "baton-tests", "--", "--test-threads=1", "--nocapture"]))
        },
    },
];

impl Test {
    /// Runs the stages; the first that fails ends the run.
    pub fn run(self) -> Result<(), Error> {
        let begin = Instant::now();
        let cache = setup::setup(true)?;
        let mut times = vec![("set-up", begin.elapsed())];
        let context = Context { cache, full: self.full };
        for stage in STAGES {
            if self.only.as_ref().is_some_and(|only| !stage.name.contains(only.as_str())) {
                continue;
            }
            eprintln!("\n── {} ──", stage.name);
            let begin = Instant::now();
            (stage.run)(&context)?;
            times.push((stage.name, begin.elapsed()));
        }
        let total: Duration = times.iter().map(|(_, time)| *time).sum();
        println!();
        for (name, time) in times.iter().chain([&("all", total)]) {
            println!("  {name:32} {:>6.1} s", time.as_secs_f64());
        }
        println!("\nall stages passed");
        Ok(())
    }
}

impl Context {
    fn test(&self) -> std::process::Command {
        let mut test = cargo();
        test.arg("test").env("AITS_CACHE", self.cache.dir()).env("ORT_DYLIB_PATH", self.cache.runtime());
        if self.full {
            test.env("BATON_FULL", "1");
        }
        test
    }
}

fn loom(context: &Context) -> Result<(), Error> {
    let mut test = context.test();
    test.args(["--package", "baton-pool", "--package", "baton-ledger", "--test", "loom"]);
    // Loom replaces the atomics at compile time: a build of its own, kept apart so that neither rebuilds the other.
    test.env("RUSTFLAGS", "--cfg loom -C target-feature=+cmpxchg16b").env("CARGO_TARGET_DIR", target("loom"));
    test.env("LOOM_MAX_PREEMPTIONS", if context.full { "5" } else { "3" });
    show(&mut test)
}

fn kills(context: &Context) -> Result<(), Error> {
    let mut test = context.test();
    // Kill points cost a branch at every atomic step, so they are compiled in for this stage only.
    test.args(["--package", "baton-pool", "--features", "kill-points", "--test", "kill"]);
    test.args(["--test", "halfway", "--test", "killed_waiting"]);
    show(test.env("CARGO_TARGET_DIR", target("kill")))
}

fn kills_at_connections(context: &Context) -> Result<(), Error> {
    let mut test = context.test();
    test.args(["--package", "baton-ledger", "--features", "kill-points", "--test", "kill"]);
    show(test.env("CARGO_TARGET_DIR", target("kill")))
}

fn kills_everywhere(context: &Context) -> Result<(), Error> {
    let mut test = context.test();
    test.args(["--package", "baton-tests", "--features", "kill-points", "--test", "kill_everywhere"]);
    show(test.env("CARGO_TARGET_DIR", target("kill")))
}

fn target(name: &str) -> std::path::PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    root().join(base).join(name)
}
