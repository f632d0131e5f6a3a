//! Waking: a receiver that sleeps, one that is still spinning, and the system calls when nobody sleeps.
//!
//! Asleep: B sleeps each time; latency is from before A's allocation to B's return from its wait. On the other core (an idle
//! core must be brought back first) and on the same one (a switch). There also with the next message at once: after a rest
//! every line and every page that is touched has to be fetched first, and a raw futex touches one.

use std::process::Command;
use std::time::Duration;

use crate::baton::{BatonLink, Daemon};
use crate::board::Board;
use crate::cases::{Bench, Found, Pace};
use crate::error::{Error, step};
use crate::link::{Link, Waiting, echo, ping};
use crate::machine::{Core, now};
use crate::report::{Row, Target};
use crate::rival::floor::{Futex, Side};
use crate::rival::iox::{Depth, IoxLink, Place};
use crate::role::{Role, serve};
use crate::stats::median;

const LEN: usize = 64;

/// Asleep.
pub fn asleep(bench: &Bench) -> Result<Found, Error> {
    let mut found = Found::default();
    for (core, pace, place) in [
        (Core::Second, Pace::Rested, "the other core"),
        (Core::First, Pace::AtOnce, "the same core, at once"),
        (Core::First, Pace::Rested, "the same core, rested"),
    ] {
        bench.cores.pin(Core::First);
        let daemon = Daemon::start(&bench.cores, "64MiB", &[])?;
        let start = |kind: &str| bench.role(core, &["wake", kind, daemon.uri()]);
        let (mut link, peer) = baton(&daemon, || start("baton"))?;
        let mut ours = (&mut link, peer);
        let mut futex = (Futex::new(bench.board.clone(), Side::A), start("futex")?);
        let mut iox = (IoxLink::new(&bench.place, Side::A, LEN, Depth::PING, true)?, start("iox")?);
        let messages = if bench.quick { 60 } else { 200 };
        let mut figures: [Vec<f64>; 3] = Default::default();
        for round in 0..=bench.rounds() {
            let all = [
                once(&bench.board, ours.0, &mut ours.1, messages, pace)?,
                once(&bench.board, &mut futex.0, &mut futex.1, messages, pace)?,
                once(&bench.board, &mut iox.0, &mut iox.1, messages, pace)?,
            ];
            if round > 0 {
                figures.iter_mut().zip(all).for_each(|(list, figure)| list.push(figure));
            }
        }
        let [ours, futex, iox] = &figures;
        let head = || ("wake", format!("wake a sleeper on {place}"), "ns");
        found.rows.extend(Row::versus(head(), ours, ("raw futex", futex), Target::Ratio(1.1)));
        found.rows.extend(Row::versus(head(), ours, ("iceoryx2", iox), Target::None));
    }
    Ok(found)
}

/// One round: the median latency.
fn once(
    board: &Board,
    link: &mut impl Link,
    peer: &mut Role,
    messages: usize,
    pace: Pace,
) -> Result<f64, Error> {
    (0..messages).for_each(|number| board.stamp(number, 0));
    peer.go(messages)?;
    std::thread::sleep(Duration::from_millis(1));
    let mut sent = Vec::with_capacity(messages);
    for number in 0..messages {
        sent.push(now());
        link.send()?;
        pace.pause(board, number)?;
    }
    peer.done()?;
    let arrived = |(number, sent): (usize, &u64)| board.stamped(number).saturating_sub(*sent) as f64;
    Ok(median(&mut sent.iter().enumerate().map(arrived).collect::<Vec<f64>>()))
}

fn baton(daemon: &Daemon, start: impl FnOnce() -> Result<Role, Error>) -> Result<(BatonLink, Role), Error> {
    let mut peer = None;
    let link = BatonLink::first(daemon.uri(), LEN, || {
        peer = Some(start()?);
        Ok(())
    })?;
    peer.map(|peer| (link, peer)).ok_or_else(|| Error::new("start the peer", "it was not asked to"))
}

/// The role `wake KIND URI`: stamps each arrival.
pub fn wake(board: &Board, place: &Place, words: &[&str]) -> Result<(), Error> {
    match *words {
        ["baton", uri] => stamp(board, BatonLink::second(uri, LEN)?),
        ["futex", _] => stamp(board, Futex::new(board.clone(), Side::B)),
        ["iox", _] => stamp(board, IoxLink::new(place, Side::B, LEN, Depth::PING, true)?),
        _ => Err(Error::new("wake up", "kind and daemon are missing")),
    }
}

fn stamp(board: &Board, mut link: impl Link) -> Result<(), Error> {
    serve(|count| {
        for number in 0..count {
            link.wait()?;
            board.stamp(number, now());
        }
        Ok(0.0)
    })
}

