//! The main run: one pool, one daemon under its keeper, six members, two classic clients; kill, wait for the reap, audit,
//! replace.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use baton_client::Observer;
use baton_killpoint::Point as Step;
use baton_pool::kill::Point as Atomic;
use rustix::process::{Pid, Signal, kill_process};

use baton_tests::is_alive;

use crate::audit::Auditor;
use crate::classic::LOST;
use crate::control::{
    Control, DAEMON, DRAIN, DRAINED, DYING, ENDPOINT, FIRST_CLASSIC, FIRST_MEMBER, KEEPER, KEEPS, LEAVE,
    LIFE, PAUSE, PAUSED, PHASE, PID, POINTS, PULSE, PULSED, REOPEN, ROLES, SENT, SERVED_BY, SLOTS, STOP,
    WRITING, point_name, step_number,
};
use crate::member::Random;
use crate::{DIR, ROLE};

/// A watchdog against hanging, not a measure.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// Keepers that may die in one pool: a daemon whose keepers end again and again rests ever longer before the next one.
const KEEPERS_MAX: u32 = 6;

/// How often the state is looked at before it is wrong.
const LOOKS: u32 = 6;

pub fn uri(dir: &Path) -> String {
    format!("un://{}", dir.join("rmmt.sock").display())
}

/// The name of the pool, which classic clients need: as unique as the directory's.
pub fn shm_name(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("/baton-kill-{}-{}", std::process::id(), name.trim_start_matches('.'))
}

/// Nothing that serves in `dir` goes on, and nothing stays.
pub fn put_away(dir: &Path) {
    let end = Instant::now() + WATCHDOG;
    // A daemon that has not died yet may just be starting another keeper.
    while Instant::now() < end {
        let serving = serving_in(dir);
        if serving.is_empty() {
            break;
        }
        serving.into_iter().for_each(kill);
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = baton_shm::remove_named(&shm_name(dir));
}

/// This program again, as the keeper and its daemon.
pub fn rmmt(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env(ROLE, "rmmt").env(DIR, dir);
    command.args(["--listen", &uri(dir), "--listen", "ip://127.0.0.1:0", "--shm-name", &shm_name(dir)]);
    // Eight extents; the largest block takes two.
    command.args(["--size", "4MiB", "--max-block", "1MiB", "--members-max", "16"]);
    command.args(["--inbox-len", "8", "--log-level", "info"]);
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The processes that `pid` started.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Keepers and daemons that serve in `dir`, whoever started them: a daemon whose keeper was killed gets itself another.
pub fn serving_in(dir: &Path) -> Vec<u32> {
    let uri = uri(dir);
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == uri.as_bytes())
    };
    pids.filter(is_ours).collect()
}

/// Kills per role and point; the last column is "from outside, at any time".
#[derive(Clone)]
pub struct Table(Vec<[u64; POINTS + 1]>);

impl Default for Table {
    fn default() -> Self {
        Self(vec![[0; POINTS + 1]; SLOTS])
    }
}

impl Table {
    pub fn of(control: &Control, outside: &[u64; SLOTS]) -> Self {
        let mut table = Self::default();
        for (slot, row) in table.0.iter_mut().enumerate() {
            for (point, cell) in row.iter_mut().take(POINTS).enumerate() {
                *cell = control.kills(slot, point).load(SeqCst);
            }
            row[POINTS] = outside[slot];
        }
        table
    }

    pub fn add(&mut self, other: &Self) {
        for (row, more) in self.0.iter_mut().zip(&other.0) {
            row.iter_mut().zip(more).for_each(|(cell, more)| *cell += more);
        }
    }

    pub fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }

    fn at(&self, point: usize) -> u64 {
        self.0.iter().map(|row| row[point]).sum()
    }

    /// Points at which nobody died.
    pub fn missed(&self) -> Vec<String> {
        (0..POINTS).filter(|point| self.at(*point) == 0).map(point_name).collect()
    }

    pub fn print(&self) {
        let short = |role: &&str| role.replace("producer 2", "prod. 2").replace("classic", "cl.");
        let short: Vec<String> = ROLES.iter().map(short).collect();
        println!("{:26} {}", "killed at", short.iter().map(|role| format!("{role:>9}")).collect::<String>());
        for point in 0..=POINTS {
            if self.at(point) > 0 {
                let name = if point == POINTS { "any time".to_owned() } else { point_name(point) };
                let row: String = self.0.iter().map(|row| format!("{:>9}", row[point])).collect();
                println!("{name:26} {row}");
            }
        }
    }
}

