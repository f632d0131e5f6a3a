//! Who waits and who wakes are killed, in processes of their own; whoever is left gets what it waits for.
//!
//! `cargo test -p baton-pool --features kill-points --test killed_waiting`
//!
//! ```text
//!   this test = the daemon, and the peers that live on        child (this binary again) = the one that dies
//!     creates the pool, admits ── fds, endpoint, role ──▶       sends | frees | receives, and is killed on the way to
//!     waits for its death, reaps                                waking; or waits itself, until it is killed
//! ```
#![cfg(not(loom))]

use baton_pool::kill::{Point, set_hook};
use baton_pool::{
    Admission, Channel, EndpointId, EndpointKind, EndpointRef, Member, Pool, PoolConfig, PoolFds, Receiver,
    SendFailure,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, getpid, kill_process};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// A watchdog, not a measure.
const WATCHDOG: Duration = Duration::from_secs(60);
/// Too large for magazines.
const LARGE: usize = 1 << 20;

fn die_on_the_way(point: Point) {
    if matches!(point, Point::BeforeWake | Point::BeforeKnock) {
        kill_process(getpid(), Signal::KILL).unwrap();
    }
}

fn inherited(name: &str) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", std::env::var(name).unwrap());
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn nobodys() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn soon() -> Option<Instant> {
    Instant::now().checked_add(WATCHDOG)
}

