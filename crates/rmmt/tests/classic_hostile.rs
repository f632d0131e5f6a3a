//! Any bytes from classic clients, in any split: an answer or a closed connection, and nobody else notices.

mod stage;

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use baton_client::{Client, ConnectOptions, Inbox};
use baton_wire::classic::{COMMAND_LEN_MAX, FromServer, ServerDecoder};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stage::classic::Classic;
use stage::{Daemon, WATCHDOG, until};

const BYSTANDER: i32 = 4_194_201;
const HOSTILE: i32 = 4_194_202;

/// Numbers at which mistakes are made.
fn edge32() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..10u32,
        2 => Just(u32::MAX),
        1 => Just(1 << 31),
        1 => Just(i32::MAX.unsigned_abs()),
        1 => Just(1 << 29),
        1 => Just(BYSTANDER.cast_unsigned()),
        1 => Just(HOSTILE.cast_unsigned()),
        1 => any::<u32>(),
    ]
}

fn edge64() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => (0..64i64).prop_map(|n| n * 64),
        2 => (0..16i64).prop_map(|n| n << 20),
        1 => Just(-1),
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
        1 => any::<i64>(),
    ]
}

fn data() -> impl Strategy<Value = (i32, Vec<u8>)> {
    let le32 = |numbers: Vec<u32>| numbers.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    prop_oneof![
        // Right in form, any numbers.
        3 => (prop_oneof![1..6000u32, edge32()], prop_oneof![3 => Just(0u32), 1 => Just(4096), 1 => edge32()])
            .prop_map(move |(size, align)| (1, le32(vec![size, align]))),
        2 => edge64().prop_map(|node| (2, node.to_le_bytes().to_vec())),
        3 => (edge32(), prop::collection::vec(edge64(), 0..5), edge32(), any::<bool>()).prop_map(
            |(wild, nodes, to, honest)| {
                let count = if honest { nodes.len() as u32 } else { wild };
                let nodes = nodes.into_iter().flat_map(i64::to_le_bytes).collect::<Vec<_>>();
                (4, [&count.to_le_bytes()[..], &nodes, &to.to_le_bytes()].concat())
            }
        ),
        2 => (edge64(), edge32(), edge32())
            .prop_map(|(bid, n, from)| (5, [&bid.to_le_bytes()[..], &n.to_le_bytes(), &from.to_le_bytes()].concat())),
        // Anything.
        1 => (any::<i32>(), prop::collection::vec(any::<u8>(), 0..40)),
        1 => (0..7i32, prop::collection::vec(any::<u8>(), 0..40)),
    ]
}

/// A message, or something that looks like one for a while.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        100 => Just(None),
        1 => Just(Some(i32::MAX)),
        1 => (i32::MIN..0).prop_map(Some),
        1 => (0..40i32).prop_map(Some),
        1 => (0..i32::MAX).prop_map(Some),
        1 => Just(Some(COMMAND_LEN_MAX as i32)),
    ];
    (length, any::<u64>(), data()).prop_map(|(length, ctx, (command, data))| {
        let length = length.unwrap_or(data.len() as i32 + 12);
        [&length.to_le_bytes()[..], &ctx.to_le_bytes(), &command.to_le_bytes(), &data].concat()
    })
}

/// Not the bystander's: who says over TCP that it is that pid too, shares what that pid holds, as the protocol has it.
fn hello() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![
        12 => Just(HOSTILE.to_le_bytes()),
        1 => Just(std::process::id().to_le_bytes()),
        1 => Just((-1i32).to_le_bytes()),
        1 => any::<[u8; 4]>().prop_map(|[a, b, c, _]| [a, b, c, 0]),
        1 => any::<[u8; 4]>(),
    ]
}

/// Sends the bytes in pieces, then no more; reads everything that comes, until the daemon hangs up. The statuses seen.
fn throw(daemon: &Daemon, bytes: &[u8], pieces: &[prop::sample::Index]) -> Vec<i32> {
    let mut stream = TcpStream::connect(daemon.ip()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let mut cuts: Vec<_> = pieces.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        // Closed already, for what came before: then the rest is not of interest.
        if stream.write_all(&bytes[pair[0]..pair[1]]).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answers) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the daemon neither answers nor hangs up");
    }
    let (mut decoder, mut statuses) = (ServerDecoder::default(), Vec::new());
    decoder.push(&answers);
    // A reset may cut the last one; what there is, is well-formed.
    while let Some(message) = decoder.next().unwrap() {
        if let FromServer::Answer(answer) = message {
            let ok = answer.status == 0 || answer.sentence().is_some_and(|sentence| !sentence.is_empty());
            assert!(ok && [0, -1, 1001].contains(&answer.status), "{answer:?}");
            statuses.push(answer.status);
        }
    }
    statuses
}

