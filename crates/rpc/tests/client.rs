//! The client: connections of its own accord, many calls at a time, and every way a call can fail.

mod common;

use std::sync::Arc;
use std::time::Duration;

use baton_rpc::{CallError, Client, Feed, Router, RpcError, Server};
use common::WATCHDOG;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Barrier, oneshot};

struct Running {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), baton_rpc::ServeError>>,
}

impl Running {
    async fn start(uri: &str, router: Router) -> Running {
        let server = Server::bind(uri).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.serve(router, async {
            let _ = stopped.await;
        }));
        Running { stop, task }
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

fn answers(n: u32) -> Router {
    Router::new().method("which", move |()| async move { Ok(n) })
}

fn address(dir: &tempfile::TempDir) -> String {
    format!("un://{}", dir.path().join("s.sock").display())
}

#[tokio::test]
async fn it_waits_for_nobody_and_finds_the_server_when_it_is_there_and_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let uri = address(&dir);
    let client = Client::new(&uri);
    assert!(matches!(client.call::<_, u32>("which", &()).await, Err(CallError::Connect { .. })));
    for n in 0..3 {
        let server = Running::start(&uri, answers(n)).await;
        // No call fails although the connection of the last server is dead: that is seen before anything is sent.
        for _ in 0..3 {
            assert_eq!(client.call::<_, u32>("which", &()).await.unwrap(), n);
        }
        server.end().await;
    }
}

#[tokio::test]
async fn calls_that_wait_do_not_hold_up_others() {
    let dir = tempfile::tempdir().unwrap();
    let uri = address(&dir);
    // Each call waits until all of them are there: on one connection they would wait for ever.
    let barrier = Arc::new(Barrier::new(20));
    let router = Router::new().method("meet", move |n: u32| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            Ok(n)
        }
    });
    let server = Running::start(&uri, router).await;
    let client = Client::new(&uri);
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { (n, client.call::<_, u32>("meet", &n).await.unwrap()) })
        })
        .collect();
    for call in calls {
        let (sent, received) = tokio::time::timeout(WATCHDOG, call).await.unwrap().unwrap();
        assert_eq!(sent, received);
    }
    server.end().await;
}

#[tokio::test]
async fn a_late_answer_never_meets_a_later_call() {
    let dir = tempfile::tempdir().unwrap();
    let uri = address(&dir);
    let router = Router::new().method("echo", |(n, ms): (u32, u64)| async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(n)
    });
    let server = Running::start(&uri, router).await;
    let client = Client::new(&uri);
    for n in 0..20 {
        let early =
            client.call_with_timeout::<_, u32>("echo", &(n, 3), Duration::from_millis(n.into())).await;
        assert!(
            matches!(early, Ok(answer) if answer == n) || matches!(early, Err(CallError::Timeout { .. }))
        );
        assert_eq!(client.call::<_, u32>("echo", &(1000 + n, 0)).await.unwrap(), 1000 + n);
    }
    server.end().await;
}

#[tokio::test]
async fn each_failure_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let uri = address(&dir);
    let router = Router::new()
        .method("no", |()| async { Err::<(), _>(RpcError::new("not_today", "come back tomorrow")) })
        .method("text", |()| async { Ok("seven") })
        .method("never", |()| async { std::future::pending::<Result<(), RpcError>>().await });
    let server = Running::start(&uri, router).await;
    let client = Client::new(&uri);
    let Err(CallError::Remote(error)) = client.call::<_, ()>("no", &()).await else { panic!() };
    assert_eq!(error, RpcError::new("not_today", "come back tomorrow"));
    assert!(matches!(client.call::<_, u32>("text", &()).await, Err(CallError::Decode { .. })));
    assert_eq!(client.call::<_, String>("text", &()).await.unwrap(), "seven");
    let hasty = client.with_timeout(Duration::from_millis(10));
    assert!(matches!(hasty.call::<_, ()>("never", &()).await, Err(CallError::Timeout { .. })));
    let huge = "x".repeat(17 << 20);
    assert!(matches!(client.call::<_, ()>("no", &huge).await, Err(CallError::Encode { .. })));
    assert!(matches!(
        Client::new("tcp://x:1").call::<_, ()>("no", &()).await,
        Err(CallError::Connect { source, .. }) if source.to_string().contains("unrecognized protocol")
    ));
    server.end().await;
}

