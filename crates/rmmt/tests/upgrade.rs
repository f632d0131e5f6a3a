//! SIGHUP to the keeper after the program's file was replaced: what lies there by then runs, or is refused.

mod stage;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use baton_client::ConnectOptions;
use rustix::process::Signal;
use stage::{Daemon, WATCHDOG, kill, until};

/// Files that processes of this test write and nobody else has open: a program that somebody writes to cannot be run.
fn shell(script: &str, arguments: &[&Path]) {
    assert!(Command::new("sh").args(["-ec", script, "sh"]).args(arguments).status().unwrap().success());
}

/// Puts a file with these contents in the program's place, in one step.
fn replace_by(program: &Path, contents: &str) {
    let script = r#"printf '%s\n' "$2" > "$1.new"; chmod 755 "$1.new"; mv "$1.new" "$1""#;
    shell(script, &[program, Path::new(contents)]);
}

/// Puts a copy of this program in its place; the inode of the copy.
fn replace_by_a_copy(program: &Path) -> u64 {
    let this = std::env::current_exe().unwrap();
    shell(r#"cp "$2" "$1.new"; mv "$1.new" "$1""#, &[program, &this]);
    std::fs::metadata(program).unwrap().ino()
}

/// A daemon whose program lies in its own directory.
fn start() -> (Daemon, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    replace_by_a_copy(&program);
    let daemon = Daemon::at(dir, "", |command| {
        let mut own = Command::new(&program);
        own.args(command.get_args()).envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        own
    });
    (daemon, program)
}

/// The inode of the program that a process runs; 0 if there is none.
fn runs(pid: u32) -> u64 {
    std::fs::metadata(format!("/proc/{pid}/exe")).map_or(0, |meta| meta.ino())
}

fn count(daemon: &Daemon, part: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains(part)).count()
}

#[test]
fn a_replaced_program_is_the_one_that_runs_afterwards_and_members_notice_nothing() {
    let (daemon, program) = start();
    let mut pair = [daemon.puppet("a", "a.in"), daemon.puppet("b", "b.in")];
    pair[0].order("work b.in 4000");
    pair[1].order("work a.in 4000");
    for life in 1..=2 {
        let (keeper, before) = (daemon.keeper_pid(), daemon.serving());
        let old = runs(before);
        let new = replace_by_a_copy(&program);
        assert!(old != new && runs(keeper) == old, "the old program runs on");
        kill(keeper, Signal::HUP);
        let serving = until("the next daemon", || Some(daemon.serving()).filter(|pid| *pid != before));
        assert_eq!((runs(keeper), runs(serving)), (new, new), "keeper and daemon run the new program");
        assert_eq!(daemon.observer().pool().unwrap().adoptions, life);
    }
    for puppet in &mut pair {
        assert_eq!(puppet.answer(), "[] received some: true");
    }
    daemon.assert_balanced();
}

#[test]
fn a_program_that_cannot_serve_leaves_the_old_one_serving_and_the_log_says_why() {
    let (mut daemon, program) = start();
    let (client, mut inbox) = daemon.member(ConnectOptions::new("member").inbox("member.in"));
    let (keeper, serving) = (daemon.keeper_pid(), daemon.serving());
    let old = runs(keeper);
    let useless = [
        ("#!/nowhere/at/all", "it cannot be started"),
        ("no program, two lines\n)", "Exec format error"),
        ("#!/bin/sh\necho 'libthis.so is missing' >&2; exit 127", "libthis.so is missing"),
        // It knows the settings, but is no keeper: it takes nothing and ends.
        ("#!/bin/sh\nexit 0", "it ended before it held everything"),
    ];
    for (tries, (contents, says)) in (1..).zip(useless) {
        replace_by(&program, contents);
        kill(keeper, Signal::HUP);
        until("the keeper to stay", || (count(&daemon, "so this one goes on") == tries).then_some(()));
        daemon.logged(&[says]);
        assert_eq!((daemon.serving(), runs(keeper), runs(serving)), (serving, old, old));
        client.sender("member.in").unwrap().send(client.alloc(64).unwrap().freeze()).unwrap();
        assert!(inbox.recv(Some(WATCHDOG)).unwrap().is_some());
    }
    // Killed now, each is replaced by the program that ran, not by what lies at its path.
    daemon.kill_and_wait();
    let serving = daemon.serving();
    assert_eq!(runs(serving), old);
    let stand_in = daemon.kill_keeper_and_wait();
    assert_eq!(runs(stand_in), old);
    daemon.logged(&[&format!("keeper pid={stand_in} follows daemon pid={serving}")]);
    // And with a good file there, the stand-in lets itself be replaced like any keeper.
    let new = replace_by_a_copy(&program);
    kill(stand_in, Signal::HUP);
    let next = until("the next daemon", || Some(daemon.serving()).filter(|pid| *pid != serving));
    assert_eq!((runs(next), runs(stand_in)), (new, new));
    assert_eq!(client.members().unwrap().len(), 1);
    daemon.assert_balanced();
    kill(stand_in, Signal::TERM);
    daemon.logged(&["rmmt: ended"]);
}
