//! Processes are really killed, and really stopped, at every numbered point, while they serve connections over socket
//! pairs out of one ledger; afterwards every byte of every stream is accounted for.
//!
//! `cargo test -p baton-ledger --features kill-points --test kill` (BATON_FULL=1 for more rounds, SEED=n)
//!
//! ```text
//!   supervisor (this test) = client, mover, keeper       worker (this binary again, holds a copy of every socket)
//!     sends requests, split ── socket pair ──────────▶      claim, peek, park, take, begin, answer, send, release
//!     reads answers  ◀─────────────────────────────────     at its n-th passage of a point: SIGKILL or SIGSTOP itself
//!     dead: recovers, says how far the kernel got,           another worker goes on
//!           gives to another worker
//!     stopped: takes what is idle, lets it go on: it must touch nothing of that; then another worker goes on
//! ```
//! A request is `u32` number and filler; its answer says the number and has a length and content of its own. So a lost,
//! doubled, halved or reordered byte in either direction is a wrong answer. How far the kernel got is known exactly here,
//! since the supervisor is the client: what was sent less what is still queued was taken; what arrived was sent.
#![cfg(not(loom))]

use baton_ledger::kill::{Mutant, Point, set_hook, set_mutant};
use baton_ledger::{About, Claim, Config, Kind, Ledger, Slot, State, Ticket};
use baton_shm::{Access, Mapping, SharedSlice, create_sealed};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 4;
const REQUESTS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);
/// Control words: stop, passes of each slot, points that were acted at.
const STOP: usize = 0;
const PASSES: usize = 8;
const HITS: usize = 64;
const CONTROL: usize = 512;
const REQUEST: usize = 40;
const ERROR: u32 = 1 << 31;
const A: u16 = 1;
const B: u16 = 2;
const SUPERVISOR: u16 = 3;
const MOVER: u16 = 4;
/// A slot that nobody works as: what it owns is as if its owner had died.
const GONE: u16 = 5;

fn slot(n: u16) -> Slot {
    Slot::new(n).unwrap()
}

fn control(fd: &OwnedFd) -> SharedSlice<AtomicU64> {
    Arc::new(Mapping::new(fd, CONTROL * 8, Access::ReadWrite).unwrap()).slice(0, CONTROL).unwrap()
}

fn request(number: u32) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(REQUEST, number as u8);
    bytes
}

