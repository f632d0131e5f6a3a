//! Looking at a pool from outside: who holds what, how full it is, and whether the books balance.
//!
//! Everything is read while members work, so a report is no snapshot of one instant. The audit therefore looks again
//! before it complains: an operation in progress is gone at the next look, a fault is not.

use crate::class::Class;
use crate::extent::{Extent, Use};
use crate::ids::{BlockId, EndpointId, EndpointRef};
use crate::pool::{Pool, Shared};
use crate::region::{Count, Place, Region, STATE_DEAD, STATE_FREE, STATE_LEAVING, STATE_LIVE};
use crate::slot::{Slot, State};
use crate::steward::{EndpointKind, read_name};
use crate::sync::Ordering;
use crate::word::Word;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Looks of an audit at something that seems wrong, and the pause between them.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Admitted.
    Live,
    /// Its process lives, its inbox is closed.
    Leaving,
    /// Being reaped (if this lasts: its reaper was killed, run it again).
    Dead,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// Number and incarnation.
    pub endpoint: EndpointRef,
    /// See [`EndpointState`].
    pub state: EndpointState,
    /// Process id.
    pub pid: u32,
    /// Start time of the process, clock ticks since boot.
    pub start_time: u64,
    /// Name shown.
    pub name: String,
    /// Name of its inbox, if others can find it.
    pub inbox: Option<String>,
    /// Lanes it has in blocks (its spare blocks included).
    pub held_blocks: u64,
    /// Bytes of those blocks.
    pub held_bytes: u64,
    /// Messages that wait in its inbox (or, for a classic client, at the daemon).
    pub queued: u64,
    /// What kind of member.
    #[serde(default)]
    pub kind: EndpointKind,
    /// Bytes that it may hold, 0 for no limit.
    #[serde(default)]
    pub quota_bytes: u64,
    /// Slots of its inbox that are taken.
    #[serde(default)]
    pub depth: u64,
    /// Messages it received. This and what follows are counted by the member itself: claims.
    #[serde(default)]
    pub received: u64,
    /// Messages it sent.
    #[serde(default)]
    pub sent: u64,
    /// Own unread messages that it replaced by newer ones.
    #[serde(default)]
    pub dropped: u64,
    /// Times it waited for room or memory.
    #[serde(default)]
    pub waits: u64,
    /// Sends that a full inbox refused.
    #[serde(default)]
    pub refused: u64,
}

/// Blocks of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassUsage {
    /// Bytes of each block.
    pub block_bytes: u64,
    /// Extents bound to this size.
    pub extents: u32,
    /// Blocks in them.
    pub blocks: u64,
    /// Blocks that somebody holds.
    pub in_use: u64,
}

