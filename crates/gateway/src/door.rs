//! What a worker shares between its requests, and the table of its routes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aits_service::ServiceContext;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use baton_client::Client as Pool;
use baton_rpc::Client;
use tokio::sync::{Semaphore, watch};

use crate::feeds::Feeds;
use crate::guard::{Hosts, guard};
use crate::page::ASSETS;
use crate::system::{self, PoolReport};
use crate::{Problem, streams, tasks};

/// Live views (pictures and results) at a time in one worker.
const MAX_VIEWERS: usize = 512;
/// How long another service may take to answer a request of a browser.
const CALL_PATIENCE: Duration = Duration::from_secs(5);

/// The other services.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Tasks and results.
    pub wmits: Client,
    /// Pictures.
    pub preview: Client,
    /// The supervisor.
    pub up: Client,
    /// The socket of preview, to see whether anybody listens.
    pub preview_socket: PathBuf,
}

impl Peers {
    /// The services in the run directory of this one.
    pub fn of(context: &ServiceContext) -> Self {
        Self {
            wmits: context.rpc("wmits").with_timeout(CALL_PATIENCE),
            preview: context.rpc("preview").with_timeout(CALL_PATIENCE),
            up: context.rpc("up").with_timeout(CALL_PATIENCE),
            preview_socket: context.run.socket("preview"),
        }
    }
}

/// The state of a worker. Clones share it.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    peers: Peers,
    feeds: Feeds,
    hosts: Hosts,
    pool: Mutex<Option<Pool>>,
    report: tokio::sync::Mutex<Option<PoolReport>>,
    viewers: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Door {
    /// A door that asks these peers and answers to these names.
    pub fn new(peers: Peers, hosts: Hosts) -> Self {
        let feeds = Feeds::new(peers.preview.clone(), peers.wmits.clone());
        Self {
            inner: Arc::new(Inner {
                peers,
                feeds,
                hosts,
                pool: Mutex::new(None),
                report: tokio::sync::Mutex::new(None),
                viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
                closing: watch::Sender::new(false),
            }),
        }
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    pub(crate) fn feeds(&self) -> &Feeds {
        &self.inner.feeds
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        &self.inner.hosts
    }

    /// The pool, while this worker is in it.
    pub(crate) fn pool(&self) -> Option<Pool> {
        self.inner.pool.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_pool(&self, pool: Option<Pool>) {
        *self.inner.pool.lock().unwrap_or_else(PoisonError::into_inner) = pool;
    }

    /// The last report about the pool, and the lock that keeps it from being made twice at a time.
    pub(crate) fn report(&self) -> &tokio::sync::Mutex<Option<PoolReport>> {
        &self.inner.report
    }

    /// A seat for a viewer, given back when dropped.
    pub(crate) fn seat(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.inner.viewers).try_acquire_owned().map_err(|_| {
            Problem::busy(format!("{MAX_VIEWERS} viewers are served by this worker; close some views"))
        })
    }

    /// Ends all live views: the process is about to end.
    pub(crate) fn close(&self) {
        self.inner.closing.send_replace(true);
    }

    /// Resolves when live views are to end.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut closing = self.inner.closing.subscribe();
        async move {
            // The sender lives as long as any door; when it is gone, so is the reason to go on.
            let _ended = closing.wait_for(|closing| *closing).await;
        }
    }
}

/// All routes of the door.
pub fn router(door: Door) -> Router {
    let mut routes = Router::new();
    for asset in ASSETS {
        routes =
            routes.route(asset.path, get(move |headers: HeaderMap| async move { asset.answer(&headers) }));
    }
    routes
        .route("/api/tasks", get(tasks::list).post(tasks::start))
        .route("/api/tasks/{id}", get(tasks::state).delete(tasks::delete))
        .route("/api/tasks/{id}/stop", post(tasks::stop))
        .route("/api/streams/{id}/snapshot.jpg", get(streams::snapshot))
        .route("/api/streams/{id}/live.mjpeg", get(streams::live))
        .route("/api/streams/{id}/results", get(streams::results))
        .route("/api/processes", get(system::processes))
        .route("/api/pool", get(system::pool))
        .route("/healthz", get(system::health))
        .fallback(|request: Request| async move {
            let path: String = request.uri().path().chars().take(200).collect();
            Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {path:?}"))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let method = request.method().clone();
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("{method} makes no sense here; the header `Allow` says what does"),
            )
        })
        .layer(axum::middleware::from_fn_with_state(door.clone(), guard))
        .with_state(door)
}
