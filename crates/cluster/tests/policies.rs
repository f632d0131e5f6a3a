//! Every policy over real processes: who gets what, and what becomes of connections while workers die.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use baton_cluster::{Builder, Cluster, Event, Policy, Stream};
use common::{Events, connect, echo, is_closed, round_trip, signal, stop, until};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

fn total(cluster: &Cluster) -> u64 {
    cluster.workers().iter().map(|worker| worker.taken).sum()
}

fn open(cluster: &Cluster) -> Vec<u64> {
    cluster.workers().iter().map(|worker| worker.open).collect()
}

/// An echo cluster with a TCP and a Unix listener.
fn both(policy: Policy, workers: usize) -> (Builder, Events, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (builder, events) = echo(workers);
    let unix = format!("un://{}", dir.path().join("echo.sock").display());
    (builder.listen(unix).policy(policy), events, dir)
}

/// A line sent, and the process that answers.
async fn ask(stream: &mut BufReader<Stream>, line: &str) -> u32 {
    stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(common::WATCHDOG, stream.read_line(&mut answer)).await.expect("no answer").unwrap();
    answer.trim().parse().unwrap()
}

#[tokio::test]
async fn a_burst_is_served_under_every_policy_and_every_connection_once() {
    for policy in Policy::ALL {
        let (builder, _events, _dir) = both(policy, 4);
        // However slow one of them is just now, it is not passed over.
        let cluster = builder.unread_max(400).start().await.unwrap();
        assert_eq!(cluster.info().policy, policy);
        let mut clients = Vec::new();
        for uri in cluster.local_uris() {
            let connects = (0..200).map(|_| {
                tokio::spawn({
                    let uri = uri.clone();
                    async move { connect(&uri).await }
                })
            });
            for connecting in connects.collect::<Vec<_>>() {
                clients.push(connecting.await.unwrap());
            }
        }
        for client in &mut clients {
            round_trip(client).await.unwrap();
        }
        until("all connections are counted", || open(&cluster).iter().sum::<u64>() == 400).await;
        assert_eq!(total(&cluster), 400);
        let taken = open(&cluster);
        eprintln!("{policy}: {taken:?}");
        if matches!(policy, Policy::RoundRobin | Policy::LeastConnections) {
            assert_eq!(taken, [100; 4]);
        }
        assert_eq!(cluster.info().accepted, if policy.is_passing() { 400 } else { 0 });
        drop(clients);
        until("all connections are closed", || open(&cluster).iter().sum::<u64>() == 0).await;
        cluster.shutdown().await;
    }
}

#[tokio::test]
async fn least_connections_fills_up_where_connections_were_closed() {
    let (builder, _events) = echo(4);
    let cluster = builder.policy(Policy::LeastConnections).start().await.unwrap();
    let mut clients: Vec<Option<Stream>> = Vec::new();
    for _ in 0..40 {
        let mut client = connect(cluster.local_uri()).await;
        round_trip(&mut client).await.unwrap();
        clients.push(Some(client));
    }
    until("everybody has ten", || open(&cluster) == [10; 4]).await;
    // One at a time they went round, so every fourth is of one worker.
    for client in clients.iter_mut().step_by(4) {
        *client = None;
    }
    until("one has none", || open(&cluster).iter().filter(|open| **open == 0).count() == 1).await;
    let mut more = Vec::new();
    for _ in 0..10 {
        let mut client = connect(cluster.local_uri()).await;
        round_trip(&mut client).await.unwrap();
        more.push(client);
    }
    until("everybody has ten again", || open(&cluster) == [10; 4]).await;
}

#[tokio::test]
async fn least_load_spares_the_busy_worker() {
    let (builder, _events) = echo(3);
    let lines = baton_testkit::example(env!("CARGO_MANIFEST_DIR"), "lines");
    let cluster = builder.worker_program(lines).policy(Policy::LeastLoad).start().await.unwrap();
    let mut busy = Vec::new();
    for _ in 0..30 {
        busy.push(BufReader::new(connect(cluster.local_uri()).await));
    }
    let mut pids = Vec::new();
    for client in &mut busy {
        pids.push(ask(client, "who").await);
    }
    // All connections of one worker begin a request that does not end while this test runs.
    // The one with the most: where the machine is busy, one that came late with its heartbeat got fewer.
    let count = |pid: &u32| pids.iter().filter(|other| *other == pid).count();
    let victim = *pids.iter().max_by_key(|pid| count(pid)).unwrap();
    let mut begun = 0;
    for (client, pid) in busy.iter_mut().zip(&pids) {
        if *pid == victim {
            client.write_all(b"sleep 600000\n").await.unwrap();
            begun += 1;
        }
    }
    let load = || cluster.workers().into_iter().find(|worker| worker.pid == victim).unwrap();
    until("the requests are under way", || load().in_flight == begun).await;
    assert!(begun >= 10, "{begun} of 30");
    let mut got: BTreeMap<u32, usize> = BTreeMap::new();
    let mut more = Vec::new();
    for _ in 0..30 {
        let mut client = BufReader::new(connect(cluster.local_uri()).await);
        *got.entry(ask(&mut client, "who").await).or_default() += 1;
        more.push(client);
    }
    let of_busy = got.get(&victim).copied().unwrap_or(0);
    assert!(of_busy <= 5, "the busy one got {of_busy} of 30: {got:?}");
    assert!(load().requests > 0);
}

