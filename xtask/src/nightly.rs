//! `cargo xtask fuzz` and `cargo xtask miri`: what needs the nightly toolchain. Nothing is installed here: where it is
//! missing, the message says how to get it.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::error::{Error, at};
use crate::run::{root, show, which};

/// Arguments of the fuzzers.
#[derive(Args)]
pub struct Fuzz {
    /// Only this target; all of them, one after the other, without it.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    time: u32,
}

/// The file names of the targets.
fn targets() -> Result<Vec<String>, Error> {
    let dir = root().join("fuzz/fuzz_targets");
    let entries = at(&dir, std::fs::read_dir(&dir))?.flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// `cargo` of the nightly toolchain.
fn nightly(needs: &str) -> Result<Command, Error> {
    if which("rustup").is_none() {
        return Err(Error::Check(format!("this needs rustup with a nightly toolchain ({needs})")));
    }
    let mut command = Command::new("rustup");
    // The cargo that runs this says which toolchain it is; that is not the one to use.
    command
        .args(["run", "nightly", "cargo"])
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    Ok(command)
}

fn target_dir(name: &str) -> PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    root().join(base).join(name)
}

impl Fuzz {
    /// Builds and runs; new inputs go to the build directory, the committed corpus stays as it is.
    pub fn run(self) -> Result<(), Error> {
        let all = targets()?;
        let chosen = match self.target {
            None => all,
            Some(name) if all.contains(&name) => vec![name],
            Some(name) => {
                return Err(Error::Check(format!("there is no target {name}; there are {}", all.join(", "))));
            }
        };
        if which("cargo-fuzz").is_none() {
            return Err(Error::Check(
                "cargo-fuzz is missing: rustup toolchain install nightly && cargo install cargo-fuzz".into(),
            ));
        }
        let dir = target_dir("fuzz");
        for name in chosen {
            let found = dir.join("corpus").join(&name);
            at(&found, std::fs::create_dir_all(&found))?;
            let mut fuzz = nightly("rustup toolchain install nightly; cargo install cargo-fuzz")?;
            fuzz.current_dir(root().join("fuzz")).args(["fuzz", "run", &name]);
            fuzz.arg(&found).arg(root().join("fuzz/corpus").join(&name)).arg("--");
            fuzz.arg(format!("-max_total_time={}", self.time)).args(["-timeout=60", "-print_final_stats=1"]);
            // Flags in the environment replace those of .cargo/config.toml; cargo-fuzz adds its own.
            if cfg!(target_arch = "x86_64") {
                fuzz.env("RUSTFLAGS", "-C target-feature=+cmpxchg16b");
            }
            show(fuzz.env("CARGO_TARGET_DIR", &dir))?;
        }
        Ok(())
    }
}

/// The tests that are small enough for the interpreter. It may read the clock and make files (isolation is off).
pub fn miri() -> Result<(), Error> {
    let mut miri = nightly("rustup toolchain install nightly --component miri,rust-src")?;
    miri.current_dir(root()).args(["miri", "test", "--package", "baton-pool", "--test", "interpreted"]);
    miri.env("CARGO_TARGET_DIR", target_dir("miri")).env("MIRIFLAGS", "-Zmiri-disable-isolation");
    show(&mut miri)
}