struct Bystanders {
    member: Client,
    inbox: Inbox,
    classic: Classic,
    node: i64,
}

impl Bystanders {
    fn come(daemon: &Daemon) -> Self {
        let mut classic = Classic::ip(daemon, BYSTANDER);
        let node = classic.alloc(64).unwrap();
        classic.write(node, b"not yours");
        let (member, inbox) = daemon.member(ConnectOptions::new("bystander").inbox("bystander.in"));
        Self { member, inbox, classic, node }
    }

    /// Everything works for them, and what they hold is as they left it.
    fn notice_nothing(&mut self) {
        assert_eq!(self.classic.bytes(self.node, 9), b"not yours");
        let node = self.classic.alloc(100).unwrap();
        self.classic.write(node, b"through");
        self.classic.pre_send(&[node], std::process::id().cast_signed()).unwrap();
        self.classic.free(node).unwrap();
        // Hostile clients may send to this member as anybody may; this one is not theirs.
        let ours = until("the bystander's message", || {
            let delivery = self.inbox.recv(Some(Duration::from_secs(1))).unwrap()?;
            (delivery.block[..7] == *b"through").then_some(delivery)
        });
        let transfer = self.member.send_to_pid(BYSTANDER.cast_unsigned(), vec![ours.block]).unwrap();
        self.classic.recv(transfer.bid, 1, std::process::id().cast_signed()).unwrap();
        self.classic.free(transfer.nodes[0]).unwrap();
    }
}

#[test]
fn any_bytes_in_any_split_are_answered_or_the_connection_is_closed() {
    // A daemon for each round: what hostile clients send to the bystander, which does not take it, stays in the pool.
    let rounds = if std::env::var_os("BATON_FULL").is_some() { 34 } else { 1 };
    (0..rounds).for_each(|_| throw_much());
}

fn throw_much() {
    let daemon = Daemon::classic();
    let bystanders = RefCell::new(Bystanders::come(&daemon));
    let (thrown, statuses) = (Cell::new(0), RefCell::new(Vec::new()));
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let messages = prop::collection::vec(message(), 0..20);
    let pieces = prop::collection::vec(any::<prop::sample::Index>(), 0..6);
    let noise = prop::collection::vec(any::<u8>(), 0..30);
    runner
        .run(&(hello(), messages, noise, pieces), |(hello, messages, noise, pieces)| {
            let bytes = [&hello[..], &messages.concat(), &noise].concat();
            statuses.borrow_mut().extend(throw(&daemon, &bytes, &pieces));
            thrown.set(thrown.get() + 1);
            if thrown.get() % 10 == 0 {
                bystanders.borrow_mut().notice_nothing();
            }
            Ok(())
        })
        .unwrap();
    bystanders.borrow_mut().notice_nothing();
    daemon.assert_balanced();
    assert_eq!(daemon.log().matches("panicked").count(), 0);
    // The daemon did answer: some of it works, most of it is refused.
    let statuses = statuses.into_inner();
    for status in [0, -1, 1001] {
        assert!(statuses.iter().filter(|s| **s == status).count() > 5, "{status}: {statuses:?}");
    }
    drop(bystanders);
    until("everything to be given back", || {
        (daemon.observer().pool().unwrap().blocks_in_use == 0).then_some(())
    });
    daemon.assert_balanced();
}

#[test]
fn a_flood_of_connections_and_half_messages_stops_nobody() {
    let daemon = Daemon::classic();
    let mut bystanders = Bystanders::come(&daemon);
    let message = [&36i32.to_le_bytes()[..], &[0; 36]].concat();
    let flood: Vec<_> = (0..200)
        .map(|n: i32| {
            let mut stream = TcpStream::connect(daemon.ip()).unwrap();
            // Some do not even say who they are; some are refused, as the pid's connections are counted.
            let hello = (HOSTILE - n / 40).to_le_bytes();
            let bytes = [&hello[..], &message].concat();
            let _ = stream.write_all(&bytes[..n.unsigned_abs() as usize % bytes.len()]);
            stream
        })
        .collect();
    bystanders.notice_nothing();
    drop(flood);
    bystanders.notice_nothing();
    daemon.assert_balanced();
}