/// The next message comes while the receiver still spins: both sides use the receive call that would sleep.
pub fn spinning(bench: &Bench) -> Result<Found, Error> {
    bench.cores.pin(Core::First);
    let daemon = Daemon::start(&bench.cores, "64MiB", &[])?;
    let (mut link, mut peer) = baton(&daemon, || bench.role(Core::Second, &["sleepy-echo", daemon.uri()]))?;
    let (chunks, each) = (400, 10);
    let mut figures = Vec::new();
    for round in 0..=bench.rounds() {
        peer.go(chunks * each)?;
        let mut found = ping(&mut link, Waiting::Sleeping, chunks, each)?;
        peer.done()?;
        if round > 0 {
            figures.push(median(&mut found));
        }
    }
    let head = ("spin", "blocking receive within the spin budget, p50".to_owned(), "ns");
    let rows = Row::alone(head, &figures, Target::AtMost(1000.0)).into_iter().collect();
    Ok(Found { rows, ..Found::default() })
}

/// The role `sleepy-echo URI`.
pub fn sleepy_echo(words: &[&str]) -> Result<(), Error> {
    let &[uri] = words else { return Err(Error::new("echo", "the daemon is missing")) };
    let mut link = BatonLink::second(uri, LEN)?;
    serve(|count| echo(&mut link, Waiting::Sleeping, count).map(|()| 0.0))
}

/// Messages of the short and of the long run under strace.
const FEW: usize = 1_000;
const MANY: usize = 101_000;

/// System calls while both sides are awake: strace counts those of two runs; what the longer one has more, divided by how
/// many messages it has more, is the cost per message. Start and end are the same in both.
pub fn calls(bench: &Bench) -> Result<Found, Error> {
    bench.cores.pin(Core::Any);
    let daemon = Daemon::start(&bench.cores, "64MiB", &[])?;
    let run = |count: usize| traced(bench, &daemon, count);
    let mut figures = Vec::new();
    for _ in 0..if bench.quick { 1 } else { 3 } {
        let (few, many) = (run(FEW)?, run(MANY)?);
        figures.push(many.saturating_sub(few) as f64 / (MANY - FEW) as f64);
    }
    let head = ("calls", "system calls per hand-over, both awake".to_owned(), "");
    let row = Row::alone(head, &figures, Target::AtMost(0.0));
    let note = format!(
        "calls that can wake, wait or move bytes, of both processes: {MANY} hand-overs less {FEW}, counted by strace -f"
    );
    Ok(Found { rows: row.map(|row| row.note(note)).into_iter().collect(), ..Found::default() })
}

/// Runs the role `duel` under strace; how many calls it counted.
fn traced(bench: &Bench, daemon: &Daemon, count: usize) -> Result<u64, Error> {
    let program = step("find this program", std::env::current_exe())?;
    let list = step("make a file", tempfile::NamedTempFile::new())?;
    let (key, value) = bench.board.env();
    let (cores_key, cores_value) = bench.cores.env();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "--seccomp-bpf", "-o"]).arg(list.path());
    command.arg("-e");
    command.arg(
        "trace=futex,read,write,readv,writev,sendto,recvfrom,sendmsg,recvmsg,poll,ppoll,epoll_wait,tgkill",
    );
    command.arg(program).args(["role", "duel", "first", "0"]).arg(count.to_string()).arg(daemon.uri());
    command.env(key, value).env(cores_key, cores_value).stdin(std::process::Stdio::null());
    let status = command.status();
    let status = status.map_err(|error| Error::new("run strace (is it installed?)", error))?;
    if !status.success() {
        return Err(Error::new("count system calls", status));
    }
    let text = step("read what strace counted", std::fs::read_to_string(list.path()))?;
    // Waiting for the other process' start and end is reading its pipe, as often in both runs.
    Ok(text.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count() as u64)
}

/// The role `duel COUNT URI`: both sides under one strace.
pub fn duel(board: &Board, words: &[&str]) -> Result<(), Error> {
    let &[count, uri] = words else { return Err(Error::new("duel", "count and daemon are missing")) };
    let count: usize = step("duel", count.parse())?;
    let cores = crate::machine::Cores::allowed();
    let mut peer = None;
    let len = LEN.to_string();
    let mut link = BatonLink::first(uri, LEN, || {
        peer = Some(Role::start(board, &cores, &["echo", "second", "0", "baton", &len, uri])?);
        Ok(())
    })?;
    let Some(mut peer) = peer else { return Err(Error::new("duel", "nobody came")) };
    peer.go(count)?;
    ping(&mut link, Waiting::Polling, 1, count)?;
    peer.done()?;
    Ok(())
}