/// `u32` length of all, number, content.
fn answer_to(number: u32) -> Vec<u8> {
    let len = 8 + number * 97 % 700;
    let mut bytes = [len.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.extend((8..len).map(|i| (number * 31 + i) as u8));
    bytes
}

fn error_for(number: u32) -> Vec<u8> {
    [8u32.to_le_bytes(), (number | ERROR).to_le_bytes()].concat()
}

fn is_idempotent(number: u32) -> bool {
    number % 2 == 1
}

struct Random(u64);
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

// ---- the worker -------------------------------------------------------------------------------------------------

static HOOK: OnceLock<(u64, SharedSlice<AtomicU64>, Signal)> = OnceLock::new();
static LEFT: AtomicU64 = AtomicU64::new(0);

fn at_point(point: Point) {
    let Some((target, control, signal)) = HOOK.get() else { return };
    let here = *target == point as u64 || *target == u64::MAX;
    if here && LEFT.load(SeqCst) > 0 && LEFT.fetch_sub(1, SeqCst) == 1 {
        control[HITS + point as usize].fetch_add(1, SeqCst);
        kill_process(getpid(), *signal).unwrap();
    }
}

fn number(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Not a test: what a worker process runs. It returns at once when the variable is missing.
#[test]
fn worker() {
    if std::env::var_os("LEDGER_WORKER").is_none() {
        return;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    set_mutant(Mutant::ALL[number("MUTANT") as usize]);
    let mut received =
        baton_fdpass::recv(rustix::stdio::stdin(), &mut [0; 1], CONNECTIONS + 2).unwrap().fds.into_iter();
    let ledger = Ledger::open(received.next().unwrap()).unwrap();
    let control = control(&received.next().unwrap());
    let sockets: Vec<OwnedFd> = received.collect();
    let me = slot(number("LEDGER_WORKER") as u16);
    let mut random = Random(number("WORKER_SEED") | 1);
    LEFT.store(number("NTH"), SeqCst);
    let signal = if std::env::var_os("STOPS").is_some() { Signal::STOP } else { Signal::KILL };
    let target = std::env::var("POINT").ok().map_or(u64::MAX, |_| number("POINT"));
    assert!(HOOK.set((target, control_again(&control), signal)).is_ok());
    set_hook(at_point);
    if std::env::var_os("MOVER").is_some() {
        return move_about(&ledger, &control, me, &mut random);
    }
    while control[STOP].load(SeqCst) == 0 {
        // The tickets may be old by the time they are used, as those of a worker that was stopped are.
        let tickets: Vec<Ticket> = ledger.idle_of(me).collect();
        for ticket in tickets {
            let Ok(claim) = ledger.claim(me, ticket) else { continue };
            serve(claim, &sockets[ticket.record as usize], &mut random);
        }
        control[PASSES + usize::from(me.get())].fetch_add(1, SeqCst);
        std::thread::sleep(Duration::from_micros(random.below(100)));
    }
}

/// What a master and mover does: takes from one worker, gives to the other; accepts, serves a little, closes; now and then
/// it takes over what a slot has that nobody works as.
fn move_about(ledger: &Ledger, control: &SharedSlice<AtomicU64>, me: Slot, random: &mut Random) {
    while control[STOP].load(SeqCst) == 0 {
        let (from, to) = if random.below(2) == 0 { (A, B) } else { (B, A) };
        if let Some(moved) = ledger.idle_of(slot(from)).next().and_then(|ticket| ledger.take(me, ticket).ok())
        {
            moved.give(slot(to)).unwrap();
        }
        let about = About { listener: 1, kind: Kind::Unix, acked_base: 0 };
        let ticket = ledger.accept(me, me, about).unwrap();
        let mut claim = ledger.claim(me, ticket).unwrap();
        claim.push(&[7; 600]).unwrap();
        claim.close().unwrap();
        ledger.accept(me, slot(GONE), about).unwrap();
        for moved in ledger.recover(me, slot(GONE)).moved {
            moved.close().unwrap();
        }
        control[PASSES + usize::from(me.get())].fetch_add(1, SeqCst);
    }
}

fn control_again(control: &SharedSlice<AtomicU64>) -> SharedSlice<AtomicU64> {
    control.mapping().slice(0, CONTROL).unwrap()
}

fn serve(mut claim: Claim<'_>, socket: &OwnedFd, random: &mut Random) {
    let (mut input, mut buffer) = (Vec::new(), [0; 200]);
    let number_of = |input: &[u8]| u32::from_le_bytes(input[..4].try_into().unwrap());
    if let Some(interrupted) = claim.duty().unwrap().request {
        claim.input(&mut input).unwrap();
        let number = number_of(&input);
        claim.answer(&if interrupted.rerun { answer_to(number) } else { error_for(number) }).unwrap();
    }
    let most = 1 + random.below(buffer.len() as u64) as usize;
    match recv(socket, &mut buffer[..most], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) | Err(Errno::AGAIN) => {}
        Ok((count, _)) => {
            claim.park(&buffer[..count]).unwrap();
            let (taken, _) = recv(socket, &mut buffer[..count], RecvFlags::DONTWAIT).unwrap();
            claim.taken(taken as u64).unwrap();
        }
        Err(error) => panic!("{error}"),
    }
    claim.input(&mut input).unwrap();
    for request in input.chunks_exact(REQUEST) {
        let number = number_of(request);
        claim.begin(REQUEST as u64, is_idempotent(number)).unwrap();
        claim.answer(&answer_to(number)).unwrap();
    }
    let most = 1 + random.below(1500) as usize;
    let _ = claim.send(&mut Vec::new(), most, |bytes| {
        Ok(send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    });
    // Sometimes as a handler that is cancelled does.
    if random.below(4) == 0 { drop(claim) } else { claim.release().unwrap() }
}

// ---- the supervisor ---------------------------------------------------------------------------------------------

struct Client {
    socket: OwnedFd,
    /// The other end, as the keeper holds it.
    kept: OwnedFd,
    first: u32,
    to_send: Vec<u8>,
    sent: usize,
    arrived: usize,
    partial: Vec<u8>,
    answered: u32,
    errors: u32,
}

impl Client {
    fn new(first: u32) -> Self {
        let (socket, kept) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let to_send = (0..REQUESTS).flat_map(|i| request(first + i)).collect();
        Self {
            socket,
            kept,
            first,
            to_send,
            sent: 0,
            arrived: 0,
            partial: Vec::new(),
            answered: 0,
            errors: 0,
        }
    }

    fn write(&mut self, most: usize) {
        let rest = &self.to_send[self.sent..];
        if !rest.is_empty() {
            self.sent += send(&self.socket, &rest[..rest.len().min(most)], SendFlags::DONTWAIT).unwrap_or(0);
        }
    }

    /// Reads what is there and checks it; returns how many bytes.
    fn read(&mut self) -> usize {
        let (before, mut buffer) = (self.arrived, [0; 4096]);
        while let Ok((count, _)) = recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            assert!(count > 0, "closed");
            self.arrived += count;
            self.partial.extend(&buffer[..count]);
        }
        while self.partial.len() >= 8 && self.answered < REQUESTS {
            let number = self.first + self.answered;
            let said = u32::from_le_bytes(self.partial[4..8].try_into().unwrap());
            let expected = if said == number | ERROR { error_for(number) } else { answer_to(number) };
            let there = self.partial.len().min(expected.len());
            assert_eq!(self.partial[..there], expected[..there], "the answer to {number}");
            if there < expected.len() {
                break;
            }
            self.errors += u32::from(said & ERROR != 0);
            assert!(said & ERROR == 0 || !is_idempotent(number), "an idempotent request was not run again");
            self.partial.drain(..there);
            self.answered += 1;
        }
        assert!(self.answered < REQUESTS || self.partial.is_empty(), "bytes after the last answer");
        self.arrived - before
    }

    fn queued(&self) -> usize {
        rustix::io::ioctl_fionread(&self.kept).unwrap() as usize
    }
}

struct Scene {
    ledger: Ledger,
    fd: OwnedFd,
    control_fd: OwnedFd,
    control: SharedSlice<AtomicU64>,
    clients: Vec<Client>,
    random: Random,
}

/// Ends its process with the scene.
struct Worker(Child);
impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Scene {
    fn new(seed: u64) -> Self {
        let config = Config { connections: 2 * CONNECTIONS as u32, workers: 6, arena_bytes: 256 << 10 };
        let (ledger, fd) = Ledger::create(&config).unwrap();
        let control_fd = create_sealed("ledger-kill", (CONTROL * 8) as u64).unwrap();
        let about = About { listener: 0, kind: Kind::Unix, acked_base: 0 };
        for record in 0..CONNECTIONS {
            assert_eq!(ledger.accept(slot(SUPERVISOR), slot(A), about).unwrap().record as usize, record);
        }
        let clients = (0..CONNECTIONS as u32).map(|i| Client::new(1000 * (i + 1))).collect();
        let control = control(&control_fd);
        Self { ledger, fd, control_fd, control, clients, random: Random(seed | 1) }
    }

    fn spawn(&mut self, me: u16, point: Option<u64>, nth: u64, stops: bool) -> Worker {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "worker", "--nocapture"]).stdin(Stdio::from(theirs)).stdout(Stdio::null());
        command.env("LEDGER_WORKER", me.to_string()).env("NTH", nth.to_string());
        command.env("WORKER_SEED", self.random.below(1 << 40).to_string());
        if let Some(point) = point {
            command.env("POINT", point.to_string());
        }
        if me == MOVER {
            command.env("MOVER", "1");
        }
        if stops {
            command.env("STOPS", "1");
        }
        let worker = Worker(command.spawn().unwrap());
        let mut fds = vec![self.fd.as_fd(), self.control_fd.as_fd()];
        fds.extend(self.clients.iter().map(|client| client.kept.as_fd()));
        baton_fdpass::send_all(&ours, &[0], &fds).unwrap();
        worker
    }

    fn done(&self) -> bool {
        self.clients.iter().all(|client| client.answered == REQUESTS)
    }

    /// Sends and reads until all is answered or `until` says so.
    fn drive(&mut self, mut until: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !self.done() && !until(self) {
            assert!(begin.elapsed() < PATIENCE, "a request is lost: {}", self.look());
            for client in &mut self.clients {
                client.write(1 + self.random.below(150) as usize);
                client.read();
            }
            std::thread::sleep(Duration::from_micros(self.random.below(200)));
        }
    }

    /// Until the worker is dead or stopped, which it may also be after its last answer, or has nothing more to do.
    fn drive_until_changed(&mut self, worker: &Worker) -> bool {
        let (begin, mut is_changed) = (Instant::now(), false);
        self.drive(|_| {
            is_changed = changed(worker).is_some();
            is_changed
        });
        while !is_changed && self.ledger.chunks_taken() > 0 {
            assert!(begin.elapsed() < PATIENCE, "{} chunks without bytes", self.ledger.chunks_taken());
            is_changed = changed(worker).is_some();
        }
        is_changed
    }

    fn look(&self) -> String {
        let records = (0..CONNECTIONS as u32).map(|record| {
            let (word, client) = (self.ledger.word(record).unwrap(), &self.clients[record as usize]);
            format!("{:?} of {}: {} answered, ", word.state(), word.owner(), client.answered)
        });
        records.collect()
    }

    fn read_all(&mut self) {
        for client in &mut self.clients {
            client.read();
        }
    }

    /// What the keeper does after a death: everything goes to B.
    fn recover(&mut self, dead: u16) {
        self.read_all();
        let recovery = self.ledger.recover(slot(SUPERVISOR), slot(dead));
        assert!(recovery.corrupt.is_empty());
        for mut moved in recovery.moved {
            if moved.record() as usize >= CONNECTIONS {
                moved.close().unwrap();
                continue;
            }
            let client = &self.clients[moved.record() as usize];
            let duty = moved.duty().unwrap();
            assert!(!duty.close);
            if duty.taking.is_some() {
                moved.resolve_taken((client.sent - client.queued()) as u64).unwrap();
            }
            if duty.sending.is_some() {
                moved.resolve_sent(client.arrived as u64).unwrap();
            }
            moved.give(slot(B)).unwrap();
        }
    }

    /// All is answered: nothing is pending, nobody touches anything any more.
    fn check_end(&mut self, deaths: u32) {
        assert!(self.done());
        let errors: u32 = self.clients.iter().map(|client| client.errors).sum();
        assert!(errors <= deaths, "{errors} error frames after {deaths} deaths");
        // The workers may be about to say what they have sent.
        let begin = Instant::now();
        while self.ledger.chunks_taken() > 0 {
            assert!(begin.elapsed() < PATIENCE, "{} chunks without bytes", self.ledger.chunks_taken());
            std::thread::sleep(Duration::from_millis(1));
        }
        self.control[STOP].store(1, SeqCst);
    }
}

