//! The command line of the runtime.
#![forbid(unsafe_code)]

mod bench;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use baton_client::{AuditReport, InboxInfo, Member, Observer, PoolInfo, QueryError};
use clap::{Parser, Subcommand};
use serde::Serialize;

/// Passes memory and sockets between processes, and drops neither.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    after_help = "\
A first look, in three terminals:
  baton rmmt --listen un:///tmp/rmmt.sock --size 64MiB
  BATON_RMMT=un:///tmp/rmmt.sock your-program            (attaches with the SDK, crate baton-client)
  baton ls --connect un:///tmp/rmmt.sock

Exit codes: 0 ok, 1 failed (baton audit: does not balance), 2 usage, 78 cannot work with this configuration"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the memory daemon: create the pool, admit processes, take back what the dead held.
    #[command(after_help = "\
Two processes start: the keeper, which holds the pool's memory and the socket, and the daemon, which serves. If the
daemon is killed, the keeper starts another one that adopts the pool with every count intact; members do not notice.
Stop it with SIGTERM or Ctrl-C: the socket file goes, and with the last member the memory.

  baton rmmt --listen un:///run/user/1000/rmmt.sock --size 1GiB
  kill -TERM $(pgrep -o -f 'baton rmmt')")]
    Rmmt(baton_rmmt::Args),

    /// List the members of the pool and the inboxes one can send to.
    #[command(after_help = "\
Columns: ID endpoint; HELD blocks this process holds (a few spare ones for its next allocations included) and their
bytes; QUEUED messages that wait in its inbox; STATE: ok, silent (has not spoken since the daemon was restarted),
closed (hung up, but its process lives and keeps its blocks).")]
    Ls(Query),

    /// Check that every block is accounted for: exit code 0 if it balances, 1 if not.
    Audit(Query),

    /// Show the pool: size, use, block sizes.
    Info(Query),

    /// Measure: `baton bench memory` compares the pool with its rivals, in one run.
    #[command(
        arg_required_else_help = true,
        override_usage = "baton bench memory [ARGUMENTS]...",
        after_help = "\
Runs the program baton-bench-memory that lies beside this one or on PATH, with the arguments that follow. It is built in
a workspace of its own, since it brings the rivals along: `./x bench` in Baton's repository builds and runs it.

  baton bench memory --quick"
    )]
    Bench(bench::Bench),
}

#[derive(Debug, clap::Args)]
struct Query {
    /// The daemon to ask.
    #[arg(long, value_name = "un://PATH", env = "BATON_RMMT")]
    connect: String,

    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// What `baton ls --json` prints.
#[derive(Debug, Serialize)]
struct Listing {
    members: Vec<Member>,
    inboxes: Vec<InboxInfo>,
}

/// An answer to print, and whether it is good news.
enum Found {
    Listing(Listing),
    Audit(AuditReport),
    Info(PoolInfo),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Rmmt(args) => return baton_rmmt::run(args),
        Command::Bench(bench) => return bench.run(),
        Command::Ls(query) => ask(&query, |observer| {
            Ok(Found::Listing(Listing { members: observer.members()?, inboxes: observer.who_receives()? }))
        }),
        Command::Audit(query) => ask(&query, |observer| Ok(Found::Audit(observer.audit()?))),
        Command::Info(query) => ask(&query, |observer| Ok(Found::Info(observer.pool()?))),
    };
    result.unwrap_or_else(|error| {
        eprintln!("baton: {error}");
        ExitCode::FAILURE
    })
}

fn ask(
    query: &Query,
    question: impl FnOnce(&mut Observer) -> Result<Found, QueryError>,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut observer = match Observer::connect(&query.connect, Duration::ZERO) {
        Err(error @ baton_client::ConnectError::BadUri { .. }) => {
            eprintln!("baton: --connect: {error}");
            return Ok(ExitCode::from(2));
        }
        connected => connected?,
    };
    let found = question(&mut observer)?;
    let text = if query.json {
        let mut json = match &found {
            Found::Listing(listing) => serde_json::to_string_pretty(listing)?,
            Found::Audit(report) => serde_json::to_string_pretty(report)?,
            Found::Info(info) => serde_json::to_string_pretty(info)?,
        };
        json.push('\n');
        json
    } else {
        match &found {
            Found::Listing(listing) => show::members(&listing.members),
            Found::Audit(report) => show::audit(report),
            Found::Info(info) => show::info(info),
        }
    };
    // `baton ls | head` ends the reader early; that is no failure of ours.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    Ok(match found {
        Found::Audit(report) if !report.ok => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}
