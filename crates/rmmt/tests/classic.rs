//! Classic clients against a real daemon. What the original could not do has a test of that name.

mod stage;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::process::{Command as Process, Stdio};

use baton_client::{ConnectOptions, SendToPidFailure};
use baton_wire::classic::{Command, INVALID_COMMAND, NO_MEMORY, STATUS_INVALID_COMMAND};
use baton_wire::report::MemberKind;
use rustix::process::Signal;
use stage::classic::{Classic, No};
use stage::{Daemon, WATCHDOG, until};

/// Pids that nobody on this machine has: above the usual limit of containers, below 2²².
const A: i32 = 4_194_301;
const B: i32 = 4_194_302;
const C: i32 = 4_194_303;

fn me() -> i32 {
    std::process::id().cast_signed()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, No>, part: &str) {
    let (status, sentence) = result.expect_err("refused");
    assert!(status == -1 && sentence.contains(part), "{status} {sentence:?}, expected {part:?}");
}

fn in_use(daemon: &Daemon) -> u64 {
    daemon.observer().pool().unwrap().blocks_in_use
}

#[track_caller]
fn until_in_use(daemon: &Daemon, blocks: u64) {
    until(&format!("{blocks} blocks in use"), || (in_use(daemon) == blocks).then_some(()));
    daemon.assert_balanced();
}

// ---- the original's weaknesses

#[test]
fn a_transfer_to_a_receiver_that_dies_leaks_nothing() {
    let daemon = Daemon::classic();
    let (mut sender, receiver) = (Classic::ip(&daemon, A), Classic::ip(&daemon, B));
    let nodes: Vec<_> = (0..3).map(|_| sender.alloc(5000).unwrap()).collect();
    let bid = sender.pre_send(&nodes, B).unwrap();
    nodes.iter().for_each(|node| sender.free(*node).unwrap());
    assert_eq!(in_use(&daemon), 3, "they are on their way");
    drop(receiver);
    until_in_use(&daemon, 0);
    daemon.logged(&["ended", &format!("pid={B}"), "(3)"]);
    // A later client of that pid is another one.
    let mut later = Classic::ip(&daemon, B);
    refused(later.recv(bid, 3, A), "no transfer");
}

#[test]
fn free_of_a_block_not_held_is_refused() {
    let daemon = Daemon::classic();
    let (mut owner, mut other) = (Classic::ip(&daemon, A), Classic::ip(&daemon, B));
    let node = owner.alloc(64).unwrap();
    refused(other.free(node), "holds no block");
    for wild in [node + 1, node + 64, -1, i64::MIN, i64::MAX, 1 << 40] {
        refused(owner.free(wild), "holds no block");
    }
    // Somebody else's after it was lent, before it is received, after it was freed twice.
    let bid = owner.pre_send(&[node], B).unwrap();
    refused(other.free(node), "holds no block");
    other.recv(bid, 1, A).unwrap();
    owner.free(node).unwrap();
    refused(owner.free(node), "holds no block");
    assert_eq!(in_use(&daemon), 1, "the receiver's count is untouched");
    other.free(node).unwrap();
    assert_eq!(in_use(&daemon), 0);
    daemon.assert_balanced();
}

#[test]
fn a_recv_that_does_not_match_is_an_answer_and_the_record_stays() {
    let daemon = Daemon::classic();
    let mut sender = Classic::ip(&daemon, A);
    let (mut receiver, mut other) = (Classic::ip(&daemon, B), Classic::ip(&daemon, C));
    let node = sender.alloc(64).unwrap();
    let bid = sender.pre_send(&[node, node], B).unwrap();
    refused(receiver.recv(bid, 1, A), "has 2 blocks, not 1");
    refused(receiver.recv(bid, u32::MAX, A), "has 2 blocks");
    refused(receiver.recv(bid, 2, C), "comes from pid");
    refused(receiver.recv(bid, 2, -1), "comes from pid");
    refused(receiver.recv(bid + 1, 2, A), "no transfer");
    refused(receiver.recv(-bid, 2, A), "no transfer");
    refused(other.recv(bid, 2, A), "no transfer");
    refused(sender.recv(bid, 2, A), "no transfer");
    receiver.recv(bid, 2, A).unwrap();
    refused(receiver.recv(bid, 2, A), "no transfer");
    for _ in 0..2 {
        receiver.free(node).unwrap();
    }
    refused(receiver.free(node), "holds no block");
}

