//! The system itself: processes, pool, health.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use aits_orders::{Process, ProcessList, ProcessState, TaskList, method};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use baton_client::{AuditReport, Member, PoolInfo};
use serde::Serialize;

use crate::{Door, Problem};

/// A report about the pool is shown for so long before the daemon is asked again, whoever asks.
const REPORT_AGE: Duration = Duration::from_millis(900);
/// How long a service may take to prove that it is there.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);

/// What the memory daemon says.
#[derive(Clone, Debug)]
pub struct PoolReport {
    made: Instant,
    members: Vec<Member>,
    info: PoolInfo,
    audit: AuditReport,
}

/// One process of the system: what the supervisor and the pool know about it.
#[derive(Serialize, Debug, PartialEq)]
pub struct Row {
    name: String,
    pid: Option<u32>,
    state: ProcessState,
    /// Started by the supervisor itself; `false` for the gateway's workers and for tools that look into the pool.
    supervised: bool,
    restarts: Option<u32>,
    up_ms: Option<u64>,
    last_exit: Option<String>,
    /// Blocks and bytes that it holds, and blocks that wait for it; absent if it is not in the pool.
    blocks_held: Option<u64>,
    bytes_held: Option<u64>,
    queued: Option<u64>,
}

#[derive(Serialize)]
struct PoolAnswer {
    info: PoolInfo,
    audit: AuditReport,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    /// Services that do not answer.
    down: BTreeSet<&'static str>,
}

/// `GET /api/processes`: an array, supervised processes first.
pub async fn processes(State(door): State<Door>) -> Result<Json<Vec<Row>>, Problem> {
    let supervised: Result<ProcessList, _> = door.peers().up.call(method::UP_PROCESSES, &()).await;
    let members = report(&door).await.map(|report| report.members);
    match (supervised, members) {
        (Err(error), Err(_)) => Err(Problem::away("the supervisor", error)),
        (supervised, members) => {
            let supervised = supervised.map(|list| list.processes).unwrap_or_default();
            Ok(Json(merge(supervised, members.unwrap_or_default())))
        }
    }
}

/// Joins both lists by process id. A process may be in the pool several times.
fn merge(supervised: Vec<Process>, members: Vec<Member>) -> Vec<Row> {
    let mut by_pid: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
    for member in members {
        by_pid.entry(member.pid).or_default().push(member);
    }
    let mut rows: Vec<Row> = supervised
        .into_iter()
        .map(|process| {
            let members = process.pid.and_then(|pid| by_pid.remove(&pid));
            let sum = |f: fn(&Member) -> u64| members.as_ref().map(|all| all.iter().map(f).sum());
            Row {
                name: process.name,
                pid: process.pid,
                state: process.state,
                supervised: true,
                restarts: Some(process.restarts),
                up_ms: Some(process.up_ms),
                last_exit: process.last_exit,
                blocks_held: sum(|m| m.blocks_held),
                bytes_held: sum(|m| m.bytes_held),
                queued: sum(|m| m.queued),
            }
        })
        .collect();
    rows.extend(by_pid.into_iter().map(|(pid, members)| Row {
        name: members.first().map(|member| member.name.clone()).unwrap_or_default(),
        pid: Some(pid),
        state: ProcessState::Running,
        supervised: false,
        restarts: None,
        up_ms: None,
        last_exit: None,
        blocks_held: Some(members.iter().map(|m| m.blocks_held).sum()),
        bytes_held: Some(members.iter().map(|m| m.bytes_held).sum()),
        queued: Some(members.iter().map(|m| m.queued).sum()),
    }));
    rows
}

/// `GET /api/pool`: size, use, and whether every block is accounted for.
pub async fn pool(State(door): State<Door>) -> Result<Response, Problem> {
    let PoolReport { info, audit, .. } = report(&door).await?;
    Ok(Json(PoolAnswer { info, audit }).into_response())
}

/// Asks the daemon, at most once a second however many pages are open.
async fn report(door: &Door) -> Result<PoolReport, Problem> {
    let mut last = door.report().lock().await;
    if let Some(report) = last.as_ref().filter(|report| report.made.elapsed() < REPORT_AGE) {
        return Ok(report.clone());
    }
    let pool = door.pool().ok_or_else(|| Problem::away("rmmt", "this worker is not in the pool"))?;
    let made = Instant::now();
    // Blocking round trips.
    let asked = tokio::task::spawn_blocking(move || {
        Ok::<_, baton_client::QueryError>((pool.members()?, pool.pool()?, pool.audit()?))
    });
    let (members, info, audit) = match asked.await {
        Ok(Ok(answers)) => answers,
        Ok(Err(error)) => return Err(Problem::away("rmmt", error)),
        Err(error) => return Err(Problem::away("rmmt", error)),
    };
    let report = PoolReport { made, members, info, audit };
    *last = Some(report.clone());
    Ok(report)
}

/// `GET /healthz`: 200 while wmits answers, else 503; what does not answer stands in `down`.
pub async fn health(State(door): State<Door>) -> Response {
    let mut down = BTreeSet::new();
    let peers = door.peers();
    let wmits =
        peers.wmits.call_with_timeout::<_, TaskList>(method::TASK_LIST, &(), HEALTH_PATIENCE).await.is_ok();
    let preview = tokio::net::UnixStream::connect(&peers.preview_socket).await.is_ok();
    let up = peers
        .up
        .call_with_timeout::<_, ProcessList>(method::UP_PROCESSES, &(), HEALTH_PATIENCE)
        .await
        .is_ok();
    for (name, answers) in
        [("wmits", wmits), ("preview", preview), ("up", up), ("rmmt", door.pool().is_some())]
    {
        if !answers {
            down.insert(name);
        }
    }
    let (code, status) = match (wmits, down.is_empty()) {
        (true, true) => (StatusCode::OK, "ok"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "down"),
    };
    (code, Json(Health { status, down })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: u32, name: &str, blocks: u64) -> Member {
        let json = serde_json::json!({
            "endpoint": 1, "incarnation": 0, "pid": pid, "uid": 0, "name": name, "inbox": null, "read_only": true,
            "connected": true, "receiving": true, "blocks_held": blocks, "bytes_held": blocks * 4096, "queued": 1,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn both_lists_meet_at_the_process_id() {
        let process = |name: &str, pid| Process {
            name: name.into(),
            pid,
            state: ProcessState::Running,
            restarts: 2,
            up_ms: 10,
            last_exit: None,
        };
        let rows = merge(
            vec![process("vas", Some(7)), process("gateway", Some(8)), process("vss-0", None)],
            vec![member(9, "gateway-worker", 1), member(7, "vas", 3), member(7, "vas", 2)],
        );
        let seen: Vec<_> =
            rows.iter().map(|r| (r.name.as_str(), r.pid, r.supervised, r.blocks_held)).collect();
        assert_eq!(
            seen,
            [
                ("vas", Some(7), true, Some(5)),
                ("gateway", Some(8), true, None),
                ("vss-0", None, true, None),
                ("gateway-worker", Some(9), false, Some(1)),
            ]
        );
    }
}
