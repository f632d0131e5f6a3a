//! Sizes do not starve each other: the daemon gives extents that hold nothing to whoever needs them.

use baton_pool::{
    Admission, AllocError, BlockMut, EndpointKind, EndpointRef, MadeRoom, MakeRoomError, Member, Pool,
    PoolConfig, PoolFds, Receiver,
};

const MIB: usize = 1 << 20;

struct House {
    pool: Pool,
    _fds: PoolFds,
    daemon: EndpointRef,
    member: Member,
    _receiver: Receiver,
}

fn admit(pool: &Pool, name: &str, kind: EndpointKind) -> EndpointRef {
    let who = Admission { pid: 1, start_time: 1, name: name.into(), inbox: None, kind, quota_bytes: 0 };
    pool.admit(&who).unwrap()
}

impl House {
    fn new(payload_bytes: u64, largest_block: u64) -> Self {
        let config = PoolConfig {
            payload_bytes,
            largest_block,
            endpoints: 8,
            inbox_slots: 4,
            ..PoolConfig::default()
        };
        let (pool, fds) = Pool::create(&config).unwrap();
        let daemon = admit(&pool, "daemon", EndpointKind::Daemon);
        let (member, receiver) = pool.attach(admit(&pool, "member", EndpointKind::Attached)).unwrap();
        Self { pool, _fds: fds, daemon, member, _receiver: receiver }
    }

    fn fill(&self, len: usize) -> Vec<BlockMut> {
        std::iter::from_fn(|| self.alloc(len).ok()).collect()
    }

    /// As the SDK does: asks for room once.
    fn alloc(&self, len: usize) -> Result<BlockMut, AllocError> {
        self.member.alloc(len).or_else(|error| {
            let AllocError::Exhausted { .. } = error else { return Err(error) };
            self.pool.make_room(self.daemon, len).map_err(|_| error)?;
            self.member.alloc(len)
        })
    }

    fn assert_clean(&self) {
        let report = self.pool.audit();
        assert!(report.ok, "{report:?}");
        assert_eq!(report.in_use, self.member.spare_blocks().len() as u64);
    }
}

#[test]
fn a_pool_full_of_small_ones_becomes_one_of_large_ones_and_back() {
    let house = House::new(32 * MIB as u64, 32 * MIB as u64);
    assert_eq!(house.pool.geometry().largest_block(), 32 * MIB);
    for round in 0..3 {
        let small = house.fill(MIB);
        assert_eq!(small.len(), 32, "round {round}");
        assert!(matches!(house.alloc(32 * MIB), Err(AllocError::Exhausted { .. })));
        drop(small);
        let large = house.alloc(32 * MIB).unwrap();
        assert_eq!(large.len(), 32 * MIB);
        assert!(
            matches!(house.alloc(MIB), Err(AllocError::Exhausted { .. })),
            "the large one has everything"
        );
        drop(large);
        let middle = house.fill(5 * MIB); // runs of two extents each
        assert_eq!(middle.len(), 4, "round {round}");
        drop(middle);
    }
    house.assert_clean();
}

#[test]
fn one_held_block_pins_its_extent_and_no_more() {
    let house = House::new(32 * MIB as u64, 32 * MIB as u64);
    let mut small = house.fill(MIB);
    let kept = small.swap_remove(13);
    drop(small);
    let extents = house.pool.geometry().extents();
    let error = house.pool.make_room(house.daemon, 32 * MIB).unwrap_err();
    let MakeRoomError::NoRoom { needed, found, .. } = error else { panic!("{error}") };
    assert!(needed == extents && found < extents && found >= extents / 2, "{needed} {found}");
    let half = house.alloc(16 * MIB).unwrap();
    assert!(kept.id() != half.id());
    drop((kept, half));
    drop(house.alloc(32 * MIB).unwrap());
    house.assert_clean();
}