/// Not a test: what a child runs. It returns at once when the variable is missing.
#[test]
fn child() {
    let Ok(role) = std::env::var("ROLE") else { return };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let pool = Pool::open(inherited("METADATA"), inherited("PAYLOAD")).unwrap();
    let number = |name: &str| std::env::var(name).unwrap().parse::<u16>().unwrap();
    let me = EndpointRef { id: EndpointId::new(number("ME")).unwrap(), incarnation: number("LIFE").into() };
    let (member, mut receiver) = pool.attach(me).unwrap();
    let other = pool.endpoint(EndpointId::new(number("OTHER")).unwrap());
    let channel = || Channel::new(other.unwrap(), nobodys());
    let end = Instant::now() + WATCHDOG;
    match role.as_str() {
        "sends" => {
            set_hook(die_on_the_way);
            // Sooner or later it finds the receiver asleep.
            while Instant::now() < end {
                let block = member.alloc_until(LARGE, soon()).unwrap().freeze();
                member.send_until(&channel(), block, soon()).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        "frees" => {
            let mut held: Vec<_> = std::iter::from_fn(|| member.alloc(LARGE).ok()).collect();
            println!("ready");
            set_hook(die_on_the_way);
            std::io::stdin().read_line(&mut String::new()).unwrap();
            held.pop();
            std::thread::sleep(WATCHDOG); // the waiter had not gone to sleep: the test ends this
        }
        "receives" => {
            println!("ready");
            set_hook(die_on_the_way);
            std::io::stdin().read_line(&mut String::new()).unwrap();
            receiver.try_recv().unwrap().unwrap();
            std::thread::sleep(WATCHDOG);
        }
        "waits for memory" => drop(member.alloc_until(LARGE, soon())),
        "waits for room" => {
            let block = member.alloc(64).unwrap().freeze();
            let _ = member.send_until(&channel(), block, soon());
        }
        role => panic!("no role {role}"),
    }
}

struct Stage {
    pool: Pool,
    fds: PoolFds,
}

struct Mortal(Child, EndpointRef);

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    fn new() -> Self {
        let config = PoolConfig {
            payload_bytes: 8 << 20,
            largest_block: LARGE as u64,
            endpoints: 8,
            inbox_slots: 2,
            ..PoolConfig::default()
        };
        let (pool, fds) = Pool::create(&config).unwrap();
        for fd in [fds.metadata.as_fd(), fds.payload.as_fd()] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap(); // inherited by the children
        }
        Self { pool, fds }
    }

    fn admit(&self, name: &str) -> EndpointRef {
        let who = Admission {
            pid: std::process::id(),
            start_time: 1,
            name: name.into(),
            inbox: None,
            kind: EndpointKind::Attached,
            quota_bytes: 0,
        };
        self.pool.admit(&who).unwrap()
    }

    fn join(&self, name: &str) -> (Member, Receiver, EndpointRef) {
        let endpoint = self.admit(name);
        let (member, receiver) = self.pool.attach(endpoint).unwrap();
        (member, receiver, endpoint)
    }

    fn spawn(&self, role: &str, other: EndpointRef) -> Mortal {
        let me = self.admit(role);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--test-threads=1", "--nocapture", "-q"])
            .env("ROLE", role)
            .env("ME", me.id.get().to_string())
            .env("LIFE", me.incarnation.to_string())
            .env("OTHER", other.id.get().to_string())
            .env("METADATA", self.fds.metadata.as_raw_fd().to_string())
            .env("PAYLOAD", self.fds.payload.as_raw_fd().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Mortal(child, me)
    }

    /// How often an endpoint has begun to wait.
    fn waits(&self, endpoint: EndpointRef) -> u64 {
        self.pool.endpoints().iter().find(|info| info.endpoint == endpoint).map_or(0, |info| info.waits)
    }

    fn until_waiting(&self, endpoint: EndpointRef, before: u64) {
        until("somebody to wait", || self.waits(endpoint) > before);
    }
}

#[track_caller]
fn until(what: &str, mut comes: impl FnMut() -> bool) {
    let end = Instant::now() + WATCHDOG;
    while !comes() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Mortal {
    fn is_ready(&mut self) {
        use std::io::BufRead;
        let out = std::io::BufReader::new(self.0.stdout.take().unwrap());
        assert!(out.lines().map_while(Result::ok).any(|line| line.ends_with("ready")));
    }

    fn go(&mut self) {
        use std::io::Write;
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn has_killed_itself(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Sleeps for messages on its futex or on its event descriptor, and drops what it gets.
fn sleep_for_messages(mut receiver: Receiver, event: Option<&OwnedFd>, end: &AtomicBool) {
    while !end.load(SeqCst) {
        let Some(fd) = event else {
            drop(receiver.sleep(None).unwrap());
            continue;
        };
        if receiver.prepare_sleep().unwrap().is_none() {
            poll(&mut [PollFd::new(fd, PollFlags::IN)], None).unwrap();
            rustix::io::read(fd, &mut [0u8; 8]).unwrap();
            receiver.woken();
        }
        while receiver.try_recv().unwrap().is_some() {}
    }
}

#[test]
fn a_sender_killed_before_it_wakes_the_receiver() {
    for on_event in [false, true] {
        let stage = Stage::new();
        let (_b, receiver, b) = stage.join("b");
        let (end, fd) = (AtomicBool::new(false), nobodys());
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                sleep_for_messages(receiver, on_event.then_some(&fd), &end);
            });
            for _ in 0..5 {
                let mut sender = stage.spawn("sends", b);
                until("the sender's death", || {
                    // A channel with a descriptor of its own: while it lives this test writes for it.
                    if on_event && !sender.has_killed_itself() {
                        rustix::io::write(&fd, &1u64.to_ne_bytes()).unwrap();
                    }
                    sender.has_killed_itself()
                });
                for id in stage.pool.reap(sender.1).unwrap().wake {
                    assert_eq!(id, b.id);
                    rustix::io::write(&fd, &1u64.to_ne_bytes()).unwrap();
                }
                until("the receiver to take the message", || stage.pool.usage().in_use_bytes == 0);
            }
            end.store(true, SeqCst);
            until("the receiver to end", || {
                let _ = stage.pool.take_sleepers(); // it may have looked just before
                rustix::io::write(&fd, &1u64.to_ne_bytes()).unwrap();
                sleeper.is_finished()
            });
        });
    }
}

#[test]
fn one_who_frees_is_killed_before_it_wakes_the_waiter() {
    let stage = Stage::new();
    let (a, _inbox, me) = stage.join("a");
    // Once in a while the waiter is not asleep yet, and finds the block by itself.
    let killed = (0..20).any(|_| {
        let mut owner = stage.spawn("frees", me);
        owner.is_ready();
        let before = stage.waits(me);
        let killed = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| a.alloc_until(LARGE, soon()).map(drop));
            stage.until_waiting(me, before);
            std::thread::sleep(Duration::from_millis(5)); // likelier asleep
            owner.go();
            until("an end", || owner.has_killed_itself() || waiter.is_finished());
            let killed = owner.has_killed_itself();
            owner.kill();
            stage.pool.reap(owner.1).unwrap();
            waiter.join().unwrap().expect("nobody woke the waiter");
            killed
        });
        assert_eq!(stage.pool.usage().in_use_bytes, 0);
        killed
    });
    assert!(killed, "nobody was killed on the way to waking");
}

