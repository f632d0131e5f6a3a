//! Transfers from a member to a classic client whose number the member never learned: they are taken back.

mod stage;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use baton_client::{ConnectOptions, SendToPidFailure};
use baton_pool::{BlockId, EndpointId, EndpointRef, Pool, Proxy};
use baton_wire::attach::{Access, Answer, Attach, HEADER_LEN, Header, Kind, Request};
use rustix::process::Signal;
use stage::classic::Classic;
use stage::{Daemon, WATCHDOG, kill, until};

/// A pid that nobody on this machine has: above the usual limit of containers, below 2²².
const RECEIVER: i32 = 4_194_301;

fn me() -> i32 {
    std::process::id().cast_signed()
}

/// Field 22 of proc_pid_stat(5).
fn start_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}

/// A member that speaks the protocol by itself, so that it can leave out a part of it.
struct Raw {
    connection: UnixStream,
    proxy: Proxy,
    block: BlockId,
}

impl Raw {
    /// It holds one block.
    fn come(daemon: &Daemon) -> Self {
        let mut connection = UnixStream::connect(daemon.socket()).unwrap();
        connection.set_read_timeout(Some(WATCHDOG)).unwrap();
        let ask = Attach {
            name: "raw".parse().unwrap(),
            inbox: None,
            access: Access::ReadWrite,
            start_time: start_time(),
            token: 7,
        };
        connection.write_all(&Request::Attach(ask).encode(1).unwrap()).unwrap();
        let mut first = [0; 1];
        let fds = baton_fdpass::recv(&connection, &mut first, 3).unwrap().fds;
        let Answer::Attached(attached) = hear(&mut connection, &first) else { panic!("not admitted") };
        let pool = Pool::open(&fds[0], &fds[1]).unwrap();
        let id = EndpointId::new(attached.endpoint).unwrap();
        let mut proxy = pool.proxy(EndpointRef { id, incarnation: attached.incarnation }).unwrap();
        let block = proxy.alloc(5000).unwrap();
        Self { connection, proxy, block }
    }

    fn say(&mut self, request: &Request) {
        self.connection.write_all(&request.encode(2).unwrap()).unwrap();
    }

    fn ask(&mut self, request: &Request) -> Answer {
        self.say(request);
        hear(&mut self.connection, &[])
    }

    /// A transfer's number; nothing is confirmed.
    fn transfer(&mut self) -> i64 {
        let pid = RECEIVER.cast_unsigned();
        match self.ask(&Request::SendToPid { pid, blocks: vec![self.block.get()] }) {
            Answer::Transfer { bid, .. } => bid,
            other => panic!("{other:?}"),
        }
    }

    fn node(&self) -> i64 {
        self.proxy.offset(self.block).unwrap().cast_signed()
    }

    fn release(&self) {
        self.proxy.release(self.block).unwrap();
    }
}

fn hear(stream: &mut UnixStream, begun: &[u8]) -> Answer {
    let mut head = [0; HEADER_LEN];
    head[..begun.len()].copy_from_slice(begun);
    stream.read_exact(&mut head[begun.len()..]).unwrap();
    let mut body = vec![0; Header::decode(&head, Kind::Answer).unwrap().body_len];
    stream.read_exact(&mut body).unwrap();
    Answer::decode(&body).unwrap()
}

fn in_use(daemon: &Daemon) -> u64 {
    daemon.observer().pool().unwrap().blocks_in_use
}

#[track_caller]
fn until_free(daemon: &Daemon) {
    until("no block in use", || (in_use(daemon) == 0).then_some(()));
    daemon.assert_balanced();
}

