//! Blocks between processes: moved, shared, refused, replaced, with their contents checked on the other side.

mod stage;

use baton_client::{AllocError, ConnectError, ConnectOptions, OpenError, SendFailure};
use stage::{Daemon, until};

#[test]
fn a_block_moves_through_three_processes_and_is_free_again() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.puppet("a", "a.in"), daemon.puppet("b", "b.in"));
    let (client, mut inbox) = daemon.member(ConnectOptions::new("c").inbox("c.in"));
    let id = a.ask("hold 1 100000");
    assert_eq!(a.ask("send b.in"), "sent 0");
    assert_eq!(a.ask("send b.in"), "holds nothing");
    assert!(b.ask("recv").starts_with(&format!("block {id} len 100000 from 1 good")));
    assert_eq!(b.ask("send c.in"), "sent 0");
    let delivery = inbox.recv(None).unwrap().unwrap();
    assert_eq!((delivery.block.id().to_string(), delivery.block.len()), (id, 100_000));
    assert_eq!(delivery.from.get(), 2);
    assert_eq!(client.pool().unwrap().blocks_in_use, 1);
    drop(delivery);
    assert_eq!(client.pool().unwrap().blocks_in_use, 0);
    daemon.assert_balanced();
}

#[test]
fn a_shared_block_lives_until_the_last_holder_drops_it() {
    let daemon = Daemon::start();
    let mut puppets: Vec<_> = (0..3).map(|i| daemon.puppet("p", &format!("p{i}"))).collect();
    let (client, _inbox) = daemon.member(ConnectOptions::new("source"));
    let mut block = client.alloc(70_000).unwrap();
    let seed = block.id().get() as u8;
    for (i, byte) in block.iter_mut().enumerate() {
        *byte = seed.wrapping_add((i % 251) as u8);
    }
    let block = block.freeze();
    for i in 0..3 {
        client.sender(&format!("p{i}")).unwrap().send(block.clone()).unwrap();
    }
    drop(block);
    for puppet in &mut puppets {
        assert!(puppet.ask("recv").ends_with("from 4 good"));
    }
    assert_eq!(client.pool().unwrap().blocks_in_use, 1);
    for (puppet, left) in puppets.iter_mut().zip([1, 1, 0]) {
        puppet.ask("drop");
        assert_eq!(client.pool().unwrap().blocks_in_use, left);
    }
    daemon.assert_balanced();
}

#[test]
fn a_full_inbox_refuses_and_the_newest_wins_on_request() {
    let daemon = Daemon::start(); // four messages fit
    let (client, mut inbox) = daemon.member(ConnectOptions::new("slow").inbox("slow.in"));
    let (other, _) = daemon.member(ConnectOptions::new("other"));
    let sender = client.sender("slow.in").unwrap();
    let numbered = |n: u8| {
        let mut block = client.alloc(1).unwrap();
        block[0] = n;
        block.freeze()
    };
    for n in 0..4 {
        sender.send(numbered(n)).unwrap();
    }
    let refused = sender.send(numbered(4)).unwrap_err();
    assert_eq!(refused.reason, SendFailure::Full);
    assert_eq!(refused.block[0], 4, "the block comes back");
    assert_eq!(sender.send_newest(refused.block).unwrap().replaced, 1);
    // Another sender may not push out what is not its own.
    let foreign = other.alloc(1).unwrap().freeze();
    let refused = other.sender("slow.in").unwrap().send_newest(foreign).unwrap_err();
    assert_eq!(refused.reason, SendFailure::Full);
    drop(refused);
    let mut got: Vec<_> = std::iter::from_fn(|| inbox.try_recv().unwrap()).map(|d| d.block[0]).collect();
    got.sort_unstable(); // the new one may take the place of the one it replaces
    assert_eq!(got, [1, 2, 3, 4], "the oldest was dropped");
    daemon.assert_balanced();
}

