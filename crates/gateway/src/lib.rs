//! The HTTP door: a cluster of workers that serves the page, the API and the live pictures.
//!
//! ```text
//!  browser ─▶ master (accepts, reads nothing) ── SCM_RIGHTS ──▶ worker: hyper + axum
//!                                                                │  ├─ RPC ──▶ wmits (tasks, results), up (processes)
//!                                                                │  └─ RPC ──▶ preview: "send me stream 1, annotated"
//!                    pool: gateway-<pid>.jpegs ── block ──▶ Feeds ──▶ every viewer of that stream in this worker
//! ```
//!
//! A worker has one subscription per watched (stream, variant), however many viewers it serves. A JPEG goes from its
//! pool block to the socket without a copy: the block is the body's memory and is released when the last viewer has
//! taken it (beyond a bounded number of such blocks, one copy for all viewers of that picture lets the block go: slow
//! viewers must not fill the pool). A viewer that is slow misses pictures and harms nobody; one that takes nothing for [`STALL_LIMIT`] is cut
//! off, so that it cannot keep a block for ever.
//!
//! The seam for what comes later (viewers that survive the death of their worker) is `multipart::Part`: the unit of a
//! live stream is one part, and one part is one block.
//!
//! Failure paths: another service that is away is a problem document with status 503 and `Retry-After`; a worker that
//! dies is replaced by the master and its viewers come back by themselves; a port that is in use ends the process with
//! [`ExitClass::Config`](aits_service::ExitClass), since starting again cannot help.

#![forbid(unsafe_code)]

mod door;
mod fanout;
mod feeds;
mod guard;
mod multipart;
mod page;
mod pool_link;
mod problem;
mod serve;
mod stall;
mod streams;
mod system;
mod tasks;

use std::process::ExitCode;
use std::time::Duration;

use aits_service::{CommonArgs, ServiceContext, ServiceError, run_service};
use baton_cluster::{BindError, Cluster, Connection, StartError, Worker};

pub use door::{Door, Peers, router};
pub use guard::Hosts;
pub use problem::Problem;
pub use stall::STALL_LIMIT;

/// At shutdown, how long viewers may take to finish.
const GRACE: Duration = Duration::from_millis(700);

/// Arguments of `aits gateway`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What every service takes.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Address of the page and the API
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,

    /// Further host name under which a browser may ask for the page (loopback names and addresses always may)
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,

    /// This process is a worker; its master says so.
    #[arg(long, hide = true)]
    pub worker: bool,
}

/// Runs the master, or one of its workers, until it is told to end.
pub fn run(args: Args) -> ExitCode {
    let name = if args.worker { "gateway-worker" } else { "gateway" };
    run_service(name, &args.common, |context| async {
        if args.worker { worker(context, &args).await } else { master(context, &args).await }
    })
}

async fn master(context: ServiceContext, args: &Args) -> Result<(), ServiceError> {
    let cluster = Cluster::builder()
        .listen(format!("ip://{}", args.listen))
        .workers(usize::from(args.workers))
        .worker_args(worker_args(args))
        .grace(GRACE)
        .start()
        .await
        .map_err(|error| match error {
            StartError::Bind(BindError::InUse { address }) => ServiceError::config(format!(
                "{} is in use by another program; stop it or choose another port with --listen",
                address.to_string().trim_start_matches("ip://")
            )),
            StartError::Bind(error) => ServiceError::config_from(&error),
            other => other.into(),
        })?;
    let address = cluster.local_uri().trim_start_matches("ip://").to_owned();
    tracing::info!("the page is at http://{address}/");
    cluster.run_until(context.shutdown()).await;
    Ok(())
}

/// The command line that makes the same binary a worker of this master.
fn worker_args(args: &Args) -> Vec<std::ffi::OsString> {
    let mut line: Vec<std::ffi::OsString> = ["gateway", "--worker", "--run"].map(Into::into).into();
    line.push(args.common.run.clone().into());
    line.extend([
        "--log".into(),
        args.common.log.clone().into(),
        "--listen".into(),
        args.listen.clone().into(),
    ]);
    for host in &args.hosts {
        line.extend(["--host".into(), host.clone().into()]);
    }
    if args.common.json_log {
        line.push("--json-log".into());
    }
    line
}

async fn worker(context: ServiceContext, args: &Args) -> Result<(), ServiceError> {
    let worker = Worker::attach()?;
    let door = Door::new(Peers::of(&context), Hosts::new(&args.listen, &args.hosts));
    tokio::spawn(pool_link::keep(context.run.uri("rmmt"), door.clone()));
    let draining = worker.draining();
    let closing = door.clone();
    tokio::spawn(async move {
        draining.wait().await;
        closing.close();
    });
    let app = router(door);
    // The master ends this process by closing the channel; the signal that a terminal sends to the whole group must not
    // end it before its viewers were served.
    worker
        .serve(move |connection: Connection| {
            let app = app.clone();
            async move { serve::connection(connection.stream, app, connection.draining.wait()).await }
        })
        .await?;
    Ok(())
}
