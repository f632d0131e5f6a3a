//! Processes are really killed, at random times and at numbered points, while others work in the same pool; after
//! each kill every block is accounted for, exactly.
//!
//! `cargo test -p baton-pool --features kill-points --test kill` (KILLS=2000 for more than the CI slice, SEED=n)
//!
//! ```text
//!   supervisor (this test) = the daemon               worker (this binary again, one per endpoint)
//!     creates the pool, admits, spawns ── fds ──▶       alloc, fill, check, send, send_newest, receive, drop
//!     SIGKILL, or waits for a worker to kill itself     after k steps it kills itself at a kill point (SIGKILL)
//!     reaps while the others go on
//!     pauses them ── generation ──▶                     writes down which blocks it believes it holds, waits
//!     compares words, slots, index and beliefs
//!     replaces the dead one
//! ```
//! In every round a process of the daemon's (this binary a third time) moves extents from one size to another while
//! the workers go on, and is killed at a kill point; the supervisor takes its part over, as the next daemon would.
#![cfg(not(loom))]

use baton_pool::kill::{Mutant, Point, set_hook, set_mutant};
use baton_pool::{
    Admission, AllocError, Block, BlockId, Channel, EndpointId, EndpointKind, EndpointRef, Member, Pool,
    PoolConfig, PoolFds, Receiver, SendFailure,
};
use baton_shm::{Access, Mapping, SharedSlice, create_sealed};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, getpid, kill_process};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const WORKERS: usize = 4;
/// Small ones that go to magazines, several to an extent, one extent, two extents.
const SIZES: [usize; 4] = [64, 8 << 10, 24 << 10, 64 << 10];
/// Control words: 0 pause generation, 1 stop, 2 payload faults, 3 messages sent, 4 received, 5 replaced, 7 extents retired.
const PAUSE: usize = 0;
const STOP: usize = 1;
const FAULTS: usize = 2;
const SENT: usize = 3;
const RECEIVED: usize = 4;
const REPLACED: usize = 5;
const RETIRED: usize = 7;
const POINTS: usize = 16;
const ACK: usize = 64;
const BELIEFS: usize = 128;
const CONTROL: usize = BELIEFS + (WORKERS + 2) * BLOCKS;
/// More than the pool below has numbers.
const BLOCKS: usize = 1 << 14;

/// A small pool, so that members meet: few blocks, short inboxes.
fn config() -> PoolConfig {
    PoolConfig {
        payload_bytes: 256 << 10,
        largest_block: 64 << 10,
        endpoints: WORKERS as u16 + 1,
        inbox_slots: 4,
        ..PoolConfig::default()
    }
}

/// Xorshift: enough to be different each time and repeatable.
struct Random(u64);
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

struct Control(SharedSlice<AtomicU32>);
impl Control {
    fn open(fd: &OwnedFd) -> Self {
        let bytes = (CONTROL * 4).div_ceil(4096) * 4096;
        Self(Arc::new(Mapping::new(fd, bytes, Access::ReadWrite).unwrap()).slice(0, CONTROL).unwrap())
    }
    fn belief(&self, id: EndpointId, block: usize) -> &AtomicU32 {
        &self.0[BELIEFS + usize::from(id.get()) * BLOCKS + block]
    }
}

// ---- the worker -------------------------------------------------------------------------------------------------

static STEPS_LEFT: AtomicU64 = AtomicU64::new(0);
static YIELD: AtomicU64 = AtomicU64::new(0);
static HITS: std::sync::OnceLock<SharedSlice<AtomicU32>> = std::sync::OnceLock::new();

/// At every point: perhaps lose the processor, so that two cores see the interleavings of many; perhaps die.
fn at_point(point: Point) {
    let noise = YIELD.load(SeqCst);
    if noise != 0 {
        YIELD.store(
            noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) | 1,
            SeqCst,
        );
        if (noise >> 33).is_multiple_of(24) {
            std::thread::yield_now();
        }
    }
    if STEPS_LEFT.load(SeqCst) > 0 && STEPS_LEFT.fetch_sub(1, SeqCst) == 1 {
        if let Some(hits) = HITS.get() {
            hits[POINTS + point as usize].fetch_add(1, SeqCst);
        }
        kill_process(getpid(), Signal::KILL).unwrap();
    }
}

