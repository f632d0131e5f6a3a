//! A frame travels A → B → C; B and C sleep until it comes. Latency from A's allocation to its arrival at C, and the
//! processor time that all processes together spend per frame.
//!
//! ```text
//!   Baton      A ══ frame ══▶ B ══ the same block, moved on ══▶ C
//!   iceoryx2   A ══ frame ══▶ B ── event ──▶ C, who has subscribed to A (a sample cannot be forwarded)
//!   original   A ─ note ─▶ B ─ note ─▶ C, each asking the daemon: alloc, pre-send, recv, free
//!   futexes    A ─ wake ─▶ B ─ wake ─▶ C, without any frame: what the kernel asks for, whoever passes something on
//! ```
//! Three forms. Twice A rests between frames, so that everybody sleeps long and finds cold caches: all on one core (a wake-up
//! is a switch), and wherever the scheduler puts them; what resting alone costs is measured in every round and taken off.
//! Once, on one core, the next frame follows as soon as the last has arrived; B and C sleep before each all the same, since
//! A has the core.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use baton_client::{Inbox, Sender};
use iceoryx2::prelude::ipc;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::baton::{Daemon, connect, open};
use crate::board::{Board, FRAME, REST};
use crate::cases::{Bench, Found, Pace};
use crate::error::{Error, step};
use crate::link::Link;
use crate::machine::{Core, cpu_of, now};
use crate::report::{Row, Target};
use crate::rival::floor::{Futex, Side};
use crate::rival::iox::{self, Depth, Place};
use crate::rival::original::{self, Note};
use crate::role::{Role, serve};
use crate::stats::median;

/// iceoryx2's queues: two subscribers, two frames each.
const DEPTH: Depth = Depth { subscribers: 2, buffer: 2, overflow: true };

/// One variant: how A sends a frame, and the processes that work for it.
struct Variant<'a> {
    send: Box<dyn FnMut() -> Result<(), Error> + 'a>,
    roles: Vec<Role>,
}

impl Variant<'_> {
    /// Latency and processor time per frame, in nanoseconds.
    fn round(&mut self, board: &Board, frames: usize, pace: Pace) -> Result<(f64, f64), Error> {
        (0..frames).for_each(|number| board.stamp(number, 0));
        let resting = if pace == Pace::Rested { resting(frames) } else { 0.0 };
        for role in &mut self.roles {
            role.go(frames)?;
        }
        std::thread::sleep(Duration::from_millis(2));
        let used = |roles: &[Role]| own_cpu() + roles.iter().map(|role| cpu_of(role.pid())).sum::<u64>();
        let before = used(&self.roles);
        let mut sent = Vec::with_capacity(frames);
        for number in 0..frames {
            sent.push(now());
            (self.send)()?;
            pace.pause(board, number)?;
        }
        for role in &mut self.roles {
            role.done()?;
        }
        let cpu = (used(&self.roles) - before) as f64 / frames as f64 - resting;
        let arrived = |(number, sent): (usize, &u64)| board.stamped(number).saturating_sub(*sent) as f64;
        let mut latency: Vec<f64> = sent.iter().enumerate().map(arrived).collect();
        Ok((median(&mut latency), cpu))
    }
}

fn own_cpu() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Processor time of resting alone, per frame.
fn resting(frames: usize) -> f64 {
    let before = own_cpu();
    for _ in 0..frames {
        std::thread::sleep(REST);
    }
    (own_cpu() - before) as f64 / frames as f64
}

/// Measures.
pub fn measure(bench: &Bench) -> Result<Found, Error> {
    let mut found = Found::default();
    for (core, pace, place) in [
        (Core::First, Pace::AtOnce, "one core, at once"),
        (Core::First, Pace::Rested, "one core, rested"),
        (Core::Any, Pace::Rested, "any core, rested"),
    ] {
        bench.cores.pin(core);
        let daemon = Daemon::start(&bench.cores, "256MiB", &[])?;
        let dir = step("make a directory", tempfile::tempdir())?;
        let mut variants = [
            baton(bench, core, &daemon)?,
            iceoryx(bench, core)?,
            original(bench, core, &dir)?,
            futexes(bench, core)?,
        ];
        let frames = if bench.quick { 60 } else { 200 };
        let mut latency: [Vec<f64>; 4] = Default::default();
        let mut cpu: [Vec<f64>; 4] = Default::default();
        for round in 0..=bench.rounds() {
            for (number, variant) in variants.iter_mut().enumerate() {
                let figures = variant.round(&bench.board, frames, pace)?;
                if round > 0 {
                    latency[number].push(figures.0);
                    cpu[number].push(figures.1);
                }
            }
        }
        for (what, [ours, iox, original, floor]) in [("latency", &latency), ("processor time", &cpu)] {
            let head = |what: &str| ("chain", format!("A→B→C asleep, 3.1 MB, {place}: {what}"), "ns");
            found.rows.extend(Row::versus(head(what), ours, ("iceoryx2", iox), Target::Ratio(0.5)));
            let target = Target::Ratio(0.125);
            found.rows.extend(Row::versus(head(what), ours, ("original design", original), target));
            found.rows.extend(Row::versus(head(what), ours, ("raw futexes", floor), Target::None));
        }
    }
    Ok(found)
}

