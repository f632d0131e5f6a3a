//! Encodes a watched stream once per frame, into pool blocks.
//!
//! ```text
//!              preview.watch (renewed)                                    watch, results (renewed, long poll)
//!  gateway ───────────────────────────▶ Watches ── follow, per stream ──────────────────────────────▶ wmits
//!  workers ◀── gateway-<pid>.jpegs ──── encoder ◀── newest frame of each stream ◀── preview.frames ────┘
//!               one block for all          thread        (newest wins)
//! ```
//!
//! While any watch of a stream is alive, preview keeps a watch of its own at wmits and so gets the stream's frames as
//! blocks. Each frame is encoded at most once clean (from the block) and once annotated (from a copy with boxes), into a
//! block of its own behind a frame header, and that one block is shared with every inbox that watches: 200 viewers cost
//! one encode, and nobody copies a JPEG.
//!
//! Everything is bounded, and the policy is always "newest wins": one frame waits per stream, a full inbox loses its
//! oldest JPEG, the number of streams and watchers is limited ([`MAX_STREAMS`], [`MAX_WATCHERS`]).
//!
//! Failure paths:
//! * a watcher that dies renews nothing and is forgotten when its time is over; its inbox is gone at once, sends to it
//!   fail and are counted;
//! * wmits dies: the follower asks again five times a second, frames come back with the new process;
//! * a block that is no picture is dropped and counted; a pool without room drops the frame;
//! * preview dies: the gateway's renewals rebuild everything, since nothing here is worth keeping;
//! * the pool closes this endpoint: the process ends and is started again.

#![forbid(unsafe_code)]

pub mod draw;
mod encode;
mod follow;
mod watches;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aits_orders::{WatchPreview, inbox, method};
use aits_service::{CommonArgs, ServiceContext, ServiceError, run_service};
use baton_client::{Client, ConnectOptions, Inbox};
use baton_rpc::Router;

pub use encode::{EncodeError, JpegWriter};
pub use watches::{MAX_STREAMS, MAX_WATCHERS};

use crate::encode::Encoding;
use crate::follow::Follower;
use crate::watches::Shared;

/// How long the memory daemon may take to answer at the start.
const POOL_PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `aits preview`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What every service takes.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Quality of the JPEGs
    #[arg(long, value_name = "1..100", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: u8,

    /// Wider pictures are made smaller by a whole factor
    #[arg(long, value_name = "PIXELS", default_value_t = 1920, value_parser = clap::value_parser!(u32).range(64..=16384))]
    pub max_width: u32,
}

/// Runs the service until it is told to end.
pub fn run(args: Args) -> ExitCode {
    run_service("preview", &args.common, |context| serve(context, args.clone()))
}

async fn serve(context: ServiceContext, args: Args) -> Result<(), ServiceError> {
    let options = ConnectOptions::new("preview").inbox(inbox::PREVIEW_FRAMES).timeout(POOL_PATIENCE);
    let joining = context.clone();
    let (pool, frames) = tokio::task::spawn_blocking(move || joining.pool(options)).await??;
    let shared = Arc::new(Shared::default());
    let encoding = Encoding::start(Arc::clone(&shared), pool.clone(), args.quality, args.max_width)?;
    let follower = Follower::new(Arc::clone(&shared), context.rpc("wmits"));
    let result = tokio::select! {
        result = context.serve(router(follower, pool)) => result,
        result = receive(&shared, frames) => result,
    };
    encoding.stop();
    result
}

/// The one method of preview.
fn router(follower: Follower, pool: Client) -> Router {
    Router::new().method(method::PREVIEW_WATCH, move |order: WatchPreview| {
        let (follower, pool) = (follower.clone(), pool.clone());
        async move { follower.watch(order, &pool).await }
    })
}

async fn receive(shared: &Shared, mut frames: Inbox) -> Result<(), ServiceError> {
    loop {
        let delivery = frames.recv_async().await?;
        shared.frame_arrived(delivery.block);
    }
}