#[test]
fn a_pid_is_not_believed() {
    let daemon = Daemon::classic();
    // Over the Unix socket the kernel knows better; and what no pid is, is none.
    for claim in [me() + 1, 1, 0, -1, i32::MIN + 1, 4_194_305] {
        assert!(Classic::try_un(&daemon, claim).is_none(), "{claim}");
    }
    for claim in [0, 0xff_ffff, 4_194_305] {
        assert!(Classic::try_ip(&daemon, claim).is_none(), "{claim}");
    }
    // Over TCP nobody is somebody whom the kernel vouches for: neither a classic client nor a member.
    let classic = Classic::un(&daemon);
    assert!(Classic::try_ip(&daemon, me()).is_none());
    daemon.logged(&["refused", "vouches for"]);
    drop(classic);
    until("the seat to be free", || Classic::try_ip(&daemon, me()));
    let member = daemon.puppet("member", "");
    assert!(Classic::try_ip(&daemon, member.pid().cast_signed()).is_none());
    daemon.assert_balanced();
}

#[test]
fn who_came_first_under_a_foreign_pid_is_put_out_when_the_true_one_comes() {
    let daemon = Daemon::classic();
    let mut sender = Classic::ip(&daemon, A);
    let node = sender.alloc(64).unwrap();
    // As a classic client.
    let mut false_one = Classic::ip(&daemon, me());
    false_one.alloc(64).unwrap();
    let bid = sender.pre_send(&[node], me()).unwrap();
    let mut true_one = Classic::un(&daemon);
    assert_eq!(false_one.answer(), None, "its connection is closed");
    refused(true_one.recv(bid, 1, A), "no transfer"); // it was not meant for it
    let bid = sender.pre_send(&[node], me()).unwrap();
    true_one.recv(bid, 1, A).unwrap();
    assert_eq!(in_use(&daemon), 1);
    drop(true_one);
    // As a member.
    let mut false_one = until("the seat to be free", || Classic::try_ip(&daemon, me()));
    false_one.alloc(64).unwrap();
    let (_client, mut inbox) = daemon.member(ConnectOptions::new("true"));
    assert_eq!(false_one.answer(), None);
    sender.write(node, b"for the member");
    sender.pre_send(&[node], me()).unwrap();
    let delivery = inbox.recv(Some(WATCHDOG)).unwrap().unwrap();
    assert_eq!(delivery.block[..14], *b"for the member");
    daemon.assert_balanced();
}

#[test]
fn the_pool_is_for_its_user_only() {
    let daemon = Daemon::classic();
    let client = Classic::ip(&daemon, A);
    let file = std::fs::metadata(format!("/dev/shm{}", client.hello.name)).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid()), (0o600, rustix::process::geteuid().as_raw()));
    assert_eq!(u64::from(client.hello.kib) << 10, file.size());
}

#[test]
fn sizes_are_checked() {
    let daemon = Daemon::classic();
    let mut client = Classic::ip(&daemon, A);
    refused(client.alloc(0), "0 bytes");
    for size in [(1 << 20) + 1, i32::MAX.unsigned_abs(), u32::MAX] {
        refused(client.alloc(size), "largest block of this pool has 1048576");
    }
    for align in [3, 96, 4097, 8192, 1 << 31, u32::MAX] {
        refused(client.alloc_aligned(64, align), "alignment");
    }
    for (size, align) in [(1, 0), (1, 1), (1, 64), (1, 128), (1, 4096), (4097, 4096), (1 << 20, 4096)] {
        let node = client.alloc_aligned(size, align).unwrap();
        assert_eq!(node % i64::from(align.max(64)), 0, "{size} {align}");
        assert!(node + i64::from(size) <= i64::from(client.hello.kib) << 10);
    }
}

