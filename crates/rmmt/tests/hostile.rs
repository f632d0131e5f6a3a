//! Peers that send garbage, half messages, or nothing at all: they are refused, and nobody else notices.

mod stage;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use baton_client::ConnectOptions;
use baton_wire::attach::{Access, Answer, Attach, HEADER_LEN, Header, Kind, MAGIC, Request, Resume};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use stage::{Daemon, WATCHDOG, until};

fn stranger(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream
}

/// Everything until the daemon hangs up.
fn all_of(mut stream: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is a hang-up too: the daemon closed while bytes of ours were unread.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn answer(bytes: &[u8]) -> Option<Answer> {
    let (head, body) = bytes.split_first_chunk::<HEADER_LEN>()?;
    Header::decode(head, Kind::Answer).ok()?;
    Answer::decode(body).ok()
}

fn code(bytes: &[u8]) -> String {
    match answer(bytes) {
        Some(Answer::Error(failure)) => failure.code.to_string(),
        other => format!("{other:?}"),
    }
}

fn attach() -> Request {
    Request::Attach(Attach {
        name: "x".parse().unwrap(),
        inbox: None,
        access: Access::ReadWrite,
        start_time: 1,
        token: 1,
    })
}

#[test]
fn garbage_is_refused_with_a_code_and_a_hang_up() {
    let daemon = Daemon::start();
    let header = |len: u32| [&MAGIC[..], &[1, 0, 1, 0, 0, 0, 0, 0], &len.to_le_bytes()].concat();
    let mut old = attach().encode(1).unwrap();
    old[4] = 99;
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "bad_request"),
        (header(u32::MAX), "bad_request"),
        ([header(2), b"{}".to_vec()].concat(), "bad_request"),
        ([header(4), b"\xff\xff\xff\xff".to_vec()].concat(), "bad_request"),
        (old, "version"),
    ] {
        let mut stream = stranger(&daemon);
        stream.write_all(&bytes).unwrap();
        assert_eq!(code(&all_of(stream)), expected, "{bytes:02x?}");
    }
    daemon.assert_balanced();
}

#[test]
fn nobody_becomes_a_member_under_a_false_name() {
    let daemon = Daemon::start();
    let _member = daemon.member(ConnectOptions::new("victim").inbox("victim.in"));
    let refused = |request: Request| {
        let mut stream = stranger(&daemon);
        stream.write_all(&request.encode(1).unwrap()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        code(&all_of(stream))
    };
    // A start time that is not this process'; an endpoint that is not; orders without being attached.
    assert_eq!(refused(attach()), "not_you");
    for (endpoint, incarnation) in [(1, 0), (0, 0), (2047, 0), (u16::MAX, u32::MAX)] {
        assert_eq!(refused(Request::Resume(Resume { endpoint, incarnation, token: 1 })), "unknown_endpoint");
    }
    assert_eq!(refused(Request::OpenInbox { inbox: "victim.in".parse().unwrap() }), "not_attached");
    assert_eq!(daemon.guests().len(), 1);
}

#[test]
fn a_flood_of_silent_and_half_spoken_connections_stops_nobody() {
    let daemon = Daemon::start();
    let hello = attach().encode(1).unwrap();
    let mut flood = Vec::new();
    for i in 0..400 {
        let mut stream = stranger(&daemon);
        // 0 … all but one byte of a good message; those pushed out already do not listen any more
        let _ = stream.write_all(&hello[..i % hello.len()]);
        flood.push(stream);
        if i % 100 == 99 {
            let (client, mut inbox) = daemon.member(ConnectOptions::new("honest").inbox("honest.in"));
            client.sender("honest.in").unwrap().send(client.alloc(8).unwrap().freeze()).unwrap();
            assert_eq!(inbox.recv(None).unwrap().unwrap().block.len(), 8);
        }
    }
    // Bounded: the oldest were pushed out.
    assert!(all_of(flood.swap_remove(0)).is_empty());
    drop(flood);
    daemon.assert_balanced();
    daemon.observer().pool().unwrap();
}

#[test]
fn a_peer_that_does_not_read_its_answers_stops_only_itself() {
    let daemon = Daemon::start();
    let mut deaf = stranger(&daemon);
    deaf.set_nonblocking(true).unwrap();
    let question = Request::Members.encode(1).unwrap();
    let mut blocked = false;
    // Until both directions are full; then the daemon hangs up.
    let end = loop {
        match deaf.write(&question) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if !blocked {
                    daemon.observer().pool().unwrap();
                }
                blocked = true;
                std::thread::yield_now();
            }
            Err(error) => break error,
        }
    };
    assert!(blocked, "{end}");
    daemon.logged(&["it does not read its answers"]);
    let _honest = daemon.member(ConnectOptions::new("honest"));
}

/// Whatever descriptor of an admission is the one too many: the asker hears it, and no endpoint is left behind.
#[test]
fn a_daemon_out_of_descriptors_refuses_and_forgets() {
    let daemon = Daemon::start();
    let pid = daemon.pid();
    let process = Pid::from_raw(i32::try_from(pid).unwrap());
    // The first admission makes what is made once.
    drop(daemon.member(ConnectOptions::new("first")));
    let mut members = daemon.observer();
    until("the first to be gone", || members.members().unwrap().is_empty().then_some(()));
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let before = open();
    let limit = getrlimit(Resource::Nofile);
    let mut refused = 0;
    for spare in 1..=12 {
        until("old connections to close", || (open() <= before).then_some(()));
        let low = Rlimit { current: Some(before + spare), maximum: limit.maximum };
        let high = prlimit(process, Resource::Nofile, low).unwrap();
        let once = ConnectOptions::new("crowd").timeout(std::time::Duration::ZERO);
        let answered = baton_client::Client::connect(&daemon.uri(), once);
        prlimit(process, Resource::Nofile, high).unwrap();
        refused += u32::from(answered.is_err());
        drop(answered);
        until("nobody to be left", || members.members().unwrap().is_empty().then_some(()));
    }
    assert!((1..12).contains(&refused), "some refused, some admitted: {refused}");
    daemon.assert_balanced();
    assert_eq!(daemon.pid(), pid, "no restart");
}

/// Random bytes, random bytes behind a good header, and damaged good messages, against the real daemon.
#[test]
fn random_bytes_never_end_the_daemon() {
    let daemon = Daemon::start();
    let pid = daemon.pid();
    let good = [attach(), Request::Members, Request::Audit, Request::Bye].map(|r| r.encode(7).unwrap());
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let input = (
        proptest::collection::vec(any::<u8>(), 0..200),
        0..6usize,
        proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
    );
    runner
        .run(&input, |(random, which, damage)| {
            let mut bytes = good.get(which).cloned().unwrap_or_else(|| {
                let head = Header { version: 1, kind: Kind::Request, serial: 0, body_len: random.len() };
                if which == 4 { [&head.encode()[..], &random].concat() } else { random.clone() }
            });
            for (at, value) in damage {
                let at = usize::from(at) % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            let mut stream = stranger(&daemon);
            let _ = stream.write_all(&bytes); // it may hang up in the middle
            let _ = stream.shutdown(std::net::Shutdown::Write);
            all_of(stream);
            Ok(())
        })
        .unwrap();
    daemon.assert_balanced();
    assert_eq!(daemon.pid(), pid, "no restart");
    assert!(daemon.guests().is_empty());
}
