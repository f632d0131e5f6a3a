//! From SIGKILL to reuse: how long until what a killed process held can be allocated again, beside how long the kernel
//! itself takes to say that the process is dead.
//!
//! ```text
//!   cargo run --release -p baton-rmmt --example reuse [-- ROUNDS]
//! ```
//!
//! Rounds alternate in one run. Each starts a process that holds 64 blocks of 4 MiB of a 512 MiB pool in which nothing
//! else is free, and kills it:
//! - *kernel*: a thread sleeps in poll(2) on the pidfd of the process; the time from kill(2) to its return.
//! - *reuse*: a thread sleeps in `alloc_wait`; the time from kill(2) to the block in its hand. Nobody asks for anything.
//!
//! Then a bystander pair of endpoints sends through the same pool all the while, and beside it such holders are killed: its
//! worst gap between two messages in the 10 ms from each kill on, against windows of 10 ms without one, and how many of
//! its allocations and sends were refused. It prints and asserts nothing: the machine decides about the tail.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton_client::{AllocError, Block, Client, ConnectOptions};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

const BLOCK: usize = 4 << 20;
const HELD: usize = 64;
const LONG: Duration = Duration::from_secs(30);
/// For a thread to fall asleep where it waits.
const ASLEEP: Duration = Duration::from_millis(10);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["daemon", uri] => {
            let mut args = baton_rmmt::Args::new(*uri);
            args.size = Some(512 << 20);
            args.log = "warn".into();
            baton_rmmt::run(args);
            Ok(())
        }
        ["holder", uri] => hold(uri),
        [] => measure(100),
        [rounds] => measure(rounds.parse()?),
        _ => Err("usage: reuse [ROUNDS]".into()),
    }
}

fn again(role: &str, uri: &str) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([role, uri]);
    Ok(command)
}