#[test]
fn what_the_sender_does_not_confirm_nobody_receives_and_it_is_free() {
    type Instead = fn(&mut Raw, i64);
    const INSTEAD: [(&str, Instead); 4] = [
        ("it asks something else", |_, _| {}),
        ("it confirms another one", |raw, bid| raw.say(&Request::Confirm { bid: bid + 1 })),
        ("it sends once more", |raw, bid| {
            let again = raw.transfer();
            assert_ne!(again, bid);
        }),
        ("it says half of it", |raw, bid| {
            let bytes = Request::Confirm { bid }.encode(3).unwrap();
            raw.connection.write_all(&bytes[..bytes.len() - 1]).unwrap();
            raw.connection.shutdown(std::net::Shutdown::Write).unwrap();
        }),
    ];
    let daemon = Daemon::classic();
    let mut receiver = Classic::ip(&daemon, RECEIVER);
    for (what, instead) in INSTEAD {
        let mut raw = Raw::come(&daemon);
        let bid = raw.transfer();
        instead(&mut raw, bid);
        raw.release();
        if !what.contains("half") {
            assert!(matches!(raw.ask(&Request::Pool), Answer::Pool(_)), "{what}");
        }
        until_free(&daemon);
        let (_, sentence) = receiver.recv(bid, 1, me()).expect_err(what);
        assert!(sentence.contains("no transfer"), "{what}: {sentence}");
    }
}

#[test]
fn what_was_confirmed_outlives_its_sender() {
    let daemon = Daemon::classic();
    let mut receiver = Classic::ip(&daemon, RECEIVER);
    let mut raw = Raw::come(&daemon);
    let bid = raw.transfer();
    raw.say(&Request::Confirm { bid });
    let node = raw.node();
    raw.release();
    drop(raw);
    daemon.logged(&["connection of pid", "ended: end of stream"]);
    receiver.recv(bid, 1, me()).unwrap();
    receiver.free(node).unwrap();
    until_free(&daemon);
}

#[test]
fn each_end_may_come_before_the_confirmation() {
    let daemon = Daemon::classic();
    let mut receiver = Classic::ip(&daemon, RECEIVER);
    // The sender's: killed, its connection simply ends.
    let mut raw = Raw::come(&daemon);
    let bid = raw.transfer();
    raw.release();
    drop(raw);
    until_free(&daemon);
    assert!(receiver.recv(bid, 1, me()).is_err());
    // The receiver's.
    let mut raw = Raw::come(&daemon);
    let bid = raw.transfer();
    raw.release();
    drop(receiver);
    until_free(&daemon);
    let mut later = Classic::ip(&daemon, RECEIVER);
    raw.say(&Request::Confirm { bid });
    assert!(matches!(raw.ask(&Request::Pool), Answer::Pool(_)));
    assert!(later.recv(bid, 1, me()).is_err(), "a later client of that pid is another one");
    daemon.assert_balanced();
    // Somebody told the receiver although nothing is confirmed: what it has received, it has.
    let mut raw = Raw::come(&daemon);
    let bid = raw.transfer();
    let node = raw.node();
    raw.release();
    later.recv(bid, 1, me()).unwrap();
    assert!(matches!(raw.ask(&Request::Pool), Answer::Pool(_)));
    assert_eq!(in_use(&daemon), 1);
    later.free(node).unwrap();
    until_free(&daemon);
}

#[test]
fn a_member_that_gives_up_on_a_stopped_daemon_leaves_nothing_with_the_client() {
    let daemon = Daemon::classic();
    let mut receiver = Classic::ip(&daemon, RECEIVER);
    let (client, inbox) = daemon.member(ConnectOptions::new("patient"));
    let blocks = vec![client.alloc(5000).unwrap().freeze()];
    let serving = daemon.serving();
    kill(serving, Signal::STOP);
    let error = client.send_to_pid(RECEIVER.cast_unsigned(), blocks).unwrap_err();
    kill(serving, Signal::CONT);
    assert!(matches!(error.reason, SendToPidFailure::Disconnected(_)), "{error}");
    // The question was in the socket all the time: it is answered, to nobody.
    daemon.logged(&["is taken back", "has not confirmed it"]);
    let transfer = client.send_to_pid(RECEIVER.cast_unsigned(), error.blocks).unwrap();
    receiver.recv(transfer.bid, 1, me()).unwrap();
    receiver.free(transfer.nodes[0]).unwrap();
    drop((client, inbox)); // and what it keeps as spare blocks
    until_free(&daemon);
}
