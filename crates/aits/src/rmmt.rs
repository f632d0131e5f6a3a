//! `aits rmmt`: the memory daemon at the system's own place.

use std::process::ExitCode;

use aits_service::{CommonArgs, SUPERVISED_ENV};

/// Arguments of `aits rmmt`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Memory for frames, reserved at the start
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = baton_rmmt::parse_size)]
    pool_size: u64,

    /// Largest block that can be asked for
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = baton_rmmt::parse_size)]
    max_block: u64,
}

pub(crate) fn run(args: Args) -> ExitCode {
    let mut daemon = baton_rmmt::Args::new(args.common.run_dir().uri("rmmt"));
    daemon.size = Some(args.pool_size);
    daemon.max_block = Some(args.max_block);
    daemon.log = args.common.log;
    daemon.log_plain = std::env::var_os(SUPERVISED_ENV).is_some();
    // Not the kernel's parent-death signal: keeper and daemon outlive each other, and end with the supervisor.
    daemon.supervised = daemon.log_plain;
    baton_rmmt::run(daemon)
}
