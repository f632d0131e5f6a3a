//! What goes beyond the document's protocol: ids, notifications, subscriptions, cancellation, introspection.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use baton_rpc::{Feed, Limits, Router, RpcError, StreamEnd, serve_stream};
use common::{WATCHDOG, frame};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Tells when a method was dropped or has ended.
#[derive(Clone)]
struct Guards(Arc<watch::Sender<u64>>);

struct Guard(Guards);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.send_modify(|dropped| *dropped += 1);
    }
}

impl Guards {
    fn new() -> Guards {
        Guards(Arc::new(watch::Sender::new(0)))
    }

    fn guard(&self) -> Guard {
        Guard(self.clone())
    }

    async fn dropped(&self, wanted: u64) {
        let mut seen = self.0.subscribe();
        let dropped = tokio::time::timeout(WATCHDOG, seen.wait_for(|dropped| *dropped >= wanted)).await;
        assert_eq!(*dropped.expect("a method was not dropped").unwrap(), wanted);
    }
}

struct Parts {
    guards: Guards,
    gate: Arc<Notify>,
    noted: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

fn router() -> (Router, Parts) {
    let parts = Parts {
        guards: Guards::new(),
        gate: Arc::new(Notify::new()),
        noted: Arc::default(),
        sent: Arc::default(),
    };
    let (guards, gate, noted, sent) =
        (parts.guards.clone(), parts.gate.clone(), parts.noted.clone(), parts.sent.clone());
    let (ticking, count_sent) = (parts.guards.clone(), sent);
    let router = Router::new()
        .method_as("ping", "pong", async |n: Value| Ok(n))
        .doc("gives back what it is given")
        .method("gate", move |n: u32| {
            let (gate, guard) = (gate.clone(), guards.guard());
            async move {
                gate.notified().await;
                drop(guard);
                Ok(n)
            }
        })
        .method("note", move |n: u64| {
            let noted = noted.clone();
            async move { Ok(noted.fetch_add(n, SeqCst)) }
        })
        .method("late", async |()| -> Result<(), RpcError> { std::future::pending().await })
        .deadline(Duration::from_millis(10))
        .streaming("count", async |n: u32, feed: Feed<u32>| {
            for i in 0..n {
                feed.send(&i).await?;
            }
            Ok(n)
        })
        .streaming("ticks", move |size: usize, feed: Feed<String>| {
            let (guard, sent) = (ticking.guard(), count_sent.clone());
            async move {
                let _guard = guard;
                let item = "x".repeat(size);
                while feed.send(&item).await.is_ok() {
                    sent.fetch_add(1, SeqCst);
                }
                Ok(())
            }
        });
    (router, parts)
}

struct Peer {
    stream: DuplexStream,
    end: JoinHandle<StreamEnd<DuplexStream>>,
}

impl Peer {
    fn new(router: &Router, limits: Limits) -> Peer {
        let (stream, far) = duplex(1 << 16);
        Peer { stream, end: tokio::spawn(serve_stream(far, router.clone(), limits)) }
    }

    async fn send(&mut self, request: Value) {
        self.stream.write_all(&frame(request.to_string().as_bytes())).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        let receive = async {
            let len = self.stream.read_u32_le().await.unwrap();
            let mut body = vec![0; len as usize];
            self.stream.read_exact(&mut body).await.unwrap();
            serde_json::from_slice(&body).unwrap()
        };
        tokio::time::timeout(WATCHDOG, receive).await.expect("no answer came")
    }

