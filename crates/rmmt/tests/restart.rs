//! The daemon itself is killed, and stopped.

mod stage;

use baton_client::{Client, ConnectError, ConnectOptions, OpenError, RecvError, SendFailure};
use rustix::process::Signal;
use stage::{Daemon, kill, until};

#[test]
fn a_killed_daemon_is_replaced_and_every_count_is_intact() {
    let daemon = Daemon::start();
    let (client, mut inbox) = daemon.member(ConnectOptions::new("keeps").inbox("keeps.in"));
    let mut other = daemon.puppet("other", "other.in");
    other.ask("hold 5 100000");
    let mine = client.alloc(64).unwrap().freeze();
    client.sender("other.in").unwrap().send(client.alloc(77).unwrap().freeze()).unwrap();
    for life in 1..=3 {
        daemon.kill_and_wait();
        let info = daemon.observer().pool().unwrap();
        assert_eq!(info.adoptions, life);
        let members = client.members().unwrap();
        let seen: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.inbox.as_deref(), m.queued)).collect();
        assert_eq!(seen, [("keeps", Some("keeps.in"), 0), ("other", Some("other.in"), 1)]);
        assert_eq!(members[1].blocks_held, 5);
        daemon.assert_balanced();
        // Ways opened before and after work alike.
        assert_eq!(other.ask("send keeps.in"), "sent 0");
        assert!(inbox.recv(None).unwrap().unwrap().block.len() == 100_000);
        other.ask("hold 1 100000");
    }
    assert!(other.ask("recv").contains("len 77"));
    assert_eq!(mine.len(), 64);
}

#[test]
fn who_died_while_there_was_no_daemon_is_reaped_by_the_next() {
    let daemon = Daemon::start();
    let mut holder = daemon.puppet("holder", "holder.in");
    let mut stays = daemon.puppet("stays", "stays.in");
    holder.ask("hold 7 100000");
    // The keeper is stopped, so that nobody starts the next daemon meanwhile.
    let before = daemon.pid();
    kill(daemon.keeper_pid(), Signal::STOP);
    kill(before, Signal::KILL);
    let pid = holder.pid();
    holder.kill();
    stays.ask("hold 2 1000");
    // Nobody to ask for a way, but blocks come and go.
    assert_eq!(stays.ask("drop"), "dropped");
    assert_eq!(stays.ask("alloc 1000"), "allocated");
    kill(daemon.keeper_pid(), Signal::CONT);
    let line = daemon.logged(&["rmmt: reaped", &format!("pid={pid} name=holder")]);
    assert!(line.ends_with("(7)"), "{line}");
    daemon.assert_balanced();
    assert_eq!(stays.ask("audit"), "true");
}

#[test]
fn members_under_load_do_not_notice_that_the_daemon_is_killed() {
    let daemon = Daemon::start();
    let mut pair = daemon.pair_at_work(1500);
    for _ in 0..5 {
        daemon.kill_and_wait();
    }
    daemon.assert_worked(&mut pair);
}

#[test]
fn sigterm_leaves_nothing_and_tells_the_members() {
    let mut daemon = Daemon::start();
    let before = shared_memory();
    let (client, mut inbox) = daemon.member(ConnectOptions::new("member").inbox("member.in"));
    let sender = client.sender("member.in").unwrap();
    let block = client.alloc(100).unwrap().freeze();
    let waiting = std::thread::spawn(move || inbox.recv(Some(stage::WATCHDOG)));
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(matches!(waiting.join().unwrap(), Err(RecvError::Closed)), "a sleeping reader learns of it");
    assert_eq!(block.len(), 100, "its own blocks stay readable");
    assert_eq!(sender.send(block).unwrap_err().reason, SendFailure::Gone);
    assert!(client.members().is_err());
    let left: Vec<_> = std::fs::read_dir(daemon.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["log"], "no socket, no lock");
    assert_eq!(shared_memory(), before);
}

#[test]
fn a_stopped_daemon_is_a_sentence_and_not_a_hang() {
    let daemon = Daemon::start();
    let (client, mut inbox) = daemon.member(ConnectOptions::new("asker").inbox("asker.in"));
    let pid = daemon.pid();
    kill(pid, Signal::STOP);
    until("the daemon to stand still", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')).then_some(())
    });
    let error = client.sender("asker.in").unwrap_err();
    assert!(matches!(error, OpenError::Disconnected { .. }), "{error}");
    assert!(error.to_string().contains("no answer within"), "{error}");
    let once = ConnectOptions::new("late").timeout(std::time::Duration::ZERO);
    let error = Client::connect(&daemon.uri(), once).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    kill(pid, Signal::CONT);
    // It comes back by itself, and the one that gave up waiting is no member.
    let sender = until("the daemon to answer", || client.sender("asker.in").ok());
    sender.send(client.alloc(5).unwrap().freeze()).unwrap();
    assert_eq!(inbox.recv(None).unwrap().unwrap().block.len(), 5);
    // Usually nobody is there to take its answer, and it is undone. But a process that another test is just starting has,
    // between fork and exec, a copy of its connection: then the answer went out, and the connection's end is a hang-up.
    let answered =
        |log: &str| log.lines().any(|line| line.contains("name=late") && line.contains("rmmt: hung up"));
    let undone =
        |log: &str| log.lines().any(|line| line.contains("name=late") && line.contains("rmmt: undone"));
    let hung_up = until("the end of who was late", || {
        let log = daemon.log();
        (undone(&log) || answered(&log)).then(|| answered(&log))
    });
    let members = client.members().unwrap();
    assert_eq!(members.len(), if hung_up { 2 } else { 1 }, "{members:?}");
    assert_eq!(members.iter().filter(|member| member.connected).count(), 1, "{members:?}");
    daemon.assert_balanced();
}

#[test]
fn one_daemon_at_a_time_and_a_stale_socket_is_replaced() {
    let daemon = Daemon::start();
    let second = stage_second(&daemon.uri());
    assert!(second.contains("another memory daemon runs at"), "{second}");
    daemon.observer().pool().unwrap();
}

/// Tries to start another daemon at the same place, and returns what it says.
fn stage_second(uri: &str) -> String {
    let output = stage::myself("rmmt", uri, "").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn shared_memory() -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir("/dev/shm").unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn several_addresses_survive_the_daemon() {
    let daemon = Daemon::with("ip");
    let ready = daemon.logged(&["MiB ready at", " and ip://127.0.0.1:"]);
    let port = || {
        let ready = daemon.logged(&["ready at"]);
        ready.rsplit_once(':').unwrap().1.trim().parse::<u16>().unwrap()
    };
    let port = port();
    // TCP is for classic clients only: whoever speaks the members' protocol there is not answered.
    let hello = baton_wire::attach::Request::Pool.encode(1).unwrap();
    let ask = || {
        let mut tcp = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        tcp.set_read_timeout(Some(stage::WATCHDOG)).unwrap();
        std::io::Write::write_all(&mut tcp, &hello).unwrap();
        let mut bytes = Vec::new();
        let _ = std::io::Read::read_to_end(&mut tcp, &mut bytes);
        bytes
    };
    assert!(ask().is_empty());
    daemon.kill_and_wait();
    assert!(ask().is_empty(), "the next daemon listens at the same port: {ready}");
    until("both lives to have said so", || (daemon.log().matches("ready at").count() == 2).then_some(()));
    assert!(daemon.log().lines().filter(|l| l.contains("ready at")).all(|l| l.ends_with(&port.to_string())));
}
