//! A service that tells how busy it is, so that `least-load` can choose: each line is a request, `sleep MS` takes that
//! long, and each answer is the worker's process id. `lines least-load`, then `nc 127.0.0.1 7008`.

use std::time::Duration;

use baton_cluster::{Cluster, Connection, Policy, Worker};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

async fn serve(connection: Connection) -> std::io::Result<()> {
    let (from, mut to) = tokio::io::split(connection.stream);
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        connection.load.request_begun();
        if let Some(ms) = line.strip_prefix("sleep ").and_then(|ms| ms.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let answered = to.write_all(format!("{}\n", std::process::id()).as_bytes()).await;
        connection.load.request_ended();
        answered?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy = std::env::args().nth(1).unwrap_or_else(|| "least-load".to_owned());
    if policy == "--worker" {
        return Ok(Worker::attach()?.serve(|connection| async { drop(serve(connection).await) }).await?);
    }
    let policy: Policy = policy.parse()?;
    let builder = Cluster::builder().listen("ip://127.0.0.1:7008").workers(2).worker_args(["--worker"]);
    let cluster = builder.policy(policy).start().await?;
    println!("{} is served {policy} by {:?}", cluster.local_uri(), cluster.worker_pids());
    cluster.run_until(async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}
