//! `cargo xtask measure`: the demo, looked at from outside, as the table of the README.

use std::path::PathBuf;

use clap::Args;

use crate::demo;
use crate::error::Error;
use crate::run::{cargo, show};
use crate::setup;

/// Arguments of the measurement.
#[derive(Args)]
pub struct Measure {
    /// How long to measure after the system has warmed up, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Your own clip instead of the demo's.
    clip: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl Measure {
    /// Sets up, builds, starts the system by itself, measures, ends it.
    pub fn run(self) -> Result<(), Error> {
        let cache = setup::setup(false)?;
        demo::build()?;
        let mut command = cargo();
        command.args(["run", "--quiet", "--package", "baton-tests", "--bin", "measure", "--"]);
        command.args(["--seconds", &self.seconds.to_string()]).arg(self.clip.unwrap_or_else(|| cache.clip()));
        if self.json {
            command.arg("--json");
        }
        show(command.env("AITS_CACHE", cache.dir()))
    }
}
