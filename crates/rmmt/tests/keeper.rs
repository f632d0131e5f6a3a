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
    let mut pair = [daemon.puppet("a", "a.in"), daemon.puppet("b", "b.in")];
    pair[0].order("work b.in 1500");
    pair[1].order("work a.in 1500");
    for _ in 0..4 {
        let keeper = daemon.kill_keeper_and_wait();
        daemon.logged(&[&format!("keeper pid={keeper} follows")]);
        let before = daemon.serving();
        // Everything was deposited with the new keeper before it followed, so the daemon may die at once.
        kill(before, Signal::KILL);
        until("the next daemon", || (daemon.serving() != before).then_some(()));
    }
    for puppet in &mut pair {
        assert_eq!(puppet.answer(), "[] received some: true");
    }
    for puppet in &mut pair {
        puppet.kill();
    }
    until("both to be reaped", || daemon.observer().members().unwrap().is_empty().then_some(()));
    daemon.assert_balanced();
    assert_eq!(daemon.observer().pool().unwrap().blocks_in_use, 0);
}

#[test]
fn told_to_begin_anew_keeper_and_daemon_are_replaced_by_the_programs_file() {
    let daemon = Daemon::start();
    let mut pair = [daemon.puppet("a", "a.in"), daemon.puppet("b", "b.in")];
    pair[0].order("work b.in 1500");
    pair[1].order("work a.in 1500");
    for life in 1..=2 {
        let (keeper, before) = (daemon.keeper_pid(), daemon.serving());
        kill(keeper, Signal::HUP);
        until("the next daemon", || (daemon.serving() != before).then_some(()));
        assert_eq!(daemon.observer().pool().unwrap().adoptions, life);
        assert_eq!(daemon.pid(), daemon.serving(), "it is the child of the same keeper process");
    }
    for puppet in &mut pair {
        assert_eq!(puppet.answer(), "[] received some: true");
    }
    daemon.assert_balanced();
}