/// How full a pool is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// Bytes of payload.
    pub total_bytes: u64,
    /// Bytes in blocks that somebody holds (whole blocks, not what was asked for).
    pub in_use_bytes: u64,
    /// Number of such blocks.
    pub in_use_blocks: u64,
    /// Bytes of the largest block that can be asked for.
    pub largest_block: u64,
    /// All extents.
    pub extents: u32,
    /// Extents not bound to a size yet.
    pub extents_unbound: u32,
    /// Sizes in use.
    pub classes: Vec<ClassUsage>,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockView {
    /// Its number.
    pub id: BlockId,
    /// How often it was allocated, modulo 256.
    pub generation: u8,
    /// Its size.
    pub class_bytes: u64,
    /// Bytes in use, as its allocator said.
    pub len: u64,
    /// One entry per lane: who, and whether it is a message not received yet.
    pub holders: Vec<(EndpointId, bool)>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Finding {
    /// A block is held by a number that nobody has.
    UnknownHolder {
        /// The block.
        block: BlockId,
        /// The number.
        endpoint: u16,
    },
    /// A block is a message in an inbox, but no slot there names it: it would never be received.
    LostMessage {
        /// The block.
        block: BlockId,
        /// Whose inbox.
        endpoint: u16,
    },
    /// A block is free but not in the index: it would never be allocated again.
    Unindexed {
        /// The block.
        block: BlockId,
    },
    /// A number that nobody has is left in a word of this extent that no block uses now.
    StrayHolder {
        /// Number of the extent.
        extent: u32,
        /// The number.
        endpoint: u16,
    },
    /// An extent is halfway from one size to another, and nobody works on it.
    UnfinishedExtent {
        /// Number of the extent.
        extent: u32,
    },
    /// The word of an extent is neither unbound nor a size of this pool.
    CorruptExtent {
        /// Number of the extent.
        extent: u32,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::UnknownHolder { block, endpoint } => {
                write!(f, "block {block} is held by endpoint {endpoint}, which is nobody's")
            }
            Finding::LostMessage { block, endpoint } => {
                write!(f, "block {block} is a message to endpoint {endpoint}, but its inbox does not name it")
            }
            Finding::Unindexed { block } => write!(f, "block {block} is free, but the index does not know"),
            Finding::StrayHolder { extent, endpoint } => {
                write!(
                    f,
                    "extent {extent} has an unused word that is held by endpoint {endpoint}, which is nobody's"
                )
            }
            Finding::UnfinishedExtent { extent } => {
                write!(
                    f,
                    "extent {extent} is halfway between two sizes: the memory daemon mends it when it starts"
                )
            }
            Finding::CorruptExtent { extent } => {
                write!(f, "extent {extent} is bound to no size of this pool")
            }
        }
    }
}