fn changed(worker: &Worker) -> Option<rustix::process::WaitStatus> {
    let pid = Pid::from_child(&worker.0);
    waitpid(Some(pid), WaitOptions::NOHANG | WaitOptions::UNTRACED).unwrap().map(|(_, status)| status)
}

/// Kills A at its `nth` passage of `point` (none: of any). Returns whether it got there.
fn killed(point: Option<u64>, nth: u64, seed: u64) -> [u64; 64] {
    let mut scene = Scene::new(seed);
    let worker = scene.spawn(A, point, nth, false);
    if scene.drive_until_changed(&worker) {
        scene.recover(A);
        let _b = scene.spawn(B, None, 0, false);
        scene.drive(|_| false);
        scene.check_end(1);
    } else {
        scene.check_end(0);
    }
    std::array::from_fn(|point| scene.control[HITS + point].load(SeqCst))
}

/// Stops A there, moves what is idle, lets A go on: it must not touch what has moved.
fn stopped(point: Option<u64>, nth: u64, seed: u64) -> [u64; 64] {
    let mut scene = Scene::new(seed);
    let worker = scene.spawn(A, point, nth, true);
    if scene.drive_until_changed(&worker) {
        let idle: Vec<Ticket> = scene.ledger.idle_of(slot(A)).collect();
        for ticket in &idle {
            scene.ledger.take(slot(SUPERVISOR), *ticket).unwrap().give(slot(B)).unwrap();
        }
        // Something to steal on each of them.
        scene.read_all();
        idle.iter().for_each(|ticket| scene.clients[ticket.record as usize].write(60));
        let queued: Vec<usize> =
            idle.iter().map(|ticket| scene.clients[ticket.record as usize].queued()).collect();
        let passes = scene.control[PASSES + usize::from(A)].load(SeqCst);
        kill_process(Pid::from_child(&worker.0), Signal::CONT).unwrap();
        let begin = Instant::now();
        while scene.control[PASSES + usize::from(A)].load(SeqCst) < passes + 3 {
            assert!(begin.elapsed() < PATIENCE, "the stopped worker does not go on");
            std::thread::sleep(Duration::from_micros(100));
        }
        for (ticket, queued) in idle.iter().zip(queued) {
            let client = &mut scene.clients[ticket.record as usize];
            assert_eq!(client.queued(), queued, "the old owner read");
            assert_eq!(client.read(), 0, "the old owner wrote");
        }
        let _b = scene.spawn(B, None, 0, false);
        scene.drive(|_| false);
        scene.check_end(0);
    } else {
        scene.check_end(0);
    }
    std::array::from_fn(|point| scene.control[HITS + point].load(SeqCst))
}

