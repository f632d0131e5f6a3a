//! The command line of the runtime.
//!
//! ```text
//!   args ──▶ rmmt                                   the daemon
//!        ├─▶ ls, audit, info, top                   observers: questions to the daemon, no endpoint
//!        ├─▶ inspect, trace                         read-only members for as long as they look
//!        ├─▶ load                                   a client of any framed JSON server
//!        ├─▶ bench                                  a program of its own, beside this one
//!        └─▶ completions, man                       about this program itself
//! ```
//!
//! Every command ends with a [`Failure`] that says what to do, or with 0. What is printed for people may change; what
//! `--json` prints only grows.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod failure;
mod inspect;
mod load;
mod ls;
mod show;
mod top;
mod trace;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use baton_client::Observer;
use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, Query};
use crate::failure::Failure;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Rmmt(args) => return baton_rmmt::run(args),
        Command::Bench(bench) => return bench.run(),
        Command::Load(args) => {
            return load::run(args).unwrap_or_else(|failure| {
                eprintln!("baton: {failure}");
                failure.exit_code()
            });
        }
        Command::Top(args) => top::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Audit(query) => audit(&query),
        Command::Info(query) => info(&query),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "baton", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { dir } => man(&dir),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(sentence) = failure.sentence() {
                eprintln!("baton: {sentence}");
            }
            failure.exit_code()
        }
    }
}

fn audit(query: &Query) -> Result<(), Failure> {
    let report = observer(query)?.audit()?;
    show::print(&if query.json { show::json(&report)? } else { show::audit(&report) });
    if report.ok { Ok(()) } else { Err(Failure::Told) }
}

fn info(query: &Query) -> Result<(), Failure> {
    let info = observer(query)?.pool()?;
    show::print(&if query.json { show::json(&info)? } else { show::info(&info) });
    Ok(())
}

fn man(dir: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|source| Failure::File { path: dir.to_owned(), source })
}

/// A connection for questions; a daemon that is not there is not waited for.
fn observer(query: &Query) -> Result<Observer, Failure> {
    Ok(Observer::connect(&query.connect, Duration::ZERO)?)
}
