//! Tools that look into blocks: they hold what they look at, no longer than they look, and get nothing else.

mod stage;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use baton_client::{BlockId, BorrowError, ConnectOptions};
use baton_wire::attach::{Access, Answer, Attach, HEADER_LEN, Header, Kind, Request};
use stage::{Daemon, WATCHDOG, until};

/// Too large to be kept as a spare block.
const LARGE: usize = 300_000;

/// A member that speaks the protocol by hand, so that it can leave a loan open.
struct Session(UnixStream);

impl Session {
    fn attach(daemon: &Daemon) -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let start_time =
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        let mut session = Self(stream);
        let ask = Attach {
            name: "by-hand".parse().unwrap(),
            inbox: None,
            access: Access::ReadOnly,
            start_time,
            token: 1,
        };
        assert_eq!(session.ask_code(&Request::Attach(ask)), "ok");
        session
    }

    /// `ok`, or the code of the refusal. Descriptors that come along are closed by the kernel.
    fn ask_code(&mut self, request: &Request) -> String {
        self.0.write_all(&request.encode(1).unwrap()).unwrap();
        let mut head = [0; HEADER_LEN];
        self.0.read_exact(&mut head).unwrap();
        let mut body = vec![0; Header::decode(&head, Kind::Answer).unwrap().body_len];
        self.0.read_exact(&mut body).unwrap();
        match Answer::decode(&body).unwrap() {
            Answer::Error(failure) => failure.code.to_string(),
            _ => "ok".into(),
        }
    }
}

#[test]
fn what_is_looked_at_cannot_become_another_block_meanwhile() {
    let daemon = Daemon::start();
    let (owner, mut inbox) = daemon.member(ConnectOptions::new("owner").inbox("owner.in"));
    let (tool, _tool_inbox) = daemon.member(ConnectOptions::new("tool").read_only());
    let mut block = owner.alloc(LARGE).unwrap();
    block.fill(7);
    let id = block.id();
    let snapshot = tool.snapshot(id).unwrap();
    assert_eq!((snapshot.bytes, snapshot.info.holders.len()), (vec![7; LARGE], 1));
    assert_eq!(tool.look(id).unwrap(), snapshot.info, "the tool holds nothing any more");
    assert_eq!(tool.blocks_in_use(), [snapshot.info]);

    // Also what only waits in an inbox.
    owner.sender("owner.in").unwrap().send(block.freeze()).unwrap();
    let snapshot = tool.snapshot(id).unwrap();
    assert!(snapshot.info.holders[0].inbox && snapshot.info.holders.len() == 1);
    let kept = inbox.recv(None).unwrap().unwrap().block;
    let error = owner.snapshot(id).unwrap_err();
    assert!(matches!(&error, BorrowError::Refused { message, .. } if message.contains("already")), "{error}");
    drop(kept);
    for free in [id, BlockId::new(0xff_ffff)] {
        assert!(matches!(tool.snapshot(free), Err(BorrowError::Free { .. })));
    }
    daemon.assert_balanced();
}

#[test]
fn a_loan_ends_with_the_tool_however_it_ends() {
    let daemon = Daemon::start();
    let (owner, _inbox) = daemon.member(ConnectOptions::new("owner"));
    let block = owner.alloc(LARGE).unwrap();
    let id = block.id();
    for end in ["bye", "hang-up"] {
        let mut session = Session::attach(&daemon);
        assert_eq!(session.ask_code(&Request::Return { block: id.get() }), "not_found");
        assert_eq!(session.ask_code(&Request::Borrow { block: id.get() }), "ok");
        assert_eq!(owner.look(id).unwrap().holders.len(), 2);
        // Twice is refused: one lane is enough to look.
        assert_eq!(session.ask_code(&Request::Borrow { block: id.get() }), "bad_request");
        if end == "bye" {
            session.ask_code(&Request::Bye);
        }
        drop(session);
        until("the loan to end", || (owner.look(id).unwrap().holders.len() == 1).then_some(()));
    }
    drop(block);
    daemon.assert_balanced();
}

#[test]
fn blocks_are_listed_page_by_page() {
    let daemon = Daemon::start();
    let (owner, _inbox) = daemon.member(ConnectOptions::new("owner"));
    let held: Vec<_> = (0..10).map(|_| owner.alloc(LARGE).unwrap()).collect();
    let mut ids: Vec<_> = held.iter().map(|block| block.id().get()).collect();
    ids.sort_unstable();
    let mut observer = daemon.observer();
    for limit in [1, 3, 10, u32::MAX] {
        let (mut seen, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let (page, next) = observer.blocks(Some(owner.endpoint().get()), at, limit).unwrap();
            assert!(page.len() <= limit as usize);
            seen.extend(page.iter().map(|block| block.block));
            from = next;
        }
        assert_eq!(seen, ids, "pages of {limit}");
    }
    assert_eq!(observer.blocks(Some(2), 0, 10).unwrap(), (Vec::new(), None));
    assert!(observer.blocks(Some(0), 0, 10).is_err());
    assert_eq!(observer.blocks(None, u32::MAX, 0).unwrap(), (Vec::new(), None));
}
