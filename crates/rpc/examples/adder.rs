//! A whole service: `adder ip://127.0.0.1:7001`, and in another terminal `adder ip://127.0.0.1:7001 20 22`.

use baton_rpc::{Client, Router, RpcError, Server};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [uri] => {
            let add = async |(a, b): (i64, i64)| a.checked_add(b).ok_or(RpcError::failed("too large"));
            let server = Server::bind(uri).await?;
            println!("listening at {}", server.local_uri());
            let end = async { drop(tokio::signal::ctrl_c().await) };
            server.serve(Router::new().method("add", add).doc("the sum of two numbers"), end).await?;
        }
        [uri, a, b] => {
            let sum: i64 = Client::new(uri).call("add", &(a.parse::<i64>()?, b.parse::<i64>()?)).await?;
            println!("{sum}");
        }
        _ => return Err("usage: adder URI [A B]".into()),
    }
    Ok(())
}
