//! Members of one pool, in one process: every operation through the public surface, and the books afterwards.

use baton_pool::{
    Admission, AdmitError, AllocError, AttachError, Block, Channel, EndpointKind, EndpointRef, Finding,
    Member, OpenError, Pool, PoolConfig, PoolFds, Receiver, RecvError, SendFailure,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::os::fd::{AsFd, OwnedFd};

fn small() -> PoolConfig {
    PoolConfig {
        payload_bytes: 8 << 20,
        largest_block: 1 << 20,
        endpoints: 8,
        inbox_slots: 4,
        ..PoolConfig::default()
    }
}

fn pool() -> (Pool, PoolFds) {
    Pool::create(&small()).unwrap()
}

fn admission(name: &str) -> Admission {
    Admission {
        pid: std::process::id(),
        start_time: 1,
        name: name.into(),
        inbox: Some(format!("{name}.in")),
        kind: EndpointKind::Attached,
        quota_bytes: 0,
    }
}

struct Party {
    member: Member,
    receiver: Receiver,
    endpoint: EndpointRef,
    wake: OwnedFd,
}

impl Party {
    fn join(pool: &Pool, name: &str) -> Self {
        let endpoint = pool.admit(&admission(name)).unwrap();
        let (member, receiver) = pool.attach(endpoint).unwrap();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Self { member, receiver, endpoint, wake }
    }
    fn channel(&self) -> Channel {
        Channel::new(self.endpoint, self.wake.try_clone().unwrap())
    }
    fn block(&self, text: &str) -> Block {
        let mut block = self.member.alloc(text.len()).unwrap();
        block.copy_from_slice(text.as_bytes());
        block.freeze()
    }
    fn is_woken(&self) -> bool {
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], Some(&now)).unwrap() == 1
    }
}

fn assert_balanced(pool: &Pool, in_use: u64) {
    let report = pool.audit();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.in_use, in_use, "{report:?}");
}

#[test]
fn a_block_travels_and_comes_back() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    a.member.send(&b.channel(), a.block("hello")).unwrap();
    let delivery = b.receiver.try_recv().unwrap().unwrap();
    assert_eq!(&*delivery.block, b"hello");
    assert_eq!(delivery.from, a.endpoint.id);
    assert_eq!(pool.holders(delivery.block.id()), [(b.endpoint.id, false)]);
    assert!(b.receiver.try_recv().unwrap().is_none());
    drop(delivery);
    drop((a, b));
    assert_balanced(&pool, 0);
}

#[test]
fn sending_one_of_several_handles_shares() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let block = a.block("shared");
    a.member.send(&b.channel(), block.clone()).unwrap();
    assert_eq!(pool.holders(block.id()), [(a.endpoint.id, false), (b.endpoint.id, true)]);
    let got = b.receiver.try_recv().unwrap().unwrap().block;
    drop(block);
    assert_eq!(&*got, b"shared");
    assert_eq!(pool.holders(got.id()), [(b.endpoint.id, false)]);
    drop(got);
    drop((a, b));
    assert_balanced(&pool, 0);
}

#[test]
fn a_full_inbox_refuses_and_newest_wins_replaces() {
    let (pool, _fds) = pool();
    let (a, c, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "c"), Party::join(&pool, "b"));
    let to_b = b.channel();
    c.member.send(&to_b, c.block("c0")).unwrap();
    for i in 0..3 {
        a.member.send(&to_b, a.block(&format!("a{i}"))).unwrap();
    }
    let error = a.member.send(&to_b, a.block("a3")).unwrap_err();
    assert_eq!(error.reason, SendFailure::Full);
    assert_eq!(&*error.block, b"a3", "the sender has it back");
    drop(error);
    for i in 3..9 {
        assert_eq!(a.member.send_newest(&to_b, a.block(&format!("a{i}"))).unwrap().replaced, 1);
    }
    let got =
        std::iter::from_fn(|| b.receiver.try_recv().unwrap()).map(|d| d.block.to_vec()).collect::<Vec<_>>();
    assert_eq!(got.len(), 4);
    assert_eq!(got[0], b"c0", "nobody else's message is dropped");
    let mut rest = got[1..].to_vec();
    rest.sort();
    assert!(rest.contains(&b"a8".to_vec()), "the newest is there: {rest:?}");
    // An inbox full of somebody else's messages is simply full.
    for i in 0..4 {
        c.member.send(&to_b, c.block(&format!("c{i}"))).unwrap();
    }
    let error = a.member.send_newest(&to_b, a.block("a")).unwrap_err();
    assert_eq!(error.reason, SendFailure::Full);
    drop(error);
    drop(b.receiver);
    pool.reap(b.endpoint).unwrap();
    drop((a, c));
    assert_balanced(&pool, 0);
}