#[test]
fn a_pre_send_to_an_unknown_pid_is_refused() {
    let daemon = Daemon::classic();
    let mut client = Classic::ip(&daemon, A);
    let node = client.alloc(64).unwrap();
    for pid in [B, 0, -1, i32::MIN, i32::MAX, std::process::id().cast_signed()] {
        refused(client.pre_send(&[node], pid), "no client has pid");
    }
    client.free(node).unwrap();
    assert_eq!(in_use(&daemon), 0);
}

#[test]
fn a_pre_send_of_foreign_blocks_is_refused_and_nothing_is_half_done() {
    let daemon = Daemon::classic();
    let (mut sender, mut receiver) = (Classic::ip(&daemon, A), Classic::ip(&daemon, B));
    let (mine, theirs) = (sender.alloc(64).unwrap(), receiver.alloc(64).unwrap());
    for wrong in [theirs, -1, i64::MIN, i64::MAX, mine + 1, mine + 64] {
        refused(sender.pre_send(&[mine, mine, wrong], B), "holds no block");
    }
    refused(sender.pre_send(&[], B), "no block");
    sender.free(mine).unwrap();
    refused(sender.free(mine), "holds no block");
    assert_eq!(in_use(&daemon), 1);
    daemon.assert_balanced();
}

/// The original took a round trip for each operation; here any number of them travels together.
#[test]
fn commands_travel_together_and_answers_say_whose_they_are() {
    let daemon = Daemon::classic();
    let mut client = Classic::ip(&daemon, A);
    let asked: BTreeSet<_> = (0..500).map(|_| client.send(&Command::Alloc { size: 64, align: 0 })).collect();
    let answers: Vec<_> = asked.iter().map(|_| client.answer().unwrap()).collect();
    assert_eq!(answers.iter().map(|a| a.ctx).collect::<BTreeSet<_>>(), asked);
    let nodes: BTreeSet<_> = answers.iter().map(|a| a.as_number().unwrap()).collect();
    assert_eq!(nodes.len(), 500, "no two allocations get the same block");
    // Pending commands of a client that sends no more are answered, then all is given back.
    let freed: BTreeSet<_> = nodes.iter().map(|node| client.send(&Command::Free { node: *node })).collect();
    client.half_close();
    let answers: Vec<_> = std::iter::from_fn(|| client.answer()).collect();
    assert!(answers.iter().all(|a| a.status == 0));
    assert_eq!(answers.iter().map(|a| a.ctx).collect::<BTreeSet<_>>(), freed);
    until_in_use(&daemon, 0);
}

// ---- what the original did right

#[test]
fn recv_works_after_the_sender_has_gone() {
    let daemon = Daemon::classic();
    let (mut sender, mut receiver) = (Classic::ip(&daemon, A), Classic::ip(&daemon, B));
    let node = sender.alloc(100).unwrap();
    sender.write(node, b"last words");
    let bid = sender.pre_send(&[node], B).unwrap();
    drop(sender);
    daemon.logged(&["ended", &format!("pid={A}"), "(1)"]);
    assert_eq!(in_use(&daemon), 1);
    receiver.recv(bid, 1, A).unwrap();
    assert_eq!(receiver.bytes(node, 10), b"last words");
    receiver.free(node).unwrap();
    assert_eq!(in_use(&daemon), 0);
}

#[test]
fn connections_of_one_pid_share_what_they_hold() {
    let daemon = Daemon::classic();
    let (mut first, mut second) = (Classic::un(&daemon), Classic::un(&daemon));
    let (x, y) = (first.alloc(64).unwrap(), first.alloc(64).unwrap());
    second.free(x).unwrap();
    refused(first.free(x), "holds no block");
    drop(first);
    // Not the last one: nothing is taken.
    second.pre_send(&[y], me()).unwrap();
    second.free(y).unwrap();
    assert_eq!(in_use(&daemon), 1);
    drop(second);
    until_in_use(&daemon, 0);
}

