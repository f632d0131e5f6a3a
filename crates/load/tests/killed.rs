//! A real server, killed while it is loaded: what is lost is counted, and nothing hangs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_load::{Expect, Extent, Outcome, Plan, Progress, Verdict, run};
use rustix::process::Signal;

/// The example server of the rpc crate; ends with the test.
struct Pingpong {
    child: Child,
    uri: String,
}

impl Pingpong {
    fn start() -> Self {
        let rpc = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("rpc");
        let program = baton_testkit::example(rpc.to_str().unwrap(), "pingpong");
        let mut command = Command::new(program);
        command.args(["--listen", "ip://127.0.0.1:0", "--workers", "2"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let uri = line.trim().strip_prefix("listening at ").unwrap().to_owned();
        Self { child, uri }
    }

    fn plan(&self) -> Plan {
        let plan = Plan::new(self.uri.parse().unwrap());
        let (extent, timeout) = (Extent::Count(u64::MAX), Duration::from_secs(5));
        Plan { connections: 4, depth: 4, extent, timeout, ..plan }
    }
}

impl Drop for Pingpong {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sum_is_right(outcome: &Outcome) {
    assert_eq!(outcome.requests.sent, outcome.requests.ended(), "{outcome:?}");
    assert_eq!((outcome.requests.wrong, outcome.requests.unasked), (0, 0), "{outcome:?}");
}

#[test]
fn a_killed_server_ends_the_run() {
    let mut server = Pingpong::start();
    let plan = server.plan();
    let outcome = run(&plan, &AtomicBool::new(false), &mut |progress: &Progress| {
        if progress.requests.right > 0 {
            // The second time it is dead already.
            let _ = server.child.kill();
            let _ = server.child.wait();
        }
    })
    .unwrap();
    sum_is_right(&outcome);
    assert!(outcome.requests.right > 0 && outcome.requests.lost > 0, "{outcome:?}");
    assert!(outcome.links.failed > 0, "{outcome:?}");
    assert_eq!((outcome.verdict(), outcome.interrupted), (Verdict::AnswersMissing, false));
}

#[test]
fn connections_of_a_killed_worker_are_made_anew() {
    let server = Pingpong::start();
    let (method, params) = ("whoami".to_owned(), Some("null".to_owned()));
    let ask = Plan { method, params, expect: Expect::Any, count_results: true, ..server.plan() };
    let ask = Plan { extent: Extent::Count(40), ..ask };
    let spread = run(&ask, &AtomicBool::new(false), &mut |_| {}).unwrap().spread.unwrap();
    let victim: u32 = spread.connections.keys().next().unwrap().parse().unwrap();
    let stop = AtomicBool::new(false);
    let mut is_killed = false;
    let outcome = run(&server.plan(), &stop, &mut |progress: &Progress| {
        if is_killed && progress.connections == 4 {
            stop.store(true, Ordering::Relaxed);
        } else if !is_killed && progress.requests.right > 0 {
            baton_testkit::kill(victim, Signal::KILL);
            baton_testkit::until("its end", || (!baton_testkit::is_alive(victim)).then_some(()));
            is_killed = true;
        }
    })
    .unwrap();
    sum_is_right(&outcome);
    assert!(outcome.interrupted);
    assert_eq!(outcome.links.resets + outcome.links.early_ends, 2, "{outcome:?}");
    assert_eq!((outcome.links.remade, outcome.links.made), (2, 6), "{outcome:?}");
    assert!(outcome.worst_outage_us > 0.0);
}
