//! `--metrics ip://HOST:PORT`: numbers for Prometheus, and whether the daemon is well.
//!
//! ```text
//!   GET /metrics ──▶ what the registry knows (this thread) ──▶ a pass over the hold words (another thread) ──▶ text
//!   GET /healthz ──▶ 200: this loop turns
//!   GET /readyz  ──▶ 200: members are served, and a keeper would start the next daemon; 503: no keeper now
//! ```
//!
//! The pass costs milliseconds in a large pool, so the thread that reaps does not make it: a scrape delays nobody's death.
//! The listener lies with the keeper, so the port outlives the daemon; counters of this daemon's own life begin again at
//! 0 with it, as Prometheus expects of a restarted process.
//!
//! Failure paths: a peer that is slow, silent or sends garbage has [`HEAD_LIMIT`] and one of [`CONNECTIONS_MAX`] places.
//! While all are taken, who comes is told 503 at once (but still 200 at /healthz: that the scrapers are many says nothing
//! against the daemon), and [`REFUSALS_MAX`] can be told so at a time; beyond that, connections are closed unanswered.
//! Nothing here can be changed, only read.

mod text;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use baton_address::AsyncListener;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use crate::daemon::House;

/// Connections at once.
const CONNECTIONS_MAX: usize = 16;
/// Connections at once that are only told that there are too many.
const REFUSALS_MAX: usize = 32;
/// A refused connection's request must be complete so soon.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);
/// A request's head must be complete so soon; a quiet connection is closed then.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// For writing the answer as well.
const LIFE: Duration = Duration::from_secs(60);
/// Longest head of a request, bytes.
const HEAD_BYTES: usize = 16 << 10;
/// Rest when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) use text::{Excess, excesses};

/// Answers for ever.
pub(crate) async fn serve(house: Rc<House>, listener: AsyncListener) {
    tracing::info!("rmmt: metrics at {}", listener.local());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!("rmmt: a scrape cannot be accepted now: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let Ok(place) = Arc::clone(&refusals).try_acquire_owned() else { continue };
            spawn_local(async move {
                let connection = http1::Builder::new()
                    .keep_alive(false)
                    .max_buf_size(HEAD_BYTES)
                    .serve_connection(TokioIo::new(stream), service_fn(refuse));
                let _told_or_not = tokio::time::timeout(REFUSAL_LIMIT, connection).await;
                drop(place);
            });
            continue;
        };
        let house = Rc::clone(&house);
        spawn_local(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service_fn(|request| answer(&house, request)));
            if let Ok(Err(error)) = tokio::time::timeout(LIFE, connection).await {
                tracing::debug!("rmmt: a scrape ended: {error}");
            }
            drop(place);
        });
    }
}

async fn answer(house: &House, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = said(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    Ok(match request.uri().path() {
        "/healthz" => said(StatusCode::OK, "ok\n"),
        "/readyz" if is_kept(house) => said(StatusCode::OK, "ready\n"),
        "/readyz" => said(StatusCode::SERVICE_UNAVAILABLE, "the keeper is being replaced\n"),
        "/metrics" => scrape(house).await,
        _ => said(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    })
}

/// The answer while all places are taken.
async fn refuse(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/healthz" {
        return Ok(said(StatusCode::OK, "ok\n"));
    }
    let mut refused =
        said(StatusCode::SERVICE_UNAVAILABLE, "too many connections ask for metrics; try again later\n");
    refused.headers_mut().insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("1"));
    Ok(refused)
}

fn is_kept(house: &House) -> bool {
    house.registry.borrow().chest.ward().is_none_or(|ward| !ward.is_gone())
}

async fn scrape(house: &House) -> Response<Full<Bytes>> {
    let known = text::Known::of(house);
    let pool = house.registry.borrow().pool().clone();
    match tokio::task::spawn_blocking(move || text::write(&pool, &known)).await {
        Ok(Ok(text)) => {
            let mut response = Response::new(Full::from(text));
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
            response
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> Response<Full<Bytes>> {
    tracing::error!("rmmt: the metrics cannot be written: {error}");
    said(StatusCode::INTERNAL_SERVER_ERROR, "see the memory daemon's log\n")
}

fn said(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