#[test]
fn no_memory_is_an_answer_and_other_commands_are_invalid() {
    let daemon = Daemon::classic();
    let mut client = Classic::ip(&daemon, A);
    let mut nodes = Vec::new();
    let no = loop {
        match client.alloc(1 << 20) {
            Ok(node) => nodes.push(node),
            Err(no) => break no,
        }
    };
    assert_eq!(no, (-1, NO_MEMORY.to_owned()));
    assert!(!nodes.is_empty());
    client.free(nodes[0]).unwrap();
    client.alloc(1 << 20).unwrap();
    for command in [0, 3, 6, -1, i32::MIN] {
        let bytes = [&20i32.to_le_bytes()[..], &77u64.to_le_bytes(), &i32::to_le_bytes(command), &[0; 8]];
        client.send_bytes(&bytes.concat()).unwrap();
        let answer = client.answer().unwrap();
        let got = (answer.ctx, answer.status, answer.sentence());
        assert_eq!(got, (77, STATUS_INVALID_COMMAND, Some(INVALID_COMMAND.to_owned())));
    }
}

// ---- members and classic clients

#[test]
fn from_a_member_to_a_classic_client() {
    let daemon = Daemon::classic();
    let mut receiver = Classic::ip(&daemon, A);
    let (client, _inbox) = daemon.member(ConnectOptions::new("member"));
    let blocks: Vec<_> = (0..3u8)
        .map(|n| {
            let mut block = client.alloc(5000).unwrap();
            block.fill(n + 1);
            block.freeze()
        })
        .collect();
    let kept = blocks[0].clone();
    let transfer = client.send_to_pid(A.cast_unsigned(), blocks).unwrap();
    refused(receiver.recv(transfer.bid, 2, me()), "has 3 blocks");
    refused(receiver.recv(transfer.bid, 3, A), "comes from pid");
    receiver.recv(transfer.bid, 3, me()).unwrap();
    let nodes = transfer.nodes;
    assert_eq!(nodes.len(), 3);
    for (n, node) in (1..).zip(&nodes) {
        assert_eq!(receiver.bytes(*node, 5000), vec![n; 5000]);
    }
    assert_eq!(kept[0], 1, "the member's own hold is its own");
    drop(kept);
    nodes.iter().for_each(|node| receiver.free(*node).unwrap());
    nodes.iter().for_each(|node| refused(receiver.free(*node), "holds no block"));
    daemon.assert_balanced();
    // To nobody, and to a member: the blocks come back.
    for pid in [B, me()] {
        let block = client.alloc(64).unwrap().freeze();
        let error = client.send_to_pid(pid.cast_unsigned(), vec![block]).unwrap_err();
        assert!(matches!(error.reason, SendToPidFailure::NotFound), "{error}");
        assert_eq!(error.blocks.len(), 1);
    }
    let error = client.send_to_pid(A.cast_unsigned(), Vec::new()).unwrap_err();
    assert!(matches!(error.reason, SendToPidFailure::Count { count: 0 }), "{error}");
}

#[test]
fn from_a_classic_client_to_a_member() {
    let daemon = Daemon::classic();
    let mut sender = Classic::ip(&daemon, A);
    let (oldest, mut inbox) = daemon.member(ConnectOptions::new("oldest"));
    let (_younger, mut other) = daemon.member(ConnectOptions::new("younger"));
    let nodes: Vec<_> = (0..3u8)
        .map(|n| {
            let node = sender.alloc(5000).unwrap();
            sender.write(node, &vec![n + 1; 5000]);
            node
        })
        .collect();
    sender.pre_send(&nodes, me()).unwrap();
    nodes.iter().for_each(|node| sender.free(*node).unwrap());
    let got: Vec<_> = (0..3).map(|_| inbox.recv(Some(WATCHDOG)).unwrap().unwrap().block).collect();
    for (n, block) in (1u8..).zip(&got) {
        assert_eq!(block[..], vec![n; 5000][..]);
    }
    assert!(other.try_recv().unwrap().is_none());
    drop(got);
    daemon.assert_balanced();
    // Four fit this inbox: what does not fit whole is not sent at all.
    let nodes: Vec<_> = (0..5).map(|_| sender.alloc(64).unwrap()).collect();
    refused(sender.pre_send(&nodes, me()), "has no room for 5");
    assert!(inbox.try_recv().unwrap().is_none());
    sender.pre_send(&nodes[..4], me()).unwrap();
    refused(sender.pre_send(&nodes[4..], me()), "has no room for 1");
    assert_eq!(std::iter::from_fn(|| inbox.try_recv().unwrap()).count(), 4);
    sender.pre_send(&nodes[4..], me()).unwrap();
    drop((oldest, inbox));
    // The next oldest.
    until("the oldest to be gone", || {
        sender.pre_send(&nodes[..1], me()).unwrap();
        other.try_recv().unwrap()
    });
    daemon.assert_balanced();
}

