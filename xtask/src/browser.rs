//! The browser test's own needs: Playwright from npm (pinned by its lock file, integrity checked by npm), Chromium from
//! the system.

use std::path::PathBuf;
use std::process::Command;

use crate::error::Error;
use crate::run::{quiet, root};

/// Where the test lies.
fn dir() -> PathBuf {
    root().join("tests/browser")
}

/// `npm ci`, unless what the lock file names is there already.
pub fn install() -> Result<(), Error> {
    let lock = dir().join("package-lock.json");
    let installed = dir().join("node_modules/.package-lock.json");
    let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if modified(&installed).is_some_and(|have| modified(&lock).is_some_and(|wanted| have >= wanted)) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(dir());
    quiet(&mut npm).map(|_| ()).map_err(|error| Error::Registry {
        registry: "npm",
        client: "npm",
        what: "playwright-core".into(),
        detail: error.to_string(),
    })
}
