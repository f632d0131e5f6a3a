//! Answers to questions: who is here, who receives, how full, does it balance.

use std::collections::HashMap;

use baton_pool::{BlockView, EndpointId, EndpointInfo, EndpointKind, EndpointState, Pool};
use baton_wire::attach::BLOCKS_PAGE_MAX;
use baton_wire::report::{
    AuditReport, BlockInfo, ClassInfo, Holder, InboxInfo, Member, MemberKind, PoolInfo,
};

use crate::classic::Classic;
use crate::registry::Registry;

pub(crate) fn inboxes(registry: &Registry) -> Vec<InboxInfo> {
    let row = |entry: &crate::registry::Entry| {
        Some(InboxInfo {
            inbox: entry.inbox.clone()?,
            endpoint: entry.endpoint.id.get(),
            pid: entry.pid,
            name: entry.name.clone(),
        })
    };
    registry.entries().filter_map(row).collect()
}

pub(crate) fn members(registry: &Registry, classic: &Classic) -> Vec<Member> {
    let counted: HashMap<_, _> =
        registry.pool().endpoints().into_iter().map(|info| (info.endpoint, info)).collect();
    let inbox_capacity = registry.pool().geometry().inbox_slots();
    let row = |entry: &crate::registry::Entry| {
        let info = counted.get(&entry.endpoint);
        Member {
            endpoint: entry.endpoint.id.get(),
            incarnation: entry.endpoint.incarnation,
            pid: entry.pid,
            uid: entry.uid(),
            name: entry.name.clone(),
            inbox: entry.inbox.clone(),
            read_only: entry.is_read_only(),
            connected: entry.session.is_some(),
            receiving: info.is_some_and(|info| info.state == EndpointState::Live),
            blocks_held: info.map_or(0, |info| info.held_blocks),
            bytes_held: info.map_or(0, |info| info.held_bytes),
            queued: info.map_or(0, |info| info.queued),
            kind: info.map_or(MemberKind::Attached, |info| match info.kind {
                EndpointKind::Attached => MemberKind::Attached,
                EndpointKind::Classic => MemberKind::Classic,
                EndpointKind::Daemon => MemberKind::Daemon,
            }),
            inbox_capacity,
            quota_bytes: info.map_or(0, |info| info.quota_bytes),
            sent: info.map_or(0, |info| info.sent),
            received: info.map_or(0, |info| info.received),
            dropped: info.map_or(0, |info| info.dropped),
            waits: info.map_or(0, |info| info.waits),
        }
    };
    let mut members: Vec<_> = registry.entries().map(row).collect();
    // Those for whom the daemon works, and the daemon itself: the pool knows them, no process of theirs is watched.
    let others = counted.values().filter(|info| info.kind != EndpointKind::Attached);
    members.extend(others.map(|info| spoken_for(info, classic.uid_of(info.endpoint), inbox_capacity)));
    members.sort_by_key(|member| member.endpoint);
    members
}

/// Shown as the user of a client that came over TCP: nobody knows. The number is the kernel's own for that.
const NOBODY: u32 = 65534;

fn spoken_for(info: &EndpointInfo, uid: Option<u32>, inbox_capacity: u64) -> Member {
    let is_daemon = info.kind == EndpointKind::Daemon;
    let own_uid = is_daemon.then(|| rustix::process::geteuid().as_raw());
    Member {
        endpoint: info.endpoint.id.get(),
        incarnation: info.endpoint.incarnation,
        pid: info.pid,
        uid: own_uid.or(uid).unwrap_or(NOBODY),
        name: info.name.clone(),
        inbox: None,
        read_only: false,
        connected: true,
        receiving: info.state == EndpointState::Live,
        blocks_held: info.held_blocks,
        bytes_held: info.held_bytes,
        queued: info.queued,
        kind: if is_daemon { MemberKind::Daemon } else { MemberKind::Classic },
        inbox_capacity,
        quota_bytes: info.quota_bytes,
        sent: info.sent,
        received: info.received,
        dropped: info.dropped,
        waits: info.waits,
    }
}

pub(crate) fn pool(registry: &Registry, adoptions: u32, pool_id: u64) -> PoolInfo {
    let usage = registry.pool().usage();
    let class = |c: &baton_pool::ClassUsage| ClassInfo {
        block_bytes: c.block_bytes,
        blocks: c.blocks,
        in_use: c.in_use,
    };
    PoolInfo {
        bytes_total: usage.total_bytes,
        bytes_in_use: usage.in_use_bytes,
        blocks_in_use: usage.in_use_blocks,
        block_bytes_max: usage.largest_block,
        classes: usage.classes.iter().map(class).collect(),
        adoptions,
        deaths: registry.deaths(),
        daemon_pid: std::process::id(),
        pool_id,
    }
}

/// One page of blocks, by number, and where the next one starts. A pass over the hold words: some milliseconds in a
/// large pool, so not for the thread that serves.
pub(crate) fn blocks(
    pool: &Pool,
    held_by: Option<EndpointId>,
    from: u32,
    limit: u32,
) -> (Vec<BlockInfo>, Option<u32>) {
    let limit = limit.clamp(1, BLOCKS_PAGE_MAX) as usize;
    let is_wanted =
        |view: &BlockView| held_by.is_none_or(|id| view.holders.iter().any(|(who, _)| *who == id));
    let later = pool.blocks_in_use().filter(|view| view.id.get() >= from && is_wanted(view));
    let mut page: Vec<_> = later.take(limit + 1).map(block).collect();
    let next = (page.len() > limit).then(|| page.pop()).flatten().map(|first_of_next| first_of_next.block);
    (page, next)
}

/// One block.
pub(crate) fn block(view: BlockView) -> BlockInfo {
    let holder = |(id, inbox): (EndpointId, bool)| Holder { endpoint: id.get(), inbox };
    BlockInfo {
        block: view.id.get(),
        generation: view.generation.into(),
        len: view.len,
        class_bytes: view.class_bytes,
        holders: view.holders.into_iter().map(holder).collect(),
    }
}

/// Blocks up to 100 ms when something looks wrong: not for the thread that serves.
pub(crate) fn audit(pool: &Pool) -> AuditReport {
    let found = pool.audit();
    AuditReport {
        ok: found.ok,
        blocks: found.blocks,
        free: found.blocks.saturating_sub(found.in_use),
        held: found.held,
        queued: found.queued,
        problems: found.findings.iter().map(ToString::to_string).collect(),
    }
}
