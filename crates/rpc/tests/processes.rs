//! The server's processes: they end together, finish what is under way, and survive a lack of descriptors.

mod common;

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Pingpong, Raw, Transport, WATCHDOG, pingpong_binary, request};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

fn pid(pid: i64) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// True once the process is gone, or a zombie whose parent is.
fn is_gone(process: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .map_or(true, |stat| stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < WATCHDOG, "{what}: not within the watchdog's time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn workers_die_with_their_master() {
    let mut server = Pingpong::start(Transport::Tcp, 3);
    let workers = server.one_per_worker(3);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    until("all workers are gone", || workers.iter().all(|(_, pid)| is_gone(*pid)));
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
        kill_process(Pid::from_child(&server.child), signal).unwrap();
        for (raw, _) in &mut workers {
            assert_eq!(raw.receive().unwrap()["out"], "sleep");
            assert_eq!(raw.receive(), None);
        }
        assert!(server.child.wait().unwrap().success());
        until("all workers are gone", || workers.iter().all(|(_, pid)| is_gone(*pid)));
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
    kill_process(pid(victim_pid), Signal::KILL).unwrap();
    assert_eq!(victim.receive(), None);
    assert_eq!(other.whoami(), other_pid);
    let mut pids = Vec::new();
    until("a successor answers", || {
        pids.push(server.connect().whoami());
        pids.iter().any(|pid| *pid != other_pid && *pid != victim_pid)
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
