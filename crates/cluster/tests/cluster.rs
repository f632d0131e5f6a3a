//! Handing out connections to real worker processes: evenly, and to whoever is alive.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use baton_cluster::{Cluster, Event, StartError, Worker};
use common::{connect, echo, is_alive, is_closed, round_trip, signal, stop, until};
use rustix::process::Signal;

#[tokio::test]
async fn every_worker_gets_the_same_number_of_connections() {
    let (builder, _events) = echo(4);
    let cluster = builder.start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(connect(cluster.local_uri()).await);
    }
    for client in &mut clients {
        round_trip(client).await.unwrap();
    }
    until("all connections are taken", || {
        cluster.workers().iter().map(|worker| worker.taken).sum::<u64>() == 100
    })
    .await;
    assert_eq!(cluster.workers().iter().map(|worker| worker.taken).collect::<Vec<_>>(), [25; 4]);
    let pids = cluster.worker_pids();
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 4);
    drop(clients);
    cluster.shutdown().await;
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn unix_and_tcp_listeners_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("echo.sock");
    let (builder, _events) = echo(2);
    let cluster = builder.listen(format!("un://{}", path.display())).start().await.unwrap();
    for uri in cluster.local_uris() {
        for _ in 0..4 {
            round_trip(&mut connect(uri).await).await.unwrap();
        }
    }
    cluster.shutdown().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_the_others_serve_on() {
    let (builder, events) = echo(4);
    let cluster = builder.start().await.unwrap();
    for _ in 0..4 {
        events.ready();
    }
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut client = connect(cluster.local_uri()).await;
        round_trip(&mut client).await.unwrap();
        clients.push(client);
    }
    let victim = cluster.worker_pids()[2];
    signal(victim, Signal::KILL);
    assert_eq!(events.died(), (2, victim, 0));
    let (slot, successor) = events.ready();
    assert_eq!(slot, 2);
    assert_ne!(successor, victim);
    let mut lost = 0;
    for client in &mut clients {
        lost += usize::from(round_trip(client).await.is_err());
    }
    assert_eq!(lost, 4, "a quarter was the victim's, and nothing else is lost");
    for _ in 0..8 {
        round_trip(&mut connect(cluster.local_uri()).await).await.unwrap();
    }
    until("the successor serves", || cluster.workers().iter().any(|w| w.pid == successor && w.taken == 2))
        .await;
}

#[tokio::test]
async fn connections_unread_by_a_dead_worker_are_passed_on() {
    let (builder, events) = echo(2);
    let cluster = builder.unread_max(8).start().await.unwrap();
    let stopped = cluster.worker_pids()[0];
    stop(stopped);
    // It cannot read any more; half of the connections lie in its channel, until that is full.
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(connect(cluster.local_uri()).await);
    }
    until("the other worker takes the rest", || cluster.workers()[1].taken == 32).await;
    signal(stopped, Signal::KILL);
    assert_eq!(events.died(), (0, stopped, 8));
    for client in &mut clients {
        round_trip(client).await.unwrap();
    }
}

#[tokio::test]
async fn a_stopped_worker_holds_up_nobody_and_is_ended() {
    let (builder, events) = echo(2);
    let cluster = builder.stuck_after(Duration::from_millis(500)).start().await.unwrap();
    let stopped = cluster.worker_pids()[1];
    stop(stopped);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(connect(cluster.local_uri()).await);
    }
    let (_, pid, passed_on) = events.died();
    assert_eq!(pid, stopped);
    assert!(passed_on > 0);
    for client in &mut clients {
        round_trip(client).await.unwrap();
    }
}

