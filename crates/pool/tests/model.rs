//! Random histories of four members against a reference pool of a few lines: who holds what, what waits where.

use baton_pool::{
    Admission, AllocError, Block, BlockId, BlockMut, Channel, EndpointKind, EndpointRef, Lend, Member, Pool,
    PoolConfig, Receiver, SendFailure,
};
use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{BTreeMap, VecDeque};

const MEMBERS: usize = 4;
const SLOTS: usize = 4;
const LANES: usize = 8;

#[derive(Debug, Clone)]
enum Op {
    Alloc {
        by: usize,
        len: usize,
    },
    Move {
        by: usize,
        which: usize,
        to: usize,
    },
    Share {
        by: usize,
        which: usize,
        to: usize,
    },
    Newest {
        by: usize,
        which: usize,
        to: usize,
    },
    Receive {
        by: usize,
    },
    Drop {
        by: usize,
        which: usize,
    },
    Die {
        who: usize,
    },
    /// The daemon gives extents that hold nothing to another size.
    MakeRoom {
        len: usize,
    },
    /// The daemon lends a block in flight; it is accepted and given back.
    Lend {
        by: usize,
        which: usize,
        to: usize,
    },
}

/// Small ones that go to magazines, several to an extent, one and two extents (of 256 KiB).
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 16..6000usize, 2 => 60_000..100_000usize, 1 => 200_000..512_000usize]
}

/// Writes the number at both ends of a block: blocks that overlap would show.
fn stamp(block: &mut [u8], number: u64) {
    let end = block.len() - 8;
    block[..8].copy_from_slice(&number.to_le_bytes());
    block[end..].copy_from_slice(&number.to_le_bytes());
}

fn is_stamped(block: &[u8], number: u64) -> bool {
    block[..8] == number.to_le_bytes() && block[block.len() - 8..] == number.to_le_bytes()
}

fn op() -> impl Strategy<Value = Op> {
    let (m, w) = (0..MEMBERS, 0..64usize);
    prop_oneof![
        4 => (m.clone(), len()).prop_map(|(by, len)| Op::Alloc { by, len }),
        1 => len().prop_map(|len| Op::MakeRoom { len }),
        1 => (m.clone(), w.clone(), m.clone()).prop_map(|(by, which, to)| Op::Lend { by, which, to }),
        4 => (m.clone(), w.clone(), m.clone()).prop_map(|(by, which, to)| Op::Move { by, which, to }),
        4 => (m.clone(), w.clone(), m.clone()).prop_map(|(by, which, to)| Op::Share { by, which, to }),
        4 => (m.clone(), w.clone(), m.clone()).prop_map(|(by, which, to)| Op::Newest { by, which, to }),
        4 => m.clone().prop_map(|by| Op::Receive { by }),
        4 => (m.clone(), w).prop_map(|(by, which)| Op::Drop { by, which }),
        1 => m.prop_map(|who| Op::Die { who }),
    ]
}

/// The reference: content of each block, and for each member what it holds and what waits for it. An inbox keeps the
/// place of a message that was taken back (its sender put a newer one there).
#[derive(Default)]
struct Reference {
    content: BTreeMap<BlockId, u64>,
    held: [Vec<BlockId>; MEMBERS],
    queue: [VecDeque<(usize, BlockId)>; MEMBERS],
}

impl Reference {
    fn lanes(&self, block: BlockId) -> usize {
        let held = self.held.iter().flatten().filter(|one| **one == block).count();
        held + self.queue.iter().flatten().filter(|(_, one)| *one == block).count()
    }
}

struct Real {
    pool: Pool,
    daemon: EndpointRef,
    members: Vec<(EndpointRef, Member, Receiver)>,
    held: [Vec<Block>; MEMBERS],
}