/// Kills the mover there, while A and B serve.
fn mover_killed(point: Option<u64>, nth: u64, seed: u64) -> [u64; 64] {
    let mut scene = Scene::new(seed);
    let mover = scene.spawn(MOVER, point, nth, false);
    let _a = scene.spawn(A, None, 0, false);
    let _b = scene.spawn(B, None, 0, false);
    let begin = Instant::now();
    let mut died = false;
    // Also after the last answer: connections can be moved then, too.
    while !died {
        assert!(begin.elapsed() < PATIENCE, "the mover does not get there");
        scene.drive(|_| {
            died = changed(&mover).is_some();
            died
        });
        died = died || changed(&mover).is_some();
        std::thread::sleep(Duration::from_micros(100));
    }
    scene.recover(MOVER);
    scene.recover(GONE);
    scene.drive(|_| false);
    scene.check_end(0);
    let free =
        (CONNECTIONS as u32..2 * CONNECTIONS as u32).map(|record| scene.ledger.word(record).unwrap().state());
    assert!(free.into_iter().all(|state| state == Some(State::Free)), "a record is nobody's");
    std::array::from_fn(|point| scene.control[HITS + point].load(SeqCst))
}

/// The points that a mover passes.
const MOVERS_POINTS: &[Point] = &[
    Point::OpenTaken,
    Point::OpenWritten,
    Point::OpenGiven,
    Point::MoveTaken,
    Point::MoveGiven,
    Point::RecoverTaken,
    Point::CloseBegun,
    Point::ChunkUnlinked,
    Point::ChunkFreed,
    Point::CloseEmptied,
    Point::CloseFreed,
];