    async fn call(&mut self, request: Value) -> Value {
        self.send(request).await;
        self.receive().await
    }
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

#[tokio::test]
async fn answers_with_an_id_overtake_and_those_without_do_not() {
    let (router, parts) = router();
    let mut peer = Peer::new(&router, Limits::default());
    peer.send(json!({"in": "gate", "params": 1, "id": "slow"})).await;
    peer.send(json!({"in": "ping", "params": 2, "id": 7})).await;
    assert_eq!(peer.receive().await, json!({"out": "pong", "result": 2, "id": 7}));
    assert_eq!(peer.call(json!({"in": "ping", "params": 3})).await, json!({"out": "pong", "result": 3}));
    // One without an id holds up all that come after it, with an id or without.
    peer.send(json!({"in": "gate", "params": 4})).await;
    peer.send(json!({"in": "ping", "params": 5, "id": 8})).await;
    parts.gate.notify_one();
    assert_eq!(peer.receive().await, json!({"out": "gate", "result": 1, "id": "slow"}));
    parts.gate.notify_one();
    assert_eq!(peer.receive().await, json!({"out": "gate", "result": 4}));
    assert_eq!(peer.receive().await["id"], 8);
}

#[tokio::test]
async fn an_error_finds_its_caller_and_an_id_is_used_once_at_a_time() {
    let (router, parts) = router();
    let mut peer = Peer::new(&router, Limits::default());
    for (request, code) in [
        (json!({"in": "nothing", "id": 1}), "unknown_method"),
        (json!({"in": "gate", "params": "x", "id": 1}), "invalid_params"),
        (json!({"in": 5, "id": 1}), "bad_request"),
        (json!({"in": "late", "id": 1}), "timeout"),
    ] {
        let answer = peer.call(request).await;
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &json!(1)));
    }
    let answer = peer.call(json!({"in": "ping", "id": [1]})).await;
    assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!("bad_request"), &Value::Null));
    peer.send(json!({"in": "gate", "params": 1, "id": 1})).await;
    let again = peer.call(json!({"in": "gate", "params": 2, "id": 1})).await;
    assert_eq!(again["error"]["code"], "bad_request");
    parts.gate.notify_one();
    assert_eq!(peer.receive().await, json!({"out": "gate", "result": 1, "id": 1}));
}

#[tokio::test]
async fn a_notification_has_its_effect_and_no_answer() {
    let (router, parts) = router();
    let mut peer = Peer::new(&router, Limits::default());
    for n in [1, 20, 300] {
        peer.send(json!({"in": "note", "params": n, "notify": true})).await;
    }
    for bad in [json!({"in": "nothing", "notify": true}), json!({"in": "note", "notify": true})] {
        peer.send(bad).await;
    }
    assert_eq!(peer.call(json!({"in": "ping"})).await["out"], "pong");
    assert_eq!(parts.noted.load(SeqCst), 321);
}

#[tokio::test]
async fn a_subscription_has_items_and_an_end_and_others_go_on_beside_it() {
    let (router, _parts) = router();
    let mut peer = Peer::new(&router, Limits::default());
    peer.send(json!({"in": "count", "params": 100, "id": "a"})).await;
    for n in 0..100 {
        assert_eq!(peer.receive().await, json!({"out": "count", "result": n, "id": "a", "more": true}));
    }
    assert_eq!(peer.receive().await, json!({"out": "count", "result": 100, "id": "a"}));
    assert_eq!(peer.call(json!({"in": "count", "params": 1})).await["error"]["code"], "bad_request");
    peer.send(json!({"in": "ticks", "params": 1, "id": "b"})).await;
    peer.send(json!({"in": "ping", "params": 9, "id": "c"})).await;
    let pong = async { while peer.receive().await["id"] != "c" {} };
    tokio::time::timeout(WATCHDOG, pong).await.expect("a subscription starves the others");
}