/// Whether every block is accounted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Nothing was found.
    pub ok: bool,
    /// Blocks looked at.
    pub blocks: u64,
    /// Blocks that somebody holds.
    pub in_use: u64,
    /// Lanes of holders.
    pub held: u64,
    /// Lanes of unread messages.
    pub queued: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Pool {
    /// All members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointInfo> {
        let region = &self.shared.region;
        let mut sums: BTreeMap<EndpointId, (u64, u64, u64)> = BTreeMap::new();
        for place in region.blocks() {
            for lane in Word::load(region.word(place)).lanes() {
                let Some(id) = lane.endpoint() else { continue };
                let sum = sums.entry(id).or_default();
                if lane.is_inbox() {
                    sum.2 += 1;
                } else {
                    sum.0 += 1;
                    sum.1 += place.class.size() as u64;
                }
            }
        }
        let info = |id| {
            let record = region.endpoint(id)?;
            let state = match record.state().load(Ordering::SeqCst) {
                STATE_LIVE => EndpointState::Live,
                STATE_LEAVING => EndpointState::Leaving,
                STATE_FREE => return None,
                _ => EndpointState::Dead,
            };
            let count = |what| record.count(what).load(Ordering::Relaxed);
            let (held_blocks, held_bytes, queued) = sums.get(&id).copied().unwrap_or_default();
            Some(EndpointInfo {
                endpoint: EndpointRef { id, incarnation: record.incarnation().load(Ordering::SeqCst) as u32 },
                state,
                pid: record.pid().load(Ordering::SeqCst) as u32,
                start_time: record.start_time().load(Ordering::SeqCst),
                name: read_name(record.name()),
                inbox: Some(read_name(record.inbox_name())).filter(|name| !name.is_empty()),
                held_blocks,
                held_bytes,
                queued,
                kind: EndpointKind::from_number(record.kind().load(Ordering::SeqCst)),
                quota_bytes: record.quota_bytes().load(Ordering::SeqCst),
                depth: depth(region, id),
                received: count(Count::Received),
                sent: count(Count::Sent),
                dropped: count(Count::Dropped),
                waits: count(Count::Waits),
                refused: count(Count::Refused),
            })
        };
        region.ids().filter_map(info).collect()
    }

    /// How full the pool is.
    #[must_use]
    pub fn usage(&self) -> PoolUsage {
        let region = &self.shared.region;
        let geometry = &region.geometry;
        let mut classes: BTreeMap<Class, ClassUsage> = BTreeMap::new();
        let mut unbound = 0;
        for extent in 0..geometry.extents() {
            let Some(class) = region.class_of(extent) else {
                unbound += u32::from(region.is_unbound(extent));
                continue;
            };
            let block_bytes = class.size() as u64;
            let usage =
                classes.entry(class).or_insert(ClassUsage { block_bytes, extents: 0, blocks: 0, in_use: 0 });
            usage.extents += geometry.span(class);
            for place in region.blocks_of(extent) {
                usage.blocks += 1;
                usage.in_use += u64::from(!Word::load(region.word(place)).is_free());
            }
        }
        let classes: Vec<ClassUsage> = classes.into_values().collect();
        PoolUsage {
            total_bytes: geometry.payload_bytes(),
            in_use_bytes: classes.iter().map(|c| c.in_use * c.block_bytes).sum(),
            in_use_blocks: classes.iter().map(|c| c.in_use).sum(),
            largest_block: geometry.largest_block() as u64,
            extents: geometry.extents(),
            extents_unbound: unbound,
            classes,
        }
    }

    /// One block as it is now; `None` if there is no such block.
    #[must_use]
    pub fn look(&self, block: BlockId) -> Option<BlockView> {
        view(&self.shared, self.shared.region.place(block)?)
    }

    /// All blocks that somebody holds.
    pub fn blocks_in_use(&self) -> impl Iterator<Item = BlockView> + '_ {
        let region = &self.shared.region;
        let used = region.blocks().filter(|place| !Word::load(region.word(*place)).is_free());
        used.filter_map(|place| view(&self.shared, place)).filter(|view| !view.holders.is_empty())
    }

    /// All blocks that this endpoint holds or has unread.
    pub fn held_by(&self, endpoint: EndpointId) -> impl Iterator<Item = BlockView> + '_ {
        self.blocks_in_use().filter(move |view| view.holders.iter().any(|(id, _)| *id == endpoint))
    }

    /// Who holds a block: (endpoint, is it an unread message), one entry per lane.
    #[must_use]
    pub fn holders(&self, block: BlockId) -> Vec<(EndpointId, bool)> {
        let region = &self.shared.region;
        let Some(place) = region.place(block) else { return Vec::new() };
        let word = Word::load(region.word(place));
        word.lanes().filter_map(|lane| Some((lane.endpoint()?, lane.is_inbox()))).collect()
    }

    /// Accounts for every block. Takes up to 100 ms if something looks wrong, to tell a fault from an operation in
    /// progress; so a member that is stopped (SIGSTOP, debugger) in the middle of one may show up.
    #[must_use]
    pub fn audit(&self) -> AuditReport {
        let mut report = self.audit_once();
        let mut lasting: BTreeSet<Finding> = report.findings.iter().cloned().collect();
        for _ in 1..LOOKS {
            if lasting.is_empty() {
                break;
            }
            std::thread::sleep(PAUSE);
            report = self.audit_once();
            lasting.retain(|finding| report.findings.contains(finding));
        }
        report.findings = lasting.into_iter().collect();
        report.ok = report.findings.is_empty();
        report
    }

    /// One look. Exact if nobody works meanwhile; otherwise operations in progress show up as findings.
    #[must_use]
    pub fn audit_once(&self) -> AuditReport {
        let region = &self.shared.region;
        let mut report =
            AuditReport { ok: true, blocks: 0, in_use: 0, held: 0, queued: 0, findings: Vec::new() };
        for extent in 0..region.geometry.extents() {
            let class = region.class_of(extent);
            if class.is_none()
                && matches!(region.extent(extent).and_then(Extent::used), None | Some(Use::Bound(_)))
            {
                report.findings.push(Finding::CorruptExtent { extent });
            }
            if region.is_unfinished(extent) {
                report.findings.push(Finding::UnfinishedExtent { extent });
            }
            report.findings.extend(strays(region, extent));
        }
        // Words first, slots afterwards: a message committed before the first look is named by a slot at the second.
        let mut unread: BTreeMap<(BlockId, EndpointId), (Word, u32)> = BTreeMap::new();
        for place in region.blocks() {
            let word = Word::load(region.word(place));
            report.blocks += 1;
            report.in_use += u64::from(!word.is_free());
            if word.is_free() && !region.is_hinted(place.block) {
                report.findings.push(Finding::Unindexed { block: place.block });
            }
            for lane in word.lanes() {
                let Some(id) = lane.endpoint() else { continue };
                let state = region.endpoint(id).map_or(STATE_FREE, |e| e.state().load(Ordering::SeqCst));
                if state == STATE_FREE || state == STATE_DEAD {
                    report.findings.push(Finding::UnknownHolder { block: place.block, endpoint: id.get() });
                } else if lane.is_inbox() {
                    report.queued += 1;
                    unread.entry((place.block, id)).or_insert((word, 0)).1 += 1;
                } else {
                    report.held += 1;
                }
            }
        }
        report.findings.extend(lost_messages(region, &unread));
        report.ok = report.findings.is_empty();
        report
    }
}