fn inherited(name: &str) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", std::env::var(name).unwrap());
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn number(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Not a test: what a worker process runs. It returns at once when the variable is missing.
#[test]
fn worker() {
    if std::env::var_os("WORKER").is_none() {
        return;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let pool = Pool::open(inherited("METADATA"), inherited("PAYLOAD")).unwrap();
    let control = Control::open(&inherited("CONTROL"));
    let _ = HITS.set(Control::open(&inherited("CONTROL")).0);
    let me = EndpointRef {
        id: EndpointId::new(number("WORKER") as u16).unwrap(),
        incarnation: number("INCARNATION") as u32,
    };
    set_mutant(Mutant::ALL[number("MUTANT") as usize]);
    if std::env::var_os("REAPER").is_some() {
        STEPS_LEFT.store(number("STEPS"), SeqCst);
        set_hook(at_point);
        pool.reap(me).unwrap();
        return;
    }
    let seed = number("WORKER_SEED");
    if std::env::var_os("ROOM").is_some() {
        let mut random = Random(seed | 1);
        STEPS_LEFT.store(number("STEPS"), SeqCst);
        set_hook(at_point);
        for _ in 0..40 {
            let len = SIZES[random.below(SIZES.len() as u64) as usize];
            let made = pool.make_room(me, len).unwrap_or_default();
            control.0[RETIRED].fetch_add(made.retired, SeqCst);
        }
        return;
    }
    let (member, receiver) = pool.attach(me).unwrap();
    STEPS_LEFT.store(number("STEPS"), SeqCst);
    YIELD.store(if seed & 1 == 0 { seed | 1 } else { 0 }, SeqCst);
    set_hook(at_point);
    let random = Random(seed | 1);
    Worker {
        control,
        pool,
        me,
        member: Some(member),
        receiver: Some(receiver),
        held: Vec::new(),
        random,
        count: 0,
    }
    .run();
}

struct Worker {
    control: Control,
    pool: Pool,
    me: EndpointRef,
    member: Option<Member>,
    receiver: Option<Receiver>,
    held: Vec<Block>,
    random: Random,
    count: u64,
}

/// What a sender writes: itself, a number, and their sum all over the block.
fn fill(bytes: &mut [u8], value: u64) {
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&value.to_le_bytes());
    }
}

impl Worker {
    fn check(&self, bytes: &[u8]) {
        let first = bytes.get(..8);
        if bytes.is_empty() || !bytes.chunks_exact(8).all(|chunk| Some(chunk) == first) {
            self.control.0[FAULTS].fetch_add(1, SeqCst);
        }
    }

    fn run(mut self) {
        loop {
            let generation = self.control.0[PAUSE].load(SeqCst);
            if generation != 0 {
                self.pause(generation);
            }
            if self.control.0[STOP].load(SeqCst) != 0 {
                return self.leave();
            }
            self.step();
        }
    }

    /// Says what it believes to hold: one lane for each handle in its list (clones are sent at once, never kept), and
    /// one for each spare block in the magazine.
    fn pause(&mut self, generation: u32) {
        let steps = STEPS_LEFT.swap(0, SeqCst); // a worker never dies while it is examined
        for block in 0..BLOCKS {
            self.control.belief(self.me.id, block).store(0, SeqCst);
        }
        for block in &self.held {
            self.control.belief(self.me.id, block.id().get() as usize).fetch_add(1, SeqCst);
        }
        for block in self.member.as_ref().unwrap().spare_blocks() {
            self.control.belief(self.me.id, block.get() as usize).fetch_add(1, SeqCst);
        }
        self.control.0[ACK + usize::from(self.me.id.get())].store(generation, SeqCst);
        while self.control.0[PAUSE].load(SeqCst) == generation {
            std::thread::yield_now();
        }
        STEPS_LEFT.store(steps, SeqCst);
    }

    fn leave(mut self) {
        STEPS_LEFT.store(0, SeqCst);
        self.held.clear();
        while self.receiver.as_mut().unwrap().try_recv().unwrap().is_some() {}
        self.receiver = None;
        assert_eq!(self.member.as_ref().unwrap().refused(), 0);
    }

