//! `baton bench memory`: the pool against its rivals, interleaved in one run.
//!
//! ```text
//!   parent, side A, first core ──┬── echo baton  ┐
//!      │ round 1: each variant   ├── echo iox    │ side B, second core; asleep until it is their turn
//!      │ round 2: each variant   ├── echo line   ┘
//!      │ …                       └── rmmt          (a memory daemon of its own per case)
//!      └─▶ per variant the median of each round ─▶ ratios paired by round ─▶ table, JSON, SVG
//! ```
//! Whatever else the machine does in a round it does to all variants. Nothing here needs root; nothing is left behind.

mod baton;
mod board;
mod cases;
mod error;
mod link;
mod machine;
mod plot;
mod report;
mod rival;
mod role;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::board::Board;
use crate::cases::Bench;
use crate::error::Error;
use crate::machine::{Cores, Machine};
use crate::report::Report;
use crate::rival::iox::Place;

/// Measures the pool against iceoryx2, the original design, and the floors of hardware and kernel.
#[derive(Debug, Parser)]
#[command(
    name = "baton bench memory",
    version,
    after_help = "\
Cases for --only: hand-over, cycle, alloc, chain, wake, spin, calls, frame, memory, attach, stream, processes, blocks
(the last two are what --svg draws).
All variants of a case take turns in one run; each figure is a median over the rounds, each ratio is paired by round and
shown with an interval of 95 %. A busy machine makes figures larger, ratios less so: close what you can.

Exit codes: 0 measured (whether targets are met or not), 1 a case could not be measured, 2 usage"
)]
struct Cli {
    #[command(subcommand)]
    role: Option<Hidden>,

    /// Print JSON: every round of every figure, and the machine.
    #[arg(long)]
    json: bool,

    /// Write the plots here, as SVG.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,

    /// Fewer rounds: about a minute.
    #[arg(long)]
    quick: bool,

    /// Only this case; can be given several times.
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// The other processes of a measurement.
    #[command(hide = true)]
    Role {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// The memory daemon with the arguments of `baton rmmt`.
#[derive(Debug, Parser)]
struct Daemon {
    #[command(flatten)]
    args: baton_rmmt::Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.role {
        Some(Hidden::Role { words }) if words.first().is_some_and(|word| word == "rmmt") => {
            baton_rmmt::run(Daemon::parse_from(words).args)
        }
        Some(Hidden::Role { words }) => finish(cases::play(words).map(|()| ExitCode::SUCCESS)),
        None => finish(measure(&cli)),
    }
}

fn finish(result: Result<ExitCode, Error>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("baton-bench-memory: {error}");
        ExitCode::FAILURE
    })
}

fn measure(cli: &Cli) -> Result<ExitCode, Error> {
    if let Some(strange) = cli.only.iter().find(|only| cases::ALL.iter().all(|(name, _)| name != only)) {
        let names: Vec<&str> = cases::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("baton bench memory: --only {strange}: no such case; there are {}", names.join(", "));
        return Ok(ExitCode::from(2));
    }
    let cores = Cores::allowed();
    Place::clean_dead();
    let bench =
        Bench { board: Board::create()?, place: Place::of(std::process::id()), quick: cli.quick, cores };
    let mut report = Report {
        machine: Machine::look(&bench.cores),
        version: env!("CARGO_PKG_VERSION"),
        form: if cli.quick { "quick" } else { "full" },
        rows: Vec::new(),
        series: Vec::new(),
        failed: Vec::new(),
    };
    for (name, case) in cases::ALL {
        if !cli.only.is_empty() && !cli.only.iter().any(|only| only == name) {
            continue;
        }
        eprintln!("measuring {name}");
        match case(&bench) {
            Ok(found) => {
                report.rows.extend(found.rows);
                report.series.extend(found.series);
            }
            Err(error) => report.failed.push(((*name).to_owned(), error.to_string())),
        }
    }
    bench.place.clean();
    if let Some(dir) = &cli.svg {
        plot::write(dir, &report.series)?;
    }
    let text = if cli.json {
        serde_json::to_string_pretty(&report).map_err(|error| Error::new("write JSON", error))?
    } else {
        report.table()
    };
    println!("{}", text.trim_end());
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
