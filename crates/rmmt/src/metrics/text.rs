//! The metrics as text: what is counted, and from where.

use std::collections::BTreeMap;
use std::fmt;

use baton_pool::{EndpointInfo, EndpointKind, Pool};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::daemon::House;

/// What only the daemon knows, taken from it at once.
pub(super) struct Known {
    deaths: u64,
    adoptions: u32,
    keepers: u64,
    classic: usize,
    unkept: usize,
    reaps: Histogram,
}

impl Known {
    pub(super) fn of(house: &House) -> Self {
        let registry = house.registry.borrow();
        Self {
            deaths: registry.deaths(),
            adoptions: house.lives,
            keepers: house.keeping.started.get(),
            classic: house.classic.connections(),
            unkept: house.keeping.unkept(),
            reaps: registry.reaps.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Who {
    endpoint: u16,
    name: String,
    pid: u32,
    kind: &'static str,
}

/// Name, help, and where the value is.
type Column = (&'static str, &'static str, fn(&EndpointInfo) -> u64);
type PerMember = Family<Who, Gauge>;
type PerMemberCount = Family<Who, Counter>;

/// Everything in the format of Prometheus (OpenMetrics 1.0). A pass over the hold words.
pub(super) fn write(pool: &Pool, known: &Known) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("baton");
    let infos = pool.endpoints();
    let gauges: [Column; 3] = [
        ("member_blocks", "Blocks that a member holds", |info| info.held_blocks),
        ("member_bytes", "Bytes of the blocks that a member holds", |info| info.held_bytes),
        ("member_queue", "Messages that wait in a member's inbox", |info| info.queued),
    ];
    for (name, help, value) in gauges {
        let family = PerMember::default();
        for info in &infos {
            family.get_or_create(&who(info)).set(signed(value(info)));
        }
        registry.register(name, help, family);
    }
    let counts: [Column; 4] = [
        ("member_received", "Messages that a member received", |info| info.received),
        ("member_sent", "Messages that a member sent", |info| info.sent),
        ("member_dropped", "Messages that a member replaced by newer ones", |info| info.dropped),
        ("member_waits", "Times that a member waited for room or memory", |info| info.waits),
    ];
    for (name, help, value) in counts {
        let family = PerMemberCount::default();
        for info in &infos {
            family.get_or_create(&who(info)).inc_by(value(info));
        }
        registry.register(name, help, family);
    }
    let usage = pool.usage();
    let over = excesses(&infos).len() as u64;
    for (name, help, value) in [
        ("pool_bytes", "Memory for blocks", usage.total_bytes),
        (
            "pool_in_use_bytes",
            "Memory of blocks that somebody holds or that wait in an inbox",
            usage.in_use_bytes,
        ),
        ("pool_in_use_blocks", "Blocks that somebody holds or that wait in an inbox", usage.in_use_blocks),
        ("classic_connections", "Connections of classic clients", known.classic as u64),
        (
            "unkept_descriptors",
            "Descriptors that the keeper cannot hold and that would be lost with this daemon",
            known.unkept as u64,
        ),
        ("over_quota_processes", "Processes that hold more than their quota", over),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(signed(value));
        registry.register(name, help, gauge);
    }
    for (name, help, value) in [
        ("deaths_reaped", "Members that died and were reaped, since this daemon was started", known.deaths),
        ("adoptions", "Times that a restarted daemon took the pool over", u64::from(known.adoptions)),
        ("keepers_started", "Keepers started by this daemon for killed ones", known.keepers),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    registry.register_with_unit(
        "reap",
        "Time to take back what an endpoint held",
        Unit::Seconds,
        known.reaps.clone(),
    );
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

fn who(info: &EndpointInfo) -> Who {
    let kind = match info.kind {
        EndpointKind::Attached => "attached",
        EndpointKind::Classic => "classic",
        EndpointKind::Daemon => "daemon",
    };
    Who { endpoint: info.endpoint.id.get(), name: info.name.clone(), pid: info.pid, kind }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A process that holds more than its quota: by receiving, or by taking what it may not. Counted from the hold words,
/// whatever its own books say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) quota: u64,
}

pub(crate) fn excesses(infos: &[EndpointInfo]) -> Vec<Excess> {
    let mut processes = BTreeMap::<u32, Excess>::new();
    for info in infos.iter().filter(|info| info.kind != EndpointKind::Daemon) {
        let new = || Excess { pid: info.pid, name: info.name.clone(), bytes: 0, quota: 0 };
        let process = processes.entry(info.pid).or_insert_with(new);
        process.bytes += info.held_bytes;
        process.quota = process.quota.max(info.quota_bytes);
    }
    processes.into_values().filter(|process| process.quota != 0 && process.bytes > process.quota).collect()
}