#[test]
fn sharing_stops_at_eight_holders() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let block = a.block("popular");
    let mut kept = Vec::new();
    for _ in 0..7 {
        a.member.send(&b.channel(), block.clone()).unwrap();
        kept.push(b.receiver.try_recv().unwrap().unwrap());
    }
    let error = a.member.send(&b.channel(), block.clone()).unwrap_err();
    assert_eq!(error.reason, SendFailure::FanOut);
    assert!(
        error.to_string().contains("8 holders already") && error.to_string().contains("send a copy"),
        "{error}"
    );
    assert_eq!(pool.holders(block.id()).len(), 8, "nobody lost it");
    assert!(b.receiver.try_recv().unwrap().is_none(), "the withdrawn hint delivers nothing");
    drop(kept);
    drop(error);
    a.member.send(&b.channel(), block).unwrap();
    assert!(b.receiver.try_recv().unwrap().is_some());
}

#[test]
fn the_dead_give_back_everything() {
    let (pool, _fds) = pool();
    let (a, b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let small = a.block("spare blocks go to a magazine");
    drop(small);
    let held = a.block("held");
    a.member.send(&b.channel(), a.block("unread")).unwrap();
    let to_b = b.channel();
    std::mem::forget((held, a.member.clone())); // as if the process had been killed: nothing is dropped
    let reaped = pool.reap(a.endpoint).unwrap();
    assert!(reaped.freed >= 1 && reaped.disturbed == 0);
    assert_eq!(pool.audit().queued, 1, "a message outlives its sender");
    assert!(matches!(a.member.alloc(10), Err(AllocError::NotAdmitted)));
    assert!(matches!(pool.attach(a.endpoint), Err(AttachError::NotAdmitted(_))));
    assert!(pool.reap(a.endpoint).is_err(), "only once");
    let again = Party::join(&pool, "a");
    assert_eq!(again.endpoint.id, a.endpoint.id, "the number is reused");
    assert_ne!(again.endpoint.incarnation, a.endpoint.incarnation);
    pool.reap(b.endpoint).unwrap();
    let error = again.member.send(&to_b, again.block("late")).unwrap_err();
    assert_eq!(error.reason, SendFailure::Gone);
    drop((error, again));
    assert_balanced(&pool, 0);
}

#[test]
fn a_message_to_an_earlier_life_is_refused() {
    let (pool, _fds) = pool();
    let (a, b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let to_old_b = b.channel();
    pool.reap(b.endpoint).unwrap();
    let mut new_b = Party::join(&pool, "b");
    assert_eq!(new_b.endpoint.id, b.endpoint.id);
    let error = a.member.send(&to_old_b, a.block("late")).unwrap_err();
    assert_eq!(error.reason, SendFailure::Gone);
    assert!(new_b.receiver.try_recv().unwrap().is_none());
    a.member.send(&new_b.channel(), error.block).unwrap();
    assert_eq!(&*new_b.receiver.try_recv().unwrap().unwrap().block, b"late");
}

#[test]
fn leaving_closes_the_inbox_and_keeps_what_is_held() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let own = b.block("still written to, perhaps");
    a.member.send(&b.channel(), a.block("unread")).unwrap();
    let closed = pool.close_inbox(b.endpoint).unwrap();
    assert_eq!(closed.blocks.len(), 1, "the unread message is taken back");
    assert_eq!(pool.holders(own.id()), [(b.endpoint.id, false)]);
    let error = a.member.send(&b.channel(), a.block("late")).unwrap_err();
    assert_eq!(error.reason, SendFailure::Gone);
    assert_eq!(b.receiver.try_recv().unwrap_err(), RecvError::Closed);
    assert!(pool.find_inbox("b.in").is_none());
    drop((own, b.member, b.receiver, error, a));
    pool.reap(b.endpoint).unwrap();
    assert_balanced(&pool, 0);
}

#[test]
fn a_sleeper_is_woken_once_and_only_when_asleep() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    a.member.send(&b.channel(), a.block("awake")).unwrap();
    assert!(!b.is_woken(), "no system call for a receiver that is awake");
    assert!(b.receiver.prepare_sleep().unwrap().is_some(), "found instead of sleeping");
    assert!(b.receiver.prepare_sleep().unwrap().is_none());
    a.member.send(&b.channel(), a.block("one")).unwrap();
    a.member.send(&b.channel(), a.block("two")).unwrap();
    let mut count = [0; 8];
    rustix::io::read(&b.wake, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
    b.receiver.woken();
    assert_eq!(std::iter::from_fn(|| b.receiver.try_recv().unwrap()).count(), 2);
    assert!(b.receiver.prepare_sleep().unwrap().is_none());
    let reaped = pool.reap(a.endpoint).unwrap();
    assert_eq!(reaped.wake, [b.endpoint.id], "the dead one may have owed a wake-up");
}

#[test]
fn readers_read_and_do_not_allocate() {
    let (pool, fds) = pool();
    let reader_fd = baton_shm::reopen_read_only(fds.payload.as_fd()).unwrap();
    let view = Pool::open(&fds.metadata, &reader_fd).unwrap();
    assert!(!view.is_writable() && pool.is_writable());
    assert_eq!(view.id(), pool.id());
    assert_eq!(view.geometry(), pool.geometry());
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&view, "b"));
    assert!(matches!(b.member.alloc(10), Err(AllocError::ReadOnly)));
    a.member.send(&b.channel(), a.block("read me")).unwrap();
    let got = b.receiver.try_recv().unwrap().unwrap().block;
    assert_eq!(&*got, b"read me");
    b.member.send(&a.channel(), got).unwrap();
    let mut a = a;
    assert_eq!(&*a.receiver.try_recv().unwrap().unwrap().block, b"read me");
}

