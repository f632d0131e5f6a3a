//! What a hand-over costs the kernel while both sides are awake: nothing. 100,000 of them, two processes, counted.
//!
//! ```text
//!   test              sender process                      receiver process (reads only)
//!     │  ready ◀──────  connected, pool warm ──────────────  connected
//!     │  look at both: page faults, mappings, reads and writes, threads
//!     │  go ──────────▶ strict: the kernel kills it for any system call but read and write
//!     │                 alloc, write, freeze, send ══════▶  strict, too: poll, check, drop
//!     │  done ◀───────                                      done
//!     │  look again: nothing has changed
//! ```
//! `SECCOMP_MODE_STRICT` is the proof for all calls but `read` and `write`; those are counted by `/proc/PID/io`.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_client::{Client, ConnectOptions, SendFailure};
use baton_testkit::{Puppet, WATCHDOG};
use baton_tests::program;
use rustix::thread::{SecureComputingMode, set_secure_computing_mode};

const HANDOVERS: u64 = 100_000;
const WARM_UP: u64 = 20_000;
const ROUNDS: u64 = 4;
const ROLE: &str = "BATON_TEST_ROLE";
const URI: &str = "BATON_TEST_URI";

/// Not a test: what the two processes run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let uri = std::env::var(URI).unwrap();
    match role.as_str() {
        "sender" => sender(&uri),
        _ => receiver(&uri),
    }
}

/// Without the standard library's buffers: one `write`.
fn say(line: &str) {
    let bytes = format!("@@ {line}\n");
    assert_eq!(rustix::io::write(std::io::stdout(), bytes.as_bytes()).unwrap(), bytes.len());
}

/// An order, whole: one `read`.
fn await_order() {
    assert_eq!(rustix::io::read(std::io::stdin(), &mut [0; 8]).unwrap(), "go\n".len());
}

/// The SDK touches all pages of the pool beside the work, once; then that thread ends.
fn await_warm_pool() {
    let end = Instant::now() + WATCHDOG;
    let warming = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks
            .filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.starts_with("baton")))
            .count()
    };
    while warming() > 0 {
        assert!(Instant::now() < end, "the pool does not get warm");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn sender(uri: &str) {
    let (client, _inbox) = Client::connect(uri, ConnectOptions::new("sender").timeout(WATCHDOG)).unwrap();
    let end = Instant::now() + WATCHDOG;
    let way = loop {
        match client.sender("counted") {
            Ok(way) => break way,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    };
    await_warm_pool();
    let mut serial = 0u64;
    let mut run = |count: u64| {
        for _ in 0..count {
            serial += 1;
            let mut block = loop {
                match client.alloc(4096) {
                    Ok(block) => break block,
                    Err(baton_client::AllocError::Exhausted { .. }) => std::hint::spin_loop(),
                    Err(_) => return false,
                }
            };
            block[..8].copy_from_slice(&serial.to_le_bytes());
            let mut block = block.freeze();
            loop {
                match way.send(block) {
                    Ok(()) => break,
                    Err(error) if error.reason == SendFailure::Full => block = error.block,
                    Err(_) => return false,
                }
                std::hint::spin_loop();
            }
        }
        true
    };
    assert!(run(WARM_UP));
    play(|| run(HANDOVERS));
}

fn receiver(uri: &str) {
    let options = ConnectOptions::new("receiver").inbox("counted").read_only().timeout(WATCHDOG);
    let (_client, mut inbox) = Client::connect(uri, options).unwrap();
    await_warm_pool();
    let mut serial = 0u64;
    let mut run = |count: u64| {
        for _ in 0..count {
            let delivery = loop {
                match inbox.try_recv() {
                    Ok(Some(delivery)) => break delivery,
                    Ok(None) => std::hint::spin_loop(),
                    Err(_) => return false,
                }
            };
            serial += 1;
            if delivery.block.get(..8) != Some(&serial.to_le_bytes()) {
                return false;
            }
        }
        true
    };
    assert!(run(WARM_UP));
    play(|| run(HANDOVERS));
}

/// Rounds of hand-overs, each between two looks from outside. Strict from the first one on.
fn play(mut round: impl FnMut() -> bool) {
    say("ready");
    await_order();
    // A container whose own filter is on already cannot be made stricter.
    if let Err(error) = set_secure_computing_mode(SecureComputingMode::Strict) {
        eprintln!("SECCOMP_MODE_STRICT is refused here ({error}): only reads and writes are counted");
    }
    for _ in 0..ROUNDS {
        let fine = round();
        // No `format!`, no panic: they might ask the kernel for memory.
        let line: &[u8] = if fine { b"@@ done\n" } else { b"@@ failed\n" };
        let _ = rustix::io::write(std::io::stdout(), line);
        let _ = rustix::io::read(std::io::stdin(), &mut [0; 8]);
    }
}

fn start(role: &str, uri: &str) -> Puppet {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "role", "--nocapture", "--test-threads=1"]).env(ROLE, role).env(URI, uri);
    Puppet::start(&mut command)
}

