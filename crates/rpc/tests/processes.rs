//! The server's processes: they end together, finish what is under way, and survive a lack of descriptors.

mod common;

use std::io::Read;
use std::process::Command;

use common::{Pingpong, Raw, Transport, is_alive, kill, pingpong_binary, request, until};
use rustix::process::Signal;
use serde_json::json;

fn all_gone(workers: &[(Raw, u32)]) {
    until("all workers to be gone", || workers.iter().all(|(_, pid)| !is_alive(*pid)).then_some(()));
}

#[test]
fn workers_die_with_their_master() {
    let mut server = Pingpong::start(Transport::Tcp, 3);
    let workers = server.one_per_worker(3);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    all_gone(&workers);
}

#[test]
fn termination_finishes_requests_under_way() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Pingpong::start(Transport::Unix, 2);
        let mut workers = server.one_per_worker(2);
        for (raw, _) in &mut workers {
            // The answer of the first says that the worker has them both; the second is under way from then on.
            raw.send(&[request("ping", &json!(1)), request("sleep", &json!({"ms": 200}))].concat());
            assert_eq!(raw.receive().unwrap()["out"], "pong");
        }
        kill(server.child.id(), signal);
        for (raw, _) in &mut workers {
            assert_eq!(raw.receive().unwrap()["out"], "sleep");
            assert_eq!(raw.receive(), None);
        }
        assert!(server.child.wait().unwrap().success());
        all_gone(&workers);
        let path = server.uri.strip_prefix("un://").unwrap();
        assert!(!std::path::Path::new(path).exists(), "the socket file is removed");
    }
}

#[test]
fn a_worker_killed_by_hand_takes_its_own_connections_only() {
    let server = Pingpong::start(Transport::Tcp, 2);
    let mut workers = server.one_per_worker(2);
    let (mut victim, victim_pid) = workers.remove(0);
    let (mut other, other_pid) = workers.remove(0);
    kill(victim_pid, Signal::KILL);
    assert_eq!(victim.receive(), None);
    assert_eq!(other.whoami(), other_pid);
    let mut pids = Vec::new();
    until("a successor's answer", || {
        pids.push(server.connect().whoami());
        pids.iter().any(|pid| *pid != other_pid && *pid != victim_pid).then_some(())
    });
    assert!(!pids.contains(&victim_pid));
}

/// 100 clients, and processes that may have 40 descriptors each: workers refuse what they have no room for, the master
/// rests when it has none; nobody dies, and everybody is served once there is room.
#[test]
fn a_lack_of_descriptors_loses_no_connection() {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]).arg(pingpong_binary());
    let server = Pingpong::start_with(&mut limited, Transport::Tcp, 2);
    let mut waiting: Vec<Raw> = (0..100).map(|_| server.connect()).collect();
    let mut pids = std::collections::BTreeSet::new();
    // The first are served while the others wait; each that ends makes room for one that waits.
    while !waiting.is_empty() {
        let mut next = waiting.remove(0);
        pids.insert(next.whoami());
    }
    assert_eq!(pids.len(), 2, "no worker was replaced");
}

/// Floods of connections that say nothing, against processes that may have 100 descriptors: eight connections that were
/// there before go on undisturbed, nobody is replaced, and afterwards every descriptor is back.
#[test]
fn a_flood_of_connections_leaves_those_that_were_there_alone() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""]).arg(pingpong_binary());
        let server = Pingpong::start_with(&mut limited, transport, 2);
        let mut bystanders = server.one_per_worker(8);
        let few = common::descriptors(server.child.id()) + 10;
        for _ in 0..2 {
            let mut flood = Vec::new();
            let flooding = std::thread::scope(|scope| {
                let connects =
                    scope.spawn(|| (0..250).filter_map(|_| Raw::try_connect(&server.uri).ok()).collect());
                for (bystander, pid) in &mut bystanders {
                    assert_eq!(bystander.whoami(), *pid, "{transport:?}");
                }
                connects.join().unwrap()
            });
            flood.extend::<Vec<Raw>>(flooding);
            for (bystander, pid) in &mut bystanders {
                assert_eq!(bystander.whoami(), *pid, "{transport:?}, {} connections", flood.len());
            }
        }
        // The flood has gone: fresh connections are served, by the same workers.
        let pids: std::collections::BTreeSet<_> = bystanders.iter().map(|(_, pid)| *pid).collect();
        let fresh: std::collections::BTreeSet<_> =
            server.one_per_worker(20).into_iter().map(|(_, pid)| pid).collect();
        assert_eq!(fresh, pids, "{transport:?}");
        until("all descriptors of the flood to be closed", || {
            let has_few = |pid: &u32| common::descriptors(*pid) <= few;
            (has_few(&server.child.id()) && pids.iter().all(has_few)).then_some(())
        });
    }
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    for (listen, wanted) in
        [(&*address, "InUse"), ("nonsense://x", "UnknownScheme"), ("ip://nowhere", "BadHostPort")]
    {
        let mut server = Command::new(pingpong_binary())
            .args(["--listen", listen])
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        server.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!server.wait().unwrap().success());
        assert!(said.contains(wanted), "{said}");
    }
}
