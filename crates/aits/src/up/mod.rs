//! `aits up`: starts the system, looks after it, ends it.
//!
//! ```text
//!  settings ──▶ run directory ──▶ rmmt ──▶ all others ──▶ tasks ──▶ URL ──▶ (looks after them) ──▶ end
//!     │ 78           │ locked          │ a first life that ends with 78 or 2             ▲
//!     ▼              ▼                 ▼                                                 │
//!   sentence      sentence     everything ended, sentence, 78        SIGINT, SIGTERM ────┘
//! ```
//!
//! * [`settings`]: file, flags and defaults become one set of numbers and paths.
//! * [`place`]: the run directory, which only one system uses at a time, and which is gone afterwards.
//! * [`family`]: the commands of the processes, the order in which they start and end.
//! * [`keeper`]: one process through its lives; [`backoff`]: how soon the next one begins.
//! * [`memory`]: whether the pool is still the one that everybody is attached to.
//! * [`start`]: waiting for the door, giving the first tasks.
//! * [`say`]: what people see.
//!
//! Failure paths: *a child ends*: started again, at once the first time, later with back-off. *A child cannot work on this
//! machine* (exit code 78 or 2 in its first life): all ends, with its sentence. *The memory is lost* (keeper and daemon of rmmt
//! killed at once): all others are started again, for a pool of their own time. *The supervisor is
//! killed*: the kernel kills every child (parent-death signal); the next start finds the run directory unlocked and
//! cleans it. Children are started from the main thread only: the signal is bound to the thread that forked.

mod backoff;
mod family;
mod keeper;
mod memory;
mod place;
mod say;
mod settings;
mod start;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aits_orders::method;
use aits_service::{ServiceContext, ServiceError};
use baton_rpc::Router;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{Listen, Size};
use family::{STAGES, Stage};
use keeper::{Keeper, Orders};
use place::Place;
use say::Say;
use settings::Settings;
use table::Table;

/// Arguments of `aits up`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Args {
    /// Files or addresses to watch, each as a task of its own
    #[arg(value_name = "VIDEO")]
    videos: Vec<String>,

    /// Configuration file (`aits config default` prints one)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Play the given files again and again
    #[arg(long = "loop")]
    repeat: bool,

    /// Address of the page and the API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<Listen>,

    /// Directory for sockets, gone when the system has ended [default: $XDG_RUNTIME_DIR/aits]
    #[arg(long, env = "AITS_RUN", value_name = "DIR")]
    run: Option<PathBuf>,

    /// Directory for the task database [default: $XDG_STATE_HOME/aits; with VIDEO: tasks are kept until the end only]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// ONNX model [default: from the cache that `cargo xtask setup` fills]
    #[arg(long, env = "AITS_MODEL", value_name = "FILE")]
    model: Option<PathBuf>,

    /// ONNX Runtime library [default: as the model]
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    runtime: Option<PathBuf>,

    /// Memory for frames [default: 512MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pool_size: Option<Size>,

    /// Processes that detect [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    vss: Option<u32>,

    /// Processes that serve the page [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    gateway_workers: Option<u32>,

    /// What the processes log, as `info` or `info,aits_vas=debug`
    #[arg(long, env = "AITS_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

fn parse_size(text: &str) -> Result<Size, baton_rmmt::SizeError> {
    baton_rmmt::parse_size(text).map(Size)
}

/// Until when each stage may end by itself, counted from the order to end. Then it is killed.
const STAGE_DEADLINES: [Duration; STAGES] =
    [Duration::from_millis(900), Duration::from_millis(1400), Duration::from_millis(1800)];

/// Runs the system until Ctrl-C, SIGTERM, or a failure that starting again cannot mend.
///
/// # Errors
/// One sentence that says why; its class becomes the exit code.
pub(crate) fn run(args: Args) -> Result<(), ServiceError> {
    let settings = Settings::gather(args)?;
    let place = Place::take(&settings.run)?;
    // One thread, this one: children must be forked by a thread that lives as long as the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(supervise(&settings, Say::new()));
    runtime.shutdown_background();
    place.leave();
    result
}

async fn supervise(settings: &Settings, say: Say) -> Result<(), ServiceError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let table = Arc::new(Table::default());
    let (fatal, mut failed) = mpsc::channel(16);
    let orders = Orders::new(fatal);
    let members = family::members(settings)?;
    members.iter().for_each(|member| table.add(&member.name));
    let mut keepers = JoinSet::new();
    for member in members {
        keepers.spawn(Keeper::new(member, table.clone(), say, orders.clone()).keep());
    }
    let (stop_serving, serving) = watch::channel(false);
    tokio::spawn(serve(settings.clone(), table.clone(), say, serving));
    tokio::spawn(start::first_steps(settings.clone(), say));
    tokio::spawn(memory::watch(settings.run.socket("rmmt"), orders.clone()));

    let result = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        Some(error) = failed.recv() => Err(error),
    };
    if result.is_ok() {
        say.event("ending; once more Ctrl-C ends at once");
    }
    let begin = Instant::now();
    tokio::select! {
        () = end(&orders, &mut keepers, &table, begin) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Nobody is left, or it has to be quick.
    orders.kill_all();
    while keepers.join_next().await.is_some() {}
    stop_serving.send_replace(true);
    if result.is_ok() {
        say.event(&format!("ended after {} ms", begin.elapsed().as_millis()));
    }
    result
}

/// Ends stage after stage; whoever is late is killed.
async fn end(orders: &Orders, keepers: &mut JoinSet<Stage>, table: &Table, begin: Instant) {
    for (stage, deadline) in STAGE_DEADLINES.into_iter().enumerate() {
        orders.end(stage);
        let all_ended = async {
            while table.alive(stage) {
                if keepers.join_next().await.is_none() {
                    break;
                }
            }
        };
        if tokio::time::timeout_at(begin + deadline, all_ended).await.is_err() {
            orders.kill(stage);
        }
    }
}

/// Answers `up.processes`.
async fn serve(settings: Settings, table: Arc<Table>, say: Say, stopped: watch::Receiver<bool>) {
    let router = Router::new().method(method::UP_PROCESSES, move |(): ()| {
        let list = table.list();
        async move { Ok(list) }
    });
    if let Err(error) = ServiceContext::new("up", settings.run, stopped).serve(router).await {
        say.event(&format!("`aits ps` will not work: {error}"));
    }
}