/// No answer means killed for a system call.
#[track_caller]
fn expect(peer: &mut Puppet, answer: &str) {
    assert_eq!(peer.answer(), answer);
}

/// How it stands, once all its threads wait: what it did last is counted then.
fn look(peer: &Puppet) -> Look {
    let end = Instant::now() + WATCHDOG;
    let sleeps = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"))
    };
    let tasks = || std::fs::read_dir(format!("/proc/{}/task", peer.pid())).unwrap().flatten();
    while !tasks().all(sleeps) {
        assert!(Instant::now() < end, "it does not wait for its order");
        std::thread::sleep(Duration::from_millis(1));
    }
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", peer.pid())).unwrap();
    let io = read("io");
    let number =
        |key: &str| io.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok()).unwrap();
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Look {
        // Fields 10 and 12 of proc_pid_stat(5).
        faults: [7, 9].map(|at| fields[at].parse().unwrap()),
        reads_writes: number("syscr:") + number("syscw:"),
        maps: read("maps"),
    }
}

#[derive(Debug)]
struct Look {
    faults: [u64; 2],
    reads_writes: u64,
    maps: String,
}

#[test]
fn a_hand_over_costs_no_system_call_no_page_fault_no_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("un://{}", dir.path().join("rmmt.sock").display());
    let mut daemon = Command::new(program("baton"));
    daemon.args(["rmmt", "--listen", &uri, "--size", "16MiB", "--inbox-len", "256", "--max-block", "1MiB"]);
    let daemon = daemon.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut daemon = Ended(daemon);
    let mut peers = [start("receiver", &uri), start("sender", &uri)];
    for peer in &mut peers {
        expect(peer, "ready");
    }
    let payload = |maps: &str| {
        let line = maps.lines().find(|line| line.contains("baton-payload")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no payload in\n{maps}"))
    };
    assert!(payload(&look(&peers[0]).maps).contains(" r--s "), "the receiver's payload is mapped read-only");
    peers.iter_mut().for_each(|peer| peer.order("go"));
    peers.iter_mut().for_each(|peer| expect(peer, "done"));
    // The first round of the strict mode is warm-up, too (its first call of each kind). In the others the machine may
    // take a page away by itself once (memory pressure); an own fault would come back in every round.
    let mut best = None;
    for round in 2..=ROUNDS {
        let before = [look(&peers[0]), look(&peers[1])];
        peers.iter_mut().for_each(|peer| peer.order("go"));
        peers.iter_mut().for_each(|peer| expect(peer, "done"));
        let after = [look(&peers[0]), look(&peers[1])];
        let faults: u64 = before
            .iter()
            .zip(&after)
            .map(|(b, a)| a.faults[0] + a.faults[1] - b.faults[0] - b.faults[1])
            .sum();
        let calls: Vec<u64> =
            before.iter().zip(&after).map(|(b, a)| a.reads_writes - b.reads_writes).collect();
        println!("round {round}: {HANDOVERS} hand-overs, {faults} page faults, reads and writes {calls:?}");
        for (b, a) in before.iter().zip(&after) {
            assert_eq!(b.maps, a.maps, "a mapping came or went");
        }
        // A read counts when it returns: the one that waits now belongs to the next round.
        assert_eq!(calls, [2, 2], "one read (the order) and one write (`done`), nothing else");
        best = best.into_iter().chain([faults]).min();
    }
    assert_eq!(best, Some(0), "page faults in every round");
    drop(peers);
    daemon.end();
}

/// A daemon that ends with the test.
struct Ended(Child);

impl Ended {
    fn end(&mut self) {
        baton_tests::signal(self.0.id(), rustix::process::Signal::TERM);
        let end = Instant::now() + WATCHDOG;
        while self.0.try_wait().unwrap().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        baton_tests::signal(self.0.id(), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}
