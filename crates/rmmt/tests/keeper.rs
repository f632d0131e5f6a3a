//! The keeper is killed: the daemon finds another one, and members notice nothing.

mod stage;

use baton_client::ConnectOptions;
use rustix::process::Signal;
use stage::{Daemon, kill, until};

#[test]
fn a_killed_keeper_is_replaced_and_the_next_one_keeps_as_well() {
    let mut daemon = Daemon::start();
    let (client, mut inbox) = daemon.member(ConnectOptions::new("keeps").inbox("keeps.in"));
    let mut other = daemon.puppet("other", "other.in");
    other.ask("hold 5 100000");
    let first = daemon.serving();
    // Two keepers in a row, then the daemon, which the second stand-in starts again.
    daemon.kill_keeper_and_wait();
    let keeper = daemon.kill_keeper_and_wait();
    assert_eq!(daemon.serving(), first, "the daemon itself went on");
    daemon.logged(&[&format!("keeper pid={keeper} follows daemon pid={first}")]);
    kill(first, Signal::KILL);
    until("the next daemon", || (daemon.serving() != first).then_some(()));
    assert_eq!(daemon.observer().pool().unwrap().adoptions, 1);
    let members = client.members().unwrap();
    assert_eq!(members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["keeps", "other"]);
    assert_eq!(members[1].blocks_held, 5);
    assert_eq!(other.ask("send keeps.in"), "sent 0");
    assert!(inbox.recv(None).unwrap().unwrap().block.len() == 100_000);
    daemon.assert_balanced();
    // The stand-in is a keeper like any other: told to end, it ends the daemon, which leaves nothing.
    kill(keeper, Signal::TERM);
    daemon.logged(&["rmmt: ended"]);
    until("the socket to go", || (!daemon.socket().exists()).then_some(()));
}

#[test]
fn members_under_load_notice_neither_the_keepers_death_nor_the_daemons() {
    let mut daemon = Daemon::start();
    let mut pair = daemon.pair_at_work(1500);
    for _ in 0..4 {
        let keeper = daemon.kill_keeper_and_wait();
        daemon.logged(&[&format!("keeper pid={keeper} follows")]);
        let before = daemon.serving();
        // Everything was deposited with the new keeper before it followed, so the daemon may die at once.
        kill(before, Signal::KILL);
        until("the next daemon", || (daemon.serving() != before).then_some(()));
    }
    daemon.assert_worked(&mut pair);
}

#[test]
fn told_to_begin_anew_keeper_and_daemon_are_replaced_by_the_programs_file() {
    let daemon = Daemon::start();
    let mut pair = daemon.pair_at_work(1500);
    for life in 1..=2 {
        let (keeper, before) = (daemon.keeper_pid(), daemon.serving());
        kill(keeper, Signal::HUP);
        until("the next daemon", || (daemon.serving() != before).then_some(()));
        assert_eq!(daemon.observer().pool().unwrap().adoptions, life);
        assert_eq!(daemon.pid(), daemon.serving(), "it is the child of the same keeper process");
    }
    daemon.assert_worked(&mut pair);
}

#[test]
fn a_supervised_start_takes_over_from_the_stand_in_and_any_other_is_refused() {
    let mut daemon = Daemon::with("supervised");
    let mut member = daemon.puppet("member", "member.in");
    member.ask("hold 5 100000");
    let serving = daemon.serving();
    // While its keeper lives, nobody pushes it out: neither by hand nor supervised.
    for (options, says) in [("", "another memory daemon runs at"), ("supervised", "its keeper lives")] {
        let output = stage::myself("rmmt", &daemon.uri(), options).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(says), "{error}");
    }
    let stand_in = daemon.kill_keeper_and_wait();
    // What a supervisor does next.
    let mut next = stage::myself("rmmt", &daemon.uri(), "supervised")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::options().append(true).open(daemon.dir().join("log")).unwrap())
        .spawn()
        .unwrap();
    daemon.logged(&[&format!("rmmt: pid={} becomes the keeper", next.id())]);
    daemon.logged(&[&format!("keeper pid={} follows daemon pid={serving}", next.id())]);
    until("the stand-in to go", || {
        (!std::path::Path::new(&format!("/proc/{stand_in}")).exists()).then_some(())
    });
    assert_eq!(daemon.serving(), serving);
    // It is a keeper like the first one.
    kill(serving, Signal::KILL);
    until("the next daemon", || (daemon.serving() != serving).then_some(()));
    assert_eq!(member.ask("drop"), "dropped");
    daemon.assert_balanced();
    kill(next.id(), Signal::TERM);
    assert_eq!(next.wait().unwrap().code(), Some(0));
    daemon.logged(&["rmmt: ended"]);
}

#[test]
fn a_daemon_that_a_stand_in_starts_knows_who_supervises() {
    // The shell supervises; the first keeper is its child, the stand-in is a child of the daemon that dies.
    let mut daemon = Daemon::at(tempfile::tempdir().unwrap(), "supervised", |command| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", r#""$0" "$@" & exec sleep 600"#]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        shell
    });
    let (client, mut inbox) = daemon.member(ConnectOptions::new("member").inbox("member.in"));
    let serving = daemon.serving();
    let keeper = daemon.pid(); // the child of what this test started
    kill(keeper, Signal::KILL);
    daemon.logged(&[&format!("follows daemon pid={serving}")]);
    kill(serving, Signal::KILL);
    until("the next daemon", || (daemon.serving() != serving).then_some(()));
    // It serves on: one that took the dead daemon for its supervisor would have closed all inboxes.
    assert_eq!(daemon.observer().pool().unwrap().adoptions, 1);
    client.sender("member.in").unwrap().send(client.alloc(64).unwrap().freeze()).unwrap();
    assert!(inbox.recv(Some(stage::WATCHDOG)).unwrap().is_some());
    assert!(!daemon.log().contains("the supervisor has ended"), "{}", daemon.log());
    daemon.kill_supervisor();
    daemon.logged(&["rmmt: the supervisor has ended"]);
    daemon.logged(&["rmmt: ended"]);
    until("the socket to go", || (!daemon.socket().exists()).then_some(()));
}

#[test]
fn the_end_of_the_supervisor_is_the_end_of_a_supervised_daemon() {
    // A supervisor that does nothing but start it; `wait` keeps the shell from becoming the program itself.
    let mut daemon = Daemon::at(tempfile::tempdir().unwrap(), "supervised", |command| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", r#""$0" "$@" & wait"#]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        shell
    });
    daemon.kill_supervisor();
    daemon.logged(&["rmmt: the supervisor has ended"]);
    daemon.logged(&["rmmt: ended"]);
    until("the socket to go", || (!daemon.socket().exists()).then_some(()));
}
