//! Examples that tests run as programs: the documentation's own programs are what is tested.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The example `name` of the crate at `manifest_dir` (`env!("CARGO_MANIFEST_DIR")`). `cargo test` builds it, `cargo test
/// --test NAME` does not: then it is built here, if it is missing or older than the test that asks.
///
/// # Panics
/// If it cannot be built.
pub fn example(manifest_dir: &str, name: &str) -> PathBuf {
    // One thread of the test builds, the others find it built.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.parent().and_then(Path::parent).expect("a test lies in PROFILE/deps");
    let target = profile.parent().expect("PROFILE lies in the target directory");
    let binary = profile.join("examples").join(name);
    let age = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    if age(&binary) < age(&test) {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", name, "--manifest-path"])
            .arg(Path::new(manifest_dir).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target)
            .args((profile.file_name() == Some("release".as_ref())).then_some("--release"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the example {name} cannot be built");
    }
    binary
}