fn baton<'a>(bench: &Bench, core: Core, daemon: &Daemon) -> Result<Variant<'a>, Error> {
    let (client, inbox) = connect(daemon.uri(), "chain-a")?;
    let sink = bench.role(core, &["sink", "baton", daemon.uri()])?;
    let relay = bench.role(core, &["relay", "baton", daemon.uri()])?;
    let sender = open(&client, "chain-b")?;
    let send = move || {
        let _open = &inbox;
        let frame = step("allocate", client.alloc(FRAME))?.freeze();
        step("send", sender.send(frame))
    };
    Ok(Variant { send: Box::new(send), roles: vec![relay, sink] })
}

fn iceoryx<'a>(bench: &Bench, core: Core) -> Result<Variant<'a>, Error> {
    let node = bench.place.node()?;
    let word = core.word();
    let publisher = iox::publisher(&node, &format!("chain/{word}"), FRAME, DEPTH)?;
    let wake = iox::notifier(&node, &format!("chain/{word}/a-b"))?;
    let relay = bench.role(core, &["relay", "iox", word])?;
    let sink = bench.role(core, &["sink", "iox", word])?;
    let send = move || {
        let _open = &node;
        step("send by iceoryx2", iox::loan(&publisher, FRAME)?.send())?;
        step("notify by iceoryx2", wake.notify()).map(drop)
    };
    Ok(Variant { send: Box::new(send), roles: vec![relay, sink] })
}

fn futexes<'a>(bench: &Bench, core: Core) -> Result<Variant<'a>, Error> {
    let mut first = Futex::new(bench.board.clone(), Side::A);
    let sink = bench.role(core, &["sink", "futexes"])?;
    let relay = bench.role(core, &["relay", "futexes"])?;
    Ok(Variant { send: Box::new(move || first.send().map(drop)), roles: vec![relay, sink] })
}

fn original<'a>(bench: &Bench, core: Core, dir: &TempDir) -> Result<Variant<'a>, Error> {
    let path = dir.path().to_string_lossy().into_owned();
    let daemon = bench.role(core, &["original", &path])?;
    let sink = bench.role(core, &["sink", "original", &path])?;
    let relay = bench.role(core, &["relay", "original", &path])?;
    let mut client = original::Client::connect(&dir.path().join("daemon"))?;
    let mut next = step("reach B", UnixStream::connect(dir.path().join("relay")))?;
    let (me, to) = (std::process::id() as i32, relay.pid() as i32);
    step("tell B who C is", std::io::Write::write_all(&mut next, &(sink.pid() as i32).to_le_bytes()))?;
    let send = move || {
        let node = client.alloc(FRAME as u32)?;
        let bid = client.pre_send(node, to)?;
        Note { node, bid, from: me }.write(&mut next)?;
        client.free(node)
    };
    Ok(Variant { send: Box::new(send), roles: vec![daemon, relay, sink] })
}

/// The daemon of the original design: `original DIR`. Its orders are empty: it serves on threads.
pub fn original_daemon(words: &[&str]) -> Result<(), Error> {
    let &[dir] = words else { return Err(Error::new("serve", "a directory is missing")) };
    original::listen(&Path::new(dir).join("daemon"))?;
    serve(|_| Ok(0.0))
}

