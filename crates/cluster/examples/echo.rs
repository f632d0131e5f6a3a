//! Bytes come back, from one of two worker processes: `echo`, then `nc 127.0.0.1 7007`.

use baton_cluster::{Cluster, Connection, Worker};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().any(|arg| arg == "--worker") {
        let echo = |connection: Connection| async {
            let (mut from, mut to) = tokio::io::split(connection.stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        };
        return Ok(Worker::attach()?.serve(echo).await?);
    }
    let cluster =
        Cluster::builder().listen("ip://127.0.0.1:7007").workers(2).worker_args(["--worker"]).start().await?;
    println!("{} is served by {:?}", cluster.local_uri(), cluster.worker_pids());
    cluster.run_until(async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}