#[test]
fn a_reader_keeps_no_spare_blocks() {
    let (pool, fds) = pool();
    let reader_fd = baton_shm::reopen_read_only(fds.payload.as_fd()).unwrap();
    let view = Pool::open(&fds.metadata, &reader_fd).unwrap();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&view, "b"));
    for _ in 0..20 {
        a.member.send(&b.channel(), a.block("drop me")).unwrap();
        drop(b.receiver.try_recv().unwrap().unwrap());
    }
    assert_eq!(b.member.spare_blocks(), []);
    let held = pool.endpoints().into_iter().find(|info| info.endpoint == b.endpoint).unwrap().held_blocks;
    assert_eq!(held, 0, "what nobody can allocate any more would be lost to all");
}

#[test]
fn lengths_and_alignment_are_exact() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    for len in [0usize, 1, 63, 64, 65, 100, 4095, 4096, 4097, 70_000, 1 << 20] {
        let mut block = a.member.alloc(len).unwrap();
        assert_eq!(block.len(), len);
        let align = if len > 3500 { 4096 } else { 64 };
        assert_eq!(block.as_ptr() as usize % align, 0);
        block.fill(len as u8);
        a.member.send(&b.channel(), block.freeze()).unwrap();
        let got = b.receiver.try_recv().unwrap().unwrap().block;
        assert!(got.len() == len && got.iter().all(|byte| *byte == len as u8));
    }
    let error = a.member.alloc((1 << 20) + 1).unwrap_err();
    assert!(matches!(error, AllocError::TooLarge { largest: 1_048_576, .. }), "{error}");
}

