//! The door's HTTP, against a wmits whose methods are the test's own but whose server is the real one.

use std::sync::{Arc, Mutex};

use aits_gateway::{Door, Hosts, Peers, router};
use aits_orders::{
    FrameResult, Micros, Pace, ResultsQuery, ResultsReply, RunDir, Sequence, StartTask, StreamId, Task,
    TaskCounters, TaskList, TaskRef, TaskState,
};
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use baton_rpc::{Client, RpcError, Server};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

struct House {
    app: axum::Router,
    _dir: tempfile::TempDir,
}

fn task(id: &str, order: &StartTask) -> Task {
    Task {
        id: id.into(),
        stream: StreamId(1),
        state: TaskState::Running,
        url: order.url.clone(),
        reason: None,
        pace: order.pace,
        repeat: order.repeat,
        detect_hz: order.detect_hz,
        created_at: "2026-01-01T00:00:00Z".into(),
        video: None,
        counters: TaskCounters::default(),
        latency: None,
        result: None,
    }
}

fn result(sequence: u64) -> FrameResult {
    FrameResult {
        stream: StreamId(1),
        sequence: Sequence(sequence),
        pts: Micros(0),
        decoded_at: Micros(0),
        finished_at: Micros(0),
        detect_ms: 0.0,
        size: [2, 2],
        tracks: Vec::new(),
        counts: Vec::new(),
        mean_speed_px_s: None,
        provisional: true,
    }
}

fn missing(id: &str) -> RpcError {
    RpcError::new("no_such_task", format!("there is no task {id}"))
}

/// The methods of wmits that the door uses, over a list in memory.
fn wmits() -> baton_rpc::Router {
    let tasks = Arc::new(Mutex::new(Vec::<Task>::new()));
    let find = {
        let tasks = Arc::clone(&tasks);
        move |id: &str| tasks.lock().unwrap().iter().find(|t| t.id == id).cloned().ok_or_else(|| missing(id))
    };
    let (all, started, deleted) = (Arc::clone(&tasks), Arc::clone(&tasks), tasks);
    let (state, stopped) = (find.clone(), find);
    baton_rpc::Router::new()
        .method("task.list", move |(): ()| {
            let tasks = all.lock().unwrap().clone();
            async move { Ok(TaskList { tasks }) }
        })
        .method("task.start", move |order: StartTask| {
            let id = order.id.clone().unwrap_or_else(|| "made-up".into());
            let new = task(&id, &order);
            let mut tasks = started.lock().unwrap();
            if !tasks.iter().any(|t| t.id == id) {
                tasks.push(new.clone());
            }
            async move {
                if new.url == "bad" { Err(RpcError::invalid_params("`url` names nothing")) } else { Ok(new) }
            }
        })
        .method("task.state", move |of: TaskRef| {
            let found = state(&of.id);
            async move { found }
        })
        .method("task.stop", move |of: TaskRef| {
            let found = stopped(&of.id).map(|t| Task { state: TaskState::Stopped, ..t });
            async move { found }
        })
        .method("task.delete", move |of: TaskRef| {
            let mut tasks = deleted.lock().unwrap();
            let found = tasks.iter().position(|t| t.id == of.id).map(|at| tasks.remove(at));
            async move { found.ok_or_else(|| missing(&of.id)) }
        })
        .method("results", |query: ResultsQuery| async move {
            match (query.stream.0, query.after) {
                (1, 0) => Ok(ResultsReply { version: 7, result: Some(result(41)) }),
                (1, 7) => Ok(ResultsReply { version: 8, result: Some(result(42)) }),
                (1, _) => std::future::pending().await,
                _ => Err(RpcError::new("no_such_stream", "no such stream")),
            }
        })
}

/// A preview that knows stream 1 and has no picture of it.
fn preview() -> baton_rpc::Router {
    baton_rpc::Router::new().method("preview.watch", |order: aits_orders::WatchPreview| async move {
        match order.stream.0 {
            1 => Ok(aits_orders::Watching { newest: None }),
            _ => Err(RpcError::new("no_such_stream", "no such stream")),
        }
    })
}

type Methods = fn() -> baton_rpc::Router;

async fn house(services: &[(&str, Methods)]) -> House {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::new(dir.path());
    for (name, methods) in services {
        let server = Server::bind(&run.uri(name)).await.unwrap();
        tokio::spawn(server.serve(methods(), std::future::pending()));
    }
    let client = |name: &str| Client::new(run.uri(name));
    let peers = Peers {
        wmits: client("wmits"),
        preview: client("preview"),
        up: client("up"),
        preview_socket: run.socket("preview"),
    };
    House { app: router(Door::new(peers, Hosts::new("127.0.0.1:0", &[]))), _dir: dir }
}

