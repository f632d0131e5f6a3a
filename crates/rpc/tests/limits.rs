//! Each limit of a server, each error of a method, and stopping, in one process and at small limits.

mod common;

use std::time::Duration;

use baton_rpc::{
    CallError, Client, Limits, Router, RpcError, Server, StreamEnd, serve_stream, serve_stream_until,
};
use common::{WATCHDOG, frame, request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;

fn router() -> Router {
    Router::new()
        .method("ping", async |n: Value| Ok(n))
        .method("no", async |()| Err::<(), _>(RpcError::new("closed_today", "come back tomorrow")))
        .method("panic", async |()| -> Result<(), RpcError> { panic!("a method's bug") })
        .method("panic_before", |()| -> std::future::Ready<Result<(), RpcError>> { panic!("a method's bug") })
        .method("forever", async |()| -> Result<(), RpcError> { std::future::pending().await })
        .method("unspeakable", async |()| Ok(std::collections::BTreeMap::from([((1, 2), 3)])))
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Serves one end of a pipe; gives the other end, and how it ends.
fn serve(limits: Limits, pipe: usize) -> (DuplexStream, tokio::task::JoinHandle<StreamEnd<DuplexStream>>) {
    let (near, far) = duplex(pipe);
    (near, tokio::spawn(serve_stream(far, router(), limits)))
}

async fn receive(stream: &mut DuplexStream) -> Value {
    let len = stream.read_u32_le().await.unwrap();
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

async fn code(stream: &mut DuplexStream) -> String {
    receive(stream).await["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_method_that_fails_in_any_way_is_an_answer() {
    let (mut near, _end) = serve(limits(|l| l.request = Duration::from_millis(20)), 1 << 16);
    let cases = [
        ("no", "closed_today"),
        ("panic", "internal"),
        ("panic_before", "internal"),
        ("forever", "timeout"),
        ("unspeakable", "internal"),
    ];
    for (method, wanted) in cases {
        near.write_all(&request(method, &Value::Null)).await.unwrap();
        assert_eq!(code(&mut near).await, wanted);
        near.write_all(&request("ping", &json!(method))).await.unwrap();
        assert_eq!(receive(&mut near).await["result"], method);
    }
}

#[tokio::test]
async fn half_a_frame_is_complained_about_and_closed() {
    let (mut near, end) = serve(limits(|l| l.half_frame = Duration::from_millis(20)), 1 << 16);
    near.write_all(&request("ping", &json!(1))[..9]).await.unwrap();
    assert_eq!(code(&mut near).await, "timeout");
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    drop(near);
    assert!(matches!(end.await.unwrap(), StreamEnd::TimedOut));
}

#[tokio::test]
async fn a_trickle_does_not_extend_the_time_for_a_frame() {
    let (near, end) = serve(limits(|l| l.half_frame = Duration::from_millis(50)), 1 << 16);
    let (mut reader, mut writer) = tokio::io::split(near);
    let trickle = async move {
        for byte in frame(&[b' '; 100_000]) {
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let trickle = tokio::spawn(trickle);
    let mut answer = Vec::new();
    reader.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("\"timeout\""));
    assert!(matches!(end.await.unwrap(), StreamEnd::TimedOut));
    trickle.abort();
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let (mut near, end) = serve(limits(|l| l.idle = Duration::from_millis(20)), 1 << 16);
    near.write_all(&request("ping", &json!(1))).await.unwrap();
    receive(&mut near).await;
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    assert!(matches!(end.await.unwrap(), StreamEnd::TimedOut));
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let (mut near, end) = serve(limits(|l| l.write = Duration::from_millis(20)), 64);
    near.write_all(&request("ping", &json!("x".repeat(1000)))).await.unwrap();
    assert!(matches!(end.await.unwrap(), StreamEnd::TimedOut));
}

#[tokio::test]
async fn a_stopped_connection_goes_on_elsewhere_with_its_unread_bytes() {
    let (mut near, far) = duplex(1 << 16);
    let (stop, stopped) = oneshot::channel::<()>();
    let entered = std::sync::Arc::new(tokio::sync::Notify::new());
    let leave = std::sync::Arc::new(tokio::sync::Notify::new());
    let slow = {
        let (entered, leave) = (entered.clone(), leave.clone());
        router().method("slow", move |n: u32| {
            let (entered, leave) = (entered.clone(), leave.clone());
            async move {
                entered.notify_one();
                leave.notified().await;
                Ok(n)
            }
        })
    };
    let first = tokio::spawn(serve_stream_until(far, Vec::new(), slow, Limits::default(), async {
        let _ = stopped.await;
    }));
    // Three whole requests and a half in one write: the first is under way when the stop comes.
    let half = request("ping", &json!(4));
    let bytes = [
        request("slow", &json!(1)),
        request("ping", &json!(2)),
        request("ping", &json!(3)),
        half[..7].to_vec(),
    ];
    near.write_all(&bytes.concat()).await.unwrap();
    entered.notified().await;
    stop.send(()).unwrap();
    leave.notify_one();
    let StreamEnd::Stopped { stream, unread } = first.await.unwrap() else { panic!("not stopped") };
    assert_eq!(receive(&mut near).await["result"], 1);
    let second = serve_stream_until(stream, unread, router(), Limits::default(), std::future::pending());
    let second = tokio::spawn(second);
    near.write_all(&half[7..]).await.unwrap();
    for n in 2..=4 {
        assert_eq!(receive(&mut near).await["result"], n);
    }
    near.shutdown().await.unwrap();
    assert!(matches!(second.await.unwrap(), StreamEnd::Closed));
}

/// Starts a server; gives its address, what stops it, and its end.
async fn server(
    uri: &str,
    router: Router,
    limits: Limits,
) -> (String, oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), baton_rpc::ServeError>>) {
    let server = Server::bind(uri).await.unwrap().with_limits(limits);
    let uri = server.local_uri();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.serve(router, async {
        let _ = stopped.await;
    }));
    (uri, stop, task)
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let (uri, stop, task) = server("ip://127.0.0.1:0", router(), limits(|l| l.connections = 2)).await;
    let first = Client::new(&uri);
    let second = Client::new(&uri);
    for client in [&first, &second] {
        client.call::<_, u32>("ping", &1).await.unwrap();
    }
    let third = Client::new(&uri);
    let refused = third.call::<_, u32>("ping", &1).await.unwrap_err();
    assert_eq!(refused.remote().map(|error| &*error.code), Some("busy"), "{refused}");
    assert_eq!(first.call::<_, u32>("ping", &2).await.unwrap(), 2);
    // A place that is free again is given.
    drop(second);
    tokio::time::timeout(WATCHDOG, async {
        while third.call::<_, u32>("ping", &1).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_finishes_what_is_under_way_and_removes_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let entered = std::sync::Arc::new(tokio::sync::Notify::new());
    let leave = std::sync::Arc::new(tokio::sync::Notify::new());
    let slow = {
        let (entered, leave) = (entered.clone(), leave.clone());
        router().method("slow", move |()| {
            let (entered, leave) = (entered.clone(), leave.clone());
            async move {
                entered.notify_one();
                leave.notified().await;
                Ok(7)
            }
        })
    };
    let wide = limits(|l| l.drain = WATCHDOG);
    let (uri, stop, task) = server(&format!("un://{}", path.display()), slow, wide).await;
    let client = Client::new(&uri);
    client.call::<_, u32>("ping", &1).await.unwrap(); // leaves an idle connection
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, u32>("slow", &()).await }
    });
    entered.notified().await;
    stop.send(()).unwrap();
    leave.notify_one();
    assert_eq!(call.await.unwrap().unwrap(), 7);
    task.await.unwrap().unwrap();
    assert!(!path.exists());
    assert!(matches!(client.call::<_, u32>("ping", &1).await, Err(CallError::Connect { .. })));
}

#[tokio::test]
async fn shutdown_cuts_off_what_does_not_finish() {
    let (uri, stop, task) =
        server("ip://127.0.0.1:0", router(), limits(|l| l.drain = Duration::from_millis(20))).await;
    let client = Client::new(&uri);
    client.call::<_, u32>("ping", &1).await.unwrap();
    let call = tokio::spawn(async move { client.call::<_, ()>("forever", &()).await });
    tokio::task::yield_now().await;
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(matches!(call.await.unwrap(), Err(CallError::Disconnected { .. } | CallError::Connect { .. })));
}