#[test]
fn an_empty_pool_says_who_holds_most_and_recovers() {
    let (pool, _fds) = pool();
    let a = Party::join(&pool, "a");
    let mut blocks = Vec::new();
    let error = loop {
        match a.member.alloc(1 << 20) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert_eq!(blocks.len(), 8, "every extent was used");
    let text = error.to_string();
    assert!(text.contains(&format!("a (pid {}, endpoint 1: 8388608 bytes)", std::process::id())), "{text}");
    let AllocError::Exhausted { holders, in_use, total, .. } = error else { panic!("{error}") };
    assert_eq!((in_use, total, holders.len()), (8 << 20, 8 << 20, 1));
    assert_eq!((holders[0].endpoint, holders[0].bytes), (a.endpoint.id, 8 << 20));
    assert!(
        matches!(a.member.alloc(64), Err(AllocError::Exhausted { .. })),
        "small ones have no extent either"
    );
    blocks.pop();
    let small = a.member.alloc(64).unwrap();
    assert_eq!(small.len(), 64, "a larger block is taken when nothing else is left");
    drop((small, blocks));
    assert_eq!(pool.usage().in_use_bytes, 0);
}

#[test]
fn many_sizes_do_not_eat_all_extents() {
    let (pool, _fds) = pool();
    let a = Party::join(&pool, "a");
    drop(a.member.alloc(1 << 20).unwrap());
    let sizes: Vec<usize> = (1000..300_000).step_by(5000).rev().collect();
    for len in &sizes {
        drop(a.member.alloc(*len).unwrap());
    }
    assert_eq!(pool.usage().extents_unbound, 0, "more sizes than extents");
    for len in sizes.into_iter().chain([1 << 20]) {
        assert!(a.member.alloc(len).is_ok(), "{len}: the next larger size steps in");
    }
}

#[test]
fn exposed_memory_is_given_back_when_the_last_handle_goes() {
    let (pool, _fds) = pool();
    let a = Party::join(&pool, "a");
    let exposed = a.member.alloc(200_000).unwrap().expose();
    let other = exposed.clone();
    assert_eq!((other.len(), other.as_ptr()), (exposed.len(), exposed.as_ptr()));
    let id = exposed.id();
    drop(exposed);
    assert_eq!(pool.holders(id).len(), 1);
    drop(other);
    assert_eq!(pool.holders(id).len(), 0);
}

#[test]
#[allow(unsafe_code)]
fn while_memory_is_exposed_its_block_is_shared_and_not_moved() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let exposed = a.member.alloc(200_000).unwrap().expose();
    let other = exposed.clone();
    // SAFETY: nobody writes in this test.
    let block = unsafe { exposed.share() };
    let id = block.id();
    a.member.send(&b.channel(), block).unwrap();
    assert_eq!(pool.holders(id), [(a.endpoint.id, false), (b.endpoint.id, true)]);
    let got = b.receiver.try_recv().unwrap().unwrap().block;
    drop(exposed);
    drop(got);
    assert_eq!(pool.holders(id), [(a.endpoint.id, false)], "a decoder may still refer to it");
    drop(other);
    assert_eq!(pool.holders(id), []);
}

#[test]
fn blocks_of_another_endpoint_are_refused() {
    let (pool, _fds) = pool();
    let (a, b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let error = b.member.send(&a.channel(), a.block("not b's")).unwrap_err();
    assert_eq!(error.reason, SendFailure::NotHolder);
    assert_eq!(&*error.block, b"not b's", "the block comes back");
    a.member.send(&b.channel(), error.block).unwrap();
}

#[test]
fn admission_is_bounded_and_names_are_checked() {
    let (pool, _fds) = pool();
    let first = pool.admit(&admission("x")).unwrap();
    assert_eq!(pool.find_inbox("x.in"), Some(first));
    let error = pool.admit(&admission("x")).unwrap_err();
    assert!(matches!(error, AdmitError::InboxTaken { owner, .. } if owner == first.id), "{error}");
    for bad in ["", "a\0b", &"n".repeat(64)] {
        let who = Admission { name: bad.into(), inbox: None, ..admission("x") };
        assert!(matches!(pool.admit(&who), Err(AdmitError::BadName { .. })));
    }
    let longest = "n".repeat(63);
    let anonymous = Admission { name: longest.clone(), inbox: None, ..admission("x") };
    for _ in 1..8 {
        pool.admit(&anonymous).unwrap();
    }
    assert!(matches!(pool.admit(&anonymous), Err(AdmitError::Full { max: 8 })));
    let infos = pool.endpoints();
    assert_eq!(infos.len(), 8);
    assert_eq!((infos[0].name.as_str(), infos[0].inbox.as_deref()), ("x", Some("x.in")));
    assert_eq!((infos[1].name.as_str(), infos[1].inbox.as_deref()), (longest.as_str(), None));
    assert_eq!(infos[0].pid, std::process::id());
}

#[test]
fn other_memory_is_no_pool() {
    let (_pool, fds) = pool();
    let error = Pool::open(&fds.payload, &fds.metadata).unwrap_err();
    assert!(matches!(error, OpenError::NotAPool { .. }), "{error}");
    let other = baton_shm::create_sealed("other", 4096).unwrap();
    let error = Pool::open(&fds.metadata, &other).unwrap_err();
    assert!(matches!(error, OpenError::Memory { what: "payload", .. }), "{error}");
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(Pool::open(&file, &fds.payload), Err(OpenError::Memory { what: "metadata", .. })));
}