/// The points that a worker passes.
const WORKERS_POINTS: &[Point] = &[
    Point::Claimed,
    Point::ChunkTaken,
    Point::ChunkLinked,
    Point::ParkWritten,
    Point::ParkSaid,
    Point::ParkTaken,
    Point::BeginEnd,
    Point::Begun,
    Point::AnswerWritten,
    Point::AnswerCounts,
    Point::AnswerDone,
    Point::AnswerEnded,
    Point::SendBegun,
    Point::SendTaken,
    Point::SendCounted,
    Point::ChunkUnlinked,
    Point::ChunkFreed,
    Point::Released,
];

fn everywhere(run: fn(Option<u64>, u64, u64) -> [u64; 64], points: &[Point], name: &str) {
    set_mutant(Mutant::ALL[number("MUTANT") as usize]);
    let full = std::env::var_os("BATON_FULL").is_some();
    let seed =
        if std::env::var_os("SEED").is_some() { number("SEED") } else { u64::from(std::process::id()) };
    eprintln!("{name}: SEED={seed}");
    let mut random = Random(seed | 1);
    let mut hits = [0; 64];
    let mut add = |more: [u64; 64]| hits.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    for _ in 0..if full { 20 } else { 1 } {
        for point in points {
            add(run(Some(*point as u64), 1 + random.below(3), random.below(1 << 40)));
        }
    }
    for _ in 0..if full { 2000 } else { 20 } {
        add(run(None, 1 + random.below(400), random.below(1 << 40)));
    }
    let missed: Vec<&Point> = points.iter().filter(|point| hits[**point as usize] == 0).collect();
    assert!(missed.is_empty(), "never at {missed:?}");
    eprintln!("{name}: {} times", hits.iter().sum::<u64>());
}

#[test]
fn killed_everywhere() {
    everywhere(killed, WORKERS_POINTS, "killed");
}

#[test]
fn stopped_everywhere_and_moved() {
    everywhere(stopped, WORKERS_POINTS, "stopped");
}

#[test]
fn a_mover_is_killed_everywhere() {
    everywhere(mover_killed, MOVERS_POINTS, "mover killed");
}

#[test]
fn every_point_is_somebodys() {
    let mut all = WORKERS_POINTS.iter().chain(MOVERS_POINTS);
    assert!(Point::ALL.iter().all(|point| all.clone().any(|one| one == point)));
    assert!(all.all(|point| (*point as usize) < 64));
}
