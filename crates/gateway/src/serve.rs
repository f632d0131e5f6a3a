//! One connection: HTTP/1.1 by hyper, with bounds on what a peer may keep us waiting for.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::stall::StallGuard;

/// A request's head must be complete so soon after the connection is ready for it; a quiet connection is closed then.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Longest head of a request, bytes.
const HEAD_BYTES: usize = 32 << 10;

/// Serves a connection until it ends, or until `draining` and the request under way is done.
pub async fn connection<S>(stream: S, app: Router, draining: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(StallGuard::new(stream));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(io, TowerToHyperService::new(app))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A browser that closes its tab, a peer that sends garbage: ordinary, and hyper has answered what it could.
        tracing::debug!("a connection ended: {error}");
    }
}
