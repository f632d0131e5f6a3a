//! A pool of 120 GiB: mapped for real, of which only the touched pages exist.

use baton_pool::{Admission, BlockMut, Channel, EndpointKind, EndpointRef, Pool, PoolConfig};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::AsFd;

const GIB: u64 = 1 << 30;
/// Beyond what 32 bits count in pages, or in anything smaller.
const PAYLOAD: u64 = 120 * GIB;
const MEMBERS: u16 = 1100;
/// As large as an extent: one of these is the first thing in the pool, another one the last.
const LARGE: usize = 64 << 20;

fn admit(pool: &Pool, n: u16) -> EndpointRef {
    let name = format!("member.{n}");
    let kind = EndpointKind::Attached;
    pool.admit(&Admission { pid: n.into(), start_time: 1, name, inbox: None, kind, quota_bytes: 0 }).unwrap()
}

fn real_bytes(file: impl AsFd) -> u64 {
    rustix::fs::fstat(file).unwrap().st_blocks as u64 * 512
}

#[test]
fn both_ends_of_a_large_pool_are_sent_and_taken_back() {
    let config = PoolConfig {
        payload_bytes: PAYLOAD,
        largest_block: LARGE as u64,
        endpoints: MEMBERS,
        inbox_slots: 8,
        blocks_min: 1 << 20,
    };
    let (pool, fds) = match Pool::create_sparse(&config) {
        Ok(made) => made,
        Err(error) => {
            // A limit on address space, or a kernel that promises nothing that it does not have.
            return eprintln!("only the arithmetic of a large pool is tested (`room.rs`): {error}");
        }
    };
    let geometry = pool.geometry().clone();
    let blocks = u64::from(geometry.extents()) * u64::from(geometry.words_per_extent());
    assert!(geometry.payload_bytes() == PAYLOAD && blocks >= 1 << 20, "{blocks} blocks");

    let members: Vec<EndpointRef> = (1..=MEMBERS).map(|n| admit(&pool, n)).collect();
    let first = members[0];
    let last = *members.last().unwrap();
    assert_eq!(last.id.get(), MEMBERS);
    let (sender, _receiver) = pool.attach(first).unwrap();
    let (_member, mut receiver) = pool.attach(last).unwrap();
    let places = pool.proxy(first).unwrap();

    // Everything there is; nothing of it is touched.
    let mut all: Vec<BlockMut> = std::iter::from_fn(|| sender.alloc(LARGE).ok()).collect();
    assert_eq!(all.len() as u64, PAYLOAD / LARGE as u64);
    all.sort_by_key(|block| places.offset(block.id()));
    let mut high = all.pop().unwrap();
    let mut low = all.swap_remove(0);
    assert_eq!(places.offset(low.id()), Some(0));
    assert_eq!(places.offset(high.id()), Some(PAYLOAD - LARGE as u64));
    let distance = (high.as_ptr() as usize - low.as_ptr() as usize) as u64;
    assert_eq!(distance, PAYLOAD - LARGE as u64, "they lie where they are said to lie");
    for (block, mark) in [(&mut low, 1), (&mut high, 2)] {
        block[0] = mark;
        block[LARGE - 1] = mark + 10;
    }
    let ids = [low.id(), high.id()];
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let channel = Channel::new(last, wake);
    for block in [low, high] {
        sender.send(&channel, block.freeze()).unwrap();
    }
    let got: Vec<_> = std::iter::from_fn(|| receiver.try_recv().unwrap()).map(|d| d.block).collect();
    let seen: Vec<_> = got.iter().map(|block| (block.id(), block[0], block[LARGE - 1])).collect();
    assert_eq!(seen, [(ids[0], 1, 11), (ids[1], 2, 12)]);
    assert_eq!(pool.held_by(last.id).count(), 2);

    // The last one dies with both; somebody else has them next, as they were left.
    got.into_iter().for_each(std::mem::forget);
    pool.reap(last).unwrap();
    assert_eq!(pool.held_by(last.id).count(), 0);
    let mut again: Vec<_> = (0..2).map(|_| sender.alloc(LARGE).unwrap()).collect();
    again.sort_by_key(|block| block.id());
    assert_eq!([again[0].id(), again[1].id()], ids);
    assert_eq!((again[0][LARGE - 1], again[1][0]), (11, 2));
    assert!(sender.alloc(LARGE).is_err(), "and that was all");

    drop((all, again));
    sender.give_spares_back();
    let report = pool.audit();
    assert!(report.ok && report.in_use == 0, "{report:?}");
    let real = real_bytes(&fds.payload);
    assert!((4 * 4096..GIB / 16).contains(&real), "{real} bytes of the payload exist");
    eprintln!("{blocks} blocks; of the metadata {} KiB exist", real_bytes(&fds.metadata) >> 10);
    assert!(Pool::open(&fds.metadata, &fds.payload).is_err(), "nobody else takes it for a reserved one");
}
