//! Video access: opens streams, decodes them into blocks, publishes the frames.
//!
//! ```text
//!  wmits ── vas.open / vas.close ──▶ Desk ── one thread per stream ──▶ player: Source ─ pace ─ publish ──▶ inbox
//!        ◀─ vas.streams (long poll) ──┘ ◀───── state, counters ─────────┘                      (wmits.frames)
//! ```
//!
//! vas keeps nothing that wmits cannot tell it again: killed and restarted, it has no streams until it is told to open
//! them. It never waits for a receiver: a frame that nobody takes is dropped and counted, and
//! `decoded = published + no_receiver + inbox_full` holds at every moment.
//!
//! What goes wrong, and what happens then:
//!
//! | what | what happens |
//! |---|---|
//! | a source cannot be opened or read | the stream is `failed` with a sentence; all others go on |
//! | the receiver is away or killed | frames are dropped, the inbox is looked up again by name |
//! | the pool is full | frames are lost and counted, the player rests for a frame |
//! | this process is no member of the pool any more | it ends, and its supervisor starts it again |

#![forbid(unsafe_code)]

mod api;
mod desk;
mod outlet;
mod pace;
mod player;
mod stream;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aits_service::{CommonArgs, NamedSender, ServiceContext, ServiceError, run_service};
use baton_client::{ConnectOptions, Inbox};

use crate::desk::Desk;

/// Longest wait for the memory daemon at the start.
const POOL_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for players at the end.
const PLAYERS_PATIENCE: Duration = Duration::from_millis(600);

/// Arguments of `aits vas`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Threads that decode one stream; more keep up with larger pictures, and hold more blocks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub decode_threads: u8,

    /// What every service takes.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the service until SIGTERM.
pub fn run(args: Args) -> ExitCode {
    let threads = args.decode_threads;
    run_service("vas", &args.common, move |context| serve(context, threads))
}

async fn serve(context: ServiceContext, threads: u8) -> Result<(), ServiceError> {
    let (client, inbox) = context.pool(ConnectOptions::new("vas").timeout(POOL_PATIENCE))?;
    let (lost, membership_lost) = tokio::sync::watch::channel(None);
    let desk = Arc::new(Desk::new(move |stream| {
        let outlet = NamedSender::new(client.clone(), &stream.order().inbox);
        if let Some(reason) = player::play(stream, client.clone(), &outlet, threads) {
            lost.send_replace(Some(reason));
        }
    }));
    let served = tokio::select! {
        served = context.serve(api::router(Arc::clone(&desk))) => served,
        reason = first(membership_lost) => Err(ServiceError::failed(reason)),
        reason = watch_membership(inbox) => Err(ServiceError::failed(reason)),
    };
    desk.close_all();
    let joined = tokio::task::spawn_blocking(move || desk.wait_for_players(PLAYERS_PATIENCE)).await;
    if !joined.unwrap_or(false) {
        tracing::warn!("a source still blocks its thread; the process ends without it");
    }
    served
}

/// Nobody sends to vas; what the inbox is good for is to hear that the pool has ended.
async fn watch_membership(mut inbox: Inbox) -> String {
    loop {
        match inbox.recv_async().await {
            Ok(delivery) => tracing::debug!("{:?} sent a block to vas, which wants none", delivery.from),
            Err(error) => return error.to_string(),
        }
    }
}

/// The first reason that comes.
async fn first(mut reason: tokio::sync::watch::Receiver<Option<String>>) -> String {
    match reason.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        // The desk holds the sender as long as this is asked.
        Err(_) => std::future::pending().await,
    }
}