#[test]
fn the_death_of_either_side_between_member_and_classic_client_leaks_nothing() {
    let daemon = Daemon::classic();
    // The member dies after it has sent: what it sent arrives.
    let mut receiver = Classic::ip(&daemon, A);
    let mut member = daemon.puppet("member", "");
    member.ask("hold 2 5000");
    let bid = member.ask(&format!("transfer {A}")).parse().unwrap();
    let member_pid = member.pid().cast_signed();
    member.kill();
    daemon.logged(&["reaped", &format!("pid={member_pid}")]);
    receiver.recv(bid, 2, member_pid).unwrap();
    assert_eq!(in_use(&daemon), 2);
    drop(receiver);
    until_in_use(&daemon, 0);
    // The classic client dies before it has received: the blocks are the member's alone again, or free.
    let receiver = Classic::ip(&daemon, B);
    let mut member = daemon.puppet("member", "");
    member.ask("hold 1 5000");
    let bid: i64 = member.ask(&format!("transfer {B}")).parse().unwrap();
    drop(receiver);
    daemon.logged(&["ended", &format!("pid={B}"), "(1)"]);
    let mut later = Classic::ip(&daemon, B);
    refused(later.recv(bid, 1, member.pid().cast_signed()), "no transfer");
    member.kill();
    until_in_use(&daemon, 0);
    // Towards a member that dies with messages unread; the sender's own references stay.
    let mut member = daemon.puppet("member", "in");
    let node = later.alloc(5000).unwrap();
    later.pre_send(&[node, node], member.pid().cast_signed()).unwrap();
    member.kill();
    daemon.logged(&["reaped", &format!("pid={}", member.pid())]);
    refused(later.pre_send(&[node], member.pid().cast_signed()), "no client has pid");
    until_in_use(&daemon, 1);
    // And from a classic client that dies with its message unread.
    let mut member = daemon.puppet("member", "in");
    later.pre_send(&[node], member.pid().cast_signed()).unwrap();
    drop(later);
    let answer = member.ask("recv");
    assert!(answer.contains("len 5000"), "{answer}");
    member.ask("drop");
    member.kill();
    until_in_use(&daemon, 0);
}

// ---- the daemon and its other clients

#[test]
fn a_killed_daemon_ends_classic_connections_and_their_blocks_are_free() {
    let daemon = Daemon::classic();
    let (mut client, mut other) = (Classic::ip(&daemon, A), Classic::ip(&daemon, B));
    let (member, _inbox) = daemon.member(ConnectOptions::new("member"));
    let node = client.alloc(5000).unwrap();
    let bid = client.pre_send(&[node], B).unwrap();
    let kept = member.alloc(64).unwrap();
    daemon.kill_and_wait();
    assert_eq!((client.answer(), other.answer()), (None, None));
    daemon.logged(&["ended", &format!("pid={A}")]);
    drop(kept);
    daemon.assert_balanced();
    // Under the same name, with a number of transfer that means nothing any more.
    let mut again = Classic::ip(&daemon, B);
    assert_eq!(again.hello, client.hello);
    refused(again.recv(bid, 1, A), "no transfer");
    let mut sender = Classic::ip(&daemon, A);
    let node = sender.alloc(64).unwrap();
    assert_ne!(sender.pre_send(&[node], B).unwrap(), bid);
}