#[test]
fn a_fault_is_found_by_the_audit() {
    let (pool, _fds) = pool();
    let (a, b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    a.member.send(&b.channel(), a.block("m")).unwrap();
    assert!(pool.audit().ok);
    pool.reap(b.endpoint).unwrap();
    assert!(pool.audit().ok);
    let text = serde_round_trip(&Finding::UnknownHolder { block: baton_pool::BlockId::new(7), endpoint: 3 });
    assert!(text.contains("unknown_holder"), "{text}");
}

fn serde_round_trip(finding: &Finding) -> String {
    let text = serde_json::to_string(finding).unwrap();
    assert_eq!(&serde_json::from_str::<Finding>(&text).unwrap(), finding);
    text
}

#[test]
fn threads_of_one_member_share_it() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let to_b = b.channel();
    let (threads, each) = (4u64, 2000u64);
    let sent = std::thread::scope(|scope| {
        for t in 0..threads {
            let (member, to_b) = (a.member.clone(), to_b.clone());
            scope.spawn(move || {
                for i in 0..each {
                    let mut block = member.alloc(16).unwrap();
                    block[..8].copy_from_slice(&t.to_le_bytes());
                    block[8..].copy_from_slice(&i.to_le_bytes());
                    let mut block = block.freeze();
                    while let Err(error) = member.send(&to_b, block) {
                        assert_eq!(error.reason, SendFailure::Full);
                        block = error.block;
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut next = [0u64; 4];
        let mut sum = 0;
        while sum < threads * each {
            let Some(delivery) = b.receiver.try_recv().unwrap() else {
                std::thread::yield_now();
                continue;
            };
            let t = u64::from_le_bytes(delivery.block[..8].try_into().unwrap()) as usize;
            let i = u64::from_le_bytes(delivery.block[8..].try_into().unwrap());
            assert_eq!(i, next[t], "messages of one thread arrive once and in order");
            next[t] += 1;
            sum += 1;
        }
        sum
    });
    assert_eq!(sent, threads * each);
    assert_eq!((a.member.refused(), b.member.refused()), (0, 0));
    drop((a, b));
    assert_balanced(&pool, 0);
}

#[test]
fn a_large_block_is_kept_for_the_next_allocation_by_who_allocates_that_size_and_given_up_for_another() {
    let (pool, _fds) = pool();
    let (a, mut b) = (Party::join(&pool, "a"), Party::join(&pool, "b"));
    let len = pool.geometry().payload_bytes() as usize / 64;
    let frame = a.member.alloc(len).unwrap().freeze();
    let id = frame.id();
    drop(frame);
    assert_eq!(a.member.spare_blocks(), [id]);
    let frame = a.member.alloc(len).unwrap();
    assert_eq!(frame.id(), id, "the same again");
    a.member.send(&b.channel(), frame.freeze()).unwrap();
    drop(b.receiver.try_recv().unwrap().unwrap());
    assert_eq!(b.member.spare_blocks(), [], "who only receives keeps none");
    drop((a.member.alloc(len).unwrap(), a.member.alloc(len).unwrap()));
    assert_eq!(a.member.spare_blocks().len(), 1, "more would be a noticeable part of this pool");
    drop(a.member.alloc(2 * len).unwrap());
    assert_eq!(a.member.spare_blocks().len(), 1, "and one of twice the size is too large");
    let all: Vec<_> = std::iter::from_fn(|| a.member.alloc(2 * len).ok()).collect();
    assert!(!all.is_empty());
    assert_eq!(a.member.spare_blocks(), [], "who finds nothing gives its spare blocks back");
}
