//! The demo, measured from outside: what one stream costs, and what a frame does not cost.
//!
//! How each number is obtained:
//! - *page faults per frame*: the sum of minor faults of a process over the measured time (`/proc/PID/stat`), divided
//!   by the frames that passed through it. The processes have warmed up before: every page of the pool that they use
//!   has been touched.
//! - *pixel copies between processes*: vas counts the frames whose pixels the decoder could not write into a block
//!   (`copied`); a hand-over moves a 64-bit slot, never pixels. Bytes read and written by system calls (`/proc/PID/io`)
//!   show that no pixels travel through sockets or pipes.
//! - *CPU*: user and system time of all processes of the system over wall time, in percent of one core.
//! - *latency*: from the decoded frame to its result, p50 and p95 over the last results, as wmits reports it.
//! - *blocks in use*: sampled twice a second from the pool itself.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aits_orders::Task;
use baton_tests::{Options, System, Usage, wait_until};
use clap::Parser;
use serde::Serialize;

/// Starts the demo, lets it warm up, measures it, ends it.
#[derive(Parser)]
struct Arguments {
    /// The clip to loop.
    clip: PathBuf,
    /// Seconds to measure.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds to warm up before.
    #[arg(long, default_value_t = 20)]
    warm_up: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    seconds: f64,
    frames: u64,
    frames_per_second: f64,
    results_per_second: f64,
    frames_copied: u64,
    latency_p50_ms: f64,
    latency_p95_ms: f64,
    blocks_in_use_min: u64,
    blocks_in_use_max: u64,
    cpu_percent_of_a_core: f64,
    processes: Vec<ProcessReport>,
}

#[derive(Serialize)]
struct ProcessReport {
    name: String,
    cpu_percent_of_a_core: f64,
    page_faults_per_frame: f64,
    /// Bytes that went through read and write calls (sockets, pipes, files), per frame.
    bytes_through_calls_per_frame: f64,
    private_mib: f64,
}

struct Sample {
    usage: Usage,
    call_bytes: u64,
}

fn call_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    value("rchar:").unwrap_or(0) + value("wchar:").unwrap_or(0)
}

fn sample(pids: &BTreeMap<String, u32>) -> BTreeMap<String, Sample> {
    let of = |pid: u32| Usage::of(pid).map(|usage| Sample { usage, call_bytes: call_bytes(pid) });
    pids.iter().filter_map(|(name, pid)| Some((name.clone(), of(*pid)?))).collect()
}

fn task(system: &System) -> Option<Task> {
    system.tasks()?.into_iter().next()
}

fn main() {
    let arguments = Arguments::parse();
    let system = System::start(&Options::looped(&arguments.clip));
    let (client, _inbox) = system.attach();
    wait_until("the first result", Duration::from_secs(60), || task(&system)?.result);
    std::thread::sleep(Duration::from_secs(arguments.warm_up));

    let mut pids: BTreeMap<String, u32> = ["rmmt", "vas", "wmits", "vss-0", "preview", "gateway"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), system.process(name)?)))
        .collect();
    for (place, pid) in baton_tests::descendants(system.pid()).into_iter().enumerate() {
        if !pids.values().any(|known| *known == pid) {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = command.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
            let name = words.get(1).map_or_else(|| "?".into(), |word| word.to_string());
            pids.insert(format!("{name} (child {place})"), pid);
        }
    }
    pids.insert("up".into(), system.pid());

    let before = (task(&system).expect("the task runs"), sample(&pids), Instant::now());
    let mut in_use = Vec::new();
    while before.2.elapsed() < Duration::from_secs(arguments.seconds) {
        in_use.extend(system.pool(&client).map(|pool| pool.blocks_in_use));
        std::thread::sleep(Duration::from_millis(500));
    }
    let after = (task(&system).expect("the task runs"), sample(&pids), before.2.elapsed());

    let seconds = after.2.as_secs_f64();
    let frames = after.0.counters.vas.published - before.0.counters.vas.published;
    let results = after.0.counters.results - before.0.counters.results;
    let per_frame = |count: u64| count as f64 / frames.max(1) as f64;
    let percent = |time: Duration| 100.0 * time.as_secs_f64() / seconds;
    let mut cpu = Duration::ZERO;
    let mut processes = Vec::new();
    for (name, sample) in &after.1 {
        let Some(earlier) = before.1.get(name) else { continue };
        let used = sample.usage.since(earlier.usage);
        cpu += used.cpu;
        processes.push(ProcessReport {
            name: name.clone(),
            cpu_percent_of_a_core: percent(used.cpu),
            page_faults_per_frame: per_frame(used.minor_faults + used.major_faults),
            bytes_through_calls_per_frame: per_frame(sample.call_bytes - earlier.call_bytes),
            private_mib: used.private_bytes as f64 / f64::from(1 << 20),
        });
    }
    let latency = after.0.latency.expect("results have come");
    let report = Report {
        seconds,
        frames,
        frames_per_second: frames as f64 / seconds,
        results_per_second: results as f64 / seconds,
        frames_copied: after.0.counters.vas.copied,
        latency_p50_ms: latency.p50_ms,
        latency_p95_ms: latency.p95_ms,
        blocks_in_use_min: in_use.iter().copied().min().unwrap_or(0),
        blocks_in_use_max: in_use.iter().copied().max().unwrap_or(0),
        cpu_percent_of_a_core: percent(cpu),
        processes,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("numbers and names"));
    } else {
        print(&report);
    }
}

fn print(report: &Report) {
    println!("| measured over {:.0} s | |", report.seconds);
    println!("|---|---|");
    println!("| frames decoded and published | {} ({:.1}/s) |", report.frames, report.frames_per_second);
    println!("| frames judged | {:.1}/s |", report.results_per_second);
    println!("| frames whose pixels were copied between processes | {} |", report.frames_copied);
    println!(
        "| latency frame → result, p50 / p95 | {:.1} / {:.1} ms |",
        report.latency_p50_ms, report.latency_p95_ms
    );
    println!("| blocks in use, least / most | {} / {} |", report.blocks_in_use_min, report.blocks_in_use_max);
    println!("| CPU of all processes | {:.1} % of a core |", report.cpu_percent_of_a_core);
    println!(
        "\n| process | CPU, % of a core | page faults per frame | bytes through system calls per frame | private MiB |"
    );
    println!("|---|---|---|---|---|");
    for process in &report.processes {
        println!(
            "| {} | {:.1} | {:.3} | {:.0} | {:.1} |",
            process.name,
            process.cpu_percent_of_a_core,
            process.page_faults_per_frame,
            process.bytes_through_calls_per_frame,
            process.private_mib,
        );
    }
}
