//! Death at every step: real daemons under real keepers and real members are killed with SIGKILL, at every numbered
//! point and at any time; after each kill every block, every holder's count and every message is accounted for.
//!
//! ```text
//!   driver (this program) ── spawns ──▶ keeper ──▶ daemon          this program again, by BATON_TEST_ROLE
//!        │                 └─ spawns ──▶ 6 members (SDK), 2 classic clients (un://, ip://)
//!        │ order: "die the k-th time you pass point p", or SIGKILL from outside at any time
//!        │ wait until the daemon (or its successor) has taken back what the dead held
//!        │ pause all; drain all; compare hold words, books, beliefs, ledgers of messages, payloads
//!        └ replace the dead, go on                                                      `fresh`: starts and ends
//! ```
//!
//! `cargo test -p baton-tests --features kill-points --test kill_everywhere`, with KILLS=10000 for the long form and
//! SEED=n (printed) to repeat the driver's choices. (The processes' interleavings are the machine's own.)

mod audit;
mod classic;
mod control;
mod driver;
mod fresh;
mod letters;
mod member;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use baton_pool::kill::Point as Atomic;
use clap::Parser;
use control::{Control, DAEMON, KEEPER};

const ROLE: &str = "BATON_TEST_ROLE";
const DIR: &str = "BATON_TEST_DIR";

/// The daemon's own arguments, as it parses them.
#[derive(Parser)]
struct Daemon {
    #[command(flatten)]
    args: baton_rmmt::Args,
}

fn main() -> ExitCode {
    // A broken variant of the pool's protocol, to see that it is noticed here.
    if let Some(mutant) = number("MUTANT") {
        let mutants = baton_pool::kill::Mutant::ALL;
        baton_pool::kill::set_mutant(mutants[mutant as usize % mutants.len()]);
    }
    let Ok(role) = std::env::var(ROLE) else { return drive() };
    let dir = PathBuf::from(std::env::var_os(DIR).expect("a directory"));
    let control = Control::open(&dir.join("control"));
    if role == "rmmt" {
        let is_daemon = std::env::var_os("BATON_RMMT_ROLE").is_some_and(|role| role == "daemon");
        let slot = if is_daemon { DAEMON } else { KEEPER };
        control
            .slot(slot, control::PID)
            .store(std::process::id().into(), std::sync::atomic::Ordering::SeqCst);
        if is_daemon {
            control.head(control::DYING).store(0, std::sync::atomic::Ordering::SeqCst);
        }
        control::arm(control, slot);
        return baton_rmmt::run(Daemon::parse().args);
    }
    let mut words = role.split(' ').filter_map(|word| word.parse::<u64>().ok());
    let (slot, seed) = (words.next().expect("a slot") as usize, words.next().expect("a seed"));
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).expect("prctl");
    control::arm(control.clone(), slot);
    if slot < control::FIRST_CLASSIC {
        member::play(control, slot, &driver::uri(&dir), seed);
    } else {
        classic::play(control, slot, &dir, seed, driver::WATCHDOG);
    }
    ExitCode::SUCCESS
}

/// Kills in one pool.
const EPOCH: u64 = 160;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn drive() -> ExitCode {
    // Like a libtest program, as far as cargo needs it.
    if std::env::args().any(|argument| argument == "--list") {
        println!("kill_everywhere: test");
        return ExitCode::SUCCESS;
    }
    let full = std::env::var_os("BATON_FULL").is_some();
    let kills = number("KILLS").unwrap_or(if full { 10_000 } else { 320 });
    let seed = number("SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed} KILLS={kills}");
    let begin = Instant::now();
    let mut table = fresh::run(seed);
    let (mut audits, mut sent, mut received) = (0, 0, 0);
    let mut epoch = 0;
    // A new pool now and then: some steps happen only while a pool is young.
    while table.total() < kills {
        epoch += 1;
        let mut driver = driver::Driver::start(seed.wrapping_add(epoch << 32));
        let outcome = driver.run((kills - table.total()).min(EPOCH));
        table.add(&driver.table());
        audits += driver.audits;
        sent += driver.sum(control::SENT);
        received += driver.sum(control::RECEIVED);
        if let Err(violations) = outcome {
            table.print();
            driver.keep_log();
            eprintln!("SEED={seed}: after {} kills: {violations:#?}", table.total());
            return ExitCode::FAILURE;
        }
    }
    table.print();
    println!(
        "{} kills in {epoch} pools, {audits} exact audits, {sent} messages sent, {received} received, {:.1} s",
        table.total(),
        begin.elapsed().as_secs_f64()
    );
    let mut missed = table.missed();
    if !missed.is_empty() {
        println!("points where nobody was killed this time: {}", missed.join(" "));
    }
    // A whole system gets to some points once in many thousand operations, and then dies there by chance only. They are
    // insisted on where nothing else goes on: runs in `pool/tests/halfway.rs`, the others in the models `retire::*` and
    // `newest_wins_sender_dies`.
    let rare = [
        Atomic::AfterRevoke,
        Atomic::BeforeStray,
        Atomic::AfterStray,
        Atomic::RunFollowerBound,
        Atomic::RunBeforeHead,
        Atomic::RunFollowerFreed,
    ];
    let rare = rare.map(|point| control::point_name(point as usize));
    missed.retain(|point| !rare.contains(point));
    if kills >= 5000 && !missed.is_empty() {
        eprintln!("a full run kills at every point but {}", rare.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