#[tokio::test]
async fn with_every_worker_gone_connections_wait_and_are_served() {
    let (builder, events) = echo(2);
    let cluster = builder.pending_max(3).start().await.unwrap();
    for pid in cluster.worker_pids() {
        signal(pid, Signal::KILL);
    }
    // More than may wait in the master: the others wait in the kernel.
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(connect(cluster.local_uri()).await);
    }
    events.died();
    events.died();
    for client in &mut clients {
        // One that a worker had taken just before it was killed is lost; it ends, it does not hang.
        if round_trip(client).await.is_err() {
            *client = connect(cluster.local_uri()).await;
            round_trip(client).await.unwrap();
        }
    }
}

/// A program that fails the first `failures` times and is the echo worker from then on.
fn reluctant(dir: &tempfile::TempDir, failures: usize) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let script = dir.path().join("reluctant");
    let attempts: String = (0..failures)
        .map(|n| format!("mkdir '{}/{n}' 2>/dev/null && exit 7\n", dir.path().display()))
        .collect();
    std::fs::write(
        &script,
        format!("#!/bin/sh\n{attempts}exec '{}' \"$@\"\n", common::echo_binary().display()),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    script
}

#[tokio::test]
async fn a_cluster_that_starts_half_way_works_and_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (builder, events) = echo(4);
    let cluster = builder.worker_program(reluctant(&dir, 2)).start().await.unwrap();
    for _ in 0..4 {
        round_trip(&mut connect(cluster.local_uri()).await).await.unwrap();
    }
    let (mut died, mut ready) = (0, BTreeSet::new());
    while ready.len() < 4 {
        match events.next(|event| Some(event.clone())) {
            Event::WorkerDied { status, .. } => {
                assert_eq!(status, "exit status: 7");
                died += 1;
            }
            Event::WorkerReady { slot, .. } => drop(ready.insert(slot)),
            _ => {}
        }
    }
    assert_eq!(died, 2);
    for _ in 0..8 {
        round_trip(&mut connect(cluster.local_uri()).await).await.unwrap();
    }
}

#[tokio::test]
async fn no_worker_at_all_is_an_error_that_says_why() {
    let (builder, _events) = echo(3);
    let error = builder.worker_program("/bin/false").start().await.unwrap_err();
    assert!(matches!(error, StartError::NoWorkers { wanted: 3, .. }));
    assert!(error.to_string().contains("exit status: 1"), "{error}");
    let (builder, _events) = echo(3);
    let error = builder.worker_program("/nonexistent/worker").start().await.unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    // A program that starts and never becomes a worker.
    let (builder, _events) = echo(1);
    let builder =
        builder.worker_program("/bin/sleep").worker_args(["1000"]).ready_within(Duration::from_millis(50));
    let error = builder.start().await.unwrap_err();
    assert!(error.to_string().contains("none was ready"), "{error}");
    assert!(matches!(Cluster::builder().start().await, Err(StartError::NoAddress)));
    assert!(matches!(Cluster::builder().listen("nonsense").start().await, Err(StartError::Bind(_))));
}

#[tokio::test]
async fn dropping_a_cluster_ends_its_workers_at_once() {
    let (builder, _events) = echo(2);
    let cluster = builder.start().await.unwrap();
    let pids = cluster.worker_pids();
    let mut client = connect(cluster.local_uri()).await;
    round_trip(&mut client).await.unwrap();
    drop(cluster);
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert!(is_closed(&mut client).await);
}

#[tokio::test]
async fn shutdown_kills_what_outlives_the_grace() {
    let (builder, _events) = echo(2);
    let cluster = builder.grace(Duration::from_millis(50)).start().await.unwrap();
    let pids = cluster.worker_pids();
    // The echo service does not look at `draining`, so an open connection keeps its worker.
    let mut client = connect(cluster.local_uri()).await;
    round_trip(&mut client).await.unwrap();
    cluster.shutdown().await;
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert!(is_closed(&mut client).await);
}

#[test]
fn a_worker_started_by_hand_says_so() {
    let output = std::process::Command::new(common::echo_binary())
        .arg("--worker")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("NotAWorker"));
    // And this process is none either: its standard input is no channel.
    assert!(Worker::attach().is_err());
}
