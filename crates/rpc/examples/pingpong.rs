//! A framed JSON RPC server in many processes: `pingpong --listen 127.0.0.1:7000 --workers 4`.
//!
//! Methods: `ping` (answered by `pong` with its own parameters), `whoami` (the worker's pid), `burn {"us": N}` (spends N µs
//! of CPU), `sleep {"ms": N}`, `count N` (a subscription: N items). Ends on Ctrl-C or SIGTERM, letting requests under way finish.

use std::time::{Duration, Instant};

use baton_cluster::{Cluster, Connection, Worker};
use baton_rpc::{Feed, Limits, Router, serve_stream_until};
use clap::Parser;
use serde_json::value::RawValue;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Args {
    /// HOST:PORT, or a URI: ip://HOST:PORT, un://PATH.
    #[arg(long, default_value = "127.0.0.1:7000")]
    listen: String,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How connections are spread over the workers.
    #[arg(long, value_enum, default_value_t = Policy::Rr)]
    policy: Policy,
    #[arg(long, hide = true)]
    worker: bool,
}

#[derive(Clone, clap::ValueEnum)]
enum Policy {
    /// Round robin.
    Rr,
}

#[derive(serde::Deserialize)]
struct Burn {
    us: u64,
}

#[derive(serde::Deserialize)]
struct Sleep {
    ms: u64,
}

fn router() -> Router {
    Router::new()
        .method_as("ping", "pong", async |params: Box<RawValue>| Ok(params))
        .method("whoami", async |()| Ok(std::process::id()))
        .method("burn", async |Burn { us }| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(us) {
                std::hint::spin_loop();
            }
            Ok(us)
        })
        .method("sleep", async |Sleep { ms }| {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(ms)
        })
        .streaming("count", async |n: u64, feed: Feed<u64>| {
            for i in 0..n {
                feed.send(&i).await?;
            }
            Ok(n)
        })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    if args.worker {
        let router = router();
        let serve = move |c: Connection| {
            let router = router.clone();
            let limits = Limits::default();
            async move { drop(serve_stream_until(c.stream, Vec::new(), router, limits, c.draining.wait()).await) }
        };
        return Ok(Worker::attach()?.serve(serve).await?);
    }
    // From here on the signals do not end this process by themselves.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let uri = if args.listen.contains("://") { args.listen } else { format!("ip://{}", args.listen) };
    let Policy::Rr = args.policy;
    let cluster =
        Cluster::builder().listen(uri).workers(args.workers).worker_args(["--worker"]).start().await?;
    println!("listening at {}", cluster.local_uri());
    cluster
        .run_until(async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        })
        .await;
    Ok(())
}