/// The role `relay KIND WHERE`: B.
pub fn relay(board: &Board, place: &Place, words: &[&str]) -> Result<(), Error> {
    match *words {
        ["baton", uri] => {
            let (client, mut inbox) = connect(uri, "chain-b")?;
            let next: Sender = open(&client, "chain-c")?;
            repeat(|_| {
                let frame = receive(&mut inbox)?;
                step("pass on", next.send(frame))
            })
        }
        ["iox", core] => {
            let node = place.node()?;
            let frames = iox::subscriber(&node, &format!("chain/{core}"), DEPTH)?;
            let wake = iox::listener(&node, &format!("chain/{core}/a-b"))?;
            let next = iox::notifier(&node, &format!("chain/{core}/b-c"))?;
            repeat(|_| {
                wait_iox(&frames, &wake)?;
                step("notify by iceoryx2", next.notify()).map(drop)
            })
        }
        ["futexes"] => {
            let mut link = Futex::new(board.clone(), Side::B);
            repeat(|_| {
                link.wait()?;
                link.send().map(drop)
            })
        }
        ["original", dir] => {
            let dir = Path::new(dir);
            let mut client = original::Client::connect(&dir.join("daemon"))?;
            let listener = step("listen", UnixListener::bind(dir.join("relay")))?;
            let mut next = step("reach C", UnixStream::connect(dir.join("sink")))?;
            let (mut before, mut to) = (None, 0);
            let me = std::process::id() as i32;
            repeat(|_| {
                if before.is_none() {
                    let (mut stream, _) = step("accept", listener.accept())?;
                    let mut pid = [0; 4];
                    step("hear who C is", std::io::Read::read_exact(&mut stream, &mut pid))?;
                    to = i32::from_le_bytes(pid);
                    before = Some(stream);
                }
                let Some(stream) = &mut before else { return Ok(()) };
                let note = Note::read(stream)?;
                client.recv(note.bid, note.from)?;
                let bid = client.pre_send(note.node, to)?;
                Note { bid, from: me, ..note }.write(&mut next)?;
                client.free(note.node)
            })
        }
        _ => Err(Error::new("relay", "kind and place are missing")),
    }
}

/// The role `sink KIND WHERE`: C.
pub fn sink(board: &Board, place: &Place, words: &[&str]) -> Result<(), Error> {
    match *words {
        ["baton", uri] => {
            let (_client, mut inbox) = connect(uri, "chain-c")?;
            repeat(|number| {
                let frame = receive(&mut inbox)?;
                board.stamp(number, now());
                drop(frame);
                Ok(())
            })
        }
        ["iox", core] => {
            let node = place.node()?;
            let frames = iox::subscriber(&node, &format!("chain/{core}"), DEPTH)?;
            let wake = iox::listener(&node, &format!("chain/{core}/b-c"))?;
            repeat(|number| {
                wait_iox(&frames, &wake)?;
                board.stamp(number, now());
                Ok(())
            })
        }
        ["futexes"] => {
            let mut link = Futex::new(board.clone(), Side::A);
            repeat(|number| {
                link.wait()?;
                board.stamp(number, now());
                Ok(())
            })
        }
        ["original", dir] => {
            let dir = Path::new(dir);
            let mut client = original::Client::connect(&dir.join("daemon"))?;
            let listener = step("listen", UnixListener::bind(dir.join("sink")))?;
            let mut before = None;
            repeat(|number| {
                if before.is_none() {
                    before = Some(step("accept", listener.accept())?.0);
                }
                let Some(stream) = &mut before else { return Ok(()) };
                let note = Note::read(stream)?;
                client.recv(note.bid, note.from)?;
                board.stamp(number, now());
                client.free(note.node)
            })
        }
        _ => Err(Error::new("sink", "kind and place are missing")),
    }
}

fn repeat(mut once: impl FnMut(usize) -> Result<(), Error>) -> Result<(), Error> {
    serve(|count| (0..count).try_for_each(&mut once).map(|()| 0.0))
}

fn receive(inbox: &mut Inbox) -> Result<baton_client::Block, Error> {
    // For ever, as the rivals do: a time-out costs the kernel a timer. The end of the daemon ends it.
    let delivery = step("receive", inbox.recv(None))?;
    delivery.map(|delivery| delivery.block).ok_or_else(|| Error::new("receive", "it gave up"))
}

/// Sleeps until there is a frame; the frame is given back when this returns.
fn wait_iox(
    frames: &iceoryx2::port::subscriber::Subscriber<ipc::Service, [u8], ()>,
    wake: &iceoryx2::port::listener::Listener<ipc::Service>,
) -> Result<(), Error> {
    loop {
        if step("receive by iceoryx2", frames.receive())?.is_some() {
            return Ok(());
        }
        step("wait by iceoryx2", wake.blocking_wait(|_| {}))?;
    }
}
