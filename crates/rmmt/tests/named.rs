//! A pool with a name: kept, adopted, replaced, removed.

mod stage;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use stage::{Daemon, until};

/// A name that no other test has.
fn name(what: &str) -> (String, PathBuf) {
    let name = format!("/baton-test-{what}-{}", std::process::id());
    (format!("named {name}"), PathBuf::from(format!("/dev/shm{name}")))
}

#[test]
fn a_name_is_adopted_by_the_next_daemon_and_goes_at_a_clean_end() {
    let (options, path) = name("adopt");
    let mut daemon = Daemon::with(&options);
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert!(meta.len() >= 15 << 20);
    daemon.logged(&["the pool is /dev/shm", "could truncate it"]);
    let mut member = daemon.puppet("member", "member.in");
    member.ask("hold 3 100000");
    daemon.kill_and_wait();
    daemon.logged(&["the pool /dev/shm", "of the daemon before is taken over"]);
    assert_eq!(member.ask("drop"), "dropped");
    daemon.assert_balanced();
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn what_a_massacre_left_is_replaced_by_the_next_start() {
    let (options, path) = name("replace");
    let daemon = Daemon::with(&options);
    // A member that lives on keeps its memory, but not the name.
    let mut member = daemon.puppet("member", "");
    member.ask("hold 3 100000");
    let dir = daemon.kill_all();
    assert!(path.exists());
    let daemon = Daemon::at(dir, &options, |command| command);
    daemon.logged(&["was left by a daemon that was killed; it is replaced"]);
    assert!(path.exists());
    assert_eq!(daemon.observer().pool().unwrap().blocks_in_use, 0);
    assert_eq!(member.ask("drop"), "dropped");
    drop(daemon);
    until("the name to go", || (!path.exists()).then_some(()));
}

#[test]
fn a_name_in_use_is_refused_and_left_alone() {
    let (options, path) = name("inuse");
    let daemon = Daemon::with(&options);
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("un://{}", dir.path().join("other.sock").display());
    let output = stage::myself("rmmt", &uri, &options).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("is in use by another memory daemon"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of the refused start");
    assert!(path.exists());
    daemon.assert_balanced();
}