/// A server that answers each connection's first request with these bytes and closes.
async fn answers_with(bytes: &'static [u8]) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("ip://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let len = stream.read_u32_le().await.unwrap();
            stream.read_exact(&mut vec![0; len as usize]).await.unwrap();
            stream.write_all(bytes).await.unwrap();
        }
    });
    Client::new(uri)
}

#[tokio::test]
async fn a_server_that_talks_nonsense_is_an_error_and_no_more() {
    for bytes in [&b"\x02\0\0\0{}"[..], b"\x03\0\0\0abc", b"\xff\xff\xff\xff", b"\x01\0\0\0\xff", b"\0\0\0\0"]
    {
        let client = answers_with(bytes).await;
        for _ in 0..2 {
            assert!(
                matches!(client.call::<_, ()>("x", &()).await, Err(CallError::Decode { .. })),
                "{bytes:?}"
            );
        }
    }
    for bytes in [&b""[..], b"\x05\0", b"\x05\0\0\0{"] {
        let client = answers_with(bytes).await;
        assert!(
            matches!(client.call::<_, ()>("x", &()).await, Err(CallError::Disconnected { .. })),
            "{bytes:?}"
        );
    }
}

#[tokio::test]
async fn a_second_server_at_the_same_address_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let uri = address(&dir);
    let server = Running::start(&uri, answers(1)).await;
    let refused = Server::bind(&uri).await.unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    assert_eq!(Client::new(&uri).call::<_, u32>("which", &()).await.unwrap(), 1);
    server.end().await;
}

#[tokio::test]
async fn a_subscription_ends_when_its_method_does_or_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let uri = address(&dir);
    let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    let router = Router::new()
        .streaming("count", async |n: u32, feed: Feed<u32>| {
            for i in 0..n {
                feed.send(&i).await?;
            }
            if n == 7 { Err(RpcError::failed("seven is no good")) } else { Ok(()) }
        })
        .streaming("for_ever", move |(): (), feed: Feed<u32>| {
            let alive = alive.clone();
            async move {
                let _alive = alive;
                feed.send(&1).await?;
                std::future::pending::<Result<(), RpcError>>().await
            }
        });
    let server = Running::start(&uri, router).await;
    let client = Client::new(&uri);
    for n in [0, 5, 1000, 7] {
        let mut items = client.subscribe::<_, u32>("count", &n).await.unwrap();
        for i in 0..n {
            assert_eq!(items.next().await.unwrap(), Some(i));
        }
        let end = items.next().await;
        if n == 7 {
            assert_eq!(end.unwrap_err().remote().map(|error| &*error.code), Some("failed"));
        } else {
            assert_eq!(end.unwrap(), None);
        }
        assert_eq!(items.next().await.unwrap(), None);
    }
    let mut news = client.subscribe::<_, u32>("for_ever", &()).await.unwrap();
    assert_eq!(news.next().await.unwrap(), Some(1));
    // Giving up waiting loses nothing; dropping ends the method at the server.
    assert!(tokio::time::timeout(Duration::from_millis(5), news.next()).await.is_err());
    drop(news);
    // Only the method itself keeps a clone of the sender beside the router: the router goes with the server.
    server.end().await;
    assert!(tokio::time::timeout(WATCHDOG, ended.recv()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_notification_is_sent_and_nothing_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let uri = address(&dir);
    let (heard, mut hears) = tokio::sync::mpsc::channel(8);
    let router = answers(5).method("tell", move |n: u32| {
        let heard = heard.clone();
        async move { heard.send(n).await.map_err(|_| RpcError::failed("nobody hears")) }
    });
    let server = Running::start(&uri, router).await;
    let client = Client::new(&uri);
    for n in 0..3 {
        client.notify("tell", &n).await.unwrap();
        assert_eq!(tokio::time::timeout(WATCHDOG, hears.recv()).await.unwrap(), Some(n));
        // No answer of a notification meets a call on the same connection.
        assert_eq!(client.call::<_, u32>("which", &()).await.unwrap(), 5);
    }
    assert!(matches!(
        Client::new("un:///nowhere/at/all").notify("tell", &1).await,
        Err(CallError::Connect { .. })
    ));
    server.end().await;
}