#[test]
fn the_bytes_of_a_run_are_its_own() {
    let house = House::new(64 * MIB as u64, 32 * MIB as u64);
    let mut blocks: Vec<BlockMut> =
        [20 * MIB, 100, 9 * MIB, 3 * MIB, 70_000].map(|len| house.alloc(len).unwrap()).into();
    for (i, block) in blocks.iter_mut().enumerate() {
        block.fill(i as u8 + 1);
    }
    for (i, block) in blocks.iter().enumerate() {
        assert!(block.iter().all(|byte| *byte == i as u8 + 1), "block {i}");
    }
    drop(blocks);
    house.assert_clean();
}

#[test]
fn only_the_daemon_makes_room_and_only_if_there_is_none() {
    let house = House::new(8 * MIB as u64, MIB as u64);
    let error = house.pool.make_room(house.member.endpoint(), 100).unwrap_err();
    assert_eq!(error, MakeRoomError::NotTheDaemon(house.member.endpoint()));
    assert!(matches!(house.pool.make_room(house.daemon, 2 * MIB), Err(MakeRoomError::TooLarge { .. })));
    assert_eq!(house.pool.make_room(house.daemon, 100), Ok(MadeRoom { retired: 0, bound: 1 }));
    assert_eq!(house.pool.make_room(house.daemon, 100), Ok(MadeRoom::default()), "there is one now");
    let all = house.fill(MIB);
    let error = house.pool.make_room(house.daemon, MIB).unwrap_err();
    assert!(error.to_string().contains("receive and drop blocks faster"), "{error}");
    drop(all);
}

#[test]
fn a_large_pool_is_only_arithmetic() {
    use baton_pool::Geometry;
    let config = PoolConfig {
        payload_bytes: 200 << 30,
        largest_block: 256 << 20,
        endpoints: 2047,
        inbox_slots: 4096,
        blocks_min: 4 << 20,
    };
    let geometry = Geometry::plan(&config).unwrap();
    assert_eq!((geometry.extents(), geometry.extent_bytes()), (3200, 64 << 20));
    assert_eq!((geometry.largest_block(), geometry.payload_bytes()), (256 << 20, 200 << 30));
    let blocks = u64::from(geometry.extents()) * u64::from(geometry.words_per_extent());
    assert!((4 << 20..=1 << 24).contains(&blocks), "{blocks}");
    assert!(geometry.metadata_bytes() < 600 << 20, "{}", geometry.metadata_bytes());
    // A million messages of 64 bytes in a pool of a gigabyte.
    let small =
        Geometry::plan(&PoolConfig { payload_bytes: 1 << 30, blocks_min: 1 << 20, ..PoolConfig::default() });
    let small = small.unwrap();
    assert!(u64::from(small.extents()) * u64::from(small.words_per_extent()) >= 1 << 20);
}

/// What is left of a daemon that was killed between marking an extent and freeing it: the next one mends it.
#[test]
fn a_half_retired_extent_is_found_and_mended() {
    use baton_pool::Finding;
    use baton_shm::{Access, Mapping};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    let house = House::new(8 * MIB as u64, MIB as u64);
    drop(house.alloc(200_000).unwrap()); // too large a part of this pool to be kept as a spare one
    assert_eq!(house.pool.unfinished_extents(), 0);
    // The words of the extents begin at the second page. The first extent: retired; the third follows nobody.
    let len = rustix::fs::fstat(&house._fds.metadata).unwrap().st_size as usize;
    let mapping = Arc::new(Mapping::new(&house._fds.metadata, len, Access::ReadWrite).unwrap());
    let extents = mapping.slice::<AtomicU64>(4096, 8).unwrap();
    let bound = (0..8).find(|i| extents[*i].load(SeqCst) != 0).unwrap();
    extents[bound].store(2 << 62, SeqCst);
    extents[(bound + 2) % 8].store(3 << 62 | bound as u64, SeqCst);
    let report = house.pool.audit_once();
    let unfinished = |f: &&Finding| matches!(f, Finding::UnfinishedExtent { .. });
    assert_eq!((report.findings.iter().filter(unfinished).count(), house.pool.unfinished_extents()), (2, 2));
    assert_eq!(house.pool.repair(house.daemon), 2);
    assert_eq!(house.pool.unfinished_extents(), 0);
    house.assert_clean();
    assert_eq!(house.fill(MIB).len(), 8, "all of it is of use again");
}
