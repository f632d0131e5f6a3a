//! The first steps of a running system: give the tasks, tell the URL.

use std::time::Duration;

use aits_orders::{StartTask, Task, TaskRef, method};
use baton_rpc::{CallError, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::say::Say;
use super::settings::Settings;

const AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts the tasks as soon as wmits answers, and tells the URL as soon as the door does.
pub(super) async fn first_steps(settings: Settings, say: Say) {
    let wmits = Client::new(settings.run.uri("wmits"));
    let tasks = async {
        for task in &settings.tasks {
            start(&wmits, task, say).await;
        }
    };
    let door = async {
        let at = reachable(&settings.listen);
        while !answers(&at).await {
            tokio::time::sleep(AGAIN).await;
        }
        say.event(&format!("ready: http://{at}/"));
    };
    tokio::join!(tasks, door);
}

/// Starts a task. One of the same name with other parameters, from an earlier run, is replaced: what stands on the
/// command line or in the file is what is wanted.
async fn start(wmits: &Client, order: &StartTask, say: Say) {
    let id = order.id.clone().unwrap_or_default();
    loop {
        match wmits.call::<_, Task>(method::TASK_START, order).await {
            Ok(task) => return say.event(&format!("task {id} is stream {}: {}", task.stream, task.url)),
            Err(CallError::Remote(error)) if error.code == "task_exists" => {
                let _gone_or_asked_again: Result<Task, _> =
                    wmits.call(method::TASK_DELETE, &TaskRef { id: id.clone() }).await;
            }
            Err(CallError::Remote(error)) => {
                return say.event(&format!("task {id} is refused: {}", error.message));
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// An address that listens everywhere is reached on this host by loopback.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

/// Whether an HTTP server answers there.
async fn answers(at: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(at).await?;
        stream
            .write_all(format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).await?;
        Ok::<bool, std::io::Error>(&start == b"HTTP/")
    };
    matches!(tokio::time::timeout(PATIENCE, ask).await, Ok(Ok(true)))
}