    fn channel(&mut self) -> Option<Channel> {
        let to = EndpointId::new(1 + self.random.below(WORKERS as u64) as u16)?;
        let info = self.pool.endpoint(to)?;
        let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok()?;
        Some(Channel::new(info, wake))
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..=2 if self.held.len() < 12 => {
                let len = SIZES[self.random.below(SIZES.len() as u64) as usize];
                match self.member.as_ref().unwrap().alloc(len) {
                    Ok(mut block) => {
                        self.count += 1;
                        fill(&mut block, u64::from(self.me.id.get()) << 56 | self.count);
                        self.held.push(block.freeze());
                    }
                    Err(AllocError::Exhausted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            3 | 4 if !self.held.is_empty() => {
                let i = self.random.below(self.held.len() as u64) as usize;
                let block = self.held.swap_remove(i);
                self.check(&block);
            }
            5..=7 if !self.held.is_empty() => self.send(),
            8 => {
                for _ in 0..4 {
                    let Some(delivery) = self.receiver.as_mut().unwrap().try_recv().unwrap() else { break };
                    self.check(&delivery.block);
                    self.control.0[RECEIVED].fetch_add(1, SeqCst);
                    if self.held.len() < 24 {
                        self.held.push(delivery.block);
                    }
                }
            }
            _ => match self.random.below(64) {
                0 => std::thread::yield_now(),
                1..=4 => self.held.clear(), // so that extents are empty now and then
                _ => {}
            },
        }
    }

    fn send(&mut self) {
        let Some(channel) = self.channel() else { return };
        let i = self.random.below(self.held.len() as u64) as usize;
        // A clone makes it a share; the only handle makes it a move.
        let shares = self.random.below(3) == 0;
        let block = if shares { self.held[i].clone() } else { self.held.swap_remove(i) };
        self.check(&block);
        let member = self.member.as_ref().unwrap();
        let result = if self.random.below(2) == 0 {
            member.send(&channel, block)
        } else {
            member.send_newest(&channel, block).map(|sent| {
                self.control.0[REPLACED].fetch_add(sent.replaced, SeqCst);
            })
        };
        match result {
            Ok(()) => {
                self.control.0[SENT].fetch_add(1, SeqCst);
            }
            Err(error) => {
                assert!(
                    matches!(error.reason, SendFailure::Full | SendFailure::Gone | SendFailure::FanOut),
                    "{}",
                    error.reason
                );
                if !shares {
                    self.held.push(error.block);
                }
            }
        }
    }
}

// ---- the supervisor ---------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq)]
enum How {
    /// From outside, at any instruction.
    AnyTime,
    /// By itself, at its k-th kill point.
    AtPoints,
}

struct Supervisor {
    pool: Pool,
    fds: PoolFds,
    control_fd: OwnedFd,
    control: Control,
    children: Vec<Option<(Child, EndpointRef)>>,
    daemon: EndpointRef,
    daemons_killed: u64,
    random: Random,
    how: How,
    mutant: Mutant,
    generation: u32,
    reapers_killed: u64,
    violations: Vec<String>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for (child, _) in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Supervisor {
    fn new(how: How, mutant: Mutant, seed: u64) -> Self {
        let (pool, fds) = Pool::create(&config()).unwrap();
        let total = pool.geometry().extents() * pool.geometry().words_per_extent();
        assert!(total as usize <= BLOCKS, "{total}");
        let control_fd = create_sealed("control", CONTROL as u64 * 4).unwrap();
        for fd in [fds.metadata.as_fd(), fds.payload.as_fd(), control_fd.as_fd()] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap(); // inherited by the workers
        }
        let control = Control::open(&control_fd);
        let children = (0..WORKERS).map(|_| None).collect();
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..5).for_each(|_| {
            random.below(2);
        });
        let violations = Vec::new();
        let mut it = Self {
            pool,
            fds,
            control_fd,
            control,
            children,
            random,
            how,
            mutant,
            generation: 0,
            reapers_killed: 0,
            daemon: EndpointRef { id: EndpointId::new(1).unwrap(), incarnation: 0 },
            daemons_killed: 0,
            violations,
        };
        (0..WORKERS).for_each(|i| it.spawn(i));
        it.daemon = it.admit("daemon", EndpointKind::Daemon);
        it
    }

    fn admit(&self, name: &str, kind: EndpointKind) -> EndpointRef {
        let who = Admission { pid: 0, start_time: 0, name: name.into(), inbox: None, kind, quota_bytes: 0 };
        self.pool.admit(&who).unwrap()
    }

    /// Starts a process that moves extents about.
    fn start_mover(&mut self) -> Option<Child> {
        if self.how == How::AnyTime && self.random.below(3) > 0 {
            return None;
        }
        let reach = [30, 300, 3000][self.random.below(3) as usize];
        let steps = if self.how == How::AtPoints { 1 + self.random.below(reach) } else { 0 };
        Some(self.command(self.daemon, steps).env("ROOM", "1").spawn().unwrap())
    }

    /// Waits for it (or kills it); if it was killed, the next daemon takes over, while the workers go on.
    fn end_mover(&mut self, mut mover: Child) {
        if self.how == How::AnyTime {
            std::thread::sleep(Duration::from_micros(2000 + self.random.below(6000)));
            mover.kill().unwrap();
        }
        let status = mover.wait().unwrap();
        if status.signal() == Some(Signal::KILL.as_raw()) {
            self.daemons_killed += 1;
            self.pool.reap(self.daemon).unwrap();
            // All workers are still admitted, living or not, so it gets its own number again.
            self.daemon = self.admit("daemon", EndpointKind::Daemon);
            self.pool.repair(self.daemon);
        } else if !status.success() {
            self.violations.push(format!("the mover ended by itself: {status}"));
        }
    }

    fn spawn(&mut self, i: usize) {
        let me = self.admit(&format!("worker {i}"), EndpointKind::Attached);
        let reach = [30, 300, 3000][self.random.below(3) as usize];
        let steps = if self.how == How::AtPoints { 1 + self.random.below(reach) } else { 0 };
        self.control.0[ACK + usize::from(me.id.get())].store(0, SeqCst);
        let child = self.command(me, steps).spawn().unwrap();
        self.children[i] = Some((child, me));
    }

    /// One kill, its reap while the others go on, and an exact audit. Returns how many died.
    fn round(&mut self) -> u64 {
        if let Some(mover) = self.start_mover() {
            self.end_mover(mover);
        }
        let mut died = 0;
        match self.how {
            How::AnyTime => {
                std::thread::sleep(Duration::from_micros(500 + self.random.below(6000)));
                let i = self.random.below(WORKERS as u64) as usize;
                if let Some((child, _)) = &mut self.children[i] {
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
                died += self.bury(i);
            }
            How::AtPoints => {
                let deadline = Instant::now() + Duration::from_secs(20);
                while died == 0 {
                    died += self.bury_the_dead();
                    std::thread::sleep(Duration::from_micros(200));
                    if Instant::now() > deadline {
                        self.violations.push("no worker reaches its point".into());
                        break;
                    }
                }
            }
        }
        died += self.pause();
        self.examine();
        self.control.0[PAUSE].store(0, SeqCst);
        for i in 0..WORKERS {
            if self.children[i].is_none() {
                self.spawn(i);
            }
        }
        died
    }

    fn bury_the_dead(&mut self) -> u64 {
        (0..WORKERS).map(|i| self.bury(i)).sum()
    }

    /// Reaps worker `i` if it is dead.
    fn bury(&mut self, i: usize) -> u64 {
        let Some((child, me)) = &mut self.children[i] else { return 0 };
        let Some(status) = child.try_wait().unwrap() else { return 0 };
        if status.signal() != Some(Signal::KILL.as_raw()) {
            self.violations.push(format!("worker {i} ended by itself: {status}"));
        }
        let me = *me;
        self.children[i] = None;
        if self.how == How::AtPoints && self.random.below(3) == 0 && self.is_reaped_by_another(me) {
            return 1;
        }
        let reaped = self.pool.reap(me).unwrap();
        assert_eq!(reaped.disturbed, 0);
        1
    }

    /// A reaper in a process of its own, which is killed at one of its points; false if it was killed in time, and the
    /// work is to be done again.
    fn is_reaped_by_another(&mut self, dead: EndpointRef) -> bool {
        let reach = [20, 60, 2000][self.random.below(3) as usize];
        let steps = 1 + self.random.below(reach);
        let status = self.command(dead, steps).env("REAPER", "1").status().unwrap();
        self.reapers_killed += u64::from(status.signal() == Some(Signal::KILL.as_raw()));
        status.success()
    }

    fn command(&mut self, me: EndpointRef, steps: u64) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "worker", "--test-threads=1", "-q"])
            .env("WORKER", me.id.get().to_string())
            .env("INCARNATION", me.incarnation.to_string())
            .env("WORKER_SEED", (self.random.below(1 << 60)).to_string())
            .env("STEPS", steps.to_string())
            .env("MUTANT", (self.mutant as u32).to_string())
            .env("METADATA", self.fds.metadata.as_raw_fd().to_string())
            .env("PAYLOAD", self.fds.payload.as_raw_fd().to_string())
            .env("CONTROL", self.control_fd.as_raw_fd().to_string())
            .stdout(std::process::Stdio::null());
        command
    }

    /// Everybody stands still, or is dead and reaped.
    fn pause(&mut self) -> u64 {
        self.generation += 1;
        self.control.0[PAUSE].store(self.generation, SeqCst);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut died = 0;
        loop {
            died += self.bury_the_dead();
            let waiting = self.children.iter().flatten().any(|(_, me)| {
                self.control.0[ACK + usize::from(me.id.get())].load(SeqCst) != self.generation
            });
            if !waiting {
                return died;
            }
            if Instant::now() > deadline {
                self.violations.push("a worker hangs".into());
                return died;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn examine(&mut self) {
        let report = self.pool.audit_once();
        self.violations.extend(report.findings.iter().map(ToString::to_string));
        for (_, me) in self.children.iter().flatten() {
            for block in 0..BLOCKS {
                let believed = self.control.belief(me.id, block).load(SeqCst);
                let holders = self.pool.holders(BlockId::new(block as u32));
                let lanes = holders.iter().filter(|(id, unread)| *id == me.id && !unread).count() as u32;
                if lanes != believed {
                    self.violations.push(format!(
                        "block {block}: {lanes} lanes of {}, it believes {believed}",
                        me.id.get()
                    ));
                }
            }
        }
        let faults = self.control.0[FAULTS].load(SeqCst);
        if faults > 0 {
            self.violations.push(format!("{faults} blocks changed under a holder"));
        }
    }

    /// The survivors give everything back: every block is free and indexed.
    fn finish(&mut self) {
        self.control.0[STOP].store(1, SeqCst);
        for i in 0..WORKERS {
            if let Some((mut child, me)) = self.children[i].take() {
                let status = child.wait().unwrap();
                if !status.success() && status.signal() != Some(Signal::KILL.as_raw()) {
                    self.violations.push(format!("worker {i} ended badly: {status}"));
                }
                self.pool.reap(me).unwrap();
            }
        }
        self.pool.reap(self.daemon).unwrap();
        let report = self.pool.audit_once();
        self.violations.extend(report.findings.iter().map(ToString::to_string));
        if report.in_use != 0 {
            self.violations.push(format!("{} blocks lost", report.in_use));
        }
    }
}

fn kills(default: u64) -> u64 {
    std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()))
}