impl Real {
    fn join(pool: &Pool, name: usize) -> (EndpointRef, Member, Receiver) {
        let who = Admission {
            pid: 1,
            start_time: 1,
            name: name.to_string(),
            inbox: None,
            kind: EndpointKind::Attached,
            quota_bytes: 0,
        };
        let me = pool.admit(&who).unwrap();
        let (member, receiver) = pool.attach(me).unwrap();
        (me, member, receiver)
    }
    /// As the SDK does: asks for room once. Where the daemon says that it made some, there is some.
    fn alloc(&self, by: usize, len: usize) -> Result<Result<BlockMut, AllocError>, TestCaseError> {
        match self.members[by].1.alloc(len) {
            Err(AllocError::Exhausted { .. }) if self.pool.make_room(self.daemon, len).is_ok() => {
                let block = self.members[by].1.alloc(len);
                prop_assert!(block.is_ok(), "no room for {} bytes after room was made", len);
                Ok(block)
            }
            other => Ok(other),
        }
    }
    fn channel(&self, to: usize) -> Channel {
        Channel::new(self.members[to].0, eventfd(0, EventfdFlags::NONBLOCK).unwrap())
    }
}

/// A longer run by hand.
fn cases() -> u32 {
    if std::env::var_os("BATON_FULL").is_some() { 5000 } else { 64 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_history_is_what_the_reference_says(ops in proptest::collection::vec(op(), 1..300)) {
        let config = PoolConfig {
            payload_bytes: 2 << 20, largest_block: 512 << 10, endpoints: MEMBERS as u16 + 1, inbox_slots: SLOTS as u32, ..PoolConfig::default()
        };
        let (pool, _fds) = Pool::create(&config).unwrap();
        let members = (0..MEMBERS).map(|i| Real::join(&pool, i)).collect();
        let who = Admission {
            pid: 1, start_time: 1, name: "daemon".into(), inbox: None, kind: EndpointKind::Daemon, quota_bytes: 0,
        };
        let daemon = pool.admit(&who).unwrap();
        let mut real = Real { pool, daemon, members, held: Default::default() };
        let mut reference = Reference::default();
        let mut count = 0u64;
        for op in ops {
            match op {
                Op::Alloc { by, len } => {
                    let Ok(mut block) = real.alloc(by, len)? else { continue };
                    count += 1;
                    stamp(&mut block, count);
                    prop_assert_eq!(reference.lanes(block.id()), 0, "allocated while held");
                    reference.content.insert(block.id(), count);
                    reference.held[by].push(block.id());
                    real.held[by].push(block.freeze());
                }
                Op::Move { by, which, to } if !real.held[by].is_empty() => {
                    let which = which % real.held[by].len();
                    let (block, id) = (real.held[by].remove(which), reference.held[by].remove(which));
                    match real.members[by].1.send(&real.channel(to), block) {
                        Ok(()) => {
                            prop_assert!(reference.queue[to].len() < SLOTS);
                            reference.queue[to].push_back((by, id));
                        }
                        Err(error) => {
                            prop_assert_eq!(error.reason, SendFailure::Full);
                            prop_assert_eq!(reference.queue[to].len(), SLOTS);
                            real.held[by].push(error.block);
                            reference.held[by].push(id);
                        }
                    }
                }
                Op::Share { by, which, to } if !real.held[by].is_empty() => {
                    let which = which % real.held[by].len();
                    let id = reference.held[by][which];
                    match real.members[by].1.send(&real.channel(to), real.held[by][which].clone()) {
                        Ok(()) => reference.queue[to].push_back((by, id)),
                        Err(error) if error.reason == SendFailure::Full => {
                            prop_assert_eq!(reference.queue[to].len(), SLOTS);
                        }
                        Err(error) => {
                            prop_assert_eq!(error.reason, SendFailure::FanOut);
                            prop_assert_eq!(reference.lanes(id), LANES);
                            // The hint was withdrawn, but takes its slot until the receiver comes by.
                            drop(error);
                            drain(&mut real, &mut reference, to)?;
                        }
                    }
                }
                Op::Newest { by, which, to } if !real.held[by].is_empty() => {
                    let which = which % real.held[by].len();
                    let (block, id) = (real.held[by].remove(which), reference.held[by].remove(which));
                    let full = reference.queue[to].len() == SLOTS;
                    // The oldest message of its own is replaced in place.
                    let own = reference.queue[to].iter().position(|(from, _)| *from == by);
                    match real.members[by].1.send_newest(&real.channel(to), block) {
                        Ok(sent) => {
                            prop_assert_eq!(sent.replaced, u32::from(full));
                            if full {
                                let own = own.unwrap();
                                reference.queue[to][own] = (by, id);
                            } else {
                                reference.queue[to].push_back((by, id));
                            }
                        }
                        Err(error) => {
                            prop_assert_eq!(error.reason, SendFailure::Full);
                            prop_assert!(full && own.is_none());
                            real.held[by].push(error.block);
                            reference.held[by].push(id);
                        }
                    }
                }
                Op::Receive { by } => receive(&mut real, &mut reference, by)?,
                Op::Drop { by, which } if !real.held[by].is_empty() => {
                    let which = which % real.held[by].len();
                    real.held[by].remove(which);
                    reference.held[by].remove(which);
                }
                Op::Die { who } => {
                    // As a killed process would: nothing is dropped.
                    std::mem::forget(std::mem::take(&mut real.held[who]));
                    let (me, member, receiver) = real.members.remove(who);
                    std::mem::forget((member, receiver));
                    real.pool.reap(me).unwrap();
                    real.members.insert(who, Real::join(&real.pool, who));
                    reference.held[who].clear();
                    reference.queue[who].clear();
                }
                Op::MakeRoom { len } => {
                    let _ = real.pool.make_room(real.daemon, len);
                }
                Op::Lend { by, which, to } if !real.held[by].is_empty() => {
                    let which = which % real.held[by].len();
                    let id = reference.held[by][which];
                    let shared = real.held[by][which].clone(); // as long as it lives, the owner does not reuse the block
                    let [from, to] = [real.members[by].0, real.members[to].0];
                    let lent = real.pool.lend(from, id, to, Lend::InFlight);
                    prop_assert_eq!(lent.is_ok(), reference.lanes(id) < LANES);
                    if lent.is_ok() {
                        prop_assert!(real.pool.accept_in_flight(to, id).is_ok());
                        prop_assert!(real.pool.proxy(to).unwrap().release(id).is_ok());
                    }
                    drop(shared);
                }
                _ => {}
            }
            for (who, blocks) in real.held.iter().enumerate() {
                let ids: Vec<BlockId> = blocks.iter().map(Block::id).collect();
                prop_assert_eq!(&ids, &reference.held[who]);
            }
        }
        for who in 0..MEMBERS {
            drain(&mut real, &mut reference, who)?;
        }
        let report = real.pool.audit_once();
        prop_assert!(report.ok, "{:?}", report);
        real.held = Default::default();
        real.members.clear();
        prop_assert_eq!(real.pool.audit_once().in_use, 0);
    }
}

/// One message, with the right sender and content.
fn receive(real: &mut Real, reference: &mut Reference, by: usize) -> Result<(), TestCaseError> {
    let got = real.members[by].2.try_recv().unwrap();
    let expected = reference.queue[by].pop_front();
    prop_assert_eq!(got.as_ref().map(|d| d.block.id()), expected.map(|(_, id)| id));
    if let (Some(delivery), Some((_, id))) = (got, expected) {
        prop_assert!(is_stamped(&delivery.block, reference.content[&id]));
        reference.held[by].push(id);
        real.held[by].push(delivery.block);
    }
    Ok(())
}

fn drain(real: &mut Real, reference: &mut Reference, by: usize) -> Result<(), TestCaseError> {
    while !reference.queue[by].is_empty() {
        receive(real, reference, by)?;
    }
    receive(real, reference, by) // and nothing more
}
