//! Questions to a running system: `aits ps`, `aits audit`.

use std::path::PathBuf;
use std::time::Duration;

use aits_orders::{Process, ProcessList, ProcessState, RunDir, method};
use aits_service::ServiceError;
use baton_client::{Client, ConnectOptions};

/// Arguments of the questions.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory that holds the sockets of the system [default: as `aits up` without --run]
    #[arg(long, env = "AITS_RUN", value_name = "DIR")]
    run: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    fn run_dir(&self) -> RunDir {
        RunDir::new(self.run.clone().unwrap_or_else(crate::cli::default_run_dir))
    }
}

/// Prints the processes of a running system.
pub(crate) fn ps(args: &Args) -> Result<(), ServiceError> {
    let run = args.run_dir();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let up = aits_rpc(&run);
    let list: ProcessList = runtime.block_on(up.call(method::UP_PROCESSES, &())).map_err(|error| {
        ServiceError::failed(format!(
            "no system answers in {} ({error}); start one with `aits up`",
            run.path().display()
        ))
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    println!("{:<10} {:>8}  {:<10} {:>8} {:>9}  LAST END", "NAME", "PID", "STATE", "RESTARTS", "UP");
    list.processes.iter().for_each(|process| println!("{}", row(process)));
    Ok(())
}

fn aits_rpc(run: &RunDir) -> baton_rpc::Client {
    baton_rpc::Client::new(run.uri("up")).with_timeout(Duration::from_secs(3))
}

fn row(process: &Process) -> String {
    let state = match process.state {
        ProcessState::Running => "running",
        ProcessState::Restarting => "restarting",
        ProcessState::Failed => "failed",
    };
    let pid = process.pid.map_or("-".into(), |pid| pid.to_string());
    let up = format!("{}.{} s", process.up_ms / 1000, process.up_ms % 1000 / 100);
    let last = process.last_exit.as_deref().unwrap_or("-");
    format!("{:<10} {pid:>8}  {state:<10} {:>8} {up:>9}  {last}", process.name, process.restarts)
}

/// Prints the audit of a running system's pool; an unbalanced one is an error.
pub(crate) fn audit(args: &Args) -> Result<(), ServiceError> {
    let run = args.run_dir();
    let options = ConnectOptions::new("aits-audit").read_only().timeout(Duration::from_secs(2));
    let (client, _inbox) = Client::connect(&run.uri("rmmt"), options)?;
    let report = client.audit()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if report.ok {
        println!("every block is accounted for");
    } else {
        println!("{report:#?}");
    }
    if report.ok { Ok(()) } else { Err(ServiceError::failed("the pool does not balance")) }
}
