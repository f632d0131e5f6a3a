//! Answers to questions: who is here, who receives, how full, does it balance.

use std::collections::HashMap;

use baton_pool::{EndpointState, Pool};
use baton_wire::report::{AuditReport, ClassInfo, InboxInfo, Member, PoolInfo};

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

pub(crate) fn members(registry: &Registry) -> Vec<Member> {
    let counted: HashMap<_, _> =
        registry.pool().endpoints().into_iter().map(|info| (info.endpoint, info)).collect();
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
        }
    };
    registry.entries().map(row).collect()
}

pub(crate) fn pool(pool: &Pool, adoptions: u32) -> PoolInfo {
    let usage = pool.usage();
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
