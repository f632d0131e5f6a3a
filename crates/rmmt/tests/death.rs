//! Members killed with SIGKILL: what they held is free at once, with a line that says so.

mod stage;

use baton_client::{ConnectOptions, SendFailure};
use rustix::process::Signal;
use stage::{Daemon, kill, until};

#[test]
fn the_blocks_of_a_killed_holder_are_free_again() {
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("survivor"));
    let mut holder = daemon.puppet("holder", "holder.in");
    let ids = holder.ask("hold 8 1000000");
    assert_eq!(client.pool().unwrap().blocks_in_use, 8);
    let pid = holder.pid();
    holder.kill();
    let line = daemon.logged(&["rmmt: reaped", &format!("pid={pid} name=holder endpoint=2")]);
    for id in ids.split(' ') {
        assert!(line.contains(id), "{id} in {line}");
    }
    assert!(line.ends_with("(8)"), "{line}");
    assert_eq!(client.pool().unwrap().blocks_in_use, 0);
    let reused: Vec<_> = (0..8).map(|_| client.alloc(1_000_000).unwrap()).collect();
    assert_eq!(reused.len(), 8);
    daemon.assert_balanced();
}

#[test]
fn a_killed_receiver_with_a_full_inbox_loses_nothing_and_its_successor_is_found() {
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("sender"));
    let mut receiver = daemon.puppet("receiver", "r.in");
    let sender = client.sender("r.in").unwrap();
    for _ in 0..4 {
        sender.send(client.alloc(50_000).unwrap().freeze()).unwrap();
    }
    assert_eq!(client.members().unwrap()[1].queued, 4);
    let pid = receiver.pid();
    receiver.kill();
    let line = daemon.logged(&["rmmt: reaped", &format!("pid={pid} ")]);
    assert!(line.ends_with("(4)"), "{line}");
    let failed = sender.send(client.alloc(50_000).unwrap().freeze()).unwrap_err();
    assert_eq!(failed.reason, SendFailure::Gone);
    drop(failed);
    assert!(client.sender("r.in").is_err());
    // The successor gets the same endpoint number, which must not make the old way work again.
    let mut successor = daemon.puppet("receiver", "r.in");
    let failed = sender.send(client.alloc(50_000).unwrap().freeze()).unwrap_err();
    assert_eq!(failed.reason, SendFailure::Gone);
    client.sender("r.in").unwrap().send(client.alloc(9).unwrap().freeze()).unwrap();
    assert!(successor.ask("recv").contains("len 9"));
    drop(failed);
    successor.ask("drop");
    daemon.assert_balanced();
}

#[test]
fn a_sleeping_reader_is_not_left_asleep_by_a_killed_sender() {
    let daemon = Daemon::start();
    let mut reader = daemon.puppet("reader", "reader.in");
    for _ in 0..10 {
        let mut sender = daemon.puppet("sender", "");
        sender.ask("hold 1 1000");
        reader.order("recv");
        assert_eq!(sender.ask("send reader.in"), "sent 0");
        sender.kill();
        assert!(reader.answer().contains("len 1000"));
    }
    reader.ask("drop");
    until("the last sender to be reaped", || (daemon.guests().len() == 1).then_some(()));
    daemon.assert_balanced();
}

#[test]
fn a_stopped_member_is_alive_and_keeps_what_it_holds() {
    let daemon = Daemon::start();
    let mut holder = daemon.puppet("holder", "holder.in");
    holder.ask("hold 3 300000"); // too large a part of this pool for a spare one
    kill(holder.pid(), Signal::STOP);
    let mut observer = daemon.observer();
    assert_eq!(observer.members().unwrap()[0].blocks_held, 3);
    assert_eq!(observer.pool().unwrap().blocks_in_use, 3);
    kill(holder.pid(), Signal::CONT);
    assert_eq!(holder.ask("drop"), "dropped");
    assert_eq!(observer.pool().unwrap().blocks_in_use, 0);
}

#[test]
fn several_endpoints_of_one_process_die_with_it() {
    let daemon = Daemon::start();
    let here: Vec<_> = (0..5).map(|i| daemon.member(ConnectOptions::new(format!("m{i}")))).collect();
    let members = daemon.guests();
    assert!(members.len() == 5 && members.iter().all(|m| m.pid == std::process::id()));
    drop(here);
    until("all to leave", || daemon.guests().is_empty().then_some(()));
}
