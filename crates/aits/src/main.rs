//! The command line of the traffic-video system.
//!
//! One binary, many processes: `aits up` starts the others (`aits rmmt`, `aits vas`, …) from its own file and looks after
//! them. `ps` and `audit` ask a running system; `check` and `config` are about `aits.toml`.

#![forbid(unsafe_code)]

mod cli;
mod config;
mod locate;
mod query;
mod rmmt;
mod up;

use std::process::ExitCode;

use aits_service::ServiceError;
use clap::Parser;
use cli::{Cli, Command, ConfigCommand};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Up(args) => reported("aits up", up::run(args)),
        Command::Ps(args) => reported("aits ps", query::ps(&args)),
        Command::Audit(args) => reported("aits audit", query::audit(&args)),
        Command::Check(args) => reported("aits check", config::check(&args)),
        Command::Config { command: ConfigCommand::Default } => {
            reported("aits config", config::print_default())
        }
        Command::Rmmt(args) => rmmt::run(args),
        Command::Vas(args) => aits_vas::run(args),
        Command::Vss(args) => aits_vss::run(args),
        Command::Wmits(args) => aits_wmits::run(args),
        Command::Preview(args) => aits_preview::run(args),
        Command::Gateway(args) => aits_gateway::run(args),
    }
}

/// Prints an error and turns it into the exit code.
fn reported(command: &str, result: Result<(), ServiceError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{command}: {error}");
            error.class().into()
        }
    }
}
