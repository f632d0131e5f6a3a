//! `cargo xtask demo`: the whole system on a real road clip.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::cache::Cache;
use crate::error::{Error, at};
use crate::run::{cargo, root, show};
use crate::setup;

/// Arguments of the demo.
#[derive(Args)]
pub struct Demo {
    /// Where the page is served. The default cannot be reached from other machines.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// Your own video instead of the road clip.
    video: Vec<PathBuf>,
}

impl Demo {
    /// Sets up, builds, and becomes `aits up`: Ctrl-C goes straight to it.
    pub fn run(self) -> Result<(), Error> {
        let cache = setup::setup(false)?;
        build()?;
        let mut up = aits(&cache);
        up.arg("up").args(["--loop", "--listen", &self.listen]);
        if self.video.is_empty() {
            up.arg(cache.clip());
        } else {
            up.args(&self.video);
        }
        let error = up.exec();
        at(binary("aits"), Err(error))
    }
}

/// Builds the two programs. A second run finds them built.
pub fn build() -> Result<(), Error> {
    show(cargo().args(["build", "--package", "aits", "--package", "baton"]))
}

/// A program that was built.
pub fn binary(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    root().join(target).join("debug").join(name)
}

/// `aits`, told where the cache is.
pub fn aits(cache: &Cache) -> Command {
    let mut command = Command::new(binary("aits"));
    command.env("AITS_CACHE", cache.dir());
    command
}