#[test]
fn a_client_that_does_not_read_its_answers_stops_itself_only() {
    let daemon = Daemon::classic();
    let mut deaf = Classic::un(&daemon);
    deaf.alloc(64).unwrap();
    let mut command = Vec::new();
    Command::Free { node: -1 }.encode(1, &mut command).unwrap();
    let flood = command.repeat(1000);
    let (stopped, stops) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        // Ends when the daemon does, with an error: nobody reads for ever.
        while deaf.send_bytes(&flood).is_ok() {
            let _ = stopped.send(());
        }
    });
    // It gets stuck: for as long as others do their work, nothing more of it is taken.
    while stops.recv_timeout(std::time::Duration::from_millis(500)).is_ok() {}
    let mut other = Classic::ip(&daemon, A);
    for _ in 0..100 {
        let node = other.alloc(64).unwrap();
        other.free(node).unwrap();
    }
    daemon.assert_balanced();
    drop(daemon);
    writer.join().unwrap();
}

#[test]
fn without_a_name_classic_clients_are_told_what_to_do_in_the_log() {
    let daemon = Daemon::with("ip");
    assert!(Classic::try_ip(&daemon, A).is_none());
    assert!(Classic::try_un(&daemon, me()).is_none());
    daemon.logged(&["refused", "--shm-name"]);
}

#[test]
fn connections_of_one_pid_are_bounded() {
    let daemon = Daemon::classic();
    let clients: Vec<_> = (0..64).map(|_| Classic::ip(&daemon, A)).collect();
    assert!(Classic::try_ip(&daemon, A).is_none());
    daemon.logged(&["refused", "64 connections"]);
    let _other = Classic::ip(&daemon, B);
    drop(clients);
    until("room again", || Classic::try_ip(&daemon, A));
}

#[test]
fn listings_show_who_speaks_the_classic_protocol() {
    let daemon = Daemon::classic();
    let (mut client, _other) = (Classic::un(&daemon), Classic::ip(&daemon, A));
    let (_member, _inbox) = daemon.member(ConnectOptions::new("member"));
    client.alloc(5000).unwrap();
    let rows = daemon.observer().members().unwrap();
    let row = |pid: i32, kind| rows.iter().find(|m| m.pid == pid.cast_unsigned() && m.kind == kind).unwrap();
    let own = row(me(), MemberKind::Classic);
    assert_eq!((own.blocks_held, own.uid), (1, rustix::process::geteuid().as_raw()));
    assert_eq!(row(A, MemberKind::Classic).uid, 65534, "nobody vouches for it");
    assert_eq!(row(me(), MemberKind::Attached).name, "member");
}

// ---- a client that shares no line with us

fn python(arguments: &[&str]) -> Process {
    let mut process = Process::new("python3");
    process.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/classic_client.py")).args(arguments);
    process
}

#[test]
fn a_python_client_written_from_the_description_works() {
    let daemon = Daemon::classic();
    let ip = format!("ip://{}", daemon.ip());
    for arguments in [&["session", &daemon.uri()][..], &["session", &ip], &["session", &ip, &A.to_string()]] {
        let output = python(arguments).output().expect("this test needs python3");
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said == "ok\n", "{arguments:?}: {said}{complained}");
        until_in_use(&daemon, 0);
    }
}

#[test]
fn the_example_in_the_readme_works() {
    let daemon = Daemon::classic();
    let readme = include_str!("../../../README.md");
    let example = readme.split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    let example = example.replace("/tmp/rmmt.sock", daemon.socket().to_str().unwrap());
    let output = Process::new("python3").args(["-c", &example]).output().expect("this test needs python3");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complained.is_empty(), "{complained}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b'hello' 0\n");
    until_in_use(&daemon, 0);
}

#[test]
fn a_killed_python_client_leaves_nothing() {
    let daemon = Daemon::classic();
    let mut child = python(&["hold", &daemon.uri()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs python3");
    let mut line = [0; 8];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!((&line, in_use(&daemon)), (b"holding\n", 3));
    stage::kill(child.id(), Signal::KILL);
    child.wait().unwrap();
    until_in_use(&daemon, 0);
    daemon.logged(&["ended", &format!("pid={}", child.id()), "(3)"]);
}
