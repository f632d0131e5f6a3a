//! `cargo xtask bench`: builds the measuring program in its own workspace, puts it beside `baton`, and runs it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::error::{Error, at};
use crate::packages;
use crate::run::{cargo, root, show};

/// Arguments of the benchmark.
#[derive(Args)]
pub struct Bench {
    /// Passed on to `baton bench memory`; try `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Bench {
    /// Builds and runs.
    pub fn run(self) -> Result<(), Error> {
        packages::install_for_bench()?;
        let target = target();
        let mut build = cargo();
        build.args([
            "build",
            "--release",
            "--locked",
            "--manifest-path",
            "benches/Cargo.toml",
            "--target-dir",
        ]);
        show(build.arg(target.join("benches")))?;
        show(cargo().args(["build", "--package", "baton"]))?;
        let (from, to) = (target.join("benches/release/baton-bench-memory"), target.join("debug"));
        at(&from, std::fs::copy(&from, to.join("baton-bench-memory")))?;
        show(Command::new(to.join("baton")).args(["bench", "memory"]).args(self.arguments))
    }
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
