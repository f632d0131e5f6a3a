//! System packages of Debian and its relatives: look, and install only what is missing, one apt at a time.

use std::process::Command;

use crate::error::{Error, at};
use crate::run::{behind_spinner, quiet, which};

/// How to see that something is there.
enum There {
    /// A program on PATH.
    Program(&'static str),
    /// Any of these programs.
    AnyProgram(&'static [&'static str]),
    /// A library that pkg-config knows.
    Library(&'static str),
    /// A Python module.
    Module(&'static str),
    /// Only the package database knows.
    Package,
}

/// What building and running needs: how to see it, and the package that brings it.
const TO_RUN: &[(There, &str)] = &[
    (There::Program("cc"), "build-essential"),
    (There::Program("c++"), "build-essential"),
    (There::Program("pkg-config"), "pkg-config"),
    (There::Program("cmake"), "cmake"),
    (There::Program("nasm"), "nasm"),
    (There::Package, "libclang-dev"),
    (There::Library("libavcodec"), "libavcodec-dev"),
    (There::Library("libavformat"), "libavformat-dev"),
    (There::Library("libavutil"), "libavutil-dev"),
    (There::Library("libswscale"), "libswscale-dev"),
    (There::Program("python3"), "python3"),
    (There::Module("pip"), "python3-pip"),
    (There::Program("npm"), "npm"),
    (There::AnyProgram(&["node", "nodejs"]), "nodejs"),
];

/// What the tests need beside.
const TO_TEST: &[(There, &str)] =
    &[(There::AnyProgram(&["chromium", "chromium-browser", "google-chrome"]), "chromium")];

/// What the benchmarks need: they link no FFmpeg, and count system calls with strace.
const TO_BENCH: &[(There, &str)] =
    &[(There::Program("cc"), "build-essential"), (There::Program("strace"), "strace")];

impl There {
    fn is_met(&self, package: &str) -> bool {
        match self {
            Self::Program(name) => which(name).is_some(),
            Self::AnyProgram(names) => names.iter().any(|name| which(name).is_some()),
            Self::Library(name) => succeeds(Command::new("pkg-config").args(["--exists", name])),
            Self::Module(name) => succeeds(Command::new("python3").args(["-c", &format!("import {name}")])),
            Self::Package => is_installed(package),
        }
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn is_installed(package: &str) -> bool {
    let status = quiet(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Abbrev}", package]));
    status.is_ok_and(|text| text.starts_with("ii"))
}

/// Installs the packages that are missing. Says nothing when none is.
pub fn install(with_tests: bool) -> Result<(), Error> {
    install_missing(TO_RUN.iter().chain(if with_tests { TO_TEST } else { &[] }))
}

/// Installs what `bench` needs and is missing.
pub fn install_for_bench() -> Result<(), Error> {
    install_missing(TO_BENCH.iter())
}

fn install_missing(wanted: impl Iterator<Item = &'static (There, &'static str)>) -> Result<(), Error> {
    let mut missing: Vec<&str> =
        wanted.filter(|(there, package)| !there.is_met(package)).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if which("apt-get").is_none() {
        return Err(Error::NoApt(list));
    }
    let root = rustix::process::geteuid().is_root();
    if !root && !succeeds(Command::new("sudo").args(["-n", "true"])) {
        return Err(Error::NotRoot(format!(
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends {list}"
        )));
    }
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["-n", "--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        }
        // Another apt may be at work: wait for it instead of failing.
        command
            .args(["-o", "DPkg::Lock::Timeout=600", "-q"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let _lock = lock()?;
    let unreachable = |error: Error| Error::Registry {
        registry: "Debian package",
        client: "apt",
        what: list.clone(),
        detail: error.to_string(),
    };
    behind_spinner("asking for the list of system packages", &mut apt(&["update"])).map_err(unreachable)?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(&missing);
    behind_spinner(&format!("installing system packages: {list}"), &mut apt(&arguments)).map_err(unreachable)
}

/// Two runs of this program on one machine take turns: an `apt-get update` during an install can break it.
fn lock() -> Result<std::fs::File, Error> {
    let path = std::env::temp_dir().join("aits-apt.lock");
    let file = at(&path, std::fs::File::create(&path))?;
    at(&path, rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(Into::into))?;
    Ok(file)
}