fn run(how: How, kills: u64) {
    let seed = seed();
    println!("SEED={seed}");
    let mut supervisor = Supervisor::new(how, Mutant::None, seed);
    let (mut died, mut audits) = (0, 0);
    while died < kills && supervisor.violations.is_empty() {
        died += supervisor.round();
        audits += 1;
    }
    if supervisor.violations.is_empty() {
        supervisor.finish();
    }
    let count = |i: usize| supervisor.control.0[i].load(SeqCst);
    println!(
        "{died} kills, {} of reapers, {} of daemons that moved {} extents, {audits} exact audits, {} sent, {} received, {} replaced",
        supervisor.reapers_killed,
        supervisor.daemons_killed,
        count(RETIRED),
        count(SENT),
        count(RECEIVED),
        count(REPLACED)
    );
    for point in Point::ALL {
        let hits = count(POINTS + *point as usize);
        if hits > 0 {
            println!("  {point:?}: {hits}");
        }
    }
    assert!(supervisor.violations.is_empty(), "SEED={seed}: {:#?}", supervisor.violations);
    assert!(count(SENT) > 0 && count(RECEIVED) > 0, "the workers did work");
}

#[test]
fn killed_at_any_time() {
    run(How::AnyTime, kills(120));
}

#[test]
fn killed_at_numbered_points() {
    run(How::AtPoints, kills(120));
}

/// How many kills it takes until a broken protocol is noticed.
fn noticed(mutant: Mutant, most: u64) -> Option<(u64, String)> {
    let mut supervisor = Supervisor::new(How::AtPoints, mutant, seed());
    let mut died = 0;
    while died < most && supervisor.violations.is_empty() {
        died += supervisor.round();
    }
    supervisor.violations.first().map(|first| (died, first.clone()))
}

/// The test bites: broken protocols are noticed, if the workers or reapers in processes of their own follow them. With
/// `BATON_FULL=1` all are tried, to see which a kill can show; the model check shows them all.
#[test]
fn a_broken_protocol_is_noticed() {
    let full = std::env::var_os("BATON_FULL").is_some();
    let all = if full { &Mutant::ALL[1..] } else { &[Mutant::NoHintCheck] };
    for mutant in all {
        let most = if full && *mutant != Mutant::NoHintCheck { 1000 } else { 5000 };
        match noticed(*mutant, most) {
            Some((died, how)) => println!("{mutant:?}: noticed after {died} kills: {how}"),
            None => {
                println!("{mutant:?}: not noticed in {most} kills");
                assert_ne!(*mutant, Mutant::NoHintCheck);
            }
        }
    }
}