#[test]
fn a_reader_maps_the_pixels_read_only() {
    let daemon = Daemon::start();
    let mut writer = daemon.puppet("writer", "");
    let mut reader = daemon.puppet("reader", "reader.in read-only");
    assert_eq!(writer.ask("mapping"), "rw-s");
    assert_eq!(reader.ask("mapping"), "r--s");
    assert!(reader.ask("alloc 100").contains("read-only"));
    writer.ask("hold 1 5000");
    assert_eq!(writer.ask("send reader.in"), "sent 0");
    assert!(reader.ask("recv").ends_with("good"));
    assert_eq!(daemon.guests().iter().filter(|m| m.read_only).count(), 1);
}

#[test]
fn an_empty_pool_says_who_holds_what() {
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("hoarder"));
    let mut hoard = Vec::new();
    let error = loop {
        match client.alloc(1 << 20) {
            Ok(block) => hoard.push(block),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, AllocError::Exhausted { bytes_in_use, .. } if bytes_in_use >= 8 << 20),
        "{error}"
    );
    assert!(matches!(client.alloc(2 << 20), Err(AllocError::TooLarge { max, .. }) if max == 1 << 20));
    hoard.pop();
    client.alloc(1 << 20).unwrap();
}

#[test]
fn names_are_found_taken_and_free_again() {
    let daemon = Daemon::start();
    let (client, _inbox) = daemon.member(ConnectOptions::new("asker"));
    assert!(matches!(client.sender("nobody.in"), Err(OpenError::NotFound { inbox }) if inbox == "nobody.in"));
    let first = daemon.member(ConnectOptions::new("first").inbox("the.in"));
    assert_eq!(client.who_receives().unwrap().len(), 1);
    let taken = ConnectOptions::new("second").inbox("the.in").timeout(std::time::Duration::ZERO);
    let error = baton_client::Client::connect(&daemon.uri(), taken).unwrap_err();
    assert!(matches!(&error, ConnectError::Refused { code, .. } if code == "inbox_taken"), "{error}");
    drop(first); // says bye
    let (_second, mut inbox) = daemon.member(ConnectOptions::new("second").inbox("the.in"));
    client.sender("the.in").unwrap().send(client.alloc(3).unwrap().freeze()).unwrap();
    assert_eq!(inbox.recv(None).unwrap().unwrap().block.len(), 3);
    let bad = ConnectOptions::new("white space");
    assert!(matches!(baton_client::Client::connect(&daemon.uri(), bad), Err(ConnectError::BadName { .. })));
}

#[test]
fn a_member_that_leaves_while_blocks_live_keeps_them() {
    let daemon = Daemon::start();
    let (client, inbox) = daemon.member(ConnectOptions::new("leaver").inbox("leaver.in"));
    let mut block = client.alloc(100_000).unwrap(); // too large for spare ones
    block.fill(7);
    let block = block.freeze();
    drop((client, inbox));
    let left = || daemon.guests();
    let members = left();
    assert_eq!((members.len(), members[0].receiving, members[0].blocks_held), (1, false, 1), "{members:?}");
    assert!(block.iter().all(|b| *b == 7));
    drop(block);
    until("the endpoint to be taken back", || left().is_empty().then_some(()));
    daemon.assert_balanced();
    assert!(daemon.log().contains("rmmt: left pid="));
}

#[tokio::test]
async fn receiving_inside_tokio() {
    let daemon = Daemon::start();
    let (client, mut inbox) = daemon.member(ConnectOptions::new("async").inbox("async.in"));
    let mut sender = daemon.puppet("sender", "");
    // Asleep before the message comes: the eventfd must wake it.
    sender.ask("hold 200 3000");
    for _ in 0..100 {
        sender.order("send async.in");
        let delivery = inbox.recv_async().await.unwrap();
        assert_eq!(delivery.block.len(), 3000);
        assert_eq!(sender.answer(), "sent 0");
    }
    // A dropped future has taken nothing.
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(5), inbox.recv_async()).await;
    assert!(waiting.is_err());
    sender.ask("send async.in");
    assert_eq!(inbox.recv(None).unwrap().unwrap().block.len(), 3000);
    assert!(inbox.try_recv().unwrap().is_none());
    drop(client);
}