#[tokio::test]
async fn what_was_not_taken_survives_kills_under_every_policy() {
    for policy in Policy::ALL {
        let (builder, events, _dir) = both(policy, 3);
        let cluster = builder.start().await.unwrap();
        let victim = cluster.worker_pids()[1];
        // It takes nothing more; what is given to it, or waits in a queue of its own, waits.
        stop(victim);
        let mut clients = Vec::new();
        for uri in cluster.local_uris() {
            for _ in 0..30 {
                clients.push(connect(uri).await);
            }
        }
        signal(victim, Signal::KILL);
        let (slot, pid, _) = events.died();
        assert_eq!((slot, pid), (1, victim));
        for client in &mut clients {
            round_trip(client).await.unwrap_or_else(|error| panic!("{policy}: {error}"));
        }
        until("its successor is there", || {
            cluster.workers().iter().any(|worker| worker.slot == 1 && worker.restarts == 1)
        })
        .await;
    }
}

#[tokio::test]
async fn over_the_limit_of_its_address_a_connection_is_closed_and_others_are_not() {
    let (builder, events, _dir) = both(Policy::RoundRobin, 2);
    let cluster = builder.per_address_max(10).count_loopback(true).start().await.unwrap();
    let [tcp, unix] = cluster.local_uris() else { panic!("two listeners") };
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = connect(tcp).await;
        round_trip(&mut client).await.unwrap();
        clients.push(client);
    }
    for _ in 0..5 {
        assert!(is_closed(&mut connect(tcp).await).await);
    }
    let refused = events.next(|event| match event {
        Event::AddressRefused { address, refused } => Some((address.is_loopback(), *refused)),
        _ => None,
    });
    assert_eq!(refused, (true, 1), "the first one is told at once");
    assert_eq!(cluster.info().address_refused, 5);
    round_trip(&mut connect(unix).await).await.unwrap();
    for client in &mut clients {
        round_trip(client).await.unwrap();
    }
    // Room comes back by closing, and by the death of a worker.
    clients.pop();
    let mut again = None;
    until_connected(&mut again, tcp).await;
    let victim = cluster.worker_pids()[0];
    signal(victim, Signal::KILL);
    events.died();
    let mut after = Vec::new();
    for _ in 0..4 {
        let mut client = None;
        until_connected(&mut client, tcp).await;
        after.push(client);
    }
}

/// Tries until a connection is served: the master hears of closed ones a moment later.
async fn until_connected(client: &mut Option<Stream>, uri: &str) {
    let attempts = async {
        loop {
            let mut attempt = connect(uri).await;
            if round_trip(&mut attempt).await.is_ok() {
                return attempt;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    *client = Some(tokio::time::timeout(common::WATCHDOG, attempts).await.expect("no room came back"));
}

#[tokio::test]
async fn over_the_limit_of_all_workers_connections_wait_for_room() {
    for policy in Policy::ALL {
        let (builder, events) = echo(2);
        let cluster = builder.policy(policy).connections_max(5).pending_max(4).start().await.unwrap();
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(connect(cluster.local_uri()).await);
        }
        if policy.is_passing() {
            events.next(|event| matches!(event, Event::AllFull { .. }).then_some(()));
        }
        until("the workers are full", || open(&cluster) == [5; 2]).await;
        // Whichever is answered closes, and makes room for the next.
        let mut answers = tokio::task::JoinSet::new();
        for mut client in clients {
            answers.spawn(async move { round_trip(&mut client).await.unwrap() });
        }
        while let Some(answered) = answers.join_next().await {
            answered.unwrap();
        }
        until("all are counted", || total(&cluster) == 40).await;
        assert!(cluster.info().workers.iter().all(|worker| worker.restarts == 0));
    }
}

#[tokio::test]
async fn a_wider_spread_stays_within_its_bound() {
    let (builder, _events) = echo(4);
    let cluster = builder.spread_max(2).start().await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..101 {
        clients.push(connect(cluster.local_uri()).await);
    }
    until("all are taken", || total(&cluster) == 101).await;
    let taken = open(&cluster);
    let (most, fewest) = (taken.iter().max().unwrap(), taken.iter().min().unwrap());
    assert!(most - fewest <= 2, "{taken:?}");
}

#[tokio::test]
async fn descriptors_that_did_not_arrive_are_given_to_another() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("few");
    // The first to come has few descriptors, the other one enough.
    let text = format!(
        "#!/bin/sh\nmkdir '{}' 2>/dev/null && ulimit -n 24\nexec '{}' \"$@\"\n",
        dir.path().join("first").display(),
        common::echo_binary().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let (builder, _events) = echo(2);
    let cluster = builder.worker_program(script).start().await.unwrap();
    let connects: Vec<_> = (0..120)
        .map(|_| {
            tokio::spawn({
                let uri = cluster.local_uri().to_owned();
                async move { connect(&uri).await }
            })
        })
        .collect();
    let mut clients = Vec::new();
    for connecting in connects {
        clients.push(connecting.await.unwrap());
    }
    for client in &mut clients {
        round_trip(client).await.unwrap();
    }
    until("all are taken", || total(&cluster) == 120).await;
    let workers = cluster.workers();
    assert!(workers.iter().map(|worker| worker.refused).sum::<u64>() > 0, "{workers:?}");
    assert!(workers.iter().any(|worker| worker.taken < 24), "{workers:?}");
}