/// Passed once in the life of a process, at its start or end: others order deaths there.
fn is_start(point: usize) -> bool {
    let name = point_name(point);
    ["Start", "Adopt", "End", "Connect", "Bye"].iter().any(|start| name.starts_with(start))
}

pub struct Driver {
    dir: tempfile::TempDir,
    control: Control,
    keeper: Child,
    auditor: Auditor,
    members: [Option<Child>; SLOTS],
    lives: u64,
    random: Random,
    outside: [u64; SLOTS],
    wrong: Vec<String>,
    pub audits: u64,
    generation: u64,
    /// Keepers killed in this pool.
    keepers: u32,
    /// Orders given so far: a point that is rarely passed is not insisted on.
    tries: Vec<[u64; POINTS]>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        put_away(self.dir.path());
    }
}

impl Driver {
    /// A fresh pool. Its members bind the first extents at once: two of them may die at that.
    pub fn start(seed: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let control = Control::create(&dir.path().join("control"));
        let keeper = rmmt(dir.path()).spawn().expect("the keeper starts");
        Observer::connect(&uri(dir.path()), WATCHDOG).expect("the daemon serves");
        let auditor = Auditor::attach(&dir.path().join("rmmt.sock")).expect("the auditor is admitted");
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..5).for_each(|_| {
            random.below(2);
        });
        let mut driver = Self {
            dir,
            control,
            keeper,
            auditor,
            members: [const { None }; SLOTS],
            lives: 0,
            random,
            outside: [0; SLOTS],
            wrong: Vec::new(),
            audits: 0,
            generation: 0,
            keepers: 0,
            tries: vec![[0; POINTS]; SLOTS],
        };
        driver.control.slot(KEEPER, KEEPS).store(driver.keeper.id().into(), SeqCst);
        for slot in FIRST_MEMBER + 2..SLOTS {
            driver.spawn(slot);
        }
        let binding = [Atomic::BeforeBind, Atomic::AfterBind];
        for (slot, point) in (FIRST_MEMBER..SLOTS).zip(binding) {
            driver.await_attached(FIRST_MEMBER + 2..SLOTS);
            driver.control.order(slot, point as usize, 1);
            driver.spawn(slot);
            driver.await_order(slot);
            driver.settle();
            driver.audit();
        }
        for slot in FIRST_MEMBER..SLOTS {
            if driver.members[slot].is_none() {
                driver.spawn(slot);
            }
        }
        driver.await_attached(FIRST_MEMBER..SLOTS);
        driver
    }

    pub fn table(&self) -> Table {
        Table::of(&self.control, &self.outside)
    }

    pub fn sum(&self, word: usize) -> u64 {
        (FIRST_MEMBER..SLOTS).map(|slot| self.control.slot(slot, word).load(SeqCst)).sum()
    }

    /// Shows the processes' log before the directory goes.
    pub fn keep_log(&self) {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        // One fault is often told thousands of times.
        let (faults, lines): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| !line.starts_with("20"));
        eprintln!(
            "── the last lines of daemon and members ──\n{}\n── of {} faults the first ──\n{}",
            lines[lines.len().saturating_sub(150)..].join("\n"),
            faults.len(),
            faults[..faults.len().min(10)].join("\n")
        );
    }

    fn spawn(&mut self, slot: usize) {
        self.lives += 1;
        self.control.forget(slot);
        self.control.slot(slot, LEAVE).store(0, SeqCst);
        self.control.slot(slot, ENDPOINT).store(0, SeqCst);
        self.control.slot(slot, PID).store(0, SeqCst);
        if slot >= FIRST_CLASSIC {
            self.control.slot(slot, WRITING).store(0, SeqCst);
        }
        self.control.slot(slot, LIFE).store(self.lives, SeqCst);
        let log = std::fs::File::options().append(true).open(self.dir.path().join("log")).expect("the log");
        let role = format!("member {slot} {}", self.random.below(1 << 60));
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command
            .env(ROLE, role)
            .env(DIR, self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.members[slot] = Some(command.spawn().expect("a member starts"));
    }

    /// Rounds until so many died, then an orderly end.
    pub fn run(&mut self, kills: u64) -> Result<(), Vec<String>> {
        let limit = Instant::now();
        while self.table().total() < kills && self.wrong.is_empty() {
            let before = self.table().total();
            self.round();
            if self.table().total() == before && limit.elapsed() > WATCHDOG * 60 {
                self.wrong.push("nobody dies any more".into());
            }
        }
        if self.wrong.is_empty() {
            self.finish();
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.wrong)) }
    }

    fn round(&mut self) {
        if self.random.below(3) == 0 {
            self.control.head(PHASE).fetch_add(1, SeqCst);
        }
        match self.random.below(16) {
            14 | 15 => self.as_extents_move(),
            12 | 13 => self.kill_the_keeper(),
            11 => {
                // A member dies while it asks the next daemon for the ways that it had.
                let slot = FIRST_MEMBER + self.random.below(4) as usize;
                let steps = [Step::ResumeOpened, Step::ResumeAnswered, Step::OpenAnswered].map(step_number);
                self.order_one_of(slot, &steps);
                self.kill_daemon();
                self.control.slot(slot, REOPEN).store(1, SeqCst);
                self.await_order(slot);
            }
            10 => {
                // A member dies while it says bye.
                let slot = self.a_member();
                let steps = [Step::ByeBefore, Step::ByeAnswered].map(step_number);
                self.order_one_of(slot, &steps);
                self.leave(slot);
            }
            0..=3 => self.at_a_point(),
            4 => {
                std::thread::sleep(Duration::from_micros(500 + self.random.below(6000)));
                let slot = self.a_member();
                self.kill_any_time(slot);
            }
            5 | 6 => {
                // The daemon dies while it takes back a member, or admits the next.
                let steps: Vec<usize> =
                    (0..POINTS).filter(|point| self.is_seen(DAEMON, *point) && !is_start(*point)).collect();
                self.order_one_of(DAEMON, &steps);
                let slot = self.a_member();
                if self.random.below(3) == 0 { self.leave(slot) } else { self.kill_any_time(slot) }
            }
            7 => {
                std::thread::sleep(Duration::from_micros(500 + self.random.below(6000)));
                self.kill_daemon();
            }
            8 => {
                let adoption = [Step::AdoptOpened, Step::AdoptEntered, Step::AdoptTakenBack, Step::AdoptDone]
                    .map(step_number)
                    .to_vec();
                self.order_one_of(DAEMON, &adoption);
                if self.random.below(2) == 0 {
                    let slot = self.a_member();
                    self.kill_any_time(slot);
                }
                self.kill_daemon();
            }
            _ => {
                // A member dies while it connects: the next one to be started gets the order.
                let slot = self.a_member();
                self.kill_any_time(slot);
                self.settle();
                self.audit();
                let steps =
                    [Step::ConnectOpened, Step::ConnectAnswered, Step::ConnectMapped, Step::ConnectAttached]
                        .map(step_number);
                self.order_one_of(slot, &steps);
                self.spawn(slot);
                self.await_order(slot);
            }
        }
        self.settle();
        if self.wrong.is_empty() {
            self.audit();
        }
        for slot in FIRST_MEMBER..SLOTS {
            if self.members[slot].is_none() {
                self.spawn(slot);
            }
        }
        self.await_attached(FIRST_MEMBER..SLOTS);
        if self.control.is_ordered(DAEMON) {
            self.await_order(DAEMON);
        }
    }

    /// The daemon dies while it takes extents from one size and gives them to another.
    fn as_extents_move(&mut self) {
        let points = [
            Atomic::RetireClaimed,
            Atomic::RetireMarked,
            Atomic::RetireLetGo,
            Atomic::RetireIndexed,
            Atomic::RetireDone,
            Atomic::RunFollowerBound,
            Atomic::RunBeforeHead,
            Atomic::RunFollowerFreed,
            Atomic::BeforeStray,
            Atomic::AfterStray,
        ];
        self.order_one_of(DAEMON, &points.map(|point| point as usize));
        for _ in 0..3 {
            self.control.head(PHASE).fetch_add(1, SeqCst);
            let end = Instant::now() + Duration::from_millis(40);
            while self.control.is_ordered(DAEMON) && Instant::now() < end {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        self.control.withdraw(DAEMON);
    }

    /// The keeper dies under load; daemon and members go on, and another keeper takes everything over.
    fn kill_the_keeper(&mut self) {
        // Both at once would be the end of the pool, so the daemon is not about to die: it still answers after that.
        self.control.withdraw(DAEMON);
        self.settle();
        if self.keepers >= KEEPERS_MAX {
            return;
        }
        self.keepers += 1;
        let keeper = self.control.slot(KEEPER, PID).load(SeqCst) as u32;
        let before = self.control.kills_of(KEEPER);
        let at_work = self.random.below(2) == 0;
        let (step, k) = match self.random.below(3) {
            0 if !at_work => (Step::KeepFollowed, 1),
            _ => (Step::KeepTook, 1 + self.random.below(6)),
        };
        if self.random.below(3) > 0 {
            self.control.order(KEEPER, step_number(step), k);
        }
        if at_work {
            // It takes and gives up what belongs to a member that dies and to the next.
            let slot = FIRST_MEMBER + self.random.below((FIRST_CLASSIC - FIRST_MEMBER) as u64) as usize;
            self.kill_any_time(slot);
            self.await_order_of_keeper(Duration::from_millis(60));
            if self.control.kills_of(KEEPER) == before {
                kill(keeper);
                self.outside[KEEPER] += 1;
            }
        } else {
            // The next one dies as well, while the daemon gives it everything.
            kill(keeper);
            self.outside[KEEPER] += 1;
            self.keepers += u32::from(self.control.is_ordered(KEEPER));
            self.await_order_of_keeper(WATCHDOG);
        }
        // A signal takes its time. Only when this one is gone it is another that `is_kept` speaks of.
        let end = Instant::now() + WATCHDOG;
        while is_alive(keeper) && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn await_order_of_keeper(&self, most: Duration) {
        let end = Instant::now() + most;
        while self.control.is_ordered(KEEPER) && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.control.withdraw(KEEPER);
    }

    /// Whether a living keeper has everything.
    fn is_kept(&self) -> bool {
        let keeper = self.control.slot(KEEPER, PID).load(SeqCst);
        is_alive(keeper as u32) && self.control.slot(KEEPER, KEEPS).load(SeqCst) == keeper
    }

    /// Waits until everybody is a member: a number that the next one to die leaves is not given to somebody new before
    /// all its messages are read, so that receivers know by the number who sent.
    fn await_attached(&mut self, slots: std::ops::Range<usize>) {
        let end = Instant::now() + WATCHDOG;
        for slot in slots {
            // (A classic client never learns its endpoint.)
            let word = if slot < FIRST_CLASSIC { ENDPOINT } else { PID };
            while self.control.slot(slot, word).load(SeqCst) == 0 {
                let ended =
                    self.members[slot].as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
                if ended || Instant::now() > end {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn a_member(&mut self) -> usize {
        FIRST_MEMBER + self.random.below((SLOTS - FIRST_MEMBER) as u64) as usize
    }

    /// Tells a member to give everything back and say bye, and waits for its end.
    fn leave(&mut self, slot: usize) {
        self.control.slot(slot, LEAVE).store(1, SeqCst);
        let end = Instant::now() + WATCHDOG;
        if let Some(child) = &mut self.members[slot] {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn is_seen(&self, slot: usize, point: usize) -> bool {
        self.control.seen(slot, point).load(SeqCst) > 0
    }

    /// Orders a death at one of the points where that role died least.
    fn order_one_of(&mut self, slot: usize, points: &[usize]) {
        let mut points = points.to_vec();
        points.sort_by_cached_key(|point| (self.tries[slot][*point], self.random.below(1 << 20)));
        points.truncate(5);
        if points.is_empty() {
            return;
        }
        let point = points[self.random.below(points.len() as u64) as usize];
        self.tries[slot][point] += 1;
        let seen = self.control.seen(slot, point).load(SeqCst);
        let reach = [1, 4, 40][self.random.below(3) as usize].min(1 + seen / 20);
        let k = 1 + self.random.below(reach);
        self.control.order(slot, point, k);
    }

    /// A member dies at a point of its own work.
    fn at_a_point(&mut self) {
        let slot = self.a_member();
        let points: Vec<usize> =
            (0..POINTS).filter(|point| self.is_seen(slot, *point) && !is_start(*point)).collect();
        self.order_one_of(slot, &points);
        self.await_order(slot);
        if self.control.is_ordered(slot) || points.is_empty() {
            self.control.withdraw(slot);
            self.kill_any_time(slot);
        }
    }

    /// Waits for a while until an order is carried out; rare points are not waited for.
    fn await_order(&mut self, slot: usize) {
        let end = Instant::now() + Duration::from_millis(if slot == DAEMON { 30 } else { 60 });
        while self.control.is_ordered(slot) && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
        if slot == DAEMON || self.members[slot].is_none() {
            self.control.withdraw(slot);
        }
    }

    fn kill_any_time(&mut self, slot: usize) {
        let before = self.control.kills_of(slot);
        if let Some(child) = &mut self.members[slot]
            && child.try_wait().expect("our child").is_none()
        {
            child.kill().expect("our child");
            let status = child.wait().expect("our child");
            // It may have been faster, at a point.
            self.outside[slot] +=
                u64::from(self.control.kills_of(slot) == before && status.signal().is_some());
        }
    }

    fn kill_daemon(&mut self) {
        let pid = self.control.slot(DAEMON, PID).load(SeqCst) as u32;
        if is_alive(pid) {
            self.control.end_all_writing();
            kill(pid);
            self.outside[DAEMON] += 1;
            if self.control.slot(DAEMON, PID).load(SeqCst) != u64::from(pid) {
                self.control.head(DYING).store(0, SeqCst); // it was faster, and the next one is here
            }
        }
    }

    /// Waits until a daemon serves and everybody who died is taken back.
    fn settle(&mut self) {
        let end = Instant::now() + WATCHDOG;
        for slot in FIRST_MEMBER..SLOTS {
            self.control.withdraw(slot);
        }
        loop {
            let dead = self.bury();
            if let Ok(Some(status)) = self.keeper.try_wait()
                && status.signal() != Some(Signal::KILL.as_raw())
            {
                self.wrong.push(format!("the keeper ended: {status}"));
                return;
            }
            let served =
                Observer::connect(&uri(self.dir.path()), WATCHDOG).is_ok_and(|mut o| o.pool().is_ok());
            let known = dead.iter().chain(&self.lingering()).any(|pid| self.auditor.knows(*pid).is_some());
            let kept = self.is_kept();
            if served && !known && kept {
                return;
            }
            if Instant::now() > end {
                self.wrong.push(format!(
                    "not taken back in {WATCHDOG:?}: {dead:?}, served: {served}, kept: {kept}"
                ));
                return;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Endpoints of processes that are gone.
    fn lingering(&self) -> Vec<u32> {
        let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
        self.auditor.pool.endpoints().into_iter().map(|info| info.pid).filter(gone).collect()
    }

    fn bury(&mut self) -> Vec<u32> {
        let mut dead = Vec::new();
        for (slot, role) in ROLES.iter().enumerate().skip(FIRST_MEMBER) {
            let Some(child) = &mut self.members[slot] else { continue };
            if let Some(status) = child.try_wait().expect("our child") {
                dead.push(child.id());
                // The connection of a classic client ends with its daemon, perhaps a moment before that is gone.
                let daemon = self.control.slot(slot, SERVED_BY).load(SeqCst) as u32;
                let end = Instant::now() + WATCHDOG;
                while status.code() == Some(LOST) && is_alive(daemon) && Instant::now() < end {
                    std::thread::sleep(Duration::from_micros(200));
                }
                let lost = slot >= FIRST_CLASSIC && status.code() == Some(LOST) && !is_alive(daemon);
                let left = status.success() && self.control.slot(slot, LEAVE).swap(0, SeqCst) != 0;
                if status.signal() != Some(Signal::KILL.as_raw()) && !left && !lost {
                    self.wrong.push(format!("{} ended by itself: {status}", role));
                }
                self.members[slot] = None;
            }
        }
        dead
    }

    fn audit(&mut self) {
        for looks_left in (0..LOOKS).rev() {
            let Some(wrong) = self.look() else { break };
            if wrong.is_empty() || looks_left == 0 {
                self.wrong.extend(wrong);
                self.audits += 1;
                break;
            }
            // A daemon that was slow may just be doing what it was asked before, or be dying at it. What is really wrong
            // stays wrong.
            self.settle();
        }
        if self.audits.is_multiple_of(16) {
            self.ask_the_daemon();
        }
        self.control.head(PAUSE).store(0, SeqCst);
    }

    /// Everybody stands still, and all is compared. `None` if somebody hangs.
    fn look(&mut self) -> Option<Vec<String>> {
        self.generation += 1;
        self.control.head(PAUSE).store(self.generation, SeqCst);
        if !self.await_all(PAUSED) {
            return None;
        }
        self.control.head(DRAIN).store(self.generation, SeqCst);
        if !self.await_all(DRAINED) {
            return None;
        }
        let alive: [bool; SLOTS] = std::array::from_fn(|slot| self.members[slot].is_some());
        let mut wrong = self.auditor.examine(&self.control, &alive);
        // What is held through a daemon that was just killed was taken back while we looked.
        self.control.head(PULSE).store(self.generation, SeqCst);
        if !self.await_of(PULSED, FIRST_CLASSIC) {
            return None;
        }
        if (FIRST_CLASSIC..SLOTS).any(|slot| alive[slot] && self.members[slot].is_none()) {
            wrong.push("a daemon was killed during the audit".into());
        }
        // Their messages are all read now, and their numbers may belong to others from here on.
        for slot in (FIRST_MEMBER..SLOTS).filter(|slot| !alive[*slot]) {
            self.control.slot(slot, ENDPOINT).store(0, SeqCst);
        }
        Some(wrong)
    }

    /// The daemon's own books, through its own door.
    fn ask_the_daemon(&mut self) {
        let ask = || Observer::connect(&uri(self.dir.path()), WATCHDOG).ok().and_then(|mut o| o.audit().ok());
        let mut last = None;
        for _ in 0..LOOKS {
            // It may be killed while it answers, or just be doing what it was asked before.
            last = ask();
            if last.as_ref().is_some_and(|report| report.ok) {
                return;
            }
        }
        self.wrong.push(format!("the daemon's audit: {last:?}"));
    }

    /// Waits until every living member has answered this pause. Who dies meanwhile (it had an order) is taken back first.
    fn await_all(&mut self, answer: usize) -> bool {
        self.await_of(answer, FIRST_MEMBER)
    }

    /// The same for those from slot `first` on.
    fn await_of(&mut self, answer: usize, first: usize) -> bool {
        let end = Instant::now() + WATCHDOG;
        loop {
            if !self.bury().is_empty() {
                self.settle();
            }
            let waiting = (first..SLOTS).find(|slot| {
                self.members[*slot].is_some()
                    && self.control.slot(*slot, answer).load(SeqCst) != self.generation
            });
            let Some(slot) = waiting else { return true };
            if Instant::now() > end {
                self.wrong.push(format!("{} hangs", ROLES[slot]));
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Everybody gives everything back and says bye: nothing is in use, nothing is left of the daemon.
    fn finish(&mut self) {
        self.control.withdraw(DAEMON);
        self.control.head(STOP).store(1, SeqCst);
        let end = Instant::now() + WATCHDOG;
        let mut pids = Vec::new();
        for (slot, role) in ROLES.iter().enumerate().skip(FIRST_MEMBER) {
            if let Some(mut child) = self.members[slot].take() {
                pids.push(child.id());
                while child.try_wait().expect("our child").is_none() && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(1));
                }
                match child.try_wait() {
                    Ok(Some(status)) if status.success() => {}
                    // The last round's daemon died, and with it the connection.
                    Ok(Some(status)) if slot >= FIRST_CLASSIC && status.code() == Some(LOST) => {}
                    other => self.wrong.push(format!("{} did not end well: {other:?}", role)),
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        while pids.iter().any(|pid| self.auditor.knows(*pid).is_some()) {
            if Instant::now() > end {
                self.wrong.push("members that said bye are not taken back".into());
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let usage = self.auditor.pool.usage();
        if usage.in_use_blocks != 0 {
            self.wrong.push(format!("{} blocks lost", usage.in_use_blocks));
        }
        if self.sum(SENT) == 0 {
            self.wrong.push("the members did no work".into());
        }
        // Whoever keeps and serves now ends in order, and the name of the pool goes.
        for pid in serving_in(self.dir.path()).into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed()))
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        while !serving_in(self.dir.path()).is_empty() && Instant::now() < end {
            let _ = self.keeper.try_wait();
            std::thread::sleep(Duration::from_millis(1));
        }
        let left = Path::new("/dev/shm").join(shm_name(self.dir.path()).trim_start_matches('/'));
        if left.exists() {
            self.wrong.push(format!("{} is left after an orderly end", left.display()));
        }
    }
}
