//! Where the daemon listens, and what clients over ip:// may do there.

mod stage;

use baton_client::ConnectOptions;
use stage::classic::{Classic, No};
use stage::{Daemon, until};

/// Pids that nobody on this machine has: above the usual limit of containers, below 2²².
const A: i32 = 4_194_301;
const B: i32 = 4_194_302;
const C: i32 = 4_194_303;

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, No>, parts: &[&str]) {
    let (status, sentence) = result.expect_err("refused");
    assert!(status == -1 && parts.iter().all(|part| sentence.contains(part)), "{status} {sentence:?}");
}

fn lines(daemon: &Daemon, part: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains(part)).count()
}

#[test]
fn an_address_that_others_reach_is_refused_without_allow_remote() {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("un://{}", dir.path().join("rmmt.sock").display());
    for host in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = stage::myself("rmmt", &uri, &format!("also ip://{host}")).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let says =
            [&format!("--listen ip://{host}"), "not an address of this machine alone", "--allow-remote"];
        assert!(!output.status.success() && says.iter().all(|part| error.contains(part)), "{error}");
        assert!(!dir.path().join("rmmt.sock").exists(), "nothing was made");
    }
    // With the flag it listens, also where others come.
    let daemon = Daemon::with("remote");
    assert!(daemon.ip().starts_with("0.0.0.0:"), "{}", daemon.ip());
}

#[test]
fn clients_over_ip_have_one_quota_together_and_are_told_when_it_is_used_up() {
    let daemon = Daemon::configured("[[admit_ip]]\nnet = \"127.0.0.1\"\nquota = \"12KiB\"\n");
    let (mut a, mut b) = (Classic::ip(&daemon, A), Classic::ip(&daemon, B));
    let first = a.alloc(4096).unwrap();
    let second = a.alloc(4096).unwrap();
    b.alloc(4096).unwrap();
    // Another pid is no other quota: over ip:// a pid is only said.
    let says = ["127.0.0.1", "12288 of the 12288 bytes", "[[admit_ip]]"];
    for _ in 0..3 {
        refused(a.alloc(64), &says);
        refused(b.alloc(64), &says);
    }
    refused(Classic::ip(&daemon, C).alloc(64), &says);
    for pid in [A, B, C] {
        let line = format!("classic pid={pid} is at its quota");
        until("the log", || (lines(&daemon, &line) == 1).then_some(()));
    }
    // What is freed can be had again; who is admitted by user has nothing to do with it.
    a.free(first).unwrap();
    let third = a.alloc(2000).unwrap();
    let (member, _inbox) = daemon.member(ConnectOptions::new("member"));
    let _block = member.alloc(100_000).unwrap();
    Classic::un(&daemon).alloc(100_000).unwrap();
    // Given away is given away.
    let bid = a.pre_send(&[second, third], B).unwrap();
    a.free(second).unwrap();
    a.free(third).unwrap();
    b.recv(bid, 2, A).unwrap();
    drop(b);
    until("room", || a.alloc(12_288).ok());
    daemon.assert_balanced();
}

#[test]
fn too_many_connections_from_one_address_are_refused_with_a_line_that_says_what_to_do() {
    let daemon = Daemon::configured("[[admit_ip]]\nnet = \"127.0.0.0/8\"\nconnections = 2\n");
    let (a, mut b) = (Classic::ip(&daemon, A), Classic::ip(&daemon, B));
    assert!(Classic::try_ip(&daemon, C).is_none(), "the third");
    daemon.logged(&[&format!("pid {C} wants one more than the 2 connections"), "127.0.0.1", "[[admit_ip]]"]);
    Classic::un(&daemon).alloc(64).unwrap(); // over un:// it does not count
    b.alloc(64).unwrap();
    drop(a);
    until("a free place", || Classic::try_ip(&daemon, C));
}

#[test]
fn an_address_without_a_rule_is_refused() {
    let daemon = Daemon::configured("[[admit_ip]]\nnet = \"192.0.2.0/24\"\n");
    assert!(Classic::try_ip(&daemon, A).is_none());
    daemon.logged(&["refused a client at 127.0.0.1", "[[admit_ip]]"]);
    Classic::un(&daemon).alloc(64).unwrap();
}
