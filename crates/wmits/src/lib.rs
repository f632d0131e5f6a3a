//! The orchestrator: takes tasks, keeps them, and routes frames to the algorithms.
//!
//! ```text
//!                    task.* watch results                        vas.open, vas.close, vas.streams
//!   platform ─────────────────────────────▶  api    links ──────────────────────────────────────────▶ vas
//!   preview                                     \   /   └─── vss.results, vss.forget ───────────────▶ vss-i
//!                                               desk
//!   vas ══ frames ══▶ inbox wmits.frames ══▶  /   |   \  ══ frames ══▶ vss-i.frames, watchers' inboxes
//!                                        dispatch book store
//!                                       (routing) (tasks) (SQLite)
//! ```
//!
//! [`dispatch`] decides which frame goes where, [`book`] what each task's source is to be told, [`store`] keeps the
//! tasks. The first two are state machines without I/O; the desk joins the three under its locks; one thread receives
//! frames; the links talk to vas and vss.
//!
//! Failure paths: *vas, vss, a watcher killed*: found again by name and told again what it must know; frames meanwhile
//! are replaced by newer ones, and counted. *wmits killed*: the kernel and the memory daemon take back its blocks, its
//! successor finds the tasks in the store and the streams in vas. *The database damaged or unwritable*: wmits does not
//! start, says why (exit code 78), and changes nothing. *The memory daemon gone for good*: wmits ends and is started
//! again by its supervisor.

#![forbid(unsafe_code)]

mod address;
mod api;
pub mod book;
mod desk;
pub mod dispatch;
mod links;
mod outbox;
mod receive;
mod refusal;
pub mod store;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use aits_orders::inbox;
use aits_service::{CommonArgs, ServiceContext, ServiceError, run_service};
use baton_client::ConnectOptions;
use tokio::sync::mpsc;

pub use address::redacted;
use desk::Desk;
use outbox::{FORGET_QUEUE, Outbox};
use store::Store;

/// The orchestrator: takes tasks, keeps them, and routes frames to the algorithms.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the help of the command")]
    pub common: CommonArgs,

    /// The database of the tasks; created if it does not exist
    #[arg(long, value_name = "FILE")]
    pub db: PathBuf,

    /// How many vss there are: vss-0, vss-1, …
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub vss: u32,
}

/// Runs the service until it is told to end.
pub fn run(args: Args) -> ExitCode {
    run_service("wmits", &args.common.clone(), |context| serve(context, args))
}

async fn serve(context: ServiceContext, args: Args) -> Result<(), ServiceError> {
    let store = Store::open(&args.db).map_err(|error| ServiceError::config_from(&error))?;
    let options = ConnectOptions::new("wmits").inbox(inbox::WMITS_FRAMES).read_only();
    let (client, inbox) = context.pool(options)?;
    let (forget, forgotten): (Vec<_>, Vec<_>) = (0..args.vss).map(|_| mpsc::channel(FORGET_QUEUE)).unzip();
    let desk = Arc::new(Desk::new(store, Outbox::new(client, forget))?);

    let vas = context.rpc("vas");
    tokio::spawn(links::listen_to_vas(desk.clone(), vas.clone()));
    tokio::spawn(links::order_vas(desk.clone(), vas));
    for (index, streams) in forgotten.into_iter().enumerate() {
        let vss = context.rpc(&format!("vss-{index}"));
        tokio::spawn(links::listen_to_vss(desk.clone(), index, vss.clone()));
        tokio::spawn(links::forget_at_vss(streams, index, vss));
    }
    let inbox_closed = receive::start(inbox, desk.clone())?;
    tokio::select! {
        result = context.serve(api::router(&desk)) => result,
        error = inbox_closed => Err(error),
    }
}