async fn full_house() -> House {
    house(&[("wmits", wmits), ("preview", preview)]).await
}

impl House {
    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.app.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&str>) -> (StatusCode, Value) {
        let answer = self.send(request(method, path, body)).await;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, None).await
    }
}

fn request(method: Method, path: &str, body: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1:8080");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json; charset=utf-8");
    }
    request.body(Body::from(body.unwrap_or("").to_owned())).unwrap()
}

#[tokio::test]
async fn a_task_lives_and_goes() {
    let house = full_house().await;
    assert_eq!(house.get("/api/tasks").await, (StatusCode::OK, json!([])));
    let order = r#"{"id": "a", "url": "road.mp4", "repeat": true}"#;

    let answer = house.send(request(Method::POST, "/api/tasks", Some(order))).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()[header::LOCATION], "/api/tasks/a");
    let (status, again) = house.ask(Method::POST, "/api/tasks", Some(order)).await;
    assert_eq!((status, &again["id"]), (StatusCode::OK, &json!("a")));

    let (_, list) = house.get("/api/tasks").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    for field in ["id", "stream", "state", "url", "reason", "video", "counters", "latency", "result"] {
        assert!(list[0].get(field).is_some(), "{field} is missing");
    }
    let (status, one) = house.get("/api/tasks/a").await;
    assert_eq!((status, &one), (StatusCode::OK, &list[0]));
    let (status, stopped) = house.ask(Method::POST, "/api/tasks/a/stop", None).await;
    assert_eq!((status, &stopped["state"]), (StatusCode::OK, &json!("stopped")));
    assert_eq!(house.ask(Method::DELETE, "/api/tasks/a", None).await, (StatusCode::NO_CONTENT, Value::Null));
    assert_eq!(house.ask(Method::DELETE, "/api/tasks/a", None).await.1["code"], "unknown_task");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_a_stable_code() {
    let house = full_house().await;
    let huge = format!(r#"{{"url": "{}"}}"#, "x".repeat(70_000));
    let cases = [
        (Method::POST, "/api/tasks", Some("{"), 400, "bad_json"),
        (Method::POST, "/api/tasks", Some(r#"{"url": "a", "colour": 1}"#), 422, "invalid"),
        (Method::POST, "/api/tasks", Some(r#"{"id": "a"}"#), 422, "invalid"),
        (Method::POST, "/api/tasks", Some(r#"{"url": "bad"}"#), 422, "invalid"),
        (Method::POST, "/api/tasks", Some(huge.as_str()), 413, "too_large"),
        (Method::POST, "/api/tasks", None, 415, "not_json"),
        (Method::PUT, "/api/tasks", None, 405, "method_not_allowed"),
        (Method::GET, "/api/tasks/nobody", None, 404, "unknown_task"),
        (Method::POST, "/api/tasks/nobody/stop", None, 404, "unknown_task"),
        (Method::GET, "/api/streams/9/snapshot.jpg", None, 404, "unknown_stream"),
        (Method::GET, "/api/streams/9/live.mjpeg", None, 404, "unknown_stream"),
        (Method::GET, "/api/streams/9/results", None, 404, "unknown_stream"),
        (Method::GET, "/api/streams/one/results", None, 404, "unknown_stream"),
        (Method::GET, "/api/streams/1/live.mjpeg?annotated=maybe", None, 400, "bad_query"),
        (Method::GET, "/api/streams/1/snapshot.jpg", None, 503, "no_picture"),
        (Method::GET, "/nothing", None, 404, "not_found"),
        (Method::GET, "/..%2f..%2fetc/passwd", None, 404, "not_found"),
        (Method::GET, "/../../etc/passwd", None, 404, "not_found"),
        (Method::GET, "/api/processes", None, 503, "unavailable"),
        (Method::GET, "/api/pool", None, 503, "unavailable"),
    ];
    for (method, path, body, status, code) in cases {
        let answer = house.send(request(method.clone(), path, body)).await;
        let what = format!("{method} {path} {:?}", body.map(|b| &b[..b.len().min(40)]));
        assert_eq!(answer.status(), status, "{what}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json", "{what}");
        assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), status == 503, "{what}");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{what}");
        assert_eq!(problem["type"], format!("urn:aits:problem:{code}"), "{what}");
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{what}");
    }
}

#[tokio::test]
async fn without_wmits_the_door_says_so() {
    let house = house(&[]).await;
    for path in ["/api/tasks", "/api/tasks/a", "/api/streams/1/results", "/api/streams/1/snapshot.jpg"] {
        let (status, problem) = house.get(path).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")),
            "{path}"
        );
    }
    let (status, health) = house.get("/healthz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health, json!({"status": "down", "down": ["preview", "rmmt", "up", "wmits"]}));
}

#[tokio::test]
async fn with_wmits_the_door_is_up_and_names_what_is_missing() {
    let house = full_house().await;
    let (status, health) = house.get("/healthz").await;
    assert_eq!((status, health), (StatusCode::OK, json!({"status": "degraded", "down": ["rmmt", "up"]})));
}

#[tokio::test]
async fn foreign_pages_are_kept_out() {
    let house = full_house().await;
    let mut rebound = request(Method::GET, "/api/tasks", None);
    rebound.headers_mut().insert(header::HOST, "evil.example:8080".parse().unwrap());
    assert_eq!(house.send(rebound).await.status(), StatusCode::MISDIRECTED_REQUEST);

    let order = Some(r#"{"url": "a"}"#);
    let mut foreign = request(Method::POST, "/api/tasks", order);
    foreign.headers_mut().insert(header::ORIGIN, "https://evil.example".parse().unwrap());
    assert_eq!(house.send(foreign).await.status(), StatusCode::FORBIDDEN);
    let mut own = request(Method::POST, "/api/tasks", order);
    own.headers_mut().insert(header::ORIGIN, "http://127.0.0.1:8080".parse().unwrap());
    assert_eq!(house.send(own).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn the_page_is_served_with_a_policy_and_a_tag() {
    let house = full_house().await;
    let page = house.send(request(Method::GET, "/", None)).await;
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"));
    assert_eq!(page.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let tag = page.headers()[header::ETAG].clone();
    let html = page.into_body().collect().await.unwrap().to_bytes();
    let html = std::str::from_utf8(&html).unwrap();

    let mut again = request(Method::GET, "/", None);
    again.headers_mut().insert(header::IF_NONE_MATCH, tag);
    assert_eq!(house.send(again).await.status(), StatusCode::NOT_MODIFIED);
    // Whatever the page refers to is there.
    let references: Vec<&str> = html
        .split([' ', '>'])
        .filter_map(|part| part.strip_prefix("href=\"/").or(part.strip_prefix("src=\"/")))
        .collect();
    assert!(references.len() >= 4, "{references:?}");
    for reference in references.iter().map(|text| format!("/{}", text.trim_end_matches('"'))) {
        assert_eq!(
            house.send(request(Method::GET, &reference, None)).await.status(),
            StatusCode::OK,
            "{reference}"
        );
    }
}

#[tokio::test]
async fn results_come_as_events_to_every_reader() {
    let house = full_house().await;
    for _ in 0..2 {
        let answer = house.send(request(Method::GET, "/api/streams/1/results", None)).await;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        let (mut body, mut text) = (answer.into_body(), String::new());
        while !text.contains("\"sequence\":42") {
            let frame = body.frame().await.expect("the stream goes on").unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        assert!(text.contains("event: result\nid: 8\ndata: {") && text.contains("retry: 500"), "{text}");
    }
}

#[test]
fn the_default_pace_of_an_order_is_that_of_a_camera() {
    let order: StartTask = serde_json::from_str(r#"{"url": "a"}"#).unwrap();
    assert_eq!((order.pace, order.repeat), (Pace::Realtime, false));
}

#[tokio::test]
async fn a_foreign_page_cannot_give_orders() {
    let house = full_house().await;
    let order = r#"{"id": "a", "url": "road.mp4"}"#;
    let with = |name: header::HeaderName, value: &'static str| {
        let mut request = request(Method::POST, "/api/tasks", Some(order));
        request.headers_mut().insert(name, header::HeaderValue::from_static(value));
        request
    };
    // A name that an attacker's DNS points at this machine; another site; a sandboxed page; a form.
    assert_eq!(
        house.send(with(header::HOST, "evil.example:8080")).await.status(),
        StatusCode::MISDIRECTED_REQUEST
    );
    assert_eq!(house.send(with(header::ORIGIN, "http://evil.example")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(house.send(with(header::ORIGIN, "null")).await.status(), StatusCode::FORBIDDEN);
    let form = with(header::CONTENT_TYPE, "text/plain");
    assert_eq!(house.send(form).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(house.get("/api/tasks").await.1, json!([]), "no order was taken");
    assert_eq!(house.send(with(header::ORIGIN, "http://127.0.0.1:8080")).await.status(), StatusCode::CREATED);
}