/// Holds blocks until it is killed or its standard input ends.
fn hold(uri: &str) -> Result<(), Failure> {
    let (client, _inbox) = Client::connect(uri, ConnectOptions::new("holder").timeout(LONG))?;
    let mut held = Vec::new();
    while held.len() < HELD {
        let mut block = client.alloc_wait(BLOCK, LONG)?;
        block[0] = 1;
        held.push(block.freeze());
    }
    println!("holds {}", held.len());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A process that holds its blocks; killed when dropped.
struct Holder(Child);

impl Holder {
    fn start(uri: &str) -> Result<Self, Failure> {
        let mut child = again("holder", uri)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("its output is a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let holder = Self(child);
        if line.is_empty() { Err("the holder ended".into()) } else { Ok(holder) }
    }

    fn pid(&self) -> Result<Pid, Failure> {
        Pid::from_raw(i32::try_from(self.0.id())?).ok_or_else(|| "a child has a pid".into())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _dead_already = self.0.kill();
        let _buried = self.0.wait();
    }
}

fn measure(rounds: usize) -> Result<(), Failure> {
    let dir = std::env::temp_dir().join(format!("baton-reuse-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let uri = format!("un://{}/rmmt.sock", dir.display());
    let mut daemon = again("daemon", &uri)?.stdin(Stdio::null()).spawn()?;
    let measured = deaths(&uri, rounds).and_then(|()| senders(&uri, rounds.min(40)));
    let pid = Pid::from_raw(i32::try_from(daemon.id())?).ok_or("a child has a pid")?;
    kill_process(pid, Signal::TERM)?;
    daemon.wait()?;
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn deaths(uri: &str, rounds: usize) -> Result<(), Failure> {
    let (client, _inbox) = Client::connect(uri, ConnectOptions::new("measures").timeout(LONG))?;
    let (mut kernel, mut reuse) = (Vec::new(), Vec::new());
    for round in 0..2 * rounds {
        let holder = Holder::start(uri)?;
        let _rest = take_all(&client)?;
        let pid = holder.pid()?;
        let (times, waited) = if round % 2 == 0 {
            (&mut kernel, killed_while(pid, || wait_for_death(pid))?)
        } else {
            let wait = || -> Result<_, Failure> {
                let block = client.alloc_wait(BLOCK, LONG)?;
                let at = Instant::now();
                drop(block);
                Ok(at)
            };
            (&mut reuse, killed_while(pid, wait)?)
        };
        times.push(waited);
    }
    println!(
        "from kill(2) of a holder of {HELD} blocks of 4 MiB in a 512 MiB pool, {rounds} deaths each, interleaved"
    );
    println!("| | p50 | p99 | max |\n|---|---|---|---|");
    let [kernel, reuse] =
        [("the kernel's pidfd", kernel), ("a block allocated again", reuse)].map(|(name, mut times)| {
            times.sort();
            let (p50, p99, max) = (at(&times, 50.0), at(&times, 99.0), at(&times, 100.0));
            println!("| {name} | {} µs | {} µs | {} µs |", p50.as_micros(), p99.as_micros(), max.as_micros());
            (p50, p99)
        });
    println!(
        "p50: {:.2} × the kernel's (target ≤ 2); p99: {:+.2} ms beyond it (target ≤ 5)\n",
        reuse.0.as_secs_f64() / kernel.0.as_secs_f64(),
        1e3 * (reuse.1.as_secs_f64() - kernel.1.as_secs_f64()),
    );
    Ok(())
}

/// Everything that is free.
fn take_all(client: &Client) -> Result<Vec<Block>, Failure> {
    let mut all = Vec::new();
    loop {
        match client.alloc(BLOCK) {
            Ok(block) => all.push(block.freeze()),
            Err(AllocError::Exhausted { .. }) => return Ok(all),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The time from the kill to what `wait` says, which waits before the kill.
fn killed_while(
    pid: Pid,
    wait: impl FnOnce() -> Result<Instant, Failure> + Send,
) -> Result<Duration, Failure> {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait().map_err(|error| error.to_string()));
        std::thread::sleep(ASLEEP);
        let begin = Instant::now();
        kill_process(pid, Signal::KILL)?;
        let end = waiting.join().map_err(|_| "the waiting thread panicked")??;
        Ok(end.saturating_duration_since(begin))
    })
}

fn wait_for_death(pid: Pid) -> Result<Instant, Failure> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None)?;
    Ok(Instant::now())
}

/// What a bystander pair saw: two threads' worth of sending through the pool in which holders die.
#[derive(Default)]
struct Seen {
    /// When each message had arrived.
    arrivals: Vec<Instant>,
    /// Allocations and sends that were refused. None is expected, and none of them waits.
    refused: u64,
}

/// The pair's worst gaps around kills, against windows of the same length without one, interleaved.
fn senders(uri: &str, deaths: usize) -> Result<(), Failure> {
    let (from, _) = Client::connect(uri, ConnectOptions::new("sends").timeout(LONG))?;
    let (_to, mut inbox) =
        Client::connect(uri, ConnectOptions::new("receives").inbox("gaps.in").timeout(LONG))?;
    let sender = from.sender("gaps.in")?;
    let stop = AtomicBool::new(false);
    let (seen, windows) = std::thread::scope(|scope| {
        let pair = scope.spawn(|| -> Result<Seen, String> {
            let mut seen = Seen::default();
            while !stop.load(Ordering::Relaxed) {
                let Ok(block) = from.alloc(64) else {
                    seen.refused += 1;
                    continue;
                };
                if sender.send(block.freeze()).is_err() {
                    seen.refused += 1;
                    continue;
                }
                let received = inbox.try_recv().map_err(|error| error.to_string())?;
                drop(received.ok_or("what was sent is there")?);
                seen.arrivals.push(Instant::now());
            }
            Ok(seen)
        });
        let windows = windows(uri, deaths).map_err(|error| error.to_string());
        stop.store(true, Ordering::Relaxed);
        let seen = pair.join().map_err(|_| "the pair panicked".to_owned())??;
        windows.map(|windows| (seen, windows))
    })?;
    println!(
        "a bystander pair in the same pool: {} messages, {} refused (target 0)\n| worst gap in {deaths} windows of {} ms \
         each | p50 | p99 | max |\n|---|---|---|---|",
        seen.arrivals.len(),
        seen.refused,
        ASLEEP.as_millis()
    );
    let [quiet, kills] =
        [("without a kill", windows.0), ("from a kill on", windows.1)].map(|(name, begins)| {
            let mut gaps: Vec<_> = begins.iter().map(|begin| worst_gap(&seen.arrivals, *begin)).collect();
            gaps.sort();
            let (p50, p99, max) = (at(&gaps, 50.0), at(&gaps, 99.0), at(&gaps, 100.0));
            println!("| {name} | {} µs | {} µs | {} µs |", p50.as_micros(), p99.as_micros(), max.as_micros());
            (p50, max)
        });
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    println!("with a kill / without: p50 {:.2}, max {:.2}", ratio(kills.0, quiet.0), ratio(kills.1, quiet.1));
    Ok(())
}

/// The beginnings of windows of [`ASLEEP`], without a kill and at a kill. In each, a holder of [`HELD`] blocks was there.
fn windows(uri: &str, deaths: usize) -> Result<(Vec<Instant>, Vec<Instant>), Failure> {
    let (mut quiet, mut kills) = (Vec::new(), Vec::new());
    for _ in 0..deaths {
        let holder = Holder::start(uri)?;
        std::thread::sleep(ASLEEP); // its own start is over
        quiet.push(Instant::now());
        std::thread::sleep(ASLEEP);
        let pid = holder.pid()?;
        kills.push(Instant::now());
        kill_process(pid, Signal::KILL)?;
        std::thread::sleep(ASLEEP);
        drop(holder);
    }
    Ok((quiet, kills))
}

/// The longest time between two arrivals of which at least one lies in the window.
fn worst_gap(arrivals: &[Instant], begin: Instant) -> Duration {
    let first = arrivals.partition_point(|arrival| *arrival < begin).saturating_sub(1);
    let last = arrivals.partition_point(|arrival| *arrival < begin + ASLEEP);
    let inside = arrivals.get(first..(last + 1).min(arrivals.len())).unwrap_or_default();
    inside.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// The value below which `percent` of the sorted times are.
fn at(sorted: &[Duration], percent: f64) -> Duration {
    let place = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}
