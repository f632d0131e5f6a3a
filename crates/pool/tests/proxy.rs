//! What the daemon does in a pool for others: work for classic clients, pools with a name, waking who sleeps on a futex.

use baton_pool::{
    Admission, AllocError, Channel, CreateError, EndpointKind, EndpointRef, HoldError, Lend, Member, Pass,
    Pool, PoolConfig, PoolFds, Receiver, SendFailure,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

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

fn admit(pool: &Pool, name: &str, kind: EndpointKind) -> EndpointRef {
    let who = Admission { pid: 1, start_time: 1, name: name.into(), inbox: None, kind, quota_bytes: 1 << 20 };
    pool.admit(&who).unwrap()
}

fn attach(pool: &Pool, name: &str) -> (Member, Receiver) {
    pool.attach(admit(pool, name, EndpointKind::Attached)).unwrap()
}

#[test]
fn a_classic_client_holds_what_the_daemon_took_for_it() {
    let (pool, _fds) = pool();
    let a = admit(&pool, "classic", EndpointKind::Classic);
    let mut proxy = pool.proxy(a).unwrap();
    let block = proxy.alloc(100_000).unwrap();
    assert!(proxy.holds(block));
    assert_eq!(pool.holders(block), [(a.id, false)]);
    let offset = proxy.offset(block).unwrap();
    assert_eq!(proxy.block_at(offset), Some(block));
    assert_eq!(proxy.block_at(offset + 64), None, "the middle of a block is no block");
    assert_eq!(proxy.block_at(u64::MAX), None);
    assert!(proxy.capacity(block).unwrap() >= 100_000);
    let view = pool.look(block).unwrap();
    assert_eq!((view.len, view.holders), (100_000, vec![(a.id, false)]));
    assert_eq!(pool.held_by(a.id).map(|view| view.id).collect::<Vec<_>>(), [block]);
    proxy.release(block).unwrap();
    assert_eq!(proxy.release(block), Err(HoldError::NotHolder), "a double free");
    assert!(matches!(proxy.alloc(2 << 20), Err(AllocError::TooLarge { .. })));
    assert_eq!(pool.blocks_in_use().count(), 0);
    let second = proxy.alloc(64).unwrap();
    pool.reap(a).unwrap();
    assert_eq!(pool.holders(second), [], "it is swept like everybody");
    assert!(matches!(proxy.alloc(64), Err(AllocError::NotAdmitted)));
    assert!(pool.proxy(a).is_err());
}

#[test]
fn a_message_in_flight_is_a_lane_without_a_slot() {
    let (pool, _fds) = pool();
    let [a, c] = ["a", "c"].map(|name| admit(&pool, name, EndpointKind::Classic));
    let mut proxy = pool.proxy(a).unwrap();
    let block = proxy.alloc(5000).unwrap();
    assert_eq!(pool.accept_in_flight(c, block), Err(HoldError::NotHolder));
    pool.lend(a, block, c, Lend::InFlight).unwrap();
    assert_eq!(pool.holders(block), [(a.id, false), (c.id, true)]);
    assert!(pool.audit().ok, "no message is lost: the daemon knows of it");
    pool.accept_in_flight(c, block).unwrap();
    assert_eq!(pool.accept_in_flight(c, block), Err(HoldError::NotHolder), "only once");
    pool.lend(c, block, a, Lend::Holder).unwrap();
    pool.lend(a, block, c, Lend::InFlight).unwrap();
    pool.drop_in_flight(c, block).unwrap();
    assert_eq!(pool.holders(block), [(a.id, false), (c.id, false), (a.id, false)]);
    let nobody = EndpointRef { incarnation: 7, ..c };
    assert_eq!(pool.lend(a, block, nobody, Lend::Holder), Err(SendFailure::Gone));
    let other = proxy.alloc(10).unwrap();
    assert_eq!(pool.lend(c, other, a, Lend::Holder), Err(SendFailure::NotHolder));
    for _ in 3..8 {
        pool.lend(a, block, c, Lend::InFlight).unwrap();
    }
    assert_eq!(pool.lend(a, block, c, Lend::InFlight), Err(SendFailure::FanOut));
    pool.reap(c).unwrap();
    pool.reap(a).unwrap();
    let report = pool.audit();
    assert!(report.ok && report.in_use == 0, "{report:?}");
}

#[test]
fn a_classic_and_an_attached_client_exchange_blocks() {
    let (pool, _fds) = pool();
    let (member, mut receiver) = attach(&pool, "attached");
    let classic = admit(&pool, "classic", EndpointKind::Classic);
    let mut proxy = pool.proxy(classic).unwrap();
    let block = proxy.alloc(4096).unwrap();
    assert!(!proxy.send(block, member.endpoint(), Pass::Move).unwrap(), "it is awake");
    let delivery = receiver.try_recv().unwrap().unwrap();
    assert_eq!((delivery.block.id(), delivery.from), (block, classic.id));
    let back = Channel::new(classic, eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    member.send(&back, delivery.block).unwrap();
    assert_eq!(proxy.receive().unwrap(), Some((block, Some(member.endpoint().id))));
    assert_eq!(proxy.receive().unwrap(), None);
    assert!(proxy.holds(block));
    let info = pool.endpoints().into_iter().find(|info| info.endpoint == classic).unwrap();
    assert_eq!((info.kind, info.quota_bytes), (EndpointKind::Classic, 1 << 20));
    assert_eq!((info.sent, info.received, info.held_blocks, info.depth), (1, 1, 1, 0));
}

#[test]
fn what_was_lent_is_not_used_again_by_its_first_owner() {
    let (pool, _fds) = pool();
    let (member, _receiver) = attach(&pool, "attached");
    let classic = admit(&pool, "classic", EndpointKind::Classic);
    let block = member.alloc(100).unwrap().freeze(); // small: its owner keeps it as a spare one if it is alone
    let id = block.id();
    block.mark_shared();
    pool.lend(member.endpoint(), id, classic, Lend::InFlight).unwrap();
    drop(block);
    assert_eq!(pool.holders(id), [(classic.id, true)]);
    assert!(!member.spare_blocks().contains(&id));
    assert_ne!(member.alloc(100).unwrap().id(), id);
    // Nor what a tool looks into, which its owner is not told of.
    let looked_at = member.alloc(100).unwrap().freeze();
    let id = looked_at.id();
    pool.lend(member.endpoint(), id, classic, Lend::Holder).unwrap();
    drop(looked_at);
    assert_eq!(pool.holders(id), [(classic.id, false)]);
    assert!(!member.spare_blocks().contains(&id));
}

#[test]
fn a_pool_over_a_payload_that_has_a_name() {
    let named = |bytes: u64| {
        let fd = memfd_create("stands for shm_open", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, 8 << 20).unwrap();
        fallocate(&fd, FallocateFlags::empty(), 0, bytes).unwrap();
        fd
    };
    let error = Pool::create_over(&small(), named(4 << 20)).unwrap_err();
    assert!(matches!(error, CreateError::Payload { needed: 0x80_0000, .. }), "{error}");
    let (pool, fds) = Pool::create_over(&small(), named(8 << 20)).unwrap();
    assert!(pool.is_named());
    let (member, mut receiver) = attach(&Pool::open(&fds.metadata, &fds.payload).unwrap(), "a");
    let mut block = member.alloc(1000).unwrap();
    block.fill(7);
    let to = Channel::new(member.endpoint(), eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    member.send(&to, block.freeze()).unwrap();
    assert!(receiver.try_recv().unwrap().unwrap().block.iter().all(|byte| *byte == 7));
    // What is not sealed can shrink; then it is not opened any more.
    ftruncate(&fds.payload, 4096).unwrap();
    let error = Pool::open(&fds.metadata, &fds.payload).unwrap_err();
    assert!(error.to_string().contains("bytes are reserved"), "{error}");
}

#[test]
fn an_anonymous_pool_demands_the_seals() {
    let (pool, fds) = pool();
    assert!(!pool.is_named());
    let unsealed = memfd_create("unsealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    fallocate(&unsealed, FallocateFlags::empty(), 0, 8 << 20).unwrap();
    assert!(Pool::open(&fds.metadata, &unsealed).unwrap_err().to_string().contains("sealed"));
}
