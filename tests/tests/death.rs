//! Kill any process at any time: the system comes back, the pool balances, the tasks are there, nothing is lost.
//!
//! Each round kills one process of each kind with SIGKILL, in random order, while the demo runs and somebody watches.
//! After each kill: the process runs again under another pid, new results and new pictures come, the task is still
//! there, and every block of the pool is either free or held by a living member. At the end blocks in use are back at
//! what a fresh system needs. How long each recovery took is printed; the promise (3 s) is for a quiet machine.

use std::time::{Duration, Instant};

use aits_orders::TaskState;
use baton_client::Client;
use baton_tests::{Options, System, cache_dir, is_alive, signal, wait_until};

const WATCHDOG: Duration = Duration::from_secs(60);

/// What is killed. A gateway worker and the memory daemon are known by the pool only; the others by the supervisor.
/// `rmmt` is the keeper of the memory, `rmmt daemon` the one who serves it.
const VICTIMS: [&str; 7] = ["vas", "vss-0", "wmits", "preview", "gateway worker", "rmmt", "rmmt daemon"];

fn victim(system: &System, client: &Client, name: &str) -> Option<u32> {
    match name {
        "gateway worker" => {}
        "rmmt daemon" => return system.pool(client).map(|pool| pool.daemon_pid),
        _ => return system.process(name),
    }
    let master = system.process("gateway");
    let mut members = system.members(client).into_iter();
    members
        .find(|member| member.name.starts_with("gateway") && Some(member.pid) != master)
        .map(|member| member.pid)
}

/// A complete JPEG of the stream: the tag that names its frame. `None` if none came.
fn picture(system: &System) -> Option<String> {
    let tasks = system.tasks()?;
    let (tag, body) = system.tagged(&format!("/api/streams/{}/snapshot.jpg", tasks.first()?.stream))?;
    (body.starts_with(&[0xff, 0xd8]) && body.ends_with(&[0xff, 0xd9])).then_some(tag)
}

/// When the frame of the newest result was decoded, if the task runs.
fn newest_judged(system: &System) -> Option<i64> {
    let tasks = system.tasks()?;
    let task = tasks.first()?;
    (task.state == TaskState::Running).then(|| task.result.as_ref().map(|result| result.decoded_at.0))?
}

fn balanced(system: &System, client: &Client) {
    // An audit of a living pool may catch a block between two steps; what stays wrong is wrong.
    let mut last = None;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        match system.audit(client) {
            Some(report) if report.ok => return,
            other => last = other,
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the audit does not balance: {last:?}");
}

fn now() -> i64 {
    aits_orders::Micros::monotonic_now().0
}

#[test]
fn kill_anything_and_the_system_comes_back() {
    let rounds = std::env::var_os("BATON_FULL").map_or(5, |_| 20);
    let system = System::start(&Options::looped(cache_dir().join("clips/road-cars-truck.mp4")));
    let (client, _inbox) = system.attach();
    wait_until("the first result", WATCHDOG, || newest_judged(&system));
    wait_until("the first picture", WATCHDOG, || picture(&system));
    balanced(&system, &client);
    let before = system.pool(&client).expect("the daemon answers").blocks_in_use;

    let mut order = Shuffle::seeded();
    let mut times: Vec<(Duration, &str)> = Vec::new();
    for round in 1..=rounds {
        for name in order.shuffled(VICTIMS) {
            let pid = wait_until("the victim runs", WATCHDOG, || victim(&system, &client, name));
            let (killed, begin) = (now(), Instant::now());
            signal(pid, rustix::process::Signal::KILL);
            wait_until("the victim is dead", WATCHDOG, || (!is_alive(pid)).then_some(()));
            wait_until("it runs again", WATCHDOG, || {
                victim(&system, &client, name).filter(|new| *new != pid)
            });
            wait_until("frames decoded after the kill are judged", WATCHDOG, || {
                newest_judged(&system).filter(|decoded_at| *decoded_at > killed)
            });
            // The first picture may be one from before; one that differs from it is not.
            let first = wait_until("a picture comes", WATCHDOG, || picture(&system));
            wait_until("another picture comes", WATCHDOG, || picture(&system).filter(|tag| *tag != first));
            let took = begin.elapsed();
            times.push((took, name));
            balanced(&system, &client);
            let tasks = system.tasks().expect("the door answers");
            assert_eq!(tasks.len(), 1, "round {round}, {name} killed: the tasks changed: {tasks:?}");
            assert_eq!(tasks[0].state, TaskState::Running, "round {round}, {name} killed");
            eprintln!("round {round}: {name:14} pid {pid:7} killed, back after {:5} ms", took.as_millis());
        }
    }
    times.sort();
    eprintln!(
        "{} kills: recovery p50 {} ms, max {} ms ({}); seed {}",
        times.len(),
        times[times.len() / 2].0.as_millis(),
        times[times.len() - 1].0.as_millis(),
        times[times.len() - 1].1,
        order.seed,
    );
    // Nothing is lost: what is in use is what the living need, as at the beginning (give or take the frames under way).
    let bound = before + 16;
    wait_until("blocks in use are back at what they were", WATCHDOG, || {
        system.pool(&client).filter(|pool| pool.blocks_in_use <= bound)
    });
}

/// A small shuffler with a printed seed, so that an order can be tried again (`BATON_SEED`).
struct Shuffle {
    seed: u64,
    state: u64,
}

impl Shuffle {
    fn seeded() -> Self {
        let from_env = std::env::var("BATON_SEED").ok().and_then(|text| text.parse().ok());
        let seed = from_env.unwrap_or_else(|| u64::from(std::process::id()) ^ now().unsigned_abs());
        Self { seed, state: seed | 1 }
    }

    fn shuffled<const N: usize>(&mut self, mut items: [&'static str; N]) -> [&'static str; N] {
        for i in (1..N).rev() {
            // xorshift64 (Marsaglia 2003): enough to vary an order.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            items.swap(i, (self.state % (i as u64 + 1)) as usize);
        }
        items
    }
}