fn view(shared: &Shared, place: Place) -> Option<BlockView> {
    let word = Word::load(shared.region.word(place));
    let (_, len) = shared.bytes_of(place.block)?;
    Some(BlockView {
        id: place.block,
        generation: word.generation(),
        class_bytes: place.class.size() as u64,
        len: len as u64,
        holders: word.lanes().filter_map(|lane| Some((lane.endpoint()?, lane.is_inbox()))).collect(),
    })
}

/// Slots of an inbox that are taken.
fn depth(region: &Region, id: EndpointId) -> u64 {
    let taken = |position: &u64| {
        let slot = Slot::from_bits(region.slot(id, *position).load(Ordering::Relaxed));
        matches!(slot.state(), State::Full | State::Cancel)
    };
    (0..region.geometry.inbox_slots()).filter(taken).count() as u64
}

/// Lanes of the dead in words that the extent's present class does not use.
fn strays(region: &Region, extent: u32) -> Vec<Finding> {
    if region.extent(extent).is_none_or(|now| now.epoch() == 0) {
        return Vec::new(); // never retired: no other word was ever used
    }
    let mut found = BTreeSet::new();
    for within in 0..region.geometry.words_per_extent() {
        let word = Word::load(region.raw_word(extent, within));
        if word.is_free() || region.block_of_word(extent, within).is_some() {
            continue;
        }
        found.extend(word.lanes().filter_map(crate::word::Lane::endpoint).filter(|id| {
            let state = region.endpoint(*id).map_or(STATE_FREE, |e| e.state().load(Ordering::SeqCst));
            state == STATE_FREE || state == STATE_DEAD
        }));
    }
    found.into_iter().map(|id| Finding::StrayHolder { extent, endpoint: id.get() }).collect()
}

/// Unread messages beyond the number of slots that name them.
fn lost_messages<'a>(
    region: &'a Region,
    unread: &'a BTreeMap<(BlockId, EndpointId), (Word, u32)>,
) -> impl Iterator<Item = Finding> + 'a {
    let mut named: BTreeMap<(BlockId, EndpointId), u32> = BTreeMap::new();
    // What is in flight to a classic client waits at the daemon, in no slot.
    let is_classic = |id: EndpointId| {
        let kind = region.endpoint(id).map(|e| EndpointKind::from_number(e.kind().load(Ordering::SeqCst)));
        kind == Some(EndpointKind::Classic)
    };
    let receivers: BTreeSet<EndpointId> = unread.keys().map(|(_, id)| *id).collect();
    for id in receivers {
        for position in 0..region.geometry.inbox_slots() {
            let slot = Slot::from_bits(region.slot(id, position).load(Ordering::SeqCst));
            if slot.state() == State::Full {
                *named.entry((slot.block(), id)).or_default() += 1;
            }
        }
    }
    unread.iter().filter_map(move |((block, id), (word, lanes))| {
        let still = region.place(*block).is_some_and(|place| Word::load(region.word(place)) == *word);
        let lost = still && !is_classic(*id) && *lanes > named.get(&(*block, *id)).copied().unwrap_or(0);
        lost.then_some(Finding::LostMessage { block: *block, endpoint: id.get() })
    })
}