#[tokio::test]
async fn a_cancelled_request_is_dropped_and_its_id_is_free() {
    let (router, parts) = router();
    let mut peer = Peer::new(&router, Limits::default());
    peer.send(json!({"in": "gate", "params": 1, "id": "a"})).await;
    peer.send(json!({"in": "rpc.cancel", "params": {"id": "a"}})).await;
    let end = peer.receive().await;
    assert_eq!((&end["error"]["code"], &end["id"]), (&json!("cancelled"), &json!("a")));
    assert_eq!(peer.receive().await, json!({"out": "rpc.cancel", "result": true}));
    parts.guards.dropped(1).await;
    let again = peer.call(json!({"in": "rpc.cancel", "params": {"id": "a"}, "id": 2})).await;
    assert_eq!(again, json!({"out": "rpc.cancel", "result": false, "id": 2}));
    // A subscription: items may still be on their way, and after its end none comes.
    peer.send(json!({"in": "ticks", "params": 1, "id": "a"})).await;
    assert_eq!(peer.receive().await["more"], true);
    peer.send(json!({"in": "rpc.cancel", "params": {"id": "a"}, "notify": true})).await;
    while peer.receive().await["error"]["code"] != "cancelled" {}
    parts.guards.dropped(2).await;
    assert_eq!(peer.call(json!({"in": "ping", "params": 3})).await["result"], 3);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_methods_with_it() {
    let (router, parts) = router();
    // In its turn, beside others, and a subscription.
    for id in [json!(null), json!(1)] {
        let mut peer = Peer::new(&router, limits(|l| l.half_close = Duration::from_millis(20)));
        peer.send(json!({"in": "gate", "params": 1, "id": id})).await;
        drop(peer.stream);
        assert!(matches!(peer.end.await.unwrap(), StreamEnd::Closed));
    }
    parts.guards.dropped(2).await;
    let mut peer = Peer::new(&router, Limits::default());
    peer.send(json!({"in": "ticks", "params": 1, "id": 1})).await;
    peer.receive().await;
    drop(peer.stream);
    parts.guards.dropped(3).await;
    let stats = Peer::new(&router, Limits::default()).call(json!({"in": "rpc.stats"})).await;
    assert_eq!(stats["result"]["methods"]["gate"]["cancelled"], 2);
    assert_eq!(stats["result"]["in_flight"], 0);
}

#[tokio::test]
async fn a_reset_drops_the_method_at_once() {
    let (router, parts) = router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    // Far beyond the watchdog: only the reset can be what ends it.
    let patient = limits(|l| l.half_close = 10 * WATCHDOG);
    let end = tokio::spawn(serve_stream(far, router, patient));
    let requests = [json!({"in": "ping", "params": 1}), json!({"in": "gate", "params": 1})];
    for request in requests {
        near.write_all(&frame(request.to_string().as_bytes())).await.unwrap();
    }
    // The answer of the first stays unread, so closing resets; it is there once it can be peeked at.
    near.peek(&mut [0]).await.unwrap();
    drop(near);
    parts.guards.dropped(1).await;
    assert!(matches!(end.await.unwrap(), StreamEnd::Failed(_)));
}

#[tokio::test]
async fn a_subscription_waits_for_a_slow_reader_who_is_cut_off_in_the_end() {
    let (router, parts) = router();
    let narrow = limits(|l| (l.unsent_bytes, l.write) = (10_000, Duration::from_millis(200)));
    let mut peer = Peer::new(&router, narrow);
    peer.send(json!({"in": "ticks", "params": 1000, "id": 1})).await;
    // Nothing is read: the pipe's 64 KiB, 10 kB unsent, and what waits in the feed, and that is all.
    parts.guards.dropped(1).await;
    let sent = parts.sent.load(SeqCst);
    assert!((60..100).contains(&sent), "{sent} items of 1 kB were sent to nobody");
    assert!(matches!(peer.end.await.unwrap(), StreamEnd::TimedOut));
}

#[tokio::test]
async fn a_subscription_goes_on_when_a_slow_reader_does() {
    let (router, _parts) = router();
    let mut peer = Peer::new(&router, limits(|l| l.unsent_bytes = 500));
    peer.send(json!({"in": "count", "params": 5000, "id": 1})).await;
    // Far more than pipe and server hold: it stops and goes on many times.
    for n in 0..5000 {
        assert_eq!(peer.receive().await["result"], n);
    }
    assert_eq!(peer.receive().await, json!({"out": "count", "result": 5000, "id": 1}));
}

#[tokio::test]
async fn requests_in_flight_and_subscriptions_are_bounded() {
    let (router, parts) = router();
    let few = limits(|l| (l.in_flight, l.subscriptions, l.requests) = (2, 1, 4));
    let mut peer = Peer::new(&router, few.clone());
    for id in 0..3 {
        peer.send(json!({"in": "gate", "params": id, "id": id})).await;
    }
    peer.send(json!({"in": "ping", "id": 9})).await;
    // The third is begun only when another has ended, and the ping after it.
    parts.gate.notify_one();
    assert_eq!(peer.receive().await["out"], "gate");
    parts.gate.notify_one();
    assert_eq!(peer.receive().await["out"], "gate");
    assert_eq!(peer.receive().await["out"], "pong");
    parts.gate.notify_one();
    assert_eq!(peer.receive().await["out"], "gate");

    let mut second = Peer::new(&router, few.clone());
    second.send(json!({"in": "ticks", "params": 60_000, "id": 1})).await;
    second.send(json!({"in": "ticks", "params": 60_000, "id": 2})).await;
    let refused = async {
        loop {
            let answer = second.receive().await;
            if answer["id"] == 2 {
                break answer;
            }
        }
    };
    let refused = tokio::time::timeout(WATCHDOG, refused).await.unwrap();
    assert_eq!(refused["error"]["code"], "overloaded");

    let mut third = Peer::new(&router, limits(|l| l.requests = 1));
    let refused = third.call(json!({"in": "ping", "id": 3})).await;
    assert_eq!((&refused["error"]["code"], &refused["id"]), (&json!("overloaded"), &json!(3)));
}

#[tokio::test]
async fn a_server_that_stops_ends_its_subscriptions() {
    let (router, parts) = router();
    let (mut stream, far) = duplex(1 << 16);
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let serve = async move {
        let stop = async move { stopped.notified().await };
        baton_rpc::serve_stream_until(far, Vec::new(), router, Limits::default(), stop).await
    };
    let end = tokio::spawn(serve);
    stream.write_all(&frame(br#"{"in":"ticks","params":1,"id":1}"#)).await.unwrap();
    // The first item says that it runs.
    let len = stream.read_u32_le().await.unwrap();
    stream.read_exact(&mut vec![0; len as usize]).await.unwrap();
    stop.notify_one();
    let mut heard = String::new();
    let far = async {
        let StreamEnd::Stopped { stream, unread } = end.await.unwrap() else { panic!("not stopped") };
        assert!(unread.is_empty());
        drop(stream);
    };
    tokio::join!(far, async {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        heard = String::from_utf8_lossy(&bytes).into_owned();
    });
    assert!(heard.ends_with(r#""id":1}"#) && heard.contains(r#""stopping""#), "{heard}");
    parts.guards.dropped(1).await;
}

#[tokio::test]
async fn nesting_can_be_limited_below_the_parsers_own_limit() {
    let (router, _parts) = router();
    let mut peer = Peer::new(&router, limits(|l| l.depth = 4));
    assert_eq!(peer.call(json!({"in": "ping", "params": [[["[[["]]]})).await["out"], "pong");
    assert_eq!(peer.call(json!({"in": "ping", "params": [[[[1]]]]})).await["error"]["code"], "too_deep");
    assert_eq!(peer.call(json!({"in": "ping"})).await["out"], "pong");
}

#[tokio::test]
async fn a_server_tells_what_it_can_do_what_it_did_and_how_it_is() {
    let well = Arc::new(AtomicU64::new(1));
    let asked = well.clone();
    let (router, _parts) = router();
    let router = router.health(move || match asked.load(SeqCst) {
        0 => Err("the disk is full".to_owned()),
        _ => Ok(()),
    });
    let mut peer = Peer::new(&router, Limits::default());
    let methods = peer.call(json!({"in": "rpc.methods"})).await["result"].take();
    let about = |name: &str| {
        let all = methods["about"].as_array().unwrap();
        all.iter().find(|method| method["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    assert_eq!(
        about("ping"),
        json!({"name": "ping", "out": "pong", "params": "Value", "result": "Value", "doc": "gives back what it is given"})
    );
    assert_eq!((&about("count")["items"], &about("count")["params"]), (&json!("u32"), &json!("u32")));
    for _ in 0..5 {
        peer.call(json!({"in": "ping"})).await;
    }
    peer.call(json!({"in": "gate", "params": "x"})).await;
    let stats = peer.call(json!({"in": "rpc.stats"})).await["result"].take();
    assert_eq!(stats["methods"]["ping"]["requests"], 5);
    assert_eq!(stats["methods"]["gate"]["errors"], 1);
    assert_eq!(stats["errors"], json!({"invalid_params": 1}));
    assert_eq!(stats["connections"], json!({"open": 1, "total": 1}));
    assert!(stats["methods"]["ping"]["latency_us"]["p50"].as_u64().unwrap() > 0);
    let health = peer.call(json!({"in": "rpc.health"})).await["result"].take();
    assert_eq!(
        (&health["ok"], &health["why"], &health["pid"]),
        (&json!(true), &Value::Null, &json!(std::process::id()))
    );
    well.store(0, SeqCst);
    let health = peer.call(json!({"in": "rpc.health", "id": 1})).await["result"].take();
    assert_eq!((&health["ok"], &health["why"]), (&json!(false), &json!("the disk is full")));
}