#[test]
fn a_receiver_killed_before_it_wakes_the_waiting_sender() {
    let stage = Stage::new();
    let (a, _inbox, me) = stage.join("a");
    let killed = (0..20).any(|_| {
        let mut reader = stage.spawn("receives", me);
        reader.is_ready();
        let to = Channel::new(reader.1, nobodys());
        let small = || a.alloc(64).unwrap().freeze();
        (0..2).for_each(|_| a.send(&to, small()).unwrap());
        let before = stage.waits(me);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| a.send_until(&to, small(), soon()).map_err(|error| error.reason));
            stage.until_waiting(me, before);
            std::thread::sleep(Duration::from_millis(5)); // likelier asleep
            reader.go();
            until("an end", || reader.has_killed_itself() || waiter.is_finished());
            let killed = reader.has_killed_itself();
            reader.kill();
            stage.pool.reap(reader.1).unwrap();
            let sent = waiter.join().unwrap();
            // There may have been room for a moment: then the message went with the receiver.
            assert!(matches!(sent, Ok(()) | Err(SendFailure::Gone)), "{sent:?}");
            killed && sent == Err(SendFailure::Gone)
        })
    });
    assert!(killed, "nobody was killed on the way to waking");
}

#[test]
fn a_waiter_that_is_killed_takes_nobodys_wake_up_along() {
    let stage = Stage::new();
    let (a, mut inbox, me) = stage.join("a");
    let (b, _at_b, other) = stage.join("b");
    for _ in 0..3 {
        // For memory: three wait, one of them is killed.
        let mut held: Vec<_> = std::iter::from_fn(|| a.alloc(LARGE).ok()).collect();
        let mut doomed = stage.spawn("waits for memory", me);
        stage.until_waiting(doomed.1, 0);
        let before = stage.waits(other);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| b.alloc_until(LARGE, soon()).map(drop));
            stage.until_waiting(other, before);
            doomed.kill();
            held.pop();
            waiter.join().unwrap().expect("the wake-up went to the dead");
        });
        held.clear();
        stage.pool.reap(doomed.1).unwrap();

        // For room.
        let to = Channel::new(me, nobodys());
        (0..2).for_each(|_| a.send(&to, a.alloc(64).unwrap().freeze()).unwrap());
        let mut doomed = stage.spawn("waits for room", me);
        stage.until_waiting(doomed.1, 0);
        let before = stage.waits(other);
        std::thread::scope(|scope| {
            let waiter = scope
                .spawn(|| b.send_until(&to, b.alloc(64).unwrap().freeze(), soon()).map_err(|e| e.reason));
            stage.until_waiting(other, before);
            doomed.kill();
            inbox.try_recv().unwrap().unwrap();
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
        stage.pool.reap(doomed.1).unwrap();
        while inbox.try_recv().unwrap().is_some() {}
    }
    drop((a, b, inbox, _at_b));
    assert_eq!(stage.pool.usage().in_use_bytes, 0);
    assert!(stage.pool.audit_once().findings.is_empty());
}
